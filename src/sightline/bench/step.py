"""`sightline bench step`: one optimiser step of a dual encoder, against transformers.

Both sides hold the same random weights of a full-size network and get the same pixels and ids. A
step is forward, backward, clipping of the gradient and a fused AdamW, in bfloat16 by autocast where
the processor multiplies it, as `sightline train` does. Rounds alternate (A-B-A-B), and the losses
of the first step are compared before anything is timed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from sightline.bench.embedders import product_speed, quiet, write_random
from sightline.core.devices import available_cores, fast_bfloat16, set_threads
from sightline.core.errors import SightlineError
from sightline.hub.load import load_checkpoint
from sightline.nn.meta import without_memory
from sightline.recipes.dual_encoder import contrastive_step, largest_scale
from sightline.recipes.pair_data import PairBatch
from sightline.training.optimisers import build_optimiser
from sightline.training.stages import Stage, begin_stage

Step = Callable[[], float]
"""One step; its loss."""
NEAR = 0.02
"""Relative difference of first losses that two computations in bfloat16 may have."""


@dataclass(frozen=True)
class Row:
    """One contender."""

    name: str
    seconds: float
    """Of a step, the median over the rounds."""
    fastest: float
    slowest: float
    loss: float
    """Of the first step."""
    share_of_limit: float
    """Of the steps a second that matrix products of this type alone would allow here."""


@dataclass(frozen=True)
class StepBench:
    """Everything that was measured, the contenders in the order of the rounds."""

    model: str
    batch: int
    rounds: int
    cores: int
    dtype: str
    gflop: float
    """Of the products of one step."""
    rows: tuple[Row, ...]
    skipped: tuple[str, ...]
    """Peers that are not installed."""

    def ratio(self, first: str, second: str) -> float:
        """How many times as fast the first contender is."""
        seconds = {row.name: row.seconds for row in self.rows}
        return seconds[second] / seconds[first]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"bench": "step", **asdict(self)}


def bench_step(
    model: str = "clip:B/32",
    batch: int = 16,
    rounds: int = 5,
    compiled: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> StepBench:
    """Measure Sightline and transformers, each as it is and, if asked, compiled.

    Args:
        model: "system:variant" of a dual encoder, as in the table of systems.
        batch: pairs of a step.
        rounds: steps of each contender that are counted; the first ones are not.
        progress: called with rounds done and their total.

    Raises:
        ConfigError: an unknown model.
        SightlineError: the two sides do not compute the same loss.
    """
    set_threads()
    dtype = torch.bfloat16 if fast_bfloat16("cpu") else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        name = write_random(model, Path(folder))
        contenders, skipped = _contenders(Path(folder), batch, dtype, compiled)
    losses = {who: step() for who, step in contenders.items()}
    _check(losses)
    times: dict[str, list[float]] = {who: [] for who in contenders}
    for done in range(-1, rounds):
        for who, step in contenders.items():
            begun = time.perf_counter()
            step()
            times[who].append(time.perf_counter() - begun)
        if progress is not None and done >= 0:
            progress(done + 1, rounds)
    flops = _flops(model, batch)
    limit = flops / product_speed(dtype)
    rows = tuple(_row(who, taken[1:], losses[who], limit) for who, taken in times.items())
    return StepBench(
        name, batch, rounds, available_cores(), str(dtype).removeprefix("torch."), flops / 1e9,
        rows, skipped,
    )  # fmt: skip


def _contenders(
    folder: Path, batch: int, dtype: torch.dtype, compiled: bool
) -> tuple[dict[str, Step], tuple[str, ...]]:
    loaded = load_checkpoint(folder, device="cpu", dtype="float32")
    data = _pairs(loaded.system.preprocessing(loaded.config), loaded.config.text, batch)
    network = loaded.network.requires_grad_(True)
    kinds = {"": False, " compiled": True} if compiled else {"": False}
    made: dict[str, Step] = {
        f"sightline{kind}": _ours(network, loaded.system, data, dtype, again)
        for kind, again in kinds.items()
    }
    try:
        import transformers
    except ModuleNotFoundError:
        return made, ("transformers",)
    with quiet(transformers):
        theirs = transformers.AutoModel.from_pretrained(folder).train()
    for kind, again in kinds.items():
        made[f"transformers{kind}"] = _theirs(theirs, data, dtype, again)
    return made, ()


def _pairs(spec: Any, words: Any, batch: int) -> PairBatch:
    """Noise for pixels, random words of full length with the end-of-text id behind them."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, spec.height, spec.width, generator=generator)
    most = words.vocab_size - 10
    ids = torch.randint(2, most, (batch, words.context_length), generator=generator)
    ids[:, -1] = words.vocab_size - 1 if words.eos_id is None else words.eos_id
    mask = torch.ones_like(ids, dtype=torch.bool)
    return PairBatch(pixels=pixels, ids=ids, mask=mask, labels=torch.arange(batch))


def _autocast(dtype: torch.dtype) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)


def _ours(
    network: nn.Module, system: Any, batch: PairBatch, dtype: torch.dtype, compiled: bool
) -> Step:
    stage = Stage(name="bench", steps=1000, lr=1e-6)
    learning = begin_stage(network, stage, frozenset())
    optimiser = build_optimiser(network, stage, learning)
    objective = "sigmoid" if system.score == "sigmoid" else "softmax"
    inner = contrastive_step(objective, largest_scale(system.name))
    run: Any = torch.compile(network) if compiled else network

    def forward_backward() -> float:
        with _autocast(dtype):
            return inner(run, [batch]).loss

    return _whole(network, optimiser, forward_backward)


def _theirs(network: Any, batch: PairBatch, dtype: torch.dtype, compiled: bool) -> Step:
    run = torch.compile(network) if compiled else network
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)

    def forward_backward() -> float:
        with _autocast(dtype):
            loss = run(pixel_values=batch.pixels, input_ids=batch.ids, return_loss=True).loss
        loss.backward()
        return float(loss.detach())

    return _whole(network, optimiser, forward_backward)


def _whole(network: nn.Module, optimiser: torch.optim.Optimizer, forward_backward: Step) -> Step:
    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        loss = forward_backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        return loss

    return step


def _check(losses: dict[str, float]) -> None:
    (first, expected), *rest = losses.items()
    for who, loss in rest:
        if abs(loss - expected) > NEAR * abs(expected):
            raise SightlineError(
                f"{first} begins with a loss of {expected:.4f} and {who} with {loss:.4f}: they do "
                "not compute the same, and their times would mean nothing"
            )


def _flops(model: str, batch: int) -> float:
    """Of the products of one step, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    from sightline.models.table import system as find_system

    name, _, variant = model.partition(":")
    system = find_system(name)
    config = system.variants[variant]
    spec: Any = system.preprocessing(config)
    with without_memory():
        network: Any = system.build(config)
        pixels = torch.empty(1, 3, spec.height, spec.width)
        ids = torch.zeros(1, config.text.context_length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        scores = network(pixels, ids, torch.ones_like(ids, dtype=torch.bool))
        scores.logits.sum().backward()
    return float(counter.get_total_flops()) * batch


def _row(who: str, taken: list[float], loss: float, limit: float) -> Row:
    middle = median(taken)
    return Row(who, middle, min(taken), max(taken), loss, limit / middle)
