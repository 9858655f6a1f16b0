"""Processes in a ring: each hands what it has to the next one and takes it from the one before.

Losses take the ring in the place of the gather (`objectives.exchange`), so that no process ever
holds the embeddings of all.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from sightline.objectives.exchange import Ring


def ring_exchange(group: dist.ProcessGroup | None = None) -> Ring:
    """The ring of the processes of a group, by default of all; alone, a ring of one.

    Tensors of the same order must have the same shape and type everywhere: every process brings
    equally many rows.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return Ring(0, 1, lambda tensors: tensors)
    rank, size = dist.get_rank(group), dist.get_world_size(group)

    def pass_on(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return _pass_on(tensors, (rank + 1) % size, (rank - 1) % size, group)

    return Ring(rank, size, pass_on)


@torch.no_grad()
def _pass_on(
    tensors: tuple[Tensor, ...], following: int, previous: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, ...]:
    outgoing = [tensor.contiguous() for tensor in tensors]
    incoming = [torch.empty_like(tensor) for tensor in outgoing]
    transfers = []
    # both directions are started before either is awaited: two processes that first sent and then
    # received would wait for each other
    for number, (gone, come) in enumerate(zip(outgoing, incoming, strict=True)):
        send = dist.P2POp(dist.isend, gone, group=group, tag=number, group_peer=following)
        take = dist.P2POp(dist.irecv, come, group=group, tag=number, group_peer=previous)
        transfers += [send, take]
    for work in dist.batch_isend_irecv(transfers):
        work.wait()
    return tuple(incoming)
