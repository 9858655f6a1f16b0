"""A small pair network in float64 and the runs by which one process and several are compared."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.data.loader import Loader
from sightline.data.shares import Share
from sightline.nn import lora
from sightline.nn.linear import Linear
from sightline.objectives.contrastive import alone, sigmoid_contrastive, softmax_contrastive
from sightline.training import distributed
from sightline.training.accumulation import (
    Step,
    StepResult,
    WeightedLoss,
    accumulate,
    backward,
    cached_contrastive,
)
from sightline.training.loop import LoopOptions, RunSummary, train
from sightline.training.stages import Group, Stage

BATCH, STEPS = 8, 6


class Tower(nn.Module):
    """Blocks in a stack, and parameters outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 5)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return F.normalize(self.norm(x), dim=-1)


class Towers(nn.Module):
    """Two towers, scale and bias without dimensions, a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = Tower(), Tower()
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0))
        self.spare = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.image(rows[:, :6]), self.text(rows[:, 6:12])


def network() -> Towers:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Towers().double()


def adapted() -> Towers:
    """The same with additions to the blocks of the picture's tower; nothing else learns."""
    towers = network()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        for block in towers.image.blocks:
            assert isinstance(block, nn.Sequential)
            for place in (0, 2):
                plain = block[place]
                layer = Linear(plain.in_features, plain.out_features).double()
                layer.load_state_dict(plain.state_dict())
                block[place] = layer
        lora.add(towers, 2, targets=["image.*"])
    return towers


def loader(rows: int = 44) -> Loader[Tensor]:
    generator = torch.Generator().manual_seed(5)
    table = list(torch.randn(rows, 13, generator=generator, dtype=torch.float64))
    share = None
    if distributed.world_size() > 1:
        share = Share(distributed.rank(), distributed.world_size(), distributed.exchange)
    return Loader(table, torch.stack, BATCH, seed=2, share=share)


def pairs(objective: str, gathered: bool = True) -> Step:
    def loss(net: nn.Module, embeddings: tuple[Tensor, ...]) -> Tensor:
        image, text = embeddings
        where: dict[str, Any] = {"gather": alone}
        if gathered:
            where = {
                "gather": distributed.all_gather_with_grad,
                "first_row": distributed.rank() * len(image),
            }
        scale = net.logit_scale.exp()
        if objective == "softmax":
            return softmax_contrastive(image, text, scale, **where)
        return sigmoid_contrastive(image, text, scale, net.logit_bias, **where)

    return cached_contrastive(lambda net, rows: net(rows), loss)


def weighted(net: nn.Module, rows: Tensor) -> WeightedLoss:
    """Examples of very different weight: a mean of the processes' means would be another loss."""
    image, text = net(rows)
    weights = rows[:, 12].abs() ** 3
    errors = (weights * (image - text).square().sum(dim=1)).sum()
    return WeightedLoss(errors, weights.sum(), {"error": (errors / weights.sum()).detach()})


def mean_of_means(net: nn.Module, batches: list[Tensor]) -> StepResult:
    """The mistake: each process divides by its own weight."""
    part = weighted(net, batches[0])
    value = part.sum / part.weight
    backward(value)
    return StepResult(value.item(), {"error": value.item()}, len(batches[0]))


PLAIN = (Stage("all", STEPS, lr=0.02, weight_decay=0.1, clip=0.05),)
STAGED = (
    Stage("heads", 3, lr=0.02, trainable=("*", "!image.*"), warmup=2, weight_decay=0.1),
    Stage("all", 3, lr=0.01, groups=(Group(("text.*",), 0.3, 0.0),), weight_decay=0.2, clip=0.1),
)


@dataclass(frozen=True)
class Scenario:
    """One run, whatever the number of processes."""

    step: Callable[[], Step]
    stages: tuple[Stage, ...] = PLAIN
    options: LoopOptions = field(default_factory=lambda: LoopOptions(plot=False))
    network: Callable[[], nn.Module] = network


SCENARIOS = {
    "softmax": Scenario(lambda: pairs("softmax")),
    "sigmoid": Scenario(lambda: pairs("sigmoid")),
    "cached": Scenario(
        lambda: pairs("sigmoid"), STAGED, LoopOptions(accumulate=2, ema=0.8, plot=False)
    ),
    "lora": Scenario(
        lambda: pairs("sigmoid"),
        options=LoopOptions(accumulate=2, ema=0.8, plot=False),
        network=adapted,
    ),
    "weighted": Scenario(
        lambda: accumulate(weighted), STAGED, LoopOptions(accumulate=3, ema=0.8, plot=False)
    ),
    "recomputed": Scenario(
        lambda: pairs("softmax"), options=LoopOptions(activation_checkpointing=True, plot=False)
    ),
    "compiled": Scenario(
        lambda: pairs("softmax"),
        options=LoopOptions(compile=True, activation_checkpointing=True, plot=False),
    ),
}
MISTAKES = {
    "no gather": Scenario(lambda: pairs("softmax", gathered=False)),
    "mean of means": Scenario(lambda: mean_of_means),
}
RIGHT = {"no gather": "softmax", "mean of means": "weighted alone"}
SCENARIOS["weighted alone"] = Scenario(lambda: accumulate(weighted))


def save_model(net: nn.Module, folder: Path) -> None:
    save_file({n: t.contiguous().clone() for n, t in net.state_dict().items()},
              folder / "model.safetensors")  # fmt: skip


def evaluate(net: nn.Module) -> dict[str, float]:
    """A score that depends on every weight."""
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((9, 13)))
    image, text = net(rows)
    return {"score": (image * text).sum().item()}


def run(
    scenario: Scenario,
    out: Path,
    kind: str = "auto",
    stop_at: int | None = None,
    save_every: int | None = None,
) -> RunSummary:
    """Carry a scenario out; `stop_at` sends SIGTERM to one of the processes in that step."""
    step, done = scenario.step(), 0

    def stepping(net: nn.Module, batches: list[Tensor]) -> StepResult:
        nonlocal done
        done += 1
        if done == stop_at and distributed.rank() == distributed.world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(net, batches)

    options = replace(scenario.options, parallel=kind, eval_every=2, save_every=save_every)
    return train(
        scenario.network(),
        loader(),
        stepping,
        scenario.stages,
        out,
        options,
        evaluate,
        "score",
        save_model,
    )
