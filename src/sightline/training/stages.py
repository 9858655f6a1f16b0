"""Stages of a run: which parameters learn, how fast, and for how long.

Patterns are those of `core.patterns` on parameter names: ("*", "!vision.*") is all but the vision
tower. Models know nothing of any of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.patterns import select
from sightline.training.schedules import SCHEDULES

NO_DECAY = ("*bias", "*bias_table", "*norm*", "*scale")


@dataclass(frozen=True)
class Group:
    """Parameters of a stage that learn at a rate of their own."""

    patterns: tuple[str, ...]
    lr_scale: float = 1.0
    """Times the stage's learning rate."""
    weight_decay: float | None = None
    """None: the stage's."""
    warmup: int | None = None
    """Steps over which the rate rises in a line, beside the stage's own warm-up."""

    def __post_init__(self) -> None:
        if self.warmup is not None and self.warmup < 0:
            raise ConfigError(
                f"group {self.patterns}: a warm-up of {self.warmup} steps: use 0 or more"
            )


@dataclass(frozen=True)
class Stage:
    """One phase of a run, with AdamW that starts afresh (Loshchilov and Hutter 2019)."""

    name: str
    steps: int
    lr: float = 1e-3
    """The rate after warm-up."""
    trainable: tuple[str, ...] = ("*",)
    """The rest stays bit-identical, and modules of which nothing learns are in eval mode. A
    parameter that reaches `train` with requires_grad off stays frozen whatever is written here."""
    groups: tuple[Group, ...] = ()
    """The first group that fits a parameter takes it; the rest learns at `lr`."""
    weight_decay: float = 0.0
    """Per step, times the learning rate."""
    no_decay: tuple[str, ...] = NO_DECAY
    """These, and every tensor of fewer than two dimensions, do not decay."""
    warmup: int = 0
    """Steps until the rate is reached."""
    schedule: str = "cosine"
    """"cosine", "linear" or "constant"."""
    final_lr: float = 0.0
    """Where the schedule ends, as a fraction of `lr`."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = 1.0
    """Largest norm of the gradient; None never clips."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(unknown_name("schedule", self.schedule, SCHEDULES))
        if self.steps < 1 or not 0 <= self.warmup <= self.steps:
            raise ConfigError(
                f"stage {self.name!r} has {self.steps} steps and {self.warmup} of warm-up: "
                "use at least one step, and a warm-up that is no longer than the stage"
            )
        if not self.lr >= 0 or not self.weight_decay >= 0 or not 0 <= self.final_lr <= 1:
            raise ConfigError(
                f"stage {self.name!r}: lr {self.lr} and weight_decay {self.weight_decay} must "
                f"not be negative, and final_lr {self.final_lr} is a fraction from 0 to 1"
            )
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(
                f"stage {self.name!r}: clip {self.clip} must be above 0; None switches clipping off"
            )


def begin_stage(network: nn.Module, stage: Stage, fixed: frozenset[str]) -> list[str]:
    """Freeze all but the stage's parameters and set every module's mode.

    Args:
        fixed: names of parameters that no stage trains.

    Returns:
        The names of the parameters that learn.

    Raises:
        ConfigError: nothing would learn, or a learning parameter is in half precision.
    """
    parameters = dict(network.named_parameters())
    names = select(list(parameters), stage.trainable, f"stage {stage.name!r}, trainable")
    learning = [name for name in names if name not in fixed]
    if not learning:
        raise ConfigError(
            f"stage {stage.name!r}: nothing learns; every parameter that {stage.trainable} takes "
            "arrived with requires_grad off"
        )
    coarse = [n for n in learning if parameters[n].dtype in (torch.float16, torch.bfloat16)]
    if coarse:
        raise ConfigError(
            f"stage {stage.name!r}: {coarse[0]} is {parameters[coarse[0]].dtype} and would lose "
            "small updates: load the network in float32 and train under autocast='bfloat16'"
        )
    chosen = set(learning)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen)
    set_modes(network)
    return learning


def lock(network: nn.Module, part: str) -> None:
    """Take a part of the network out of all training: no gradient, no decay, eval mode.

    Args:
        part: name of the module, "image". Parameters that only begin like it ("image_head") learn.
    """
    network.get_submodule(part).requires_grad_(False).eval()


def set_modes(network: nn.Module) -> None:
    """Training mode, but eval mode for every module of which nothing learns.

    A frozen batch norm keeps its statistics and a frozen tower has no dropout.
    """
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@contextmanager
def restored_flags(network: nn.Module) -> Iterator[None]:
    """Afterwards parameters are frozen or not, and the network in the mode, as before."""
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    training = network.training
    try:
        yield
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(flags[name])
        network.train(training)
