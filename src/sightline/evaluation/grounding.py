"""Referring expressions: does the box that a model gives for one fit the thing that it means?

Kazemzadeh et al. 2014, Yu et al. 2016 (arXiv:1608.00272). Each expression counts once; of several
boxes the first counts. No box, a broken picture and a box that is not finite score 0. What the
model reaches before a grey picture of the same size (`blind`) needs no picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sightline.core.errors import DataError, InputError
from sightline.core.outputs import Box, Detection
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation import results
from sightline.evaluation.kept import remembering
from sightline.evaluation.records import UNREADABLE, Progress, data_sha256, drawn_part
from sightline.evaluation.results import Metric, Result, Sample
from sightline.evaluation.shown import (
    BASELINE,
    FindingModel,
    Shown,
    against_grey,
    picture_of,
    show,
)
from sightline.metrics.grounding import THRESHOLDS
from sightline.metrics.grounding import grounding as score_boxes
from sightline.metrics.intervals import RESAMPLES, bootstrap_counts, mean_of

VERSION = 1
"""Raised when the same model and data would score differently than before."""
HEADLINE = "acc@0.5"
_NAMES = (*(f"acc@{each}" for each in THRESHOLDS), "mean_iou")


class _Asked(NamedTuple):
    """An expression and what was answered."""

    record: Record
    region: Region
    box: Box | None
    blind: Box | None
    reason: str | None
    """Why the picture could not be read."""
    refused: bool = False
    """Whether the model cannot be asked for it."""

    @property
    def status(self) -> str:
        """As a sample has it."""
        if self.reason is not None:
            return "missing"
        wrong = self.box is not None and not np.isfinite(self.box).all()
        return "invalid" if wrong or self.refused else "ok"


def grounding(
    model: FindingModel,
    dataset: Dataset,
    limit: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    blind: bool = True,
    folder: Path | None = None,
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
        blind: ask before grey pictures too, and test whether the model gains by looking.
        folder: where a run that was killed goes on, see `evaluation.kept`.

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
    with remembering(model, folder) as finder:
        for place, record in enumerate(records):
            asked += _ask(finder, record, place, blind)
            if progress is not None:
                progress(place + 1, len(records))
    scores = _scores(asked, [a.box for a in asked])
    unseen = _scores(asked, [a.blind for a in asked]) if blind else None
    digest = results.short_hash([data_sha256(records), *sorted(map(_truth, asked))])
    reasons = {a.record.id: a.reason for a in asked if a.reason is not None}
    missing = tuple(f"{name}: {reason}" for name, reason in reasons.items())
    samples = _samples(asked, scores, unseen)
    return results.build(
        model, "grounding", VERSION, HEADLINE, digest,
        {"boxes": "first", "blind": BASELINE, "expressions": len(asked)},
        started,
        variant="first box",
        metrics=_metrics(asked, scores, seed, resamples),
        n=len(asked),
        data=dataset.name,
        n_invalid=sum(a.status == "invalid" for a in asked),
        n_unparsed=sum(a.box is None and a.status == "ok" for a in asked),
        n_missing=sum(a.reason is not None for a in asked),
        n_excluded=len(dataset) - len(usable),
        missing=missing,
        groups=_groups(asked, scores, unseen, seed, resamples),
        settings={"limit": limit, "records": len(records), "blind": blind},
        seed=seed,
        counted="expressions",
        partial=len(records) < len(usable),
        samples=samples,
        **against_grey(samples, seed),
    )  # fmt: skip


def _expressions(record: Record) -> list[Region]:
    names = [region.label for region in record.regions]
    return [r for r in record.regions if names.count(r.label) == 1 and not r.crowd]


def _ask(model: FindingModel, record: Record, place: int, blind: bool) -> list[_Asked]:
    """What is answered about each expression of a picture, which is decoded once."""
    shown = show(record, place)
    return [_answer(model, record, region, shown, blind) for region in _expressions(record)]


def _answer(
    model: FindingModel, record: Record, region: Region, shown: Shown, blind: bool
) -> _Asked:
    """One expression; what fails here leaves the others of its picture alone."""
    if shown.pixels is None:
        return _Asked(record, region, None, None, shown.reason)
    try:
        box = _first(model.detect(shown.pixels, [region.label]))
        unseen = _first(model.detect(shown.grey, [region.label])) if blind else None
    except UNREADABLE as error:
        return _Asked(record, region, None, None, str(error))
    except InputError:
        return _Asked(record, region, None, None, None, refused=True)
    return _Asked(record, region, box, unseen, None)


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
    places = {picture_of(a.record): place for place, a in enumerate(asked)}
    drawn = torch.tensor([places[picture_of(a.record)] for a in asked])
    low, high = bootstrap_counts(mean_of(scores), len(asked), drawn, resamples, seed=seed)
    ends = zip(low.tolist(), high.tolist(), strict=True)
    values = scores.mean(dim=0).tolist()
    return {n: Metric(v, e, len(asked)) for n, v, e in zip(_NAMES, values, ends, strict=True)}


def _groups(
    asked: Sequence[_Asked], scores: Tensor, blind: Tensor | None, seed: int, resamples: int
) -> dict[str, dict[str, Metric]]:
    labels = sorted({a.record.label for a in asked if a.record.label is not None})
    by_label: dict[str, Metric] = {}
    for label in labels:
        rows = [place for place, a in enumerate(asked) if a.record.label == label]
        part = _metrics([asked[place] for place in rows], scores[rows], seed, resamples)
        by_label[label] = part[HEADLINE]
    if blind is None:
        return {"label": by_label}
    return {"label": by_label, "blind": _metrics(asked, blind, seed, resamples)}


def _truth(asked: _Asked) -> str:
    return f"{asked.record.id} {asked.region.label} {asked.region.box}"


def _samples(asked: Sequence[_Asked], scores: Tensor, blind: Tensor | None) -> tuple[Sample, ...]:
    without = [None] * len(asked) if blind is None else blind[:, 0].tolist()
    return tuple(map(_sample, asked, scores[:, -1].tolist(), without))


def _sample(asked: _Asked, overlap: float, blind: float | None) -> Sample:
    right = overlap >= THRESHOLDS[0]
    return Sample(
        id=f"{asked.record.id}#{asked.record.regions.index(asked.region)}",
        kind="grounding",
        target=(str(list(asked.region.box)),),
        ranking=() if asked.box is None else ((str(list(asked.box)), overlap),),
        rank=1.0 if right else math.inf,
        score=float(right),
        prompt=asked.region.label,
        group=picture_of(asked.record),
        status=asked.status,
        blind_score=blind,
    )
