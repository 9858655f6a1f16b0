"""Examples of what a model that writes should say, in batches of tokens and pixels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sightline.core.errors import DataError
from sightline.data.examples import Example, Examples, Writer, named_tasks
from sightline.data.loader import Loader
from sightline.data.mixtures import Mixture
from sightline.data.park.records import ParkRecords
from sightline.data.park.spoken import TASKS as PARK_TASKS
from sightline.data.records import Record
from sightline.inputs.images import read_image
from sightline.recipes.answer_loss import AnswerBatch
from sightline.recipes.pair_data import share_of_this_process

if TYPE_CHECKING:
    from sightline.inputs.instructions import Instructions
    from sightline.inputs.processors import Processor

logger = logging.getLogger(__name__)


class ParkExamples(Sequence[Example]):
    """One example of each drawn scene, the tasks in turn; nothing is drawn before it is needed."""

    def __init__(
        self,
        records: ParkRecords,
        tasks: Sequence[str],
        seed: int,
        writers: Mapping[str, Writer] | None = None,
    ) -> None:
        self.records, self.seed, self.writers = records, seed, dict(writers or {})
        self.tasks = tuple(tasks) or (*PARK_TASKS, *self.writers)
        named_tasks(self.tasks)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def fingerprint(self) -> str:
        """What a mixture tells data sets apart by."""
        return f"{self.records.name} {len(self)} {self.tasks} {self.seed}"

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        record = self.records[index]
        task = self.tasks[index % len(self.tasks)]
        if not record.regions and task in ("detect", "segment"):
            task = PARK_TASKS[0]  # an empty park can be described
        own = Examples([record], [task], self.writers, "drawn", seed=self.seed + index)
        return own[index % len(own)]  # one of the labels, where each is an example


def examples_of(
    records: Sequence[Record],
    tasks: Sequence[str],
    seed: int = 0,
    writers: Mapping[str, Writer] | None = None,
) -> Sequence[Example]:
    """What there is to learn in records; a mixture stays one.

    Args:
        tasks: names of `data.examples.TASKS`; none for all that the records give.
        writers: of `Examples`; where there is one of `segment`, masks are learned too.

    Raises:
        DataError: nothing is said about the pictures.
        ConfigError: an unknown task.
    """
    if isinstance(records, Mixture):
        parts = {n: examples_of(own, tasks, seed, writers) for n, own in records.sources.items()}
        return Mixture(parts, records.weights)
    if isinstance(records, ParkRecords):
        return ParkExamples(records, tasks, seed, writers)
    named = tasks or tasks_of(records, masks="segment" in (writers or {}))
    return Examples(records, named, writers, seed=seed)


def tasks_of(records: Sequence[Record], masks: bool = False) -> list[str]:
    """The tasks that records give examples of.

    Conversations of one exchange are learned as they are written; where some are longer, every
    answer is learned as `sightline chat` would ask for it.

    Args:
        masks: whether outlines can be written.

    Raises:
        DataError: none.
    """
    regions = [r for record in records for r in record.regions if not r.crowd]
    found = {
        "caption": any(record.captions for record in records),
        "ask": any(record.question is not None and record.answers for record in records),
        "detect": bool(regions),
        "segment": masks and any(region.outline is not None for region in regions),
        "chat": any(len(record.messages) > 2 for record in records),
    }
    found["written"] = not found["chat"] and any(record.messages for record in records)
    if not any(found.values()):
        raise DataError(
            "nothing is said about the pictures: a model that writes learns from captions, "
            "questions with answers, regions or conversations (see 'sightline data inspect')"
        )
    return [name for name, given in found.items() if given]


class Spoken(NamedTuple):
    """One example as it goes into a batch."""

    pixels: tuple[Tensor, ...]
    """float32[3, H, W] each."""
    prompt: list[int]
    suffix: list[int]
    """With its end token, unless it was cut."""


@dataclass
class Speller:
    """Examples to tokens and pixels; what is too long is cut and told once.

    Tokens that texts spell count: data name places, and who trains on them vouches for them.
    """

    processor: Processor
    instructions: Instructions
    length: int
    """Tokens of prompt and answer together, at most."""
    cut: bool = False

    def __call__(self, example: Example, generator: np.random.Generator | None = None) -> Spoken:
        """See `Spoken`.

        Raises:
            ImageError: a picture that cannot be read.
            DataError: a prompt that leaves no room for an answer.
        """
        prompt, suffix = self.tokens(example)
        if len(prompt) >= self.length:
            raise DataError(
                f"example {example.id!r}: a prompt of {len(prompt)} tokens leaves no room for an "
                f"answer in {self.length}: raise text_length"
            )
        if len(prompt) + len(suffix) > self.length and not self.cut:
            self.cut = True
            logger.warning(
                "answers are cut where prompt and answer exceed text_length=%d tokens, the first "
                "of %d in example %s", self.length, len(prompt) + len(suffix), example.id,
            )  # fmt: skip
        pictures = [read_image(picture) for picture in example.pictures]
        pixels = tuple(self.processor.images([picture])[0] for picture in pictures)
        return Spoken(pixels, prompt, suffix[: self.length - len(prompt)])

    def tokens(self, example: Example) -> tuple[list[int], list[int]]:
        """A prompt as it stands behind its pictures, and the answer with its end token."""
        words = self.processor.tokenizer
        assert words.eos_id is not None
        prompt = self.instructions.encode(words, example.prefix, trusted=True)
        return prompt, [*words.encode(example.suffix, trusted=True), words.eos_id]


def collate(samples: Sequence[Spoken]) -> AnswerBatch:
    """Examples side by side, padded on the right."""
    pixels = [picture for sample in samples for picture in sample.pixels]
    prompt, prompt_mask = _padded([sample.prompt for sample in samples])
    suffix, suffix_mask = _padded([sample.suffix for sample in samples])
    return AnswerBatch(
        torch.stack(pixels) if pixels else torch.empty(0, 3, 1, 1),
        torch.tensor([len(sample.pixels) for sample in samples]),
        prompt, prompt_mask, suffix, suffix_mask,
    )  # fmt: skip


def _padded(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # [B T]
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


def answer_loader(
    examples: Sequence[Example], speller: Speller, batch_size: int, seed: int, workers: int
) -> Loader[AnswerBatch]:
    """Endless seeded batches of examples whose pictures can be read."""
    return Loader(
        examples,
        collate,
        batch_size,
        seed=seed,
        workers=workers,
        transform=speller,
        share=share_of_this_process(),
    )
