"""Carrying out a run: data, start, training, scores before and after, the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sightline.core.devices import available_cores, choose_device, set_threads
from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.core.files import write_json
from sightline.data.park.records import ParkRecords
from sightline.data.park.text import texts as park_texts
from sightline.data.records import Dataset, Record
from sightline.evaluation.retrieval import retrieval
from sightline.evaluation.zeroshot import zeroshot
from sightline.inputs.images import read_image
from sightline.inputs.prompts import fill
from sightline.models.table import system as find_system
from sightline.recipes.dual_encoder import (
    DualEncoderRecipe,
    contrastive_step,
    largest_scale,
    number_of_steps,
    objective_of,
    tower_groups,
    training_stage,
)
from sightline.recipes.pair_data import pair_loader, sentences_of
from sightline.recipes.report import write_report
from sightline.recipes.settings import RunSettings, settings_of
from sightline.recipes.splits import Splits, splits
from sightline.recipes.start import Start
from sightline.recipes.towers import fitting_size, start_from
from sightline.tasks.model import Model, load
from sightline.tasks.report import Report
from sightline.training import distributed
from sightline.training.accumulation import Step
from sightline.training.cost import RunSummary
from sightline.training.loop import train
from sightline.training.options import LoopOptions, Progress
from sightline.training.stages import Stage

Measure = Callable[[Model], dict[str, float]]
"""A model to its scores, the one that decides first."""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind for its caller."""

    summary: RunSummary
    before: Mapping[str, float]
    after: Mapping[str, float]
    model: Path
    """The folder of the model to use: the best one, or the last."""
    report: Path


@dataclass
class Plan:
    """A run with every choice made, ready to be carried out."""

    start: Start
    network: nn.Module
    """What is trained: the network of `start`, or one with teaching heads around it."""
    loader: Any
    step: Step
    steps: int
    choose: Measure
    """Scores on validation data while training: the first one decides which checkpoint is kept."""
    judge: Measure
    """Scores on the test data, before the first step and of the checkpoint that was kept."""
    test: Dataset
    """Where the report takes its pictures from."""
    stage: Stage
    """How the parameters learn."""
    inner: Callable[[nn.Module], nn.Module] = lambda network: network
    """The network of `start` inside a network that is built as `network` is."""
    show: Callable[[Report, Model], None] | None = None
    """Writes what the report shows of the model that was kept; None asks it about test pictures."""

    def trained(self, network: nn.Module) -> Start:
        """The start with the weights of `network`, or of a copy of it that training made."""
        return replace(self.start, network=self.inner(network))


