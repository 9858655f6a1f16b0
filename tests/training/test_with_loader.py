"""The loop with the library's own loader: stopped in the middle of an epoch, it goes on there."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import Tensor, nn

from sightline.data.loader import Loader
from sightline.training.accumulation import WeightedLoss, accumulate
from sightline.training.loop import LoopOptions, Stage, train
from tests.training.small_run import losses


def loss(net: nn.Module, batch: Tensor) -> WeightedLoss:
    errors = (net(batch[:, :3]) - batch[:, 3:]) ** 2
    return WeightedLoss(errors.sum(), errors.numel())


def loader(workers: int) -> Loader:
    generator = torch.Generator().manual_seed(0)
    rows = list(torch.randn(23, 4, generator=generator))
    return Loader(rows, torch.stack, batch_size=4, seed=1, workers=workers)


def run(out, workers: int = 0, stop_at: int | None = None) -> None:
    done = 0

    def step(net, batches):
        nonlocal done
        done += 1
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return accumulate(loss)(net, batches)

    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = nn.Linear(3, 1)
    options = LoopOptions(accumulate=2, plot=False)
    train(net, loader(workers), step, [Stage("s", 9)], out, options)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_in_the_middle_of_an_epoch(tmp_path, workers):
    run(tmp_path / "whole")
    for stop_at in (1, 3, 3):
        run(tmp_path / "cut", workers, stop_at)
    run(tmp_path / "cut", workers)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
