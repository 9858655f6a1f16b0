"""A tiny network, loader and step that exercise everything a checkpoint must hold."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sightline.training.accumulation import WeightedLoss, accumulate
from sightline.training.logs import read_log
from sightline.training.stages import Group, Stage


class Pair(NamedTuple):
    inputs: Tensor
    targets: Tensor


class Rows:
    """A shuffled loader of a fixed random set that can resume anywhere in an epoch."""

    def __init__(self, count: int = 22, batch_size: int = 4, seed: int = 5) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(count, 6, generator=generator)
        self.targets = self.inputs[:, :2] * 2 + 1
        self.batch_size, self.seed = batch_size, seed
        self.epoch = self.position = 0

    def __iter__(self) -> Iterator[Pair]:
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
        order = torch.randperm(len(self.inputs), generator=generator)
        while self.position + self.batch_size <= len(order):
            rows = order[self.position : self.position + self.batch_size]
            self.position += self.batch_size
            yield Pair(self.inputs[rows], self.targets[rows])
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class Net(nn.Module):
    """Batch norm, dropout, a tied weight and a scale: a tower that can freeze, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.2))
        self.mix = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.mix.weight
        self.head = nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.again(torch.tanh(self.mix(self.tower(inputs))))
        return self.head(hidden) * self.scale.exp()


def network(seed: int = 3) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def loss(net: nn.Module, batch: Pair) -> WeightedLoss:
    # numpy's and Python's generators are drawn from too: a resumed run must continue them
    noise = 0.01 * (np.random.rand() + random.random())
    errors = (net(batch.inputs) - batch.targets + noise) ** 2
    return WeightedLoss(errors.sum(), errors.numel(), {"error": errors.mean().detach()})


step = accumulate(loss)

STAGES = (
    Stage("head", 5, lr=0.01, trainable=("*", "!tower.*"), warmup=2, weight_decay=0.1),
    Stage("all", 7, lr=0.02, groups=(Group(("tower.*",), 0.1),), weight_decay=0.1, clip=0.5),
)


def evaluate(net: nn.Module) -> dict[str, float]:
    torch.rand(3)  # drawing must not disturb the training
    rows = Rows()
    error = (net(rows.inputs) - rows.targets).square().mean().item()
    return {"accuracy": 1 / (1 + error), "loss": error}


def save_model(net: nn.Module, folder: Path) -> None:
    text = json.dumps({name: value.tolist() for name, value in net.named_parameters()})
    (folder / "model.json").write_text(text)


def losses(out: Path) -> list[tuple[int, float, float, dict[str, float]]]:
    """What must repeat bit for bit: step, loss, gradient norm, and the scores."""
    return [
        (x["step"], x.get("loss", 0.0), x.get("grad_norm", 0.0), x.get("scores", {}))
        for x in read_log(out / "log.jsonl")
        if x["kind"] != "end"
    ]
