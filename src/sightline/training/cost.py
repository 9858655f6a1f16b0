"""What a run cost: floating-point operations, hours, peak memory."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class RunSummary:
    """The end of a run, counted over all its resumptions."""

    steps: int
    loss: float
    """Of the last step."""
    best_score: float | None
    scores: Mapping[str, float]
    """Of the last evaluation."""
    pictures: int
    hours: float
    flops: int
    """Forward and backward passes: measured on the first step of each stage, then multiplied."""
    peak_memory_bytes: int
    """Of the GPU where there is one, else of the process."""
    stopped: str
    """"finished", "signal" or "minutes"."""
    out: Path
    checkpoint: Path
    """The newest checkpoint: a folder that also holds the saved model."""
    best: Path
    """The checkpoint with the best score; the newest one where nothing is scored."""

    @property
    def cost(self) -> str:
        """One line for a person."""
        return (
            f"{self.steps} steps, {self.pictures} pictures, {self.flops:.2e} FLOPs, "
            f"{self.hours:.2f} hours, {self.peak_memory_bytes / 1e9:.2f} GB peak memory"
        )


class Pace:
    """Seconds a step and pictures a second, over about the last twenty steps."""

    def __init__(self) -> None:
        self._weight = self._seconds = self._pictures = 0.0

    def add(self, pictures: int, seconds: float) -> None:
        """Count one step."""
        self._weight = 0.95 * self._weight + 1
        self._seconds = 0.95 * self._seconds + seconds
        self._pictures = 0.95 * self._pictures + pictures

    @property
    def seconds_per_step(self) -> float:
        return self._seconds / max(self._weight, 1.0)

    @property
    def pictures_per_second(self) -> float:
        return self._pictures / max(self._seconds, 1e-9)


def count_flops(work: Callable[[], T]) -> tuple[T, int]:
    """Run `work` and count its floating-point operations, those of backward passes too.

    Products and convolutions are counted, two operations per multiply-add; pointwise work is not.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings():
        # its table per module warns when a module runs twice in a step; only the sum is used
        warnings.simplefilter("ignore")
        with counter:
            result = work()
    return result, int(counter.get_total_flops())


def peak_memory_bytes() -> int:
    """The largest memory so far: of the current CUDA device, else of this process; 0 unknown."""
    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kibibytes
