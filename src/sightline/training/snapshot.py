"""What a checkpoint holds: where a run stands, and the tensors that go on learning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError, TrainingError, unknown_name
from sightline.training.averages import WeightAverage
from sightline.training.checkpoints import checkpoint_folders
from sightline.training.cost import RunSummary
from sightline.training.optimisers import optimiser_tensors


@dataclass
class RunState:
    """Where a run stands, beside tensors, random states and the loader's position."""

    step: int = 0
    stage: int = 0
    evaluated: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    best_score: float | None = None
    best: str | None = None
    loss: float = math.nan
    pictures: int = 0
    seconds: float = 0.0
    flops: int = 0
    flops_per_step: int = 0
    peak_memory_bytes: int = 0
    window: dict[str, float] = field(default_factory=dict)
    """Sums since the last line of the log."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The state from a checkpoint, where numbers that are not finite are null."""
        state = cls(**values)
        state.loss = _number(state.loss)
        state.scores = {name: _number(value) for name, value in state.scores.items()}
        state.window = {name: _number(value) for name, value in state.window.items()}
        return state

    def summary(self, stopped: str, out: Path, newest: Path) -> RunSummary:
        """The state as the end of a run."""
        return RunSummary(
            steps=self.step,
            loss=self.loss,
            best_score=self.best_score,
            scores=self.scores,
            pictures=self.pictures,
            hours=self.seconds / 3600,
            flops=self.flops,
            peak_memory_bytes=self.peak_memory_bytes,
            stopped=stopped,
            out=out,
            checkpoint=newest,
            best=newest if self.best is None else newest.with_name(self.best),
        )


def refuse_not_finite(loss: float, norm: float, step: int, stage: str, root: Path) -> None:
    """Refuse an update from a loss or a gradient that is not finite.

    Raises:
        TrainingError: naming the step and the last checkpoint.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"loss became {loss}" if not math.isfinite(loss) else f"gradient's norm is {norm}"
    done = checkpoint_folders(root)
    raise TrainingError(
        f"the {what} at step {step} (stage {stage!r}); the last good checkpoint is "
        f"{done[-1] if done else 'not there yet'}. Try a lower lr, a longer warmup or a smaller "
        "clip, with allow_changes=True to go on from that checkpoint"
    )


def is_better(score: str, scores: Mapping[str, float], best: float | None) -> bool:
    """Whether the score of that name is at least the best one; "-" before it: lower is better.

    Of equal scores the later one wins: it has learned longer, and on few pictures ties are common.

    Raises:
        ConfigError: there is no score of that name.
    """
    name = score.removeprefix("-")
    if name not in scores:
        raise ConfigError(unknown_name("score", name, scores))
    if not math.isfinite(scores[name]):
        return False
    sign = -1 if score.startswith("-") else 1
    return best is None or sign * scores[name] >= sign * best


def join_tensors(
    network: nn.Module, average: WeightAverage | None, optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Every tensor that a later step depends on: "network/...", "average/...", "optimiser/..."."""
    parts = {
        "network": network.state_dict(),
        "average": {} if average is None else average.shadow,
        "optimiser": optimiser_tensors(optimiser),
    }
    return {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}


def split_tensors(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimiser": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    return parts


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put saved weights into a network that has them whole.

    Raises:
        CheckpointError: they are those of another network.
    """
    refuse_other_weights(network.state_dict(), tensors, folder)
    network.load_state_dict(tensors)


def refuse_other_weights(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path
) -> None:
    """Compare names and shapes with those of the network.

    Raises:
        CheckpointError: they differ, with a list of - saved and + own lines.
    """
    lines = [f"- {n} {tuple(t.shape)}" for n, t in tensors.items()
             if n not in own or own[n].shape != t.shape]  # fmt: skip
    lines += [f"+ {n} {tuple(t.shape)}" for n, t in own.items()
              if n not in tensors or tensors[n].shape != t.shape]  # fmt: skip
    if lines:
        raise CheckpointError(
            f"the weights in {folder} (-) are not those of this network (+): build the network "
            "that the run was started with, or choose another folder\n" + "\n".join(lines[:20])
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