def train_dual_encoder(
    recipe: DualEncoderRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train CLIP or SigLIP and write checkpoints, log, curves and report into `out`.

    Args:
        minutes: stop after this much time, with everything saved; a rerun goes on.

    Raises:
        DataError: no captions, or data that cannot be read.
        ConfigError: settings that do not fit, or a folder that holds another run.
    """
    parts = splits(recipe)
    recipe = with_picture_size(recipe, parts.training)
    template = template_of(recipe)
    start = start_from(recipe, all_sentences(parts.training, template))
    loader = pair_loader(parts.training, start.processor, recipe, template)
    steps = number_of_steps(recipe, len(parts.training))
    plan = dual_encoder_plan(recipe, parts, start, loader, steps)
    return carry_out(recipe, plan, Path(out), minutes, progress)


def dual_encoder_plan(
    recipe: DualEncoderRecipe, parts: Splits, start: Start, loader: Any, steps: int
) -> Plan:
    """The contrast of the recipe over the loader's batches, scored on what is held out."""
    _, validation, test = parts
    return Plan(
        start=start,
        network=start.network,
        loader=loader,
        step=contrastive_step(
            objective_of(recipe, start.system.score),
            largest_scale(recipe.system),
            recipe.label_smoothing,
            recipe.loss_chunk,
            recipe.exchange,
            recipe.shared_matches,
        ),
        steps=steps,
        stage=dual_encoder_stage(recipe, steps, start.network),
        choose=lambda model: held_out_scores(model, validation, recipe.eval_limit),
        judge=lambda model: held_out_scores(model, test, recipe.eval_limit),
        test=test,
    )


def template_of(recipe: RunSettings) -> str:
    """The prompt that the system puts a label into."""
    return find_system(recipe.system).default_template or "{}"


def all_sentences(records: Sequence[Record], template: str) -> Iterator[str]:
    """What a vocabulary is learned from: every sentence, and the words of the prompt."""
    if isinstance(records, ParkRecords):  # no picture needs to be drawn for its words
        yield from park_texts(seeds=range(3000))
    else:
        for record in records:
            yield from sentences_of(record, template)
            if record.label is not None:
                yield fill(template, record.label)
    yield fill(template, "")


def dual_encoder_stage(recipe: DualEncoderRecipe, steps: int, network: nn.Module) -> Stage:
    """One stage over the parameters of `network`, the towers at their own rates."""
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return training_stage(recipe, steps, tower_groups(recipe, names))


def with_picture_size(recipe: DualEncoderRecipe, records: Sequence[Record]) -> DualEncoderRecipe:
    """The recipe with the size of its pictures, where neither it nor any weights name one."""
    if recipe.image_size is not None or recipe.init or recipe.init_image or recipe.variant:
        return recipe
    return replace(recipe, image_size=picture_size(records, recipe.patch_size))


def picture_size(records: Sequence[Record], patch_size: int) -> int:
    """The median side of a sample of the pictures, as a whole number of patches.

    Raises:
        DataError: none of them can be read.
    """
    return fitting_size([min(size) for size in sample_sizes(records)], patch_size)


def sample_sizes(records: Sequence[Record]) -> list[tuple[int, int]]:
    """Height and width of some of the pictures, spread over all of them.

    Raises:
        DataError: none of them can be read.
    """
    sizes = []
    for index in np.linspace(0, len(records) - 1, num=min(64, len(records)), dtype=int):
        try:
            height, width = read_image(records[int(index)].image).shape[:2]
        except ImageError:  # the loader counts and names it
            continue
        sizes.append((height, width))
    if not sizes:
        raise DataError("none of the first pictures can be read: see 'sightline data inspect'")
    return sizes


def carry_out(
    recipe: RunSettings,
    plan: Plan,
    out: Path,
    minutes: float | None,
    progress: Progress | None,
) -> Outcome:
    """Score, train, score again, report; resumes where an earlier call in `out` stopped."""
    set_threads(max(1, available_cores() // distributed.processes_here()))
    plan.network.to(choose_device(recipe.device))
    start = plan.start.as_model(recipe.system, Path("."))
    before = distributed.first(
        lambda: _scores_before(out, plan.start.network, lambda: plan.judge(start))
    )
    every = recipe.eval_every or max(1, plan.steps // 10)
    summary = train(
        plan.network,
        plan.loader,
        plan.step,
        [plan.stage],
        out,
        LoopOptions(
            seed=recipe.seed,
            accumulate=recipe.accumulate,
            autocast=recipe.autocast,
            ema=recipe.ema,
            eval_every=every,
            save_every=recipe.save_every or every,
            log_every=max(1, min(50, plan.steps // 100)),
            minutes=minutes,
            compile=recipe.compile,
            parallel=recipe.parallel,
            activation_checkpointing=recipe.activation_checkpointing,
        ),
        evaluate=lambda network: plan.choose(plan.trained(network).as_model(recipe.system)),
        score=next(iter(before)),
        save_model=lambda network, folder: plan.trained(network).save_all(folder),
        recipe=settings_of(recipe),
        progress=progress,
    )
    folder = best_model(out)

    def judged() -> tuple[dict[str, float], str]:
        model = load(folder, device=recipe.device, dtype="float32")
        after = plan.judge(model)
        return after, str(write_report(out, recipe, plan, summary, (before, after), model))

    after, report = distributed.first(judged)
    return Outcome(summary, before, after, folder, Path(report))


def best_model(out: Path) -> Path:
    """The folder of the best scored model of a run, or of its last."""
    for name in ("best", "last"):
        folder = out / "checkpoints" / name / "model"
        if folder.is_dir():
            return folder
    raise ConfigError(f"{out} holds no model: is it the folder of a run?")


def held_out_scores(model: Model, records: Dataset, limit: int) -> dict[str, float]:
    """Zero-shot accuracy where pictures have labels, and R@1 both ways where they have captions."""
    limit = min(limit, len(records))
    found: dict[str, float] = {}
    if len({record.label for record in records if record.label is not None}) > 1:
        found["zeroshot"] = zeroshot(model, records, limit=limit, resamples=0).value
    if any(record.captions for record in records):
        found["retrieval"] = retrieval(model, records, limit=limit, resamples=0).value
    return found


def _scores_before(
    out: Path, network: nn.Module, measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """The scores before the first step, measured once and kept for resumed runs."""
    path = out / "before.json"
    if path.is_file():
        kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["scores"]
        return kept
    begun = time.monotonic()
    network.eval()
    scores = measure()
    document = {"format": "sightline.before", "version": 1, "scores": scores}
    write_json(path, {**document, "seconds": round(time.monotonic() - begun, 2)})
    return scores
