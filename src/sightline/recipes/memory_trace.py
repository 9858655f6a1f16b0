"""What a computation without memory would take from it, written down as it happens.

Real numbers have shapes, a type and a device, and no values (torch's fake tensors). Whole numbers
and truth values are computed, since where a token lies and whether it counts decide over shapes.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CHOOSING_OPERATIONS = (
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten._index_put_impl_,
)


@dataclass
class Trace:
    """Storages by number in the order of their birth, and when each began and ended."""

    sizes: list[int] = field(default_factory=list)
    """Bytes."""
    parts: list[str] = field(default_factory=list)
    """Of the plan: weights, gradients, activations, logits, loss, pictures."""
    events: list[tuple[int, bool]] = field(default_factory=list)
    """Number, and whether it begins; in the order of time."""


class Recorder(TorchDispatchMode):
    """Writes down every storage that appears while it is active.

    Args:
        device: what tensors without memory are said to be on.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.trace = Trace()
        self.part = "activations"
        self.device = torch.device(device)
        self._numbers: dict[int, int] = {}
        self._open = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if self.part != "weights" and _about_whole_numbers(func, tensors, args, kwargs):
            if "device" in kwargs:
                kwargs = {**kwargs, "device": torch.device("cpu")}
            with unset_fake_temporarily():
                result = func(*args, **kwargs)
        elif func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # there is no value; losses are asked for theirs
        else:
            if not all(isinstance(tensor, FakeTensor) for tensor in tensors):
                args, kwargs = tree_map_only(Tensor, self._forget, (_by_number(func, args), kwargs))
            result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return result

    @contextmanager
    def mark(self, part: str) -> Iterator[None]:
        """Within the block new storages belong to that part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def belongs(self, tensor: Tensor, part: str) -> None:
        """Say afterwards what a tensor's storage was for."""
        self.trace.parts[self._numbers[tensor.untyped_storage()._cdata]] = part

    def close(self) -> Trace:
        """What was recorded; what ends from now on is not.

        What ends together is put in order: autocast drops its casts by their addresses.
        """
        self._open = False
        runs = (list(run) for _, run in groupby(self.trace.events, key=itemgetter(1)))
        self.trace.events = [event for run in runs for event in (run if run[0][1] else sorted(run))]
        return self.trace

    def _forget(self, tensor: Tensor) -> Tensor:
        """A tensor of whole numbers as one without memory, beside such as have none."""
        if isinstance(tensor, FakeTensor):
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._numbers:
            return
        number = self._numbers[key] = len(self.trace.sizes)
        self.trace.sizes.append(storage.nbytes())
        self.trace.parts.append(self.part)
        self.trace.events.append((number, True))
        weakref.finalize(storage, self._end, key).atexit = False

    def _end(self, key: int) -> None:
        if self._open:
            self.trace.events.append((self._numbers.pop(key), False))


def _about_whole_numbers(
    func: Any, tensors: list[Tensor], args: tuple[Any, ...], kwargs: Any
) -> bool:
    """Whether an operation takes and gives nothing but whole numbers and truth values."""
    kind = kwargs.get("dtype")
    if kind is not None and _real(kind):
        return False
    if tensors:
        return not any(isinstance(t, FakeTensor) or _real(t.dtype) for t in tensors)
    if func.overloadpacket is torch.ops.aten.arange and kind is None:
        return all(isinstance(bound, int) for bound in args)
    return kind is not None


def _real(kind: torch.dtype) -> bool:
    return kind.is_floating_point or kind.is_complex


def _by_number(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Choosing by truth values turned to choosing by number: only so is it known how many."""
    if func.overloadpacket not in CHOOSING_OPERATIONS:
        return args
    places: list[Tensor | None] = []
    for index in args[1]:
        if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
            places.append(index)
        else:
            with unset_fake_temporarily():
                places += index.nonzero(as_tuple=True)
    return (args[0], places, *args[2:])
