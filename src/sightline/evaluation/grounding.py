"""Referring expressions: does the box that a model gives for one fit the thing that it means?

Kazemzadeh et al. 2014, Yu et al. 2016 (arXiv:1608.00272). Each expression counts once; of several
boxes the first counts. No box, a broken picture and a box that is not finite score 0. What the
model reaches before a grey picture of the same size (`blind`) needs no picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sightline.core.errors import DataError
from sightline.core.outputs import Box, Detection
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation import results
from sightline.evaluation.records import UNREADABLE, Progress, data_sha256, drawn_part
from sightline.evaluation.results import Metric, Result, Sample
from sightline.metrics.grounding import THRESHOLDS
from sightline.metrics.grounding import grounding as score_boxes
from sightline.metrics.intervals import RESAMPLES, bootstrap_counts, mean_of
from sightline.tasks.batching import read_named

VERSION = 1
"""Raised when the same model and data would score differently than before."""
HEADLINE = "acc@0.5"
_NAMES = (*(f"acc@{each}" for each in THRESHOLDS), "mean_iou")
_GREY = 127


class FindingModel(Protocol):
    """The part of a loaded model that finds what it is told."""

    def detect(self, image: Any, queries: Iterable[str] | None = None) -> Any: ...


class _Asked(NamedTuple):
    """An expression and what was answered."""

    record: Record
    region: Region
    box: Box | None
    blind: Box | None
    reason: str | None
    """Why the picture could not be read."""


def grounding(
    model: FindingModel,
    dataset: Dataset,
    limit: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """acc@0.5, acc@0.7, acc@0.9 and mean IoU over expressions, with the same blind.

    An expression is the name of a region that no other region of its record has. Intervals draw
    whole pictures. Groups: `label` (by the record's label) and `blind`.

    Args:
        model: what `sightline.load` returns.
        dataset: records with regions; those without a name that means one are excluded.
        limit: evaluate only a seeded sample of so many records; the result is marked partial.
        progress: called with records done and their total.
        seed: of the sample and of the intervals.
        resamples: draws of the intervals; 0 leaves those out.

    Raises:
        DataError: no record has an expression.
        ConfigError: a limit below 1.
    """
    started = time.monotonic()
    usable = [record for record in dataset if _expressions(record)]
    if not usable and len(dataset):
        raise DataError(
            f"no record of {dataset.name!r} has a region whose name means it alone: grounding "
            "needs expressions with boxes (RefCOCO, or 'sightline data park --to instances')"
        )
    records = drawn_part(usable, limit, seed)
    asked: list[_Asked] = []
    for place, record in enumerate(records):
        asked += _ask(model, record, place)
        if progress is not None:
            progress(place + 1, len(records))
    scores, blind = (_scores(asked, each) for each in ([a.box for a in asked],
                                                       [a.blind for a in asked]))  # fmt: skip
    digest = results.short_hash([data_sha256(records), *sorted(map(_truth, asked))])
    reasons = {a.record.id: a.reason for a in asked if a.reason is not None}
    missing = tuple(f"{name}: {reason}" for name, reason in reasons.items())
    return results.build(
        model, "grounding", VERSION, HEADLINE, digest,
        {"boxes": "first", "blind": "grey-same-size", "expressions": len(asked)},
        started,
        variant="first box",
        metrics=_metrics(asked, scores, seed, resamples),
        n=len(asked),
        data=dataset.name,
        n_invalid=sum(a.box is not None and not np.isfinite(a.box).all() for a in asked),
        n_unparsed=sum(a.box is None and a.reason is None for a in asked),
        n_missing=sum(a.reason is not None for a in asked),
        n_excluded=len(dataset) - len(usable),
        missing=missing,
        groups=_groups(asked, scores, blind, seed, resamples),
        settings={"limit": limit, "records": len(records)},
        seed=seed,
        counted="expressions",
        partial=len(records) < len(usable),
        samples=tuple(_sample(*each) for each in zip(asked, scores[:, -1].tolist(), strict=True)),
    )  # fmt: skip


def _expressions(record: Record) -> list[Region]:
    names = [region.label for region in record.regions]
    return [r for r in record.regions if names.count(r.label) == 1 and not r.crowd]


def _ask(model: FindingModel, record: Record, place: int) -> list[_Asked]:
    """What is answered about each expression of a picture, which is decoded once."""
    regions = _expressions(record)
    try:
        pixels = read_named(record.image, place)
    except UNREADABLE as error:
        return [_Asked(record, region, None, None, str(error)) for region in regions]
    grey = np.full_like(pixels, _GREY)
    answers = []
    for region in regions:
        box, blind = (_first(model.detect(shown, [region.label])) for shown in (pixels, grey))
        answers.append(_Asked(record, region, box, blind, None))
    return answers


def _first(found: Sequence[Detection]) -> Box | None:
    return found[0].box if found else None


def _scores(asked: Sequence[_Asked], boxes: Sequence[Box | None]) -> Tensor:
    """float64[N, 4]: each threshold reached or not, and the overlap."""
    ious = torch.from_numpy(score_boxes(boxes, [a.region.box for a in asked]).ious).double()
    return torch.stack([*((ious >= each).double() for each in THRESHOLDS), ious], dim=1)


def _metrics(
    asked: Sequence[_Asked], scores: Tensor, seed: int, resamples: int
) -> dict[str, Metric]:
    if not asked:
        return {name: Metric(math.nan) for name in _NAMES}
    places = {_picture(a.record): place for place, a in enumerate(asked)}
    drawn = torch.tensor([places[_picture(a.record)] for a in asked])
    low, high = bootstrap_counts(mean_of(scores), len(asked), drawn, resamples, seed=seed)
    ends = zip(low.tolist(), high.tolist(), strict=True)
    values = scores.mean(dim=0).tolist()
    return {n: Metric(v, e, len(asked)) for n, v, e in zip(_NAMES, values, ends, strict=True)}


def _groups(
    asked: Sequence[_Asked], scores: Tensor, blind: Tensor, seed: int, resamples: int
) -> dict[str, dict[str, Metric]]:
    labels = sorted({a.record.label for a in asked if a.record.label is not None})
    by_label: dict[str, Metric] = {}
    for label in labels:
        rows = [place for place, a in enumerate(asked) if a.record.label == label]
        part = _metrics([asked[place] for place in rows], scores[rows], seed, resamples)
        by_label[label] = part[HEADLINE]
    return {"label": by_label, "blind": _metrics(asked, blind, seed, resamples)}


def _picture(record: Record) -> str:
    """The same for records of one file, as RefCOCO has one for each expression."""
    image = record.image
    return results.short_hash([str(image)]) if isinstance(image, Path) else record.id


def _truth(asked: _Asked) -> str:
    return f"{asked.record.id} {asked.region.label} {asked.region.box}"


def _sample(asked: _Asked, overlap: float) -> Sample:
    right = overlap >= THRESHOLDS[0]
    wrong = asked.box is not None and not np.isfinite(asked.box).all()
    return Sample(
        id=f"{asked.record.id}#{asked.record.regions.index(asked.region)}",
        kind="grounding",
        target=(str(list(asked.region.box)),),
        ranking=() if asked.box is None else ((str(list(asked.box)), overlap),),
        rank=1.0 if right else math.inf,
        score=float(right),
        prompt=asked.region.label,
        group=_picture(asked.record),
        status="missing" if asked.reason is not None else "invalid" if wrong else "ok",
    )
