"""AdamW over the parameters of a stage, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sightline.core.errors import CheckpointError
from sightline.core.patterns import fits, select
from sightline.training.schedules import rate_factor
from sightline.training.shards import in_shards, like
from sightline.training.stages import Group, Stage


def build_optimiser(network: nn.Module, stage: Stage, learning: Sequence[str]) -> torch.optim.AdamW:
    """AdamW with one group per learning rate and weight decay.

    Each group carries `names` (in the order of its parameters), `lr_scale` and its own `warmup`.

    Raises:
        ConfigError: a group's pattern that fits no parameter that learns.
    """
    parameters = dict(network.named_parameters())
    rest = Group(("*",))
    for number, group in enumerate(stage.groups):
        select(learning, group.patterns, f"stage {stage.name!r}, group {number}")
    members: dict[tuple[float, int, float, bool], list[str]] = {}
    for name in learning:
        group = next((g for g in stage.groups if fits(name, g.patterns)), rest)
        decay = stage.weight_decay if group.weight_decay is None else group.weight_decay
        if parameters[name].ndim < 2 or fits(name, stage.no_decay):
            decay = 0.0
        # one call of the kernel takes either shards or whole tensors
        key = (group.lr_scale, group.warmup or 0, decay, in_shards(parameters[name]))
        members.setdefault(key, []).append(name)
    groups: list[dict[str, Any]] = [
        {
            "params": [parameters[name] for name in names],
            "names": names,
            "lr_scale": lr_scale,
            "warmup": warmup,
            "weight_decay": decay,
        }
        for (lr_scale, warmup, decay, _), names in members.items()
    ]
    # the fused kernel is four times as fast as the default one on two cores
    fused = {parameters[name].device.type for name in learning} <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, lr=stage.lr, betas=stage.betas, eps=stage.eps, fused=fused)


def set_rate(optimiser: torch.optim.Optimizer, stage: Stage, step: int) -> float:
    """Set every group's rate for update number `step` of the stage, from 0; the stage's rate."""
    factor = rate_factor(step, stage.steps, stage.warmup, stage.schedule, stage.final_lr)
    for group in optimiser.param_groups:
        rising = min(1.0, (step + 1) / max(1, group["warmup"]))
        group["lr"] = stage.lr * group["lr_scale"] * factor * rising
    return stage.lr * factor


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of the optimiser's state, as "parameter/moment"."""
    return {
        f"{name}/{kind}": value
        for group in optimiser.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for kind, value in optimiser.state.get(parameter, {}).items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Continue from saved moments, the inverse of `optimiser_tensors`.

    Raises:
        CheckpointError: moments of parameters that do not learn here, or of another shape.
    """
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, kind = key.rpartition("/")
        states.setdefault(name, {})[kind] = value
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if name in states:
                optimiser.state[parameter] = _fitted(name, states.pop(name), parameter)
    if states:
        raise CheckpointError(
            f"the checkpoint has optimiser moments of {next(iter(states))!r} and {len(states) - 1} "
            "more, which do not learn in this stage: start a new run in another folder"
        )


def _fitted(name: str, state: dict[str, Tensor], parameter: nn.Parameter) -> dict[str, Tensor]:
    for kind, value in state.items():
        if value.ndim and value.shape != parameter.shape:
            raise CheckpointError(
                f"the checkpoint's {kind} of {name!r} has the shape {tuple(value.shape)}, the "
                f"network's parameter {tuple(parameter.shape)}: start a new run in another folder"
            )
    # the step count stays on the CPU unless the kernel is a fused one on the GPU
    return {
        kind: (like(parameter, value) if value.ndim else value.to(parameter.device, copy=True))
        for kind, value in state.items()
    }
