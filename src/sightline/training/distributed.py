"""Several processes: who this one is, and a gather that gradients pass through.

Objectives take the gather as an argument. With the gather below and gradients averaged over the
processes, as data-parallel wrappers do, the gradient is that of the joined batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number among those that train together; 0 alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_gather_with_grad(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows of all processes, in the order of their ranks; every process has equally many.

    Backward, each process receives the sum of what all processes' losses say about its rows.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return rows
    gathered: Tensor = _AllGather.apply(rows, group)
    return gathered


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group, ctx.count = group, len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, rows.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total.narrow(0, dist.get_rank(ctx.group) * ctx.count, ctx.count), None
