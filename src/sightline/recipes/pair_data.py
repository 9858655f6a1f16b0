"""Pictures and sentences to batches of pairs: what the contrastive recipes learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from torch import Tensor

from sightline.core.errors import DataError
from sightline.core.interfaces import PackedPatches
from sightline.data.loader import Loader
from sightline.data.mixtures import having
from sightline.data.park.records import ParkRecords
from sightline.data.records import Record
from sightline.data.shares import Share
from sightline.inputs.images import read_image
from sightline.inputs.prompts import fill
from sightline.objectives.unicl import group_labels
from sightline.training import distributed

if TYPE_CHECKING:
    from sightline.inputs.processors import Processor
    from sightline.recipes.dual_encoder import DualEncoderRecipe


class PairBatch(NamedTuple):
    """Pictures and one sentence of each.

    The sentences come first: what counts the pictures of a batch looks at its first tensor, and
    packed pictures have fewer rows than there are of them.
    """

    ids: Tensor
    """int64[B, T]"""
    mask: Tensor
    """bool[B, T]"""
    pixels: Tensor | PackedPatches
    """float32[B, 3, H, W], or B pictures of any shape in rows of patches, or float32[B, D] where a
    run keeps the vectors of its pictures."""
    labels: Tensor
    """int64[B]: equal for pictures of one class, and for equal captions without a class."""


Look = Callable[[Record, np.random.Generator], np.ndarray]
"""What is seen of a record: pixels uint8[H, W, 3], or a vector that was kept of them."""


class Sample(NamedTuple):
    """One picture of a batch to be."""

    pixels: np.ndarray
    sentence: str
    caption: str
    """The sentence as the data has it, outside any prompt."""
    label: str | None


def sentences_of(record: Record, template: str) -> tuple[str, ...]:
    """The captions, or the prompt of the label where only a class is known."""
    if record.captions or record.label is None:
        return record.captions
    return (fill(template, record.label),)


def draw_sentence(
    record: Record, generator: np.random.Generator, template: str, share: float
) -> tuple[str, str]:
    """One of the sentences; a `share` of them, or of the labels, inside the prompt template.

    Returns:
        The sentence, and the caption that it was made of.
    """
    sentences = sentences_of(record, template)
    caption = sentences[int(generator.integers(len(sentences)))]
    if generator.random() >= share:
        return caption, caption
    words = caption if record.label is None or generator.random() < 0.5 else record.label
    return fill(template, words.rstrip(".")), caption


def random_crop(pixels: np.ndarray, generator: np.random.Generator, smallest: float) -> np.ndarray:
    """A random part uint8[h, w, 3] whose sides are at least `smallest` of the picture's."""
    if smallest == 1:
        return pixels
    height, width = pixels.shape[:2]
    h, w = (max(1, round(side * generator.uniform(smallest, 1))) for side in (height, width))
    y, x = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
    return pixels[y : y + h, x : x + w]


def pair_loader(
    records: Sequence[Record], processor: Processor, recipe: DualEncoderRecipe, template: str
) -> Loader[PairBatch]:
    """Endless seeded batches of readable pictures with sentences."""

    def prepare(pictures: Sequence[np.ndarray]) -> Tensor:
        return cast(Tensor, processor.images(pictures))

    pairs = usable_pairs(records, recipe, template)
    return sentence_loader(pairs, processor, recipe, template, None, prepare)


def usable_pairs(
    records: Sequence[Record], recipe: DualEncoderRecipe, template: str
) -> Sequence[Record]:
    """The records with sentences; with foreign ones, where the recipe is the shuffled control.

    Raises:
        DataError: there are none.
    """
    usable = records
    if not isinstance(records, ParkRecords):  # every one of those has, and is drawn when needed
        usable = having(records, lambda record: bool(sentences_of(record, template)))
    if not usable:
        raise DataError(
            "no picture has a caption or a class: contrastive training needs pictures with "
            "sentences (a text file beside each picture, or a column named caption)"
        )
    return _with_foreign_captions(list(usable), recipe.seed) if recipe.shuffle_captions else usable


def sentence_loader(
    pairs: Sequence[Record],
    processor: Processor,
    recipe: DualEncoderRecipe,
    template: str,
    look: Look | None,
    prepare: Callable[[Sequence[np.ndarray]], Tensor],
) -> Loader[PairBatch]:
    """Endless seeded batches of what `look` sees in a record, each with one of its sentences.

    Args:
        look: see `sample_drawer`.
        prepare: a batch of what `look` saw as one tensor.
    """

    def collate(samples: list[Sample]) -> PairBatch:
        return paired(samples, prepare([sample.pixels for sample in samples]), processor)

    return Loader(
        pairs,
        collate,
        recipe.batch_size,
        seed=recipe.seed,
        workers=recipe.workers,
        transform=sample_drawer(recipe, template, look),
        share=share_of_this_process(),
    )


def sample_drawer(
    recipe: DualEncoderRecipe, template: str, look: Look | None = None
) -> Callable[[Record, np.random.Generator], Sample]:
    """What makes a sample of a record: what is seen of it, and one of its sentences.

    Args:
        look: runs in the loader's threads; raises `ImageError` for a picture that is left out. None
            reads the picture and takes a random crop.
    """
    share = 0.0 if recipe.init or recipe.init_text else recipe.template_share

    def cropped(record: Record, generator: np.random.Generator) -> np.ndarray:
        return random_crop(read_image(record.image), generator, recipe.crop)

    seeing = look or cropped

    def draw(record: Record, generator: np.random.Generator) -> Sample:
        seen = seeing(record, generator)
        return Sample(seen, *draw_sentence(record, generator, template, share), record.label)

    return draw


def paired(
    samples: Sequence[Sample], pixels: Tensor | PackedPatches, processor: Processor
) -> PairBatch:
    """The batch of pictures that are prepared already, with their sentences."""
    _, sentences, captions, labels = zip(*samples, strict=True)
    return PairBatch(*processor.texts(sentences), pixels, group_labels(labels, captions))


def share_of_this_process() -> Share | None:
    """Of several processes, which rows of every batch this one takes."""
    if distributed.world_size() == 1:
        return None
    return Share(distributed.rank(), distributed.world_size(), distributed.exchange)


def _with_foreign_captions(records: Sequence[Record], seed: int) -> list[Record]:
    """The captions go round among the pictures in a random order, so that none keeps its own."""
    order = np.random.default_rng(seed).permutation(len(records))
    taken = {int(a): int(b) for a, b in zip(order, np.roll(order, 1), strict=True)}
    return [
        replace(record, captions=records[taken[i]].captions, label=records[taken[i]].label)
        for i, record in enumerate(records)
    ]
