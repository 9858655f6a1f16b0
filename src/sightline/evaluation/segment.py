"""Segmentation by name: do the pixels that a model gives for a name fit those of what has it?

A sample is a picture and one label in it: the union of all masks against the union of all outlines
(referring expressions of RefCOCO are labels too). mIoU and oIoU as in `metrics.masks`, and P@. No
mask, one of another picture's size and a broken picture score 0. Labels that are not in a picture
are not asked for: what a model cuts out where there is nothing, `eval detect` tells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.errors import InputError
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation import results
from sightline.evaluation.judged import Measuring, no_truth
from sightline.evaluation.kept import remembering
from sightline.evaluation.records import UNREADABLE, drawn_part
from sightline.evaluation.results import Metric, Result, Sample
from sightline.evaluation.shown import (
    BASELINE,
    CuttingModel,
    Shown,
    against_grey,
    picture_of,
    places_sha,
    show,
    truth_line,
)
from sightline.metrics.intervals import bootstrap_counts
from sightline.metrics.masks import THRESHOLDS, Overlap, mask_scores, overlap

VERSION = 1
"""Raised when the same model and data would score differently than before."""
HEADLINE = "mIoU"
_NAMES = ("mIoU", "oIoU", *(f"P@{each}" for each in THRESHOLDS))


class _Cut(NamedTuple):
    """A label of a picture and how well what was cut out for it fits."""

    record: Record
    label: str
    own: Overlap
    blind: Overlap
    status: str
    answered: bool
    reason: str | None
    """Why the picture could not be read."""


def segment(model: CuttingModel, dataset: Dataset, how: Measuring | None = None) -> Result:
    """mIoU, oIoU and P@ over labels of pictures, with the same before grey pictures.

    Intervals draw whole pictures. Groups: `label` (mIoU of each) and `blind`.

    Args:
        model: what `sightline.load` returns.
        dataset: records with outlined regions; those without are excluded, and so are crowds.
        how: limit, blind run, a folder to go on in, seed, resamples.

    Raises:
        DataError: no record has an outline, or one is damaged.
        ConfigError: a limit below 1.
        UnsupportedTaskError: the model writes no masks.
    """
    started = time.monotonic()
    how = how or Measuring()
    usable = [record for record in dataset if _outlined(record)]
    if not usable and len(dataset):
        raise no_truth(dataset, "an outline", "segmentation needs regions with polygons or runs "
                       "(COCO, or 'sightline data park --to instances')")  # fmt: skip
    records = drawn_part(usable, how.limit, how.seed)
    cut: list[_Cut] = []
    with remembering(model, how.folder) as cutter:
        for place, record in enumerate(records):
            shown = show(record, place)
            cut += [
                _cut(cutter, record, label, regions, shown, how.blind)
                for label, regions in _outlined(record).items()
            ]
            if how.progress is not None:
                how.progress(place + 1, len(records))
    samples = tuple(_sample(each, how.blind) for each in cut)
    missing = {each.record.id: each.reason for each in cut if each.reason is not None}
    return results.build(
        model, "segment", VERSION, HEADLINE, places_sha(records),
        {"asked": "single", "masks": "union", "blind": BASELINE, "n": len(cut)},
        started,
        variant="union of a label",
        metrics=_metrics(cut, [each.own for each in cut], how),
        n=len(cut),
        data=dataset.name,
        n_invalid=sum(each.status == "invalid" for each in cut),
        n_unparsed=sum(not each.answered and each.status == "ok" for each in cut),
        n_missing=sum(each.status == "missing" for each in cut),
        n_excluded=len(dataset) - len(usable),
        missing=tuple(f"{name}: {reason}" for name, reason in missing.items()),
        groups=_groups(cut, how),
        settings={"limit": how.limit, "records": len(records), "blind": how.blind},
        seed=how.seed,
        counted="labels in pictures",
        partial=len(records) < len(usable),
        samples=samples,
        **against_grey(samples, how.seed),
    )  # fmt: skip


def _outlined(record: Record) -> dict[str, list[Region]]:
    """The regions of each label that have an outline; none of a label of which one has not."""
    found: dict[str, list[Region]] = {}
    for region in record.regions:
        if not region.crowd:
            found.setdefault(region.label, []).append(region)
    return {
        label: own
        for label, own in found.items()
        if all(region.outline is not None for region in own)
    }


def _cut(
    model: CuttingModel, record: Record, label: str, regions: Sequence[Region], shown: Shown,
    blind: bool,
) -> _Cut:  # fmt: skip
    if shown.pixels is None:
        nothing = overlap(None, _truth(regions, *_extent(regions)))
        return _Cut(record, label, nothing, nothing, "missing", False, shown.reason)
    truth = _truth(regions, *shown.pixels.shape[:2])
    nothing = overlap(None, truth)
    try:
        masks = [each.mask for each in model.segment(shown.pixels, [label])]
        unseen = [each.mask for each in model.segment(shown.grey, [label])] if blind else []
    except UNREADABLE as error:
        return _Cut(record, label, nothing, nothing, "missing", False, str(error))
    except InputError:  # a label without words cannot be asked for
        return _Cut(record, label, nothing, nothing, "invalid", False, None)
    own, other = _united(masks, truth), _united(unseen, truth)
    status = "ok" if own is not None else "invalid"
    return _Cut(record, label, own or nothing, other or nothing, status, bool(masks), None)


def _truth(regions: Sequence[Region], height: int, width: int) -> NDArray[np.bool_]:
    return np.logical_or.reduce([region.mask(height, width) for region in regions])


def _extent(regions: Sequence[Region]) -> tuple[int, int]:
    """(H, W) that hold all outlines, of a picture that tells no size itself."""
    for region in regions:
        if isinstance(region.outline, Mapping):
            height, width = region.outline["size"]
            return int(height), int(width)
    return tuple(math.ceil(max(region.box[side] for region in regions)) for side in (3, 2))  # type: ignore[return-value]


def _united(masks: Sequence[Any], truth: NDArray[np.bool_]) -> Overlap | None:
    """The overlap of all masks together; None where one is none of this picture."""
    if any(mask.shape != truth.shape or mask.dtype != np.bool_ for mask in masks):
        return None
    return overlap(np.logical_or.reduce(masks) if masks else None, truth)


def _metrics(cut: Sequence[_Cut], overlaps: Sequence[Overlap], how: Measuring) -> dict[str, Metric]:
    if not cut:
        return {name: Metric(math.nan) for name in _NAMES}
    scores = mask_scores(overlaps)
    values = [scores.mean_iou, scores.overall_iou, *scores.precision.values()]
    places = {name: k for k, name in enumerate(dict.fromkeys(picture_of(c.record) for c in cut))}
    pictures = torch.tensor([places[picture_of(each.record)] for each in cut])
    low, high = bootstrap_counts(
        _of_sets(overlaps), len(cut), pictures, how.resamples, seed=how.seed
    )
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return {n: Metric(v, e, len(cut)) for n, v, e in zip(_NAMES, values, ends, strict=True)}


def _of_sets(overlaps: Sequence[Overlap]) -> Callable[[Tensor], Tensor]:
    """The numbers of drawn sets, float64[R, N] to [R, 7]."""
    ious = torch.tensor([each.iou for each in overlaps], dtype=torch.float64)
    reached = torch.stack([(ious >= each).double() for each in THRESHOLDS], dim=1)  # [N 5]
    pixels = torch.tensor(overlaps, dtype=torch.float64)  # [N 2]

    def numbers(times: Tensor) -> Tensor:
        count = times.sum(dim=1, keepdim=True)
        shared, covered = (times @ pixels).unbind(dim=1)
        overall = (shared / covered.clamp(min=1))[:, None]
        return torch.cat([times @ ious[:, None] / count, overall, times @ reached / count], dim=1)

    return numbers


def _groups(cut: Sequence[_Cut], how: Measuring) -> dict[str, dict[str, Metric]]:
    rows: dict[str, list[_Cut]] = {}
    for each in cut:
        rows.setdefault(each.label, []).append(each)
    by_label = {
        label: _metrics(own, [each.own for each in own], how)[HEADLINE]
        for label, own in sorted(rows.items())
    }
    if not how.blind:
        return {"label": by_label}
    return {"label": by_label, "blind": _metrics(cut, [each.blind for each in cut], how)}


def _sample(cut: _Cut, blind: bool) -> Sample:
    named = [region for region in cut.record.regions if region.label == cut.label]
    return Sample(
        id=f"{cut.record.id}#{cut.label}",
        kind=HEADLINE,
        target=tuple(map(truth_line, named)),
        ranking=(),
        rank=1.0 if cut.own.iou >= THRESHOLDS[0] else math.inf,
        score=cut.own.iou,
        prompt=cut.label,
        group=picture_of(cut.record),
        status=cut.status,
        blind_score=cut.blind.iou if blind else None,
    )
