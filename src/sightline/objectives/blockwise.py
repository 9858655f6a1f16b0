"""Sums over all pairs of a batch without the matrix of all pairs.

A contrastive loss is a sum over columns (sentences) of something that needs one column and all
rows (pictures). So the matrix can be made a block of columns at a time, used and thrown away. The
gradient is taken with each block while it is there, in the forward pass: nothing is computed
twice, and what waits for the backward pass is as large as the embeddings. Zhai et al. 2023
(arXiv:2303.15343, section 3.3) do it with one block a device.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sightline.core.errors import ConfigError
from sightline.objectives.exchange import Ring


class Place(NamedTuple):
    """Where the columns of a block are."""

    shard: int
    """Whose columns: the rank in a ring, else 0."""
    start: int
    """Index of the block's first column among those of the shard."""


Visit = Callable[..., Tensor]
"""(float[c, D] block of columns, Place, *resident) to float[]: the block's part of the sum."""


def sum_over_columns(
    visit: Visit,
    columns: Tensor,
    resident: Sequence[Tensor],
    *,
    chunk: int | None = None,
    ring: Ring | None = None,
) -> Tensor:
    """The sum of what `visit` says about each block of columns, with its gradient.

    Without `chunk` and `ring` there is one block, and plain autograd does the rest.

    Args:
        columns: float[C, D] of this device.
        resident: tensors that every block meets: the rows, a scale. Whatever is to have a
            gradient must be here, not in a closure of `visit`.
        chunk: columns of a block; memory grows with rows times `chunk`.
        ring: the other devices, whose columns come by.

    Raises:
        ConfigError: a chunk below 1.
    """
    check_chunk(chunk)
    if chunk is None and ring is None:
        return visit(columns, Place(0, 0), *resident)
    total: Tensor = _SumOverColumns.apply(visit, columns, chunk, ring, *resident)
    return total


def check_chunk(chunk: int | None) -> None:
    """Refuse a chunk that holds nothing.

    Raises:
        ConfigError: a chunk below 1.
    """
    if chunk is not None and chunk < 1:
        raise ConfigError(
            f"chunk {chunk}: give the number of columns of a block, from 1 on, or None for the "
            "whole matrix at once"
        )


def blocks(columns: Tensor, chunk: int | None, ring: Ring | None) -> Iterator[tuple[Place, Tensor]]:
    """Every block of every device's columns, without gradient."""
    for shard, (present, _) in _stops(columns.detach(), None, ring):
        for start, block in _cut(present, chunk):
            yield Place(shard, start), block


class _SumOverColumns(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        visit: Visit,
        columns: Tensor,
        chunk: int | None,
        ring: Ring | None,
        *resident: Tensor,
    ) -> Tensor:
        wanted = (ctx.needs_input_grad[1], *ctx.needs_input_grad[4:])
        leaves = [r.detach().requires_grad_(w) for r, w in zip(resident, wanted[1:], strict=True)]
        sums = [torch.zeros_like(leaf) for leaf in leaves if leaf.requires_grad]
        own = torch.zeros_like(columns) if wanted[0] else None
        total = columns.new_zeros(())
        for shard, (present, gradient) in _stops(columns.detach(), own, ring):
            for start, block in _cut(present, chunk):
                inputs = [block.requires_grad_(wanted[0]), *leaves]
                value, found = _value_and_gradients(visit, Place(shard, start), inputs)
                total += value
                if gradient is not None:
                    gradient[start : start + len(block)] += found.pop(0)
                for place, part in zip(sums, found, strict=True):
                    place += part
            own = gradient  # after the last stop, what the next device holds of this one's
        own = _home(own, ring)
        ctx.wanted = wanted
        ctx.save_for_backward(*([] if own is None else [own]), *sums)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        kept = iter(ctx.saved_tensors)
        columns, *resident = (outer * next(kept) if wanted else None for wanted in ctx.wanted)
        return None, columns, None, None, *resident


def _value_and_gradients(
    visit: Visit, place: Place, inputs: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The block's part, and its gradient with respect to the inputs that want one."""
    leaves = [tensor for tensor in inputs if tensor.requires_grad]
    with torch.set_grad_enabled(bool(leaves)):
        value = visit(inputs[0], place, *inputs[1:])
    found = torch.autograd.grad(value, leaves, materialize_grads=True) if leaves else ()
    return value.detach(), list(found)


def _stops(
    columns: Tensor, gradient: Tensor | None, ring: Ring | None
) -> Iterator[tuple[int, tuple[Tensor, Tensor | None]]]:
    """One's own columns, then those of each device behind, with the gradient collected so far."""
    if ring is None:
        yield 0, (columns, gradient)
        return
    present = columns
    for stop in range(ring.size):
        yield (ring.rank - stop) % ring.size, (present, gradient)
        if stop + 1 < ring.size:
            if gradient is None:
                (present,) = ring.pass_on((present,))
            else:
                present, gradient = ring.pass_on((present, gradient))


def _home(gradient: Tensor | None, ring: Ring | None) -> Tensor | None:
    """The last step of the way round, which the columns themselves need not make."""
    if gradient is None or ring is None or ring.size == 1:
        return gradient
    (own,) = ring.pass_on((gradient,))
    return own


def _cut(columns: Tensor, chunk: int | None) -> Iterator[tuple[int, Tensor]]:
    size = chunk or max(1, len(columns))
    for start in range(0, len(columns), size):
        yield start, columns[start : start + size].detach()
