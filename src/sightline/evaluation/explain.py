"""Do the maps of `tasks.explain` show the thing that the text names, and what the model used?

Each picture comes with a text for one of several things in it, whose pixels (or box) are known, and
each method's map is measured beside one that is drawn by lot, which gives chance.
`metrics.attribution` says what the measures mean. Deletion and insertion are areas under the cosine
of picture and text and need no truth; deletion ends in the picture's mean colour, insertion begins
with the picture blurred.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.errors import ConfigError, DataError
from sightline.core.outputs import Box
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import with_article
from sightline.data.records import Record
from sightline.evaluation import results
from sightline.evaluation.interfaces import DatasetLike, RecordLike
from sightline.evaluation.records import Progress, data_sha256, select
from sightline.evaluation.results import Metric, Result, Sample
from sightline.metrics.attribution import (
    area_under,
    energy_inside,
    hottest_first,
    pointing_game,
    replaced_step_by_step,
)
from sightline.metrics.intervals import RESAMPLES, bootstrap
from sightline.tasks.batching import Failed, read_named
from sightline.tasks.explain import checked_method, explain_each, methods_of
from sightline.tasks.occlusion import blurred

if TYPE_CHECKING:
    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""
RANDOM = "random"
"""The name of the map that is drawn by lot, pixel by pixel."""
MEASURES = ("inside", "times_chance", "pointing", "deletion", "insertion")
"""Of each method: share of heat on the thing; that share in units of the thing's share of the
picture (of means: one small thing could decide a mean of quotients); how often the hottest pixel is
on it; and the two areas, of which deletion is better the lower it is."""
FIRST_SEED = 5_000_000
"""Of the scenes, far from those of every training run and demo."""
COARSE = 8
"""Places along the shorter side that remain of a blurred picture."""


class Subject(NamedTuple):
    """A picture, what is said about it, and where the thing is that the text names."""

    id: str
    pixels: NDArray[np.uint8]
    text: str
    mask: NDArray[np.bool_]


def park_subjects(count: int, split: str = "test", first: int = FIRST_SEED) -> list[Subject]:
    """Scenes of several objects, each with a text for one whose kind is there once.

    The objects take turns, so that large ones in front are not preferred.
    """
    found: list[Subject] = []
    seed = first
    while len(found) < count:
        subject = _subject(scene(seed, split))
        found += [] if subject is None else [subject]
        seed += 1
    return found


def subjects_of(
    dataset: DatasetLike, limit: int | None = None, seed: int = 0
) -> tuple[list[Subject], bool]:
    """Pictures whose records name objects with boxes, as those of an exported park do.

    The box stands for the pixels of the thing. Also says whether `limit` left some out.

    Raises:
        DataError: no record has such objects.
        ImageError: a picture that cannot be read.
    """
    records, _, partial = select(dataset, limit, seed, lambda record: _single(record) is not None)
    if not records:
        raise DataError(
            f"no record of {dataset.name!r} names several objects with their boxes: take the data "
            "'park', or a folder that 'sightline data park' wrote"
        )
    return [_boxed(record) for record in records], partial


def explanations(
    model: Model,
    subjects: Sequence[Subject],
    methods: Sequence[str] | None = None,
    against: Sequence[str] = (),
    steps: int = 16,
    data: str = "park",
    partial: bool = False,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """`MEASURES` of each method and of a map drawn by lot, with their intervals over pictures.

    The headline is the first method's heat on the thing, in units of chance.

    Args:
        model: what `sightline.load` returns.
        subjects: from `park_subjects` or `subjects_of`.
        methods: by default all that the model's network allows, its own default first.
        against: as in `tasks.explain.explain_each`.
        steps: parts in which pixels are taken away and put in.
        data: the name of the data.
        partial: whether `subjects` are only some of it.
        progress: called with pictures done and their total.
        seed: of the lots and of the intervals.
        resamples: draws of the intervals.

    Raises:
        ConfigError: no picture, or a method that is unknown.
        UnsupportedTaskError: the model compares no pictures with text, or lacks a method.
    """
    started = time.monotonic()
    model.require_role("dual encoder", "similarity", "compare pictures with text")
    if not subjects:
        raise ConfigError("no picture to explain: give at least one")
    names = [checked_method(model, method) for method in methods or methods_of(model)]
    rows = []
    lots = torch.Generator().manual_seed(seed)
    for done, subject in enumerate(subjects, start=1):
        maps = {name: _heat(model, subject, name, against) for name in names}
        maps[RANDOM] = torch.rand(subject.mask.shape, generator=lots)
        rows.append([_measured(model, subject, heat, steps, lots) for heat in maps.values()])
        if progress is not None:
            progress(done, len(subjects))
    values = torch.tensor(rows, dtype=torch.float64)  # [N methods 5]
    records = [Record(s.id, s.pixels, captions=(s.text,)) for s in subjects]
    digest = data_sha256(records)
    return results.build(
        model, "explain", VERSION, f"{names[0]}/times_chance", digest,
        {"steps": steps, "against": f"{len(against)}-{results.short_hash(against)}",
         "n": len(subjects)},
        started,
        variant=f"against {len(against)} texts" if against else "the score itself",
        metrics=_metrics(values, [*names, RANDOM], seed, resamples),
        n=len(subjects),
        data=data,
        settings={"methods": names, "steps": steps, "against": list(against)},
        seed=seed,
        partial=partial,
        samples=tuple(
            _sample(subject, names, row) for subject, row in zip(subjects, rows, strict=True)
        ),
    )  # fmt: skip


def rows_of(result: Result) -> list[tuple[str, ...]]:
    """A row for each method, its measures as text, in the order of `MEASURES`."""
    methods = [*result.settings["methods"], RANDOM]
    return [
        (method, *(_shown(result.metrics[f"{method}/{measure}"]) for measure in MEASURES))
        for method in methods
    ]


def _shown(metric: Metric) -> str:
    if metric.ci95 is None or math.isnan(metric.ci95[0]):
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} ({metric.ci95[0]:.3f} to {metric.ci95[1]:.3f})"


def _heat(model: Model, subject: Subject, method: str, against: Sequence[str]) -> Tensor:
    (found,) = explain_each(model, subject.pixels, subject.text, method, against)
    assert not isinstance(found, Failed), "it would have been raised"
    return torch.from_numpy(found.heat)


def _measured(
    model: Model, subject: Subject, heat: Tensor, steps: int, lots: torch.Generator
) -> list[float]:
    """Inside, chance, pointing, deletion and insertion of one map."""
    mask, picture = torch.from_numpy(subject.mask), torch.from_numpy(subject.pixels)
    order = hottest_first(heat, lots)
    floats = picture.float()
    mean = floats.mean(dim=(0, 1)).round().to(torch.uint8).expand_as(picture)
    coarse = max(1, round(min(mask.shape) / COARSE))
    soft = blurred(floats.permute(2, 0, 1), coarse).permute(1, 2, 0).round().to(torch.uint8)
    deleted = replaced_step_by_step(picture, mean, order, steps)
    inserted = replaced_step_by_step(soft, picture, order, steps)
    shown = [part.numpy() for part in (*deleted, *inserted)]
    cosines = model.embed_images(shown) @ model.embed_texts(subject.text)[0]  # [2*(steps+1)]
    areas = area_under(cosines.unflatten(0, (2, steps + 1)))  # [2]
    chance = mask.double().mean().item()
    return [energy_inside(heat, mask), chance, pointing_game(heat, mask), *areas.tolist()]


def _metrics(
    values: Tensor, names: Sequence[str], seed: int, resamples: int
) -> Mapping[str, Metric]:
    """Of values [N methods 5], all intervals from one bootstrap."""

    def all_numbers(drawn: Tensor) -> Tensor:
        inside, chance, *rest = drawn.mean(dim=0).unbind(dim=1)  # [methods] each
        return torch.stack([inside, inside / chance, *rest], dim=1)  # [methods 5]

    means = all_numbers(values)
    low, high = bootstrap(values, all_numbers, resamples=resamples, seed=seed)
    found = {
        f"{name}/{measure}": Metric(
            means[row, column].item(), (low[row, column].item(), high[row, column].item()),
            len(values),
        )
        for row, name in enumerate(names)
        for column, measure in enumerate(MEASURES)
    }  # fmt: skip
    return {**found, "chance": Metric(values[:, 0, 1].mean().item(), None, len(values))}


def _sample(subject: Subject, names: Sequence[str], row: Sequence[Sequence[float]]) -> Sample:
    """Methods by their heat on the thing; right where the first method points at it."""
    shares = sorted(((name, r[0]) for name, r in zip(names, row, strict=False)),
                    key=lambda pair: -pair[1])  # fmt: skip
    return Sample(
        id=subject.id,
        kind="explain",
        target=(subject.text,),
        ranking=tuple(shares),
        rank=1.0 + [name for name, _ in shares].index(names[0]),
        score=row[0][2],
        prompt=subject.text,
        group=subject.id,
    )


def _subject(drawn: Scene) -> Subject | None:
    things = drawn.unmistakable
    if len(drawn.objects) < 2 or not things:
        return None
    thing = things[drawn.seed % len(things)]
    name = f"{drawn.split}-{drawn.seed}"
    return Subject(name, drawn.pixels, with_article(thing.name), thing.mask)


def _single(record: RecordLike) -> tuple[str, Box] | None:
    """Name and box of the first object whose kind is there once among several."""
    things = record.extra.get("objects") or ()
    kinds = [thing["kind"] for thing in things]
    for thing in things:
        if len(things) > 1 and kinds.count(thing["kind"]) == 1:
            x1, y1, x2, y2 = thing["box"]
            return f"{thing['colour']} {thing['kind']}", (x1, y1, x2, y2)
    return None


def _boxed(record: RecordLike) -> Subject:
    found = _single(record)
    assert found is not None, "only such records are selected"
    name, (x1, y1, x2, y2) = found
    pixels = read_named(record.image, 0)
    mask = np.zeros(pixels.shape[:2], np.bool_)
    mask[int(y1) : round(y2), int(x1) : round(x2)] = True
    return Subject(record.id, pixels, with_article(name), mask)
