"""What a model that writes learns from: pictures and a prefix, and the suffix that should follow.

    examples = Examples(records, ["caption", "ask", "detect"], seed=0)

A task says which examples a record gives: one for each of its captions, one for its question, one
for everything that is marked in it. Whatever is drawn depends on (seed, index) alone, so that a run
that is taken up again sees what it would have seen. The prompts are PaliGemma's (Beyer et al. 2024,
arXiv:2407.07726).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from sightline.core.errors import ConfigError, DataError, unknown_name
from sightline.data.mixtures import Mixture
from sightline.data.records import Record
from sightline.data.regions import Region
from sightline.data.turns import SUPERVISED, Turn, check_order
from sightline.inputs.grounded_text import Place
from sightline.inputs.instructions import PALIGEMMA
from sightline.inputs.location_tokens import write_paligemma
from sightline.inputs.picture_size import picture_size

if TYPE_CHECKING:
    from sightline.data.records import Picture

Writer = Callable[[Sequence[Region], tuple[int, int]], str]
"""Regions, and (H, W) of their picture, to the text that names their places."""
_EXAMPLE = 5  # spawn key, apart from those of loaders and mixtures


@dataclass(frozen=True)
class Example:
    """One thing to learn: after these pictures and this prefix comes this suffix."""

    id: str
    """The record's id, "#" and the task with the number of the example."""
    pictures: tuple[Picture, ...]
    prefix: str
    suffix: str
    split: str | None = None


@dataclass(frozen=True)
class Dialogue:
    """One conversation to learn from."""

    id: str
    pictures: tuple[Picture, ...]
    turns: tuple[Turn, ...]
    supervised: tuple[bool, ...]
    """Of each turn whether its words are learnt: those of the assistant are."""
    split: str | None = None


@dataclass(frozen=True)
class Task:
    """Which examples a record gives, as data: templates, filled once for each item.

    Names in the templates: caption, question, answer, label, labels, places, said, reply.
    """

    each: Literal["caption", "question", "record", "label", "exchange", "answer"]
    """What one example is made of: a caption, the question, all regions together, the regions of
    one label, a conversation of one exchange, or one answer of a conversation."""
    prefix: str
    suffix: str


TASKS: Mapping[str, Task] = {
    "caption": Task("caption", PALIGEMMA.caption_prompt("short"), "{caption}"),
    "ask": Task("question", PALIGEMMA.question("{question}"), "{answer}"),
    "question": Task("question", "question en {answer}", "{question}"),
    "detect": Task("record", PALIGEMMA.detection(["{labels}"]), "{places}"),
    "segment": Task("label", PALIGEMMA.segmentation(["{label}"]), "{places}"),
    "written": Task("exchange", "{said}", "{reply}"),
    "chat": Task("answer", "{said}", "{reply}"),
}


def write_boxes(regions: Sequence[Region], size: tuple[int, int]) -> str:
    """Boxes and labels as PaliGemma writes them; the writer of `detect` where none is given."""
    return write_paligemma([Place(region.label, region.box) for region in regions], size)


