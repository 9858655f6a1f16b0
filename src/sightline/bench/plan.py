"""`sightline bench plan`: what `sightline plan` predicts, beside what a process really holds.

Each case has a process of its own with random weights: the libraries are loaded and warm, then the
network is built, and two optimiser steps (or two answers) are computed on blank pictures. The peak
is what was resident at the worst moment above what was resident before the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sightline.bench.memory import in_a_process, peak_above
from sightline.core.devices import available_cores, set_threads
from sightline.core.errors import ConfigError
from sightline.models.gemma import GemmaConfig
from sightline.models.paligemma import PaliGemmaConfig
from sightline.models.siglip import ImageTowerConfig
from sightline.models.table import system as find_system
from sightline.recipes.memory_model import memory_model, total
from sightline.recipes.plan import find_network
from sightline.recipes.rehearsal import Work, answer, build, empty_batch, learn, optimiser

SPEAKER_NAME = "a small PaliGemma"
SPEAKER = PaliGemmaConfig(
    ImageTowerConfig(384, 8, 6, 1536, patch_size=(16, 16), image_size=(224, 224)),
    GemmaConfig(512, 8, 8, 1, 64, 2048, vocab_size=32_000),
    image_token=31_999,
)
"""60 million parameters: the published ones do not fit into every machine that trains."""


@dataclass(frozen=True)
class Case:
    """One prediction to check."""

    model: str
    kind: str
    batch: int
    """Pictures of a micro-batch."""
    accumulate: int = 1
    dtype: str = "float32"
    activation_checkpointing: bool = False

    @property
    def name(self) -> str:
        """For people."""
        times = f"{self.accumulate} x " if self.accumulate > 1 else ""
        again = ", checkpointed" if self.activation_checkpointing else ""
        return f"{self.model}, {self.kind}, {times}{self.batch}, {self.dtype}{again}"

    def work(self) -> Work:
        """What is predicted and measured."""
        system, config = find_system("paligemma"), SPEAKER
        if self.model != SPEAKER_NAME:
            system, config = find_network(self.model)
        return Work(
            system, config, self.kind, getattr(torch, self.dtype), self.accumulate,
            activation_checkpointing=self.activation_checkpointing,
        )  # fmt: skip


SMALL = (Case("park-siglip", "full", 128), Case("clip:B/32", "none", 32))
"""The cheapest cases."""
CASES = (
    *SMALL,
    Case("park-siglip", "lora", 64, accumulate=4),
    Case("clip:B/32", "full", 8),
    Case("clip:B/32", "lora", 16),
    Case("siglip:B/16-224", "locked", 16),
    Case("lit:LiT-B16B_2", "locked", 16),
    Case(SPEAKER_NAME, "none", 16),
    Case(SPEAKER_NAME, "full", 4),
    Case(SPEAKER_NAME, "full", 4, accumulate=4, activation_checkpointing=True),
    Case(SPEAKER_NAME, "lora", 8),
    Case(SPEAKER_NAME, "qlora", 8),
    Case(SPEAKER_NAME, "projector", 8),
)


@dataclass(frozen=True)
class Row:
    """One case; bytes above the loaded libraries."""

    case: str
    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        """Predicted to measured."""
        return self.predicted / self.measured


@dataclass(frozen=True)
class PlanBench:
    """Every case in its order."""

    cores: int
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        rows = [{**asdict(row), "ratio": row.ratio} for row in self.rows]
        return {"bench": "plan", "cores": self.cores, "rows": rows}


def bench_plan(
    cases: Sequence[Case] = CASES, progress: Callable[[int, int], None] | None = None
) -> PlanBench:
    """Predict and measure, on the CPU.

    Args:
        progress: called with cases done and their number.

    Raises:
        ConfigError: no case, or a system that does not tell what is resident.
        SightlineError: a measuring process that failed, mostly for lack of memory.
    """
    if not cases:
        raise ConfigError("give at least one case to measure")
    rows = []
    for number, case in enumerate(cases):
        rows.append(Row(case.name, predict(case), measure_apart(case)))
        if progress is not None:
            progress(number + 1, len(cases))
    return PlanBench(available_cores(), tuple(rows))


def predict(case: Case) -> int:
    """Bytes above the libraries, as the plan has them."""
    return total(memory_model(case.work(), "cpu").peak(case.batch))


def measure_apart(case: Case) -> int:
    """Bytes above the libraries, in a process of their own."""
    return int(in_a_process(__name__, "measure", **asdict(case)))


def measure(**case: Any) -> int:
    """The same in this process."""
    set_threads()
    work = Case(**case).work()
    small = work.system if work.writes else find_system("clip")
    _run(replace(work, system=small, config=small.tiny), 2)  # libraries begin their workspaces
    return peak_above(lambda: _run(work, case["batch"]))


@contextmanager
def _unmarked(part: str) -> Iterator[None]:
    yield


def _run(work: Work, batch: int) -> None:
    torch.manual_seed(0)
    network = build(work)
    if not work.trains:
        for _ in range(2):
            answer(work, network, empty_batch(work, batch), _unmarked)
        return
    descent = optimiser(network)
    for _ in range(2):
        descent.zero_grad(set_to_none=True)
        batches = [empty_batch(work, batch) for _ in range(work.accumulate)]
        learn(work, network, batches, _unmarked)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        descent.step()
        del batches
