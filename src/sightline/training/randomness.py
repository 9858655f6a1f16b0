"""The state of every random generator that a training step may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class TorchState(NamedTuple):
    """Torch's generators, which draw dropout and noise."""

    cpu: Tensor
    """uint8[state]"""
    cuda: Tensor | None
    """uint8[state] of the current CUDA device; None where there is none."""


def torch_state() -> TorchState:
    """The state of torch's generators now."""
    # a GPU that nothing has used yet is left alone
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return TorchState(torch.get_rng_state(), cuda)


def restore_torch(state: TorchState) -> None:
    """Put torch's generators back to an earlier state."""
    torch.set_rng_state(state.cpu)
    if state.cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.cuda)


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


def seed_all(seed: int) -> None:
    """Seed the generators of torch, numpy and Python."""
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
