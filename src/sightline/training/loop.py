"""The loop: stages of optimiser steps, with averages, evaluation, checkpoints and a log.

    for each step: batches -> step (forward, backward) -> clip -> AdamW -> average -> log
                   every now and then evaluate, keep the best, save

The loop knows no model and no objective: they are inside `step`. Everything that a later step
depends on is in the checkpoint, so a resumed run repeats the uninterrupted one bit for bit on the
same machine with the same threads and versions.

Several processes (`processes`) run this loop in step: each has its share of every batch, all hold
the same state, and the first one evaluates, writes and reports. What differs is in `parallel`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.core.errors import (
    ConfigError,
)
from sightline.training import checkpoints, distributed, randomness
from sightline.training.accumulation import Step, StepResult, merged
from sightline.training.averages import WeightAverage
from sightline.training.batches import Loader, endless, to_device
from sightline.training.cost import RunSummary, count_flops, peak_memory_bytes
from sightline.training.interrupts import StopRequest, stop_on_signals
from sightline.training.locks import only_run
from sightline.training.logs import RunLog, cut_log, finite
from sightline.training.memory import checkpointed_blocks
from sightline.training.optimisers import (
    build_optimiser,
    load_optimiser,
    set_rate,
)
from sightline.training.options import LoopOptions, Progress, autocast
from sightline.training.parallel import SaveModel, wrap
from sightline.training.reports import Reporter, Silence
from sightline.training.settings import agree, as_json, refuse_changes
from sightline.training.snapshot import (
    RunState,
    is_better,
    join_tensors,
    refuse_not_finite,
    split_tensors,
)
from sightline.training.stages import Group, Stage, begin_stage, restored_flags

__all__ = ["Group", "LoopOptions", "Progress", "RunSummary", "Stage", "train"]

logger = logging.getLogger(__name__)

Evaluate = Callable[[nn.Module], Mapping[str, float]]
STOPS = (None, "finished", "minutes", "signal")
"""Why a run ends; of several processes' reasons the last one here counts."""


