"""Carrying out a dual-encoder run: data, start, training, scores before and after, the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sightline.core.devices import choose_device, set_threads
from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.core.files import write_json
from sightline.data.formats import open_dataset
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
    pair_loader,
    sentences_of,
    settings_of,
    training_stage,
)
from sightline.recipes.report import write_report
from sightline.recipes.towers import Start, fitting_size, start_from
from sightline.training.accumulation import Step
from sightline.training.cost import RunSummary
from sightline.training.loop import train
from sightline.training.options import LoopOptions, Progress

PARK = "park"
"""As `data`: scenes drawn while training, no files."""
PARK_SIZE = 64


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
    """What is trained: the dual encoder itself, or one with teaching heads around it."""
    loader: Any
    step: Step
    steps: int
    test: Dataset


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
    training, test = splits(recipe)
    recipe = with_picture_size(recipe, training)
    template = find_system(recipe.system).default_template or "{}"
    start = start_from(recipe, _all_sentences(training, template))
    plan = Plan(
        start=start,
        network=start.network,
        loader=pair_loader(training, start.processor, recipe, template),
        step=contrastive_step(
            objective_of(recipe, start.system.score), largest_scale(recipe.system)
        ),
        steps=number_of_steps(recipe, len(training)),
        test=test,
    )
    return carry_out(recipe, plan, Path(out), minutes, progress)


def _all_sentences(records: Sequence[Record], template: str) -> Iterator[str]:
    """What a vocabulary is learned from: every sentence, and the words of the prompt."""
    if isinstance(records, ParkRecords):  # no picture needs to be drawn for its words
        yield from park_texts(seeds=range(3000))
    else:
        for record in records:
            yield from sentences_of(record, template)
            if record.label is not None:
                yield fill(template, record.label)
    yield fill(template, "")


def splits(recipe: DualEncoderRecipe) -> tuple[Sequence[Record], Dataset]:
    """Training records and test data: the data's own splits, or a seeded share for the test."""
    if not recipe.data:
        raise ConfigError("the run has no data: give --data PATH (or --data park for drawn parks)")
    if recipe.data == PARK:
        size = recipe.image_size or PARK_SIZE
        test = ParkRecords("test", count=recipe.eval_limit, size=size)
        drawn = ParkRecords("train", count=60_000, size=size)
        return drawn, Dataset(list(test), name=test.name)
    data = open_dataset(recipe.data)
    names = {record.split for record in data}
    held_out = next((name for name in ("test", "val") if name in names), None)
    if held_out and "train" in names:
        return data.with_split("train"), data.with_split(held_out)
    order = np.random.default_rng(recipe.seed).permutation(len(data))
    count = max(1, round(recipe.test_share * len(data)))
    test_part = [data[int(i)] for i in np.sort(order[:count])]
    rest = [data[int(i)] for i in np.sort(order[count:])]
    return rest, Dataset(test_part, name=f"{data.name}, held out")


def with_picture_size(recipe: DualEncoderRecipe, records: Sequence[Record]) -> DualEncoderRecipe:
    """The recipe with the size of its pictures, where neither it nor any weights name one."""
    if recipe.image_size is not None or recipe.init or recipe.init_image or recipe.variant:
        return recipe
    sides = []
    for index in np.linspace(0, len(records) - 1, num=min(64, len(records)), dtype=int):
        try:
            sides.append(min(read_image(records[int(index)].image).shape[:2]))
        except ImageError:  # the loader counts and names it
            continue
    if not sides:
        raise DataError("none of the first pictures can be read: see 'sightline data inspect'")
    return replace(recipe, image_size=fitting_size(sides, recipe.patch_size))


def carry_out(
    recipe: DualEncoderRecipe,
    plan: Plan,
    out: Path,
    minutes: float | None,
    progress: Progress | None,
    scores: Callable[[Start], dict[str, float]] | None = None,
) -> Outcome:
    """Score, train, score again, report; resumes where an earlier call in `out` stopped."""
    set_threads()
    plan.network.to(choose_device(recipe.device))
    measure = scores or (lambda start: held_out_scores(start, plan.test, recipe))
    before = _scores_before(out, plan.start, measure)
    first = next(name for name in ("score", "zeroshot", *before) if name in before)
    names = [name for name, _ in plan.network.named_parameters()]
    every = recipe.eval_every or max(1, plan.steps // 10)
    summary = train(
        plan.network,
        plan.loader,
        plan.step,
        [training_stage(recipe, plan.steps, names)],
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
        ),
        evaluate=lambda network: measure(plan.start),
        score=first,
        save_model=lambda network, folder: plan.start.save(folder / "model"),
        recipe=settings_of(recipe),
        progress=progress,
    )
    model = best_model(out)
    report = write_report(out, recipe, plan, summary, before, model)
    return Outcome(summary, before, summary.scores, model, report)


def best_model(out: Path) -> Path:
    """The folder of the best scored model of a run, or of its last."""
    for name in ("best", "last"):
        folder = out / "checkpoints" / name / "model"
        if folder.is_dir():
            return folder
    raise ConfigError(f"{out} holds no model: is it the folder of a run?")


def held_out_scores(start: Start, test: Dataset, recipe: DualEncoderRecipe) -> dict[str, float]:
    """Zero-shot accuracy where pictures have labels, and R@1 both ways where they have captions."""
    model = start.as_model(recipe.system, Path("."))
    limit = min(recipe.eval_limit, len(test))
    found: dict[str, float] = {}
    if len({record.label for record in test if record.label is not None}) > 1:
        found["zeroshot"] = zeroshot(model, test, limit=limit).value
    if any(record.captions for record in test):
        result = retrieval(model, test, limit=limit)
        found["retrieval"] = result.value
    return found


def _scores_before(
    out: Path, start: Start, measure: Callable[[Start], dict[str, float]]
) -> dict[str, float]:
    """The scores before the first step, measured once and kept for resumed runs."""
    import json

    path = out / "before.json"
    if path.is_file():
        kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["scores"]
        return kept
    begun = time.monotonic()
    start.network.eval()
    scores = measure(start)
    document = {"format": "sightline.before", "version": 1, "scores": scores}
    write_json(path, {**document, "seconds": round(time.monotonic() - begun, 2)})
    return scores
