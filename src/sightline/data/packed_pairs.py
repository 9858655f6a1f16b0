"""Captioned pictures of every aspect ratio, several in a row of patches, for contrastive training.

loader = packed_pairs(records, processor, row_length=512, rows=8, lengths=(128, 256))
for batch in loader:
    scores = network(batch.pixels, batch.ids, batch.mask)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from sightline.core.errors import ConfigError, DataError
from sightline.data.token_budget import TokenBudgetLoader
from sightline.inputs.naflex import NaFlexProcessor, Patches, in_rows
from sightline.inputs.packing import pack

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.core.interfaces import PackedPatches
    from sightline.data.records import Record
    from sightline.inputs.processors import Processor

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Sentence = Callable[["Record", np.random.Generator], str]
S = TypeVar("S")
"""What belongs to a picture, such as its sentence."""
B = TypeVar("B")


class PackedPairs(NamedTuple):
    """B pictures in R rows and one sentence of each.

    The sentences come first: what counts the pictures of a batch looks at its first tensor, and
    rows of patches are fewer than pictures.
    """

    ids: Tensor
    """int64[B, T]"""
    mask: Tensor
    """bool[B, T]"""
    pixels: PackedPatches
    """R rows of patches, always of the same shape."""


def packed_pairs(
    records: Sequence[Record],
    processor: Processor,
    row_length: int,
    rows: int,
    lengths: Sequence[int] = (),
    sentence: Sentence | None = None,
    change: Change | None = None,
    seed: int = 0,
    workers: int = 0,
    epochs: int | None = None,
) -> TokenBudgetLoader[PackedPairs]:
    """Seeded batches under a budget of `rows * row_length` patches.

    The last batch of an epoch, which may hold a picture or two, is left out: a contrastive loss
    over so few says little.

    Args:
        records: pictures with captions.
        processor: of a system that takes patches.
        row_length: patches in a row, at least the largest number that a picture may have.
        rows: rows in a batch.
        lengths: numbers of patches at most, one of which is drawn for each picture and epoch, so
            that one network learns several resolutions. Neighbours in a batch
            may differ, as in NaViT. None given takes the processor's own.
        sentence: chooses the words; by default one of the captions.
        change: augmentation of uint8[H, W, 3], such as a random crop.
        seed, workers, epochs: as in `Loader`.

    Raises:
        ConfigError: a processor of fixed size, or a length that a row does not hold.
        DataError: no picture has a caption.
    """
    image = processor.image
    if not isinstance(image, NaFlexProcessor):
        raise ConfigError(
            f"{processor} gives every picture one size: packing needs the processor of a system "
            "that takes patches, such as siglip2-naflex"
        )
    choose = sentence or _any_caption
    usable = [record for record in records if record.captions or sentence is not None]
    if not usable:
        raise DataError("no picture has a caption: contrastive training needs pictures with words")

    def draw(record: Record, generator: np.random.Generator) -> tuple[np.ndarray, str]:
        from sightline.inputs.images import read_image

        pixels = read_image(record.image)
        if change is not None:
            pixels = change(pixels, generator)
        return pixels, choose(record, generator)

    def collate(pixels: PackedPatches, sentences: list[str]) -> PackedPairs:
        return PackedPairs(*processor.texts(sentences), pixels)

    return packed_loader(
        usable, image, (rows, row_length), lengths, draw, collate, seed, workers, epochs
    )


def packed_loader(
    records: Sequence[Record],
    image: NaFlexProcessor,
    budget: tuple[int, int],
    lengths: Sequence[int],
    draw: Callable[[Record, np.random.Generator], tuple[np.ndarray, S]],
    collate: Callable[[PackedPatches, list[S]], B],
    seed: int = 0,
    workers: int = 0,
    epochs: int | None = None,
) -> TokenBudgetLoader[B]:
    """Batches of whatever belongs to a picture, under a budget of patches.

    Args:
        budget: rows of a batch, and patches of a row.
        lengths, seed, workers, epochs: as in `packed_pairs`.
        draw: a record to uint8[H, W, 3] and what goes with it.
        collate: the packed pictures, and what goes with each, to a batch.

    Raises:
        ConfigError: a length that a row does not hold.
    """
    rows, row_length = budget
    allowed = tuple(lengths) or (image.spec.max_num_patches,)
    _check_lengths(allowed, row_length)

    def cut(record: Record, generator: np.random.Generator) -> tuple[Patches, S]:
        pixels, words = draw(record, generator)
        most = allowed[int(generator.integers(len(allowed)))]
        return image.patches(pixels, most), words

    def packed(samples: list[tuple[Patches, S]]) -> B:
        width = 3 * image.spec.patch_size**2
        pictures = in_rows([patches for patches, _ in samples], width)
        return collate(pack(pictures, row_length, rows), [words for _, words in samples])

    return TokenBudgetLoader(
        records, packed, lambda sample: len(sample[0]), row_length, rows,
        seed=seed, drop_last=True, workers=workers, transform=cut, epochs=epochs,
    )  # fmt: skip


def _any_caption(record: Record, generator: np.random.Generator) -> str:
    return record.captions[int(generator.integers(len(record.captions)))]


def _check_lengths(lengths: Sequence[int], row_length: int) -> None:
    for length in lengths:
        if not 1 <= length <= row_length:
            raise ConfigError(
                f"pictures of {length} patches do not fit into rows of {row_length}: give longer "
                "rows, or smaller lengths"
            )