# Twelve arguments: the roles that meet here have no smaller common shape; all but five have a
# default, and those are passed by name.
def train(
    network: nn.Module,
    loader: Loader,
    step: Step,
    stages: Sequence[Stage],
    out: Path,
    options: LoopOptions | None = None,
    evaluate: Evaluate | None = None,
    score: str | None = None,
    save_model: SaveModel | None = None,
    recipe: Mapping[str, Any] | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> RunSummary:
    """Train a network through its stages, going on from the newest checkpoint in `out`.

    Args:
        network: on its device already; parameters that learn in float32 or float64. With
            parallel="fsdp" it stays sharded afterwards; the saved model is whole.
        loader: batches, see `batches.Loader`; moved to the network's device here. Of several
            processes each gives its own share of every batch.
        step: forward and backward of one optimiser step, see `accumulation`.
        out: folder for log.jsonl, curves.png and checkpoints/.
        evaluate: the network or a copy of it, averaged where asked, in eval mode, without
            gradients, to scores. It and `save_model` run in the first process alone.
        score: which of the scores decides what is best, higher being better; with a leading "-"
            ("-loss") lower is better.
        save_model: writes a loadable model into a folder (that of each checkpoint).
        recipe: resolved settings, saved with each checkpoint and compared on resuming.
        resume: False refuses a folder that holds a run.

    Raises:
        ConfigError: settings that do not fit, or other ones than the run was started with.
        CheckpointError: no checkpoint of the folder can be read.
        TrainingError: the loss is no longer finite, or the disk cannot be written to.
    """
    if not stages:
        raise ConfigError("a run needs at least one stage: Stage(name, steps)")
    run = _Run(network, loader, step, stages, Path(out), options or LoopOptions(), recipe or {})
    run.evaluate, run.score, run.save_model, run.progress = evaluate, score, save_model, progress
    with ExitStack() as stack:
        stack.enter_context(randomness.undisturbed())
        stack.enter_context(restored_flags(network))
        stack.enter_context(checkpointed_blocks(network, run.options.activation_checkpointing))
        run.open(stack, resume)
        stop = stack.enter_context(stop_on_signals())
        return run.run(stop)


class _Run:
    """One call of `train`: the pieces it was given and where it stands."""

    evaluate: Evaluate | None = None
    score: str | None = None
    save_model: SaveModel | None = None
    progress: Progress | None = None
    log: RunLog | None = None
    reporter: Reporter | Silence
    optimiser: torch.optim.AdamW
    batches: Iterator[Any]

    def __init__(
        self,
        network: nn.Module,
        loader: Loader,
        step: Step,
        stages: Sequence[Stage],
        out: Path,
        options: LoopOptions,
        recipe: Mapping[str, Any],
    ) -> None:
        self.network, self.loader, self.step = network, loader, step
        self.stages, self.out, self.options = stages, out, options
        self.recipe = as_json(recipe)
        self.root = out / "checkpoints"
        self.device = next(network.parameters()).device
        self.fixed = frozenset(n for n, p in network.named_parameters() if not p.requires_grad)
        self.total = sum(stage.steps for stage in stages)
        self.state = RunState()
        self.parallel = wrap(network, options.parallel)
        self.average = WeightAverage(network, options.ema) if options.ema is not None else None
        self.started = time.monotonic()
        self.saved = 0

    # -- beginning ---------------------------------------------------------------------------

    def open(self, stack: ExitStack, resume: bool) -> None:
        """Make or enter the folder, and stand where the newest checkpoint stood."""
        distributed.first(lambda: self._enter(stack, resume))
        agree(settings=self._settings(), data=self.loader.state_dict())
        found = self.parallel.newest(self.root)
        if found is None:
            randomness.seed_all(self.options.seed, distributed.rank())
            self._begin_stage(0)
        else:
            self._restore(found)
        distributed.first(lambda: self._open_log(stack))
        if self.log is None:
            self.reporter = Silence()
        else:
            self.reporter = Reporter(self.log, self.options, self.progress, self.total)
        self.batches = endless(self.loader)

    def _enter(self, stack: ExitStack, resume: bool) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(only_run(self.out))
            checkpoints.sweep(self.root)
        except OSError as error:
            raise checkpoints.cannot_write(self.out, error, self.root) from error
        if not resume and checkpoints.checkpoint_folders(self.root):
            raise ConfigError(
                f"{self.out} already holds a run: choose another folder, delete this one, or "
                "resume it"
            )

    def _open_log(self, stack: ExitStack) -> None:
        try:
            cut_log(self.out / "log.jsonl", self.state.step, self.state.evaluated)
            self.log = stack.enter_context(RunLog(self.out / "log.jsonl"))
        except OSError as error:
            raise checkpoints.cannot_write(self.out, error, self.root) from error

    def _restore(self, found: checkpoints.Checkpoint) -> None:
        if not self.options.allow_changes:
            refuse_changes(found.state["settings"], self._settings(), self.out)
        self.state = RunState.from_json(found.state["run"])
        parts = split_tensors(found.tensors)
        self.parallel.load_weights(parts["network"], found.folder)
        if self.average is not None:
            self.average.load(parts["average"] or dict(self.network.named_parameters()))
        saved_stage = self.state.stage
        self._begin_stage(self._stage_number())
        if self.state.stage == saved_stage:
            load_optimiser(self.optimiser, parts["optimiser"])
        self.loader.load_state_dict(found.state["loader"])
        self.saved = self.state.step
        if self.state.best is not None and not (self.root / self.state.best).is_dir():
            logger.warning(
                "the best checkpoint %s is gone; the next one scored is the best", self.state.best
            )
            self.state.best = self.state.best_score = None
        distributed.first(lambda: self._point(found.folder))
        others = found.state.get("random_of_others", [])
        seed = self.options.seed + self.state.step
        randomness.restore_share(found.state["random"], others, seed)
        logger.info("going on from %s", found.folder)

    def _stage_number(self) -> int:
        """The stage of the coming step; the last one at the end of the run."""
        end = 0
        for number, stage in enumerate(self.stages):
            end += stage.steps
            if self.state.step < end:
                return number
        return len(self.stages) - 1

    def _begin_stage(self, number: int) -> None:
        if number != self.state.stage:
            self.state.flops_per_step = 0  # measured anew
        self.state.stage = number
        stage = self.stages[number]
        learning = begin_stage(self.network, stage, self.fixed)
        self.parallel.check_stage()
        self.optimiser = build_optimiser(self.network, stage, learning)

    # -- running -----------------------------------------------------------------------------

    def run(self, stop: StopRequest) -> RunSummary:
        """Step until the end, a signal or the limit of minutes."""
        stopped = self._stop_reason(stop)
        self._finish_step(stopped)  # what the checkpoint had left to do
        while stopped is None:
            if self._stage_number() != self.state.stage:
                self._begin_stage(self._stage_number())
            self._one_step()
            stopped = self._stop_reason(stop)
            self._finish_step(stopped)
        now = replace(self.state, seconds=self._seconds(), peak_memory_bytes=self._peak())
        newest = checkpoints.checkpoint_folders(self.root)[-1]
        summary = now.summary(stopped, self.out, newest)
        self.reporter.end(summary)
        return summary

    def _stop_reason(self, stop: StopRequest) -> str | None:
        """Why to stop now; the same in every process, which a signal reaches one by one."""
        return STOPS[distributed.largest(STOPS.index(self._own_reason(stop)))]

    def _own_reason(self, stop: StopRequest) -> str | None:
        if self.state.step == 0:  # whatever happens, a run leaves a checkpoint
            return None
        if self.state.step >= self.total:
            return "finished"
        if stop.asked:
            return "signal"
        minutes = self.options.minutes
        return "minutes" if minutes is not None and self._seconds() >= minutes * 60 else None

    def _one_step(self) -> None:
        begun = time.monotonic()
        stage = self.stages[self.state.stage]
        within = self.state.step - sum(s.steps for s in self.stages[: self.state.stage])
        lr = set_rate(self.optimiser, stage, within)
        self.optimiser.zero_grad(set_to_none=True)
        micro = [to_device(next(self.batches), self.device) for _ in range(self.options.accumulate)]
        result = merged(self._forward_backward(micro))
        learning = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.parallel.average_gradients(learning)
        norm = self.parallel.clip(learning, math.inf if stage.clip is None else stage.clip)
        refuse_not_finite(result.loss, norm, self.state.step + 1, stage.name, self.root)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.network, self.state.step)
        self.state.step += 1
        self.state.loss = result.loss
        self.state.pictures += result.pictures
        self.state.flops += self.state.flops_per_step
        facts: dict[str, float | str] = {"stage": stage.name, "lr": lr, "grad_norm": norm}
        facts["seconds"] = round(self._seconds(), 3)
        self.reporter.step(self.state, facts, result, time.monotonic() - begun)

    def _forward_backward(self, micro: list[Any]) -> StepResult:
        with autocast(self.options.autocast, self.device.type):
            if self.state.flops_per_step:
                compiled = self.options.compile
                return self.step(self.parallel.compiled() if compiled else self.network, micro)
            # counted on the network as it is: a compiled one hides its operations
            result, flops = count_flops(lambda: self.step(self.network, micro))
            self.state.flops_per_step = max(1, int(distributed.total([flops])[0]))
            return result

    # -- between steps -----------------------------------------------------------------------

    def _finish_step(self, stopped: str | None) -> None:
        """Evaluate and save where the step, or the end of the run, asks for it."""
        state, options = self.state, self.options
        if state.step == 0:
            return
        regular = options.eval_every is not None and state.step % options.eval_every == 0
        due = self.evaluate is not None and state.evaluated != state.step
        # a signal leaves no time: the evaluation is made up for on resuming
        evaluated = due and stopped != "signal" and (regular or stopped is not None)
        better = self._evaluate() if evaluated else False
        periodic = options.save_every is not None and state.step % options.save_every == 0
        new = self.saved != state.step or evaluated
        if better or (new and (periodic or stopped is not None)):
            self._save(better)

    def _evaluate(self) -> bool:
        """Score the network; whether it is the best so far."""
        evaluate = self.evaluate
        assert evaluate is not None
        with randomness.undisturbed(), self.parallel.whole(self.average) as network:

            def score() -> dict[str, float]:
                assert network is not None
                return {name: float(value) for name, value in evaluate(network).items()}

            scores = distributed.first(score)
        self.state.evaluated, self.state.scores = self.state.step, scores
        self.reporter.evaluation(self.state.step, scores)
        if self.score is None or not is_better(self.score, scores, self.state.best_score):
            return False
        self.state.best_score = scores[self.score.removeprefix("-")]
        return True

    def _save(self, better: bool) -> None:
        name = distributed.first(lambda: checkpoints.next_folder(self.root, self.state.step).name)
        folder = self.root / name
        if better:
            self.state.best = folder.name
        if self.log is not None:
            self.log.sync()
        now = replace(self.state, seconds=self._seconds(), peak_memory_bytes=self._peak())
        own, *others = distributed.exchange(randomness.capture())
        state = {
            "run": finite(asdict(now)),
            "settings": self._settings(),
            "loader": self.loader.state_dict(),
            "random": own,
            "random_of_others": others,
        }
        tensors = join_tensors(self.network, self.average, self.optimiser)
        with randomness.undisturbed():
            documents = (state, self.recipe)
            self.parallel.write(folder, tensors, documents, self.save_model, self.average)
        self.saved = self.state.step
        distributed.first(lambda: self._tidy(folder))

    def _tidy(self, newest: Path) -> None:
        self._point(newest)
        checkpoints.prune(self.root, self.options.keep, self.state.best)

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = as_json(
            {
                "stages": [asdict(stage) for stage in self.stages],
                "options": asdict(self.options),
                "recipe": self.recipe,
            }
        )
        return settings

    def _point(self, newest: Path) -> None:
        checkpoints.point(self.root, "last", newest)
        if self.state.best is not None:
            checkpoints.point(self.root, "best", self.root / self.state.best)

    def _seconds(self) -> float:
        return self.state.seconds + time.monotonic() - self.started

    def _peak(self) -> int:
        return max(self.state.peak_memory_bytes, peak_memory_bytes())