class Examples(Sequence[Example]):
    """The examples that records give, made when they are asked for.

    Regions of crowds are left out: there is no one place that they name. The same index gives the
    same example in every epoch; for others take `range(len(examples))` as the data of a loader and
    `examples.drawn` as its transform.

    Args:
        records: of any source.
        tasks: names of `TASKS`, or tasks of your own by name.
        writers: task to what writes its places; those of `segment` need a mask codec.
        captions: "each" makes an example of every caption, "drawn" one of a caption drawn anew for
            each index.
        answers: "frequent" takes the answer that most people gave, the earlier of equals; "drawn"
            one of all, as often as it was given.
        seed: of what is drawn.

    Raises:
        ConfigError: an unknown task or way to choose, or a task without its writer.
        DataError: no record gives an example of some task.
    """

    def __init__(
        self,
        records: Sequence[Record],
        tasks: Sequence[str] | Mapping[str, Task],
        writers: Mapping[str, Writer] | None = None,
        captions: Literal["each", "drawn"] = "each",
        answers: Literal["frequent", "drawn"] = "frequent",
        seed: int = 0,
    ) -> None:
        _check_choice("captions", captions, ("each", "drawn"))
        _check_choice("answers", answers, ("frequent", "drawn"))
        self.tasks = dict(tasks) if isinstance(tasks, Mapping) else named_tasks(tasks)
        self.writers = {"detect": write_boxes, **(writers or {})}
        self.records = records
        self.captions, self.answers, self.seed = captions, answers, seed
        for name, task in self.tasks.items():
            if "{places}" in task.suffix and name not in self.writers:
                raise ConfigError(
                    f"the task {name!r} writes places: give writers={{{name!r}: ...}}"
                )
        self._counts = [
            [self._count(record, task) for task in self.tasks.values()] for record in records
        ]
        self._ends = list(accumulate(sum(counts) for counts in self._counts))
        silent = [name for n, name in enumerate(self.tasks) if not any(c[n] for c in self._counts)]
        if silent:
            raise DataError(
                f"no record gives an example of {', '.join(silent)}: it needs "
                + ", ".join(_NEEDS[self.tasks[name].each] for name in silent)
            )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        key = np.random.SeedSequence(self.seed, spawn_key=(_EXAMPLE, max(0, place)))
        return self.drawn(place, np.random.default_rng(key))

    def drawn(self, index: int, generator: np.random.Generator) -> Example:
        """The example of an index with what there is to draw drawn from a generator of your own.

        Raises:
            IndexError: there is no such example.
            ImageError: places have to be written, and the picture has no readable header.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        row = bisect_right(self._ends, index)
        number = index - (self._ends[row - 1] if row else 0)
        for (name, task), count in zip(self.tasks.items(), self._counts[row], strict=True):
            if number < count:
                return self._make(self.records[row], name, task, number, generator)
            number -= count
        raise AssertionError("the counts of a record sum to its examples")

    @property
    def fingerprint(self) -> str:
        """Sixty-four hexadecimal digits that change with any record, task, way to choose, seed."""
        own = getattr(self.records, "fingerprint", None) or [record.id for record in self.records]
        writers = [getattr(self.writers.get(name), "__qualname__", "") for name in self.tasks]
        said = (own, self.tasks, writers, self.captions, self.answers, self.seed)
        return hashlib.sha256(repr(said).encode("utf-8", "replace")).hexdigest()

    def note_broken(self, id: str, reason: str) -> None:
        """Remember in the records that a picture could not be read."""
        note = getattr(self.records, "note_broken", None)
        if note is not None:
            note(id.rpartition("#")[0] or id, reason)

    def _count(self, record: Record, task: Task) -> int:
        if task.each == "caption":
            return (
                min(len(record.captions), 1) if self.captions == "drawn" else len(record.captions)
            )
        if task.each == "question":
            return int(record.question is not None and bool(record.answers))
        if task.each == "exchange":
            return int([turn.role for turn in record.messages] == ["user", SUPERVISED])
        if task.each == "answer":
            return len(_answers(record))
        return (
            len(_labels(record, task)) if task.each == "label" else int(bool(_labels(record, task)))
        )

    def _make(
        self, record: Record, name: str, task: Task, number: int, generator: np.random.Generator
    ) -> Example:
        fields: dict[str, str] = {}
        pictures = record.pictures
        if task.each == "caption":
            drawn = generator.integers(len(record.captions)) if self.captions == "drawn" else number
            fields["caption"] = record.captions[drawn]
        elif task.each == "question":
            fields["question"] = record.question or ""
            fields["answer"] = self._answer(record.answers, generator)
        elif task.each == "exchange":
            fields["said"], fields["reply"] = (turn.text for turn in record.messages)
        elif task.each == "answer":
            place = _answers(record)[number]
            fields["said"], fields["reply"] = _exchange(record, place)
            if any(turn.pictures for turn in record.messages):  # those that were shown by then
                pictures = tuple(p for turn in record.messages[:place] for p in turn.pictures)
        else:
            fields = self._places(record, name, task, number)
        prefix, suffix = task.prefix.format_map(fields), task.suffix.format_map(fields)
        id = f"{record.id}#{name}{number}"
        return Example(id, pictures, prefix, suffix, record.split)

    def _answer(self, answers: Sequence[str], generator: np.random.Generator) -> str:
        if self.answers == "drawn":
            return answers[int(generator.integers(len(answers)))]
        return most_frequent(answers)

    def _places(self, record: Record, name: str, task: Task, number: int) -> dict[str, str]:
        labels = _labels(record, task)
        chosen = labels if task.each == "record" else [labels[number]]
        regions = [r for r in _learnable(record, task) if r.label in chosen]
        width, height = picture_size(record.image, upright=True)
        places = self.writers[name](regions, (height, width))
        return {"labels": PALIGEMMA.joiner.join(chosen), "label": chosen[0], "places": places}


_NEEDS: Mapping[str, str] = {
    "caption": "captions",
    "question": "a question with answers",
    "record": "regions",
    "label": "regions with outlines",
    "exchange": "a conversation of one exchange",
    "answer": "conversations",
}


def named_tasks(names: Sequence[str]) -> dict[str, Task]:
    """Tasks of the table.

    Raises:
        ConfigError: an unknown name, or none.
    """
    for name in names:
        if name not in TASKS:
            raise ConfigError(unknown_name("task", name, TASKS))
    if not names:
        raise ConfigError(f"no task: choose of {', '.join(TASKS)}")
    return {name: TASKS[name] for name in names}


def mixed_examples(
    records: Sequence[Record], weights: Mapping[str, float], **options: Any
) -> Mixture[Example]:
    """Examples of several tasks in given proportions, whatever the records give of each.

    Args:
        records: of any source.
        weights: task to a number above 0; only their ratios count.
        options: of `Examples`.

    Raises:
        ConfigError, DataError: as `Examples` and `Mixture`.
    """
    return Mixture({name: Examples(records, [name], **options) for name in weights}, weights)


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that was given most often; of several the one that was given first."""
    counts = Counter(answers)
    return max(counts, key=lambda answer: counts[answer])  # max keeps the first of equals


