"""What the contracts give a system: its tiny network, drawn anew, and inputs of unequal lengths."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sightline.core.interfaces import PatchBatch, Prompt, System, TextBatch
from sightline.inputs.naflex import NaFlexSpec


class Written(NamedTuple):
    """Prompts, and what stands behind them."""

    prompt: Prompt
    suffix: TextBatch


Batch = Tensor | PatchBatch | Written


def tiny_network(system: System) -> nn.Module:
    """The tiny variant, the same one at every call; no parameter at a value that hides mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = system.build(system.tiny)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter.data + 0.05 * noise
    return network.eval()


def pixels_of(system: System) -> Tensor | PatchBatch:
    """Three random pictures, or masks; of unequal shapes where the system takes patches."""
    spec = system.preprocessing(system.tiny)
    generator = torch.Generator().manual_seed(2)
    if system.role == "mask codec":
        return torch.randn(3, system.tiny.mask_size, system.tiny.mask_size, generator=generator)
    if not isinstance(spec, NaFlexSpec):
        return torch.randn(3, 3, spec.height, spec.width, generator=generator)
    grids = torch.tensor([[2, 3], [1, 5], [4, 2]])  # none is the grid of the positions
    mask = torch.arange(9) < grids.prod(dim=1, keepdim=True)  # [B P]
    patches = torch.randn(3, 9, 3 * spec.patch_size**2, generator=generator)
    return PatchBatch(patches, mask, grids)


def written_of(system: System) -> Written:
    """Four prompts: no two alike in the number of pictures and words, nor in what is written.

    Pictures are of three shapes; one prompt has none.
    """
    ids, mask = _words_of_lengths(system, (5, 2, 7, 3), seed=4)
    pictures: tuple[tuple[Tensor, ...], ...] = ()
    if system.role == "vision-language model":
        image = system.tiny.image
        (height, width), (tall, wide) = image.image_size, image.patch_size
        generator = torch.Generator().manual_seed(2)
        square, flat, high = (
            torch.randn(3, *size, generator=generator)
            for size in ((height, width), (height - tall, width + wide), (height + tall, width))
        )
        pictures = ((square,), (flat, square), (), (high,))
    return Written(
        Prompt(ids, mask, pictures), TextBatch(*_words_of_lengths(system, (4, 6, 1, 3), seed=5))
    )


def _words_of_lengths(system: System, lengths: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Drawn ids, padded on the right, and where they are."""
    text = words_of(system)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, text.vocab_size - 2, mask.shape, generator=generator)
    return ids.where(mask, torch.tensor(text.pad_id)), mask


def written_rows(batch: Written) -> list[Written]:
    """Each row as a batch of its own, without its padding."""
    prompt, suffix = batch
    rows = []
    for row in range(len(prompt.ids)):
        own, written = prompt.mask[row], suffix.mask[row]
        pictures = prompt.pictures[row : row + 1]
        rows.append(
            Written(
                Prompt(prompt.ids[row, own][None], own[own][None], pictures),
                TextBatch(suffix.ids[row, written][None], written[written][None]),
            )
        )
    return rows


def rows_of(batch: Batch) -> Sequence[Batch]:
    """Each row as a batch of its own; patches and words without their padding."""
    if isinstance(batch, Written):
        return written_rows(batch)
    if isinstance(batch, Tensor):
        return [row[None] for row in batch]
    lengths = batch.grids.prod(dim=1).tolist()
    return [
        PatchBatch(patches[None, :length], mask[None, :length], grid[None])
        for patches, mask, grid, length in zip(*batch, lengths, strict=True)
    ]


def ids_of(system: System) -> Tensor:
    """Sentences of different lengths: an end of text (the highest id), then padding."""
    text = words_of(system)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, text.vocab_size - 2, (4, text.context_length), generator=generator)
    for row in range(len(ids)):
        ids[row, 2 + row] = text.vocab_size - 1
        ids[row, 3 + row :] = text.pad_id
    return ids


def masked_of(system: System) -> tuple[Tensor, Tensor]:
    """The sentences of `_ids` with their mask."""
    ids = ids_of(system)
    return ids, ids != words_of(system).pad_id


def words_of(system: System) -> Any:
    """The part of the tiny config that is about text."""
    return getattr(system.tiny, "text", system.tiny)
