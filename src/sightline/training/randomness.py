"""The state of every random generator that a training step may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sightline.training import distributed


class TorchState(NamedTuple):
    """Torch's generators, which draw dropout and noise."""

    cpu: Tensor
    """uint8[state]"""
    cuda: Tensor | None
    """uint8[state] of the CUDA device; None where there is none."""
    device: torch.device | None = None
    """Which accelerator `cuda` or `mps` belongs to; None is the current CUDA device."""
    mps: Tensor | None = None
    """uint8[state] of Apple's GPU, where that is the device."""


def torch_state(device: torch.device | None = None) -> TorchState:
    """The state of torch's generators now: the CPU's and that of `device`.

    Without a device it is the current CUDA device's, where one has been used.
    """
    mps = torch.mps.get_rng_state() if device is not None and device.type == "mps" else None
    # a GPU that nothing has used yet is left alone
    used = torch.cuda.is_initialized()
    cuda = torch.cuda.get_rng_state(_cuda(device)) if used else None
    return TorchState(torch.get_rng_state(), cuda, device, mps)


def restore_torch(state: TorchState) -> None:
    """Put torch's generators back to an earlier state."""
    torch.set_rng_state(state.cpu)
    if state.cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.cuda, _cuda(state.device))
    if state.mps is not None:
        torch.mps.set_rng_state(state.mps)


def _cuda(device: torch.device | None) -> torch.device:
    return device if device is not None and device.type == "cuda" else torch.device("cuda")


def capture() -> dict[str, Any]:
    """The state of the generators of torch, numpy and Python, as JSON can hold it."""
    state = torch_state()
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, carried = random.getstate()
    return {
        "torch": state.cpu.numpy().tobytes().hex(),
        "cuda": None if state.cuda is None else state.cuda.numpy().tobytes().hex(),
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), carried],
    }


def restore(state: dict[str, Any]) -> None:
    """Put every generator back to a captured state; the inverse of `capture`."""
    cuda = None if state["cuda"] is None else _bytes_tensor(state["cuda"])
    restore_torch(TorchState(_bytes_tensor(state["torch"]), cuda))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, words, carried = state["python"]
    random.setstate((version, tuple(words), carried))


def restore_share(first: dict[str, Any], others: Sequence[dict[str, Any]], seed: int) -> None:
    """Put the generators of this process, of several, back to a captured state.

    A process that had no share when the states were captured begins with a seed of its own.

    Args:
        first: the state of the first process.
        others: of the second and further ones.
    """
    number = distributed.rank()
    if number == 0:
        restore(first)
    elif number <= len(others):
        restore(others[number - 1])
    else:
        seed_all(seed, number)


def seed_all(seed: int, number: int = 0) -> None:
    """Seed the generators of torch, numpy and Python; those of process `number` differently."""
    seed += 1_000_003 * number
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever the block draws, the generators afterwards are where they were before it."""
    before = capture()
    try:
        yield
    finally:
        restore(before)


def _bytes_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
