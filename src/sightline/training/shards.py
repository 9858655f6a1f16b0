"""Tensors that are whole, or of which this process holds a shard, behind the same few verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def in_shards(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether this process holds a part of the tensor only."""
    # importing DTensor to ask costs a second, and a run in one process never meets one
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory."""
    return tensor.to_local() if in_shards(tensor) else tensor


def like(own: Tensor, value: Tensor) -> Tensor:
    """A copy of `value`, whole or in shards, on the device and in the shards of `own`.

    Every process has the same `value`; nothing is sent.
    """
    if not in_shards(own):
        return value.to(own.device, copy=True)
    if in_shards(value):
        return value.clone()
    from torch.distributed.tensor import distribute_tensor

    whole = value.to(own.device, copy=True)
    return distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)


@torch.no_grad()
def fill(own: Tensor, value: Tensor) -> None:
    """Copy a tensor, whole or in shards, into one that is whole or in shards."""
    local(own).copy_(local(like(own, value)) if in_shards(own) else value)
