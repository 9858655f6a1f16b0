"""Settings of a run that belong neither to the model nor to a stage."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from sightline.core.devices import fast_bfloat16
from sightline.core.errors import ConfigError, unknown_name

AUTOCAST = ("off", "bfloat16", "auto")
PARALLEL = ("auto", "none", "ddp", "fsdp")


class Progress(Protocol):
    """Draws how far a run is."""

    def prepare(self, done: int, total: int, what: str, /) -> None:
        """Called on the way to the first step: so many pictures are done; `what` names the work."""

    def update(
        self,
        step: int,
        total: int,
        loss: float,
        pictures_per_second: float,
        seconds_left: float,
        /,
    ) -> None:
        """Called after every step."""


@dataclass(frozen=True)
class LoopOptions:
    """Everything about a run that belongs neither to the model nor to a stage."""

    seed: int = 0
    accumulate: int = 1
    """Micro-batches per optimiser step."""
    autocast: str = "off"
    """"off", "bfloat16", or "auto": bfloat16 where the device multiplies it in hardware. The
    backward pass of a step runs outside it."""
    ema: float | None = None
    """Decay of the average of the weights that is evaluated and saved as the model."""
    eval_every: int | None = None
    """Steps; the end is always evaluated."""
    save_every: int | None = 500
    """Steps; a better score, a stop and the end always save."""
    log_every: int = 1
    """Steps that one line of the log averages over."""
    keep: int = 2
    """Newest checkpoints to keep; the best one is kept besides."""
    minutes: float | None = None
    """Stop with a checkpoint after this much time, that of earlier resumptions included."""
    compile: bool = False
    parallel: str = "auto"
    """How several processes share the work: "ddp" (the whole network in each, what "auto" takes)
    or "fsdp" (each keeps a part). A run may go on with another number or kind."""
    activation_checkpointing: bool = False
    """Keep only what enters each block and compute the rest again on the way back: less memory,
    about a third more arithmetic, the same gradient."""
    plot: bool = True
    """Draw curves.png, where matplotlib is installed."""
    allow_changes: bool = False
    """Go on from a checkpoint although the settings have changed."""

    def __post_init__(self) -> None:
        if self.autocast not in AUTOCAST:
            raise ConfigError(unknown_name("autocast", self.autocast, AUTOCAST))
        if self.parallel not in PARALLEL:
            raise ConfigError(unknown_name("parallel", self.parallel, PARALLEL))
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ConfigError(f"ema {self.ema} is not a decay: use 0 <= ema < 1, or None")
        for name in ("accumulate", "log_every", "keep", "eval_every", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} must be at least 1")


def autocast(wanted: str, device: str) -> AbstractContextManager[object]:
    """Within the block products are in bfloat16, where the setting and the device ask for it.

    Args:
        wanted: one of `AUTOCAST`.
        device: its type, "cuda".
    """
    if wanted == "off" or (wanted == "auto" and not fast_bfloat16(device)):
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