def as_record(example: Example) -> Record:
    """An example as a conversation of one exchange, so that it can be written as data."""
    turns = (Turn("user", example.prefix, example.pictures), Turn(SUPERVISED, example.suffix))
    first, *more = example.pictures
    return Record(example.id, first, split=example.split, more_images=tuple(more), messages=turns)


def dialogue_of(record: Record) -> Dialogue:
    """The conversation of a record with what of it is learnt.

    Raises:
        DataError: no answer in it, or one speaks twice in a row.
    """
    check_order(record.messages, f"record {record.id!r}")
    supervised = tuple(turn.role == SUPERVISED for turn in record.messages)
    if not any(supervised):
        raise DataError(f"record {record.id!r}: a conversation without an answer teaches nothing")
    return Dialogue(record.id, record.pictures, record.messages, supervised, record.split)


def _answers(record: Record) -> list[int]:
    """Places of the turns that are learnt: answers to the user."""
    roles = [turn.role for turn in record.messages]
    pairs = enumerate(pairwise(roles), start=1)
    return [place for place, (asked, told) in pairs if (asked, told) == ("user", SUPERVISED)]


def _exchange(record: Record, place: int) -> tuple[str, str]:
    """The prompt in front of an answer, as `sightline chat` frames it, and the answer."""
    *earlier, question = (" ".join(turn.text.split()) for turn in record.messages[:place])
    return PALIGEMMA.conversation([t for t in earlier if t], question), record.messages[place].text


def _learnable(record: Record, task: Task) -> list[Region]:
    """The regions that a task can name."""
    whole = task.each == "record"
    return [r for r in record.regions if not r.crowd and (whole or r.outline is not None)]


def _labels(record: Record, task: Task) -> list[str]:
    """Their labels in the order in which they first occur."""
    return list(dict.fromkeys(region.label for region in _learnable(record, task)))


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}: it is {' or '.join(map(repr, allowed))}")
