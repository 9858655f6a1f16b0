"""Sequences of a prompt and what is written behind it, laid out in rows for one pass.

One sequence a row, or several behind each other; each is a prompt of n vectors and m - 1 of the m
tokens behind it, since nobody reads on from the last one:

    row 0   p p p w w | p p w . .        two sequences: owners 0 0 0 0 0 1 1 1 -1 -1
    predicts     w w e     w e           the m tokens of each: from the last p on
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import InputError


class Layout(NamedTuple):
    """Where each vector of B sequences lies in R rows of L slots."""

    places: Int[Tensor, " S"]
    """Flat places in [R L] of all vectors, sequence by sequence."""
    positions: Int[Tensor, "R L"]
    """Of each slot in its own sequence; in the padding they go on."""
    prefix: Tensor
    """Length of the prompt, int64[R] of each row, or [R, L] of each slot where rows are shared."""
    owners: Int[Tensor, "R L"] | None
    """Which sequence a slot belongs to, -1 for padding; None where every sequence has its row."""
    predicting: Int[Tensor, " W"]
    """Flat places of the vectors behind which the written tokens come, sequence by sequence."""

    def place(self, vectors: Float[Tensor, "S D"]) -> Float[Tensor, "R L D"]:
        """The vectors in their rows, zeros in the padding."""
        rows, slots = self.positions.shape
        empty = vectors.new_zeros(rows * slots, vectors.shape[1])
        return empty.index_copy(0, self.places, vectors).unflatten(0, (rows, slots))

    def predictions(
        self, hidden: Float[Tensor, "R L D"], written: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B M D"]:
        """For each written token the vector that predicts it; zeros where there is none."""
        found = hidden.flatten(0, 1)[self.predicting]  # [W D]
        empty = found.new_zeros(written.numel(), found.shape[1])
        places = written.flatten().nonzero()[:, 0]  # [W]
        return empty.index_copy(0, places, found).unflatten(0, written.shape)


def lay_out(
    prompts: Sequence[int],
    written: Sequence[int],
    rows: Sequence[int] | None = None,
    slots: int | None = None,
    device: torch.device | None = None,
) -> Layout:
    """A layout for prompts of n vectors with m tokens behind each.

    Args:
        rows: the row of each sequence, from 0 on; sequences of one row follow each other. None
            gives each its own.
        slots: L; None for the longest row. A fixed one keeps shapes alike from batch to batch.

    Raises:
        InputError: a sequence without a prompt, or a row that is longer than `slots`.
    """
    if min(prompts, default=1) < 1:
        raise InputError(f"prompt {prompts.index(min(prompts)) + 1} holds nothing to go on from")
    lengths = [n + max(m - 1, 0) for n, m in zip(prompts, written, strict=True)]
    numbers = list(range(len(lengths))) if rows is None else list(rows)
    ends = [0] * (max(numbers, default=-1) + 1)
    starts = []
    for row, length in zip(numbers, lengths, strict=True):
        starts.append(ends[row])
        ends[row] += length
    longest = max(ends, default=0)
    slots = longest if slots is None else slots
    if longest > slots:
        raise InputError(f"a row of {longest} vectors does not fit into {slots} slots")
    firsts = [row * slots + start for row, start in zip(numbers, starts, strict=True)]
    positions = torch.arange(slots).repeat(len(ends), 1)  # [R L]
    prefix = torch.tensor(list(prompts))
    owners: Tensor | None = None
    if rows is not None:
        owners, prefix = torch.full_like(positions, -1), torch.zeros_like(positions)
        for owner, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
            own = slice(first, first + length)
            positions.view(-1)[own] = torch.arange(length)
            owners.view(-1)[own] = owner
            prefix.view(-1)[own] = prompts[owner]
    return Layout(
        places=_ranges(firsts, lengths).to(device),
        positions=positions.to(device),
        prefix=prefix.to(device),
        owners=None if owners is None else owners.to(device),
        predicting=_ranges(
            [first + n - 1 for first, n in zip(firsts, prompts, strict=True)], written
        ).to(device),
    )


def _ranges(starts: Sequence[int], lengths: Sequence[int]) -> Int[Tensor, " S"]:
    """start, start + 1, ... of each, one behind the other."""
    counts = torch.tensor(list(lengths), dtype=torch.int64)
    before = counts.cumsum(0) - counts  # [B]
    first = torch.tensor(list(starts), dtype=torch.int64) - before
    return first.repeat_interleave(counts) + torch.arange(int(counts.sum()))
