"""How much memory a computation holds from moment to moment, found without allocating any.

The computation runs on tensors that have shapes and a device and no memory (torch's fake tensors),
so that the kernels are those that the device would choose. Every new storage and its end are
written down (`memory_trace`). Two runs of different batch sizes tell how each storage grows: not at
all, with the batch, or with its square, as a matrix of all pairs does. Any further batch is then a
sum.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sightline.nn import attention
from sightline.nn.four_bit import FourBitLinear
from sightline.nn.meta import without_memory
from sightline.recipes.heap import Heap
from sightline.recipes.memory_trace import Recorder, Trace
from sightline.recipes.rehearsal import Work, answer, build, empty_batch, learn

SMALL, LARGE = 2, 4
"""Pictures of the two runs."""
MOST_RECORDED = 2
"""Micro-batches that are run; further ones repeat what the last one holds."""


@dataclass(frozen=True)
class MemoryModel:
    """What some work holds, for any batch."""

    work: Work
    small: Trace
    large: Trace
    learning: int
    """Bytes of the parameters that learn."""
    parameters: int
    device: str

    def peak(self, batch: int) -> dict[str, int]:
        """Bytes of each part at the worst moment of a step, AdamW's two moments included.

        On a CPU "allocator" is what the C library keeps beyond the tensors.
        """
        sizes = self._sizes(batch)
        parts = self.small.parts
        held = dict.fromkeys(sorted(set(parts)), 0)
        now = most = 0
        worst = dict(held)
        for number, begins in self.small.events:
            change = sizes[number] if begins else -sizes[number]
            now += change
            held[parts[number]] += change
            if now > most:
                most, worst = now, dict(held)
        parts_then = {**worst, "optimiser": 2 * self.learning}
        if self.device == "cpu":
            parts_then["allocator"] = max(0, self._kept(sizes) - total(parts_then))
        return parts_then

    def _kept(self, sizes: list[int]) -> int:
        """Bytes that the heap holds at most, over two steps: the moments come between them."""
        heap, parts = Heap(), self.small.parts
        lasting = {number for number, _ in self.small.events}

        def follow(number: int, begins: bool) -> None:
            if begins:
                graph = self.work.trains and parts[number] in ("activations", "logits", "loss")
                heap.take(number, sizes[number], graph)
            else:
                heap.give(number)

        for number, begins in self.small.events:
            follow(number, begins)
            if not begins:
                lasting.discard(number)
        for number in sorted(n for n in lasting if parts[n] == "gradients"):
            for moment in (1, 2):
                heap.take(number + moment * len(sizes), sizes[number])
        weights = {number for number in lasting if parts[number] == "weights"}
        for number in sorted(lasting - weights):
            heap.give(number)
        for number, begins in self.small.events:
            if number not in weights:
                follow(number, begins)
        return heap.most

    def _sizes(self, batch: int) -> list[int]:
        more = self.work.accumulate / min(self.work.accumulate, MOST_RECORDED)
        columns = zip(self.small.parts, self.small.sizes, self.large.sizes, strict=True)
        return [_size(part, a, b, batch, more) for part, a, b in columns]


def _size(part: str, small: int, large: int, batch: float, more: float) -> int:
    """Of one storage: those of the joined batch and those of one micro-batch grow differently."""
    if part == "loss":
        batch *= more
    if large == small * (LARGE // SMALL) ** 2:
        return round(small * (batch / SMALL) ** 2)
    slope = (large - small) / (LARGE - SMALL)
    size = max(0.0, small + slope * (batch - SMALL))
    return round(size * more if part == "pictures" else size)


def memory_model(work: Work, device: str) -> MemoryModel:
    """Run the work twice without memory.

    Args:
        device: "cpu" or "cuda"; it need not be present. Where it is not, the CPU's kernels stand in
            for those that it would choose.

    Raises:
        UnsupportedTaskError: work that the system cannot do.
    """
    followed = device if device != "cuda" or torch.cuda.is_available() else "cpu"
    with _scores_written_out(device == "cpu"):
        small, network = _record(work, followed, SMALL)
        large, _ = _record(work, followed, LARGE)
    assert small.events == large.events, "the computation depends on the number of pictures"
    learning = sum(4 * p.numel() for p in network.parameters() if p.requires_grad)
    stored = [m for m in network.modules() if isinstance(m, FourBitLinear)]
    counted = sum(p.numel() for p in network.parameters())
    counted += sum(m.in_features * m.out_features for m in stored)
    return MemoryModel(work, small, large, learning, counted, device)


@contextmanager
def _scores_written_out(wanted: bool) -> Iterator[None]:
    """Whether short attention in bfloat16 writes its scores out, which is quick on a CPU alone."""
    before = attention.MOST_SCORES
    attention.MOST_SCORES = before if wanted else 0
    try:
        yield
    finally:
        attention.MOST_SCORES = before


def _record(work: Work, device: str, batch: int) -> tuple[Trace, nn.Module]:
    with without_memory():
        network = build(work)
    recorder = Recorder(device)
    with _no_collection(), FakeTensorMode(), torch.device(device), recorder:
        with recorder.mark("weights"):
            _pretend(network)
        with recorder.mark("pictures"):
            count = min(work.accumulate, MOST_RECORDED) if work.trains else 1
            batches = [empty_batch(work, batch) for _ in range(count)]
        if work.trains:
            learn(work, network, batches, recorder.mark)
        else:
            answer(work, network, batches[0], recorder.mark)
        for parameter in network.parameters():
            if parameter.grad is not None:
                recorder.belongs(parameter.grad, "gradients")
        trace = recorder.close()
    return trace, network


def _pretend(network: nn.Module) -> None:
    """Replace parameters and buffers, in place, by such as the default device would hold."""
    new: dict[int, Tensor] = {}  # what is shared stays shared
    for module in network.modules():
        for name, old in module._parameters.items():
            if old is not None:
                fresh = nn.Parameter(torch.empty(old.shape, dtype=old.dtype), old.requires_grad)
                module._parameters[name] = cast(nn.Parameter, new.setdefault(id(old), fresh))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                made = torch.empty(buffer.shape, dtype=buffer.dtype)
                module._buffers[name] = new.setdefault(id(buffer), made)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Storages end with their last reference, in an order that repeats itself."""
    active = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if active:
            gc.enable()


def total(parts: Mapping[str, int]) -> int:
    """Of all parts together."""
    return sum(parts.values())
