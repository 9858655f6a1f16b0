"""Several processes: who this one is, what they tell each other, a gather that gradients pass.

Objectives take the gather as an argument. With the gather below and gradients averaged over the
processes, as the loop does, the gradient is that of the joined batch.

What the processes tell each other beside tensors travels as JSON: nothing is pickled. Alone, every
function here answers at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sightline.core.errors import SightlineError, TrainingError

T = TypeVar("T")


class EndedByAnotherError(TrainingError):
    """This process ends because another one of the group has failed, which says why itself."""


def joined() -> bool:
    """Whether this process belongs to a group, be it alone in it."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number among those that train together; 0 alone."""
    return dist.get_rank() if joined() else 0


def world_size() -> int:
    """How many processes train together; 1 alone."""
    return dist.get_world_size() if joined() else 1


def processes_here() -> int:
    """How many of them run on this machine."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(world_size(), int(here)) if here.isdigit() and int(here) else world_size()


def total(values: Sequence[float]) -> list[float]:
    """Each value summed over the processes, in float64; every process gives equally many."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(value: int) -> int:
    """The largest of the processes' values."""
    return int(_reduced([value], dist.ReduceOp.MAX)[0])


def _reduced(values: Sequence[float], how: Any) -> list[float]:
    if world_size() == 1:
        return [float(value) for value in values]
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, how)
    reduced: list[float] = tensor.tolist()
    return reduced


def exchange(value: Any) -> list[Any]:
    """What every process gives here, in the order of their ranks, as JSON gives it back."""
    if world_size() == 1:
        return [value]
    own = _packed(value)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(own)]))
    lengths = [int(size) for size in sizes]
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [_unpacked(part[:length]) for part, length in zip(parts, lengths, strict=True)]


def first(work: Callable[[], T]) -> T:
    """Do the work in the first process alone; every process gets what came out, by way of JSON.

    Raises:
        EndedByAnotherError: in the other processes, with the message of what the first one raised.
    """
    if world_size() == 1:
        return work()
    result, failure = None, None
    if rank() == 0:
        try:
            result = work()
        except Exception as error:
            failure = error
    told = {"result": result} if failure is None else {"error": message_of(failure)}
    told = _from_first(told)
    if failure is not None:
        raise failure
    if "error" in told:
        raise EndedByAnotherError(f"process 0 failed first: {told['error']}")
    answer: T = told["result"]
    return answer


def message_of(error: BaseException) -> str:
    """An error in one line for a person; the kind is named where the text was not written for one.

    The same text in every process that meets the same error, however it was told of it.
    """
    return str(error) if isinstance(error, SightlineError) else f"{type(error).__name__}: {error}"


def _from_first(value: Any) -> Any:
    packed = _packed(value) if rank() == 0 else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(packed)])
    dist.broadcast(size, 0)
    if rank() != 0:
        packed = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(packed, 0)
    return _unpacked(packed)


def _packed(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _unpacked(text: Tensor) -> Any:
    return json.loads(text.numpy().tobytes())


def all_gather_with_grad(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows of all processes, in the order of their ranks; every process has equally many.

    Backward, each process receives the sum of what all processes' losses say about its rows.
    """
    if not joined() or dist.get_world_size(group) == 1:
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
