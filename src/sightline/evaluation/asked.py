"""Records put to a model that writes: its answers, what failed, and what it says without a picture.

What a model answers *blind*, with the same words and no picture, it knows from the words alone; a
score means little without that one beside it. Questions about one picture stand together in a
batch, so that it is decoded once. With a folder every answer is on disk before the next batch is
asked, and a run that was killed goes on from its `samples.jsonl`: an answer counts as given where
model, pictures, words and options are the same, whatever else the file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sightline.core.errors import InputError
from sightline.core.files import atomic_file
from sightline.data.records import Record
from sightline.evaluation.kept import identity_of, short_key
from sightline.evaluation.records import UNREADABLE, Progress, picture_digest
from sightline.evaluation.results import SAMPLES
from sightline.evaluation.samples import Sample, read_line, write_line
from sightline.tasks.abilities import instructions_of
from sightline.tasks.ask import check_options, question_ids
from sightline.tasks.batching import Failed
from sightline.tasks.caption import caption_prompt
from sightline.tasks.writing import BATCH, Written, write_each

if TYPE_CHECKING:
    from sightline.tasks.model import Model

Ids = tuple[int, ...]
"""A prompt."""
NO_PICTURE: tuple[Any, ...] = ()


class Question(NamedTuple):
    """One thing to ask about a record."""

    record: Record
    target: tuple[str, ...]
    """What people said."""
    words: str | None = None
    """What is asked; None where every record is asked the same."""
    tags: Mapping[str, str] = {}
    """What results are told apart by."""
    choices: tuple[str, ...] = ()
    """What there is to choose from, in the order in which it is shown."""


class Way(NamedTuple):
    """How a model is asked."""

    prompt: Callable[[Question], Ids]
    """Raises `InputError` where the model cannot be asked this."""
    answer: Callable[[Iterable[tuple[Any, ...]], Iterable[Ids]], Iterator[str | Failed]]
    """Pictures and prompt of each question to an answer each, in order."""
    settings: Mapping[str, Any]
    """What else decides an answer."""
    template: str
    """The prompt word for word, `{}` for the question."""


class Asked(NamedTuple):
    """What was answered."""

    samples: list[Sample]
    """In the order of the questions; nothing is scored yet."""
    missing: tuple[str, ...]
    """The id and the reason of each record with a picture that could not be read."""
    refused: tuple[str, ...]
    """The same of each question that the model cannot be asked."""


def question_way(
    model: Model, options: Mapping[str, Any] | None = None, batch_size: int = BATCH
) -> Way:
    """A question in the checkpoint's own template, answered in its own words; see `tasks.ask`.

    Raises:
        UnsupportedTaskError: the model writes no answers.
        ConfigError: an option that does not exist or does not fit.
    """
    how = check_options(options or {})
    question_ids(model, "?")
    instructions = instructions_of(model)
    return Way(
        lambda question: tuple(question_ids(model, question.words or "")),
        _writer(model, how, batch_size),
        {"options": dict(options or {})},
        (instructions and instructions.ask) or "{}",
    )


def caption_way(
    model: Model,
    prompt: str | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = BATCH,
) -> Way:
    """The same prompt before every picture; see `tasks.caption.caption_each`.

    Raises:
        UnsupportedTaskError: the model writes no captions.
        ConfigError: an option that does not exist or does not fit.
    """
    ids, _, how = caption_prompt(model, prompt, options or {})
    detail = (options or {}).get("detail") or "short"
    instructions = instructions_of(model)
    own = instructions.caption.get(detail, "") if instructions else ""
    return Way(
        lambda question: tuple(ids),
        _writer(model, how, batch_size),
        {"options": dict(options or {}), "prompt": prompt},
        own if prompt is None else prompt,
    )


def ask_all(
    model: Model,
    questions: Sequence[Question],
    way: Way,
    blind: bool = True,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Asked:
    """Every question with its pictures and, by default, without them.

    Args:
        way: from `question_way` or `caption_way`.
        blind: ask the same words without a picture too; equal words once.
        batch_size: answers that are kept on disk at a time.
        progress: called with questions done and their total.
        folder: where `samples.jsonl` is continued; None keeps nothing.
    """
    prompts, refused = prompts_of(way, questions)
    samples = unanswered(
        questions, prompts, None if folder is None else identity_of(model, way.settings)
    )
    _recall(samples, {} if folder is None else _kept(folder / SAMPLES))
    said = _Blind(way, prompts, samples) if blind else None
    missing: dict[str, str] = {}
    answers = _answers(way, questions, prompts, samples)
    with closing(answers), _journal(folder, samples) as keep:  # or threads decode on
        done = sum(sample.raw is not None for sample in samples)
        while chunk := list(islice(answers, batch_size)):
            for place, answer in chunk:
                samples[place] = _answered(samples[place], answer, missing)
            if said is not None:
                said.fill(samples, [place for place, _ in chunk])
            keep([samples[place] for place, _ in chunk])
            done += len(chunk)
            if progress is not None:
                progress(done, len(samples))
        if said is not None:  # those that were answered before, but not blind
            said.fill(samples, [i for i, ids in enumerate(prompts) if ids is not None])
    named = tuple(f"{name}: {reason}" for name, reason in missing.items())
    return Asked(samples, named, tuple(f"{name}: {reason}" for name, reason in refused.items()))


def _writer(
    model: Model, how: Any, batch_size: int
) -> Callable[[Iterable[tuple[Any, ...]], Iterable[Ids]], Iterator[str | Failed]]:
    def answer(
        sources: Iterable[tuple[Any, ...]], prompts: Iterable[Ids]
    ) -> Iterator[str | Failed]:
        written = write_each(model, sources, prompts, how, batch_size, "collect")
        return (one.text if isinstance(one, Written) else one for one in written)

    return answer


def prompts_of(way: Way, questions: Sequence[Question]) -> tuple[list[Ids | None], dict[str, str]]:
    """The prompt of each question; None, and the reason, where the model cannot be asked it."""
    prompts: list[Ids | None] = []
    refused: dict[str, str] = {}
    for question in questions:
        try:
            prompts.append(way.prompt(question))
        except InputError as error:
            prompts.append(None)
            refused[question.record.id] = str(error)
    return prompts, refused


def unanswered(
    questions: Sequence[Question], prompts: Sequence[Ids | None], identity: str | None
) -> list[Sample]:
    """A sample for each question, with a key where there is something to be told apart."""
    groups: dict[Path, bytes] = {}
    samples = []
    for question, ids in zip(questions, prompts, strict=True):
        record = question.record
        shown = [picture_digest(picture, groups).hex() for picture in record.pictures]
        key = "" if identity is None else short_key([identity, shown, ids])
        samples.append(Sample(
            id=record.id, kind="", target=question.target, ranking=(), rank=float("inf"),
            score=0.0, prompt=question.words, group=short_key(shown),
            status="ok" if ids is not None else "invalid", choices=question.choices,
            tags=dict(question.tags), key=key,
        ))  # fmt: skip
    return samples


def _kept(path: Path) -> dict[tuple[str, str], Sample]:
    """The answers of an earlier run; lines that are torn or say something else are no answers."""
    found: dict[tuple[str, str], Sample] = {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            sample = read_line(line.decode("utf-8"))
        except (ValueError, KeyError, TypeError):
            continue
        if sample.raw is not None:
            found[sample.id, sample.key] = sample
    return found


def _recall(samples: list[Sample], kept: Mapping[tuple[str, str], Sample]) -> None:
    """Put answers that were given before in their places."""
    for place, sample in enumerate(samples):
        known = kept.get((sample.id, sample.key))
        if known is not None and sample.status == "ok":
            samples[place] = replace(sample, raw=known.raw, blind=known.blind)


@contextmanager
def _journal(
    folder: Path | None, samples: Sequence[Sample]
) -> Iterator[Callable[[Sequence[Sample]], None]]:
    """What writes answers as they come, behind those that were there."""
    if folder is None:
        yield lambda answered: None
        return
    with atomic_file(folder / SAMPLES) as temporary:
        given = (sample for sample in samples if sample.raw is not None)
        temporary.write_bytes(b"".join(map(write_line, given)))
    with (folder / SAMPLES).open("ab") as file:

        def keep(answered: Sequence[Sample]) -> None:
            file.write(b"".join(map(write_line, answered)))
            file.flush()

        yield keep


def _answers(
    way: Way, questions: Sequence[Question], prompts: Sequence[Ids | None], samples: list[Sample]
) -> Generator[tuple[int, str | Failed], None, None]:
    """Place and answer of all that was not answered yet, those about one picture together."""
    places: dict[str, list[int]] = {}
    for place, (sample, ids) in enumerate(zip(samples, prompts, strict=True)):
        if ids is not None and sample.raw is None:
            places.setdefault(sample.group, []).append(place)
    order = [place for own in places.values() for place in own]
    first = {own[0]: questions[own[0]].record.pictures for own in places.values()}
    shown = {place: first[own[0]] for own in places.values() for place in own}
    answers = way.answer(
        (shown[place] for place in order), (prompts[place] or () for place in order)
    )
    yield from zip(order, answers, strict=True)


def _answered(sample: Sample, answer: str | Failed, missing: dict[str, str]) -> Sample:
    """
    Raises:
        SightlineError: what kept the answer away was not the picture.
    """
    if not isinstance(answer, Failed):
        return replace(sample, raw=answer)
    missing[sample.id] = why_unreadable(answer)
    return replace(sample, status="missing")


def why_unreadable(failed: Failed) -> str:
    """Why a picture could not be read.

    Raises:
        SightlineError: what kept the answer away was not the picture.
    """
    if not isinstance(failed.error, UNREADABLE):
        raise failed.error
    return str(failed.error)


class _Blind:
    """What the model says to words alone; it is asked each once."""

    def __init__(self, way: Way, prompts: Sequence[Ids | None], samples: Sequence[Sample]) -> None:
        self._way, self._prompts = way, prompts
        self._said = {
            ids: sample.blind
            for ids, sample in zip(prompts, samples, strict=True)
            if ids is not None and sample.blind is not None
        }

    def fill(self, samples: list[Sample], places: Iterable[int]) -> None:
        """Put what it says into samples, those without a picture to read included."""
        own = {place: ids for place in places if (ids := self._prompts[place]) is not None}
        new = [ids for ids in dict.fromkeys(own.values()) if ids not in self._said]
        for ids, answer in zip(new, self._way.answer((NO_PICTURE for _ in new), new), strict=True):
            if isinstance(answer, Failed):
                raise answer.error
            self._said[ids] = answer
        for place, ids in own.items():
            samples[place] = replace(samples[place], blind=self._said[ids])
