"""Detection: every labelled thing in a picture, and nothing else.

AP as COCO has it (Lin et al. 2014, arXiv:1405.0312; see `metrics.average_precision`), ranked by the
score that the model gives a box; of a model that writes this is made of the probabilities of the
tokens (`tasks.detect`) and not calibrated. Beside it stand precision, recall and F1 of the boxes as
they are, at an overlap of 0.5, which need no ranking. A broken picture keeps its things, unfound.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from sightline.core.errors import ConfigError, DataError, UnsupportedTaskError, unknown_name
from sightline.core.outputs import Box, Detection
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation import results
from sightline.evaluation.judged import Measuring, no_truth
from sightline.evaluation.kept import remembering
from sightline.evaluation.records import drawn_part
from sightline.evaluation.results import Metric, Result, Sample
from sightline.evaluation.shown import (
    BASELINE,
    FindingModel,
    against_grey,
    picture_of,
    places_sha,
    show,
    truth_line,
)
from sightline.metrics.average_precision import (
    STATISTICS,
    AveragePrecision,
    FoundThing,
    TrueThing,
    average_precision,
)
from sightline.metrics.boxes import Counts, match, total
from sightline.metrics.intervals import bootstrap_counts

Queries = Literal["together", "single"]
QUERIES: tuple[Queries, ...] = get_args(Queries)
VERSION = 1
"""Raised when the same model and data would score differently than before."""
HEADLINE = "AP"
OVERLAP = 0.5
_SHARES = ("precision@0.5", "recall@0.5", "f1@0.5", "f1@0.5/pictures")
_NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)
AP_DRAWS = 100
"""Drawn sets behind the interval of AP at most: each is a whole evaluation."""


class _Looked(NamedTuple):
    """A picture and what was found in it."""

    record: Record
    found: list[Detection]
    blind: list[Detection]
    invalid: bool
    """Whether the model gave a box or a score that is not finite."""
    reason: str | None
    """Why the picture could not be read."""


def detect(
    model: FindingModel,
    dataset: Dataset,
    how: Measuring | None = None,
    queries: Queries = "together",
) -> Result:
    """COCO's twelve numbers, and precision, recall and F1, with the same before grey pictures.

    The model is asked for all labels of the data. `f1@0.5` is that of all boxes together,
    `f1@0.5/pictures` the mean over pictures (1 where there is nothing and nothing was found), which
    the test against the grey pictures is about. A crowd is not to be found, and boxes in it count
    for nothing. A box or score that is not finite is a wrong box of the highest score. Intervals
    draw whole pictures, of AP in `AP_DRAWS` sets. Groups: `label` (AP of each) and `blind`.

    Args:
        model: what `sightline.load` returns.
        dataset: records with regions, each picture in one record; a picture without any region
            stays in: what is found there is wrong.
        how: limit, blind run, a folder to go on in, seed, resamples.
        queries: ask for all labels "together", or for each in a question of its own ("single").

    Raises:
        DataError: no record has a region, or one picture stands in several records.
        ConfigError: a limit below 1, or another way to ask.
        UnsupportedTaskError: the model gives its boxes no score.
    """
    started = time.monotonic()
    how = how or Measuring()
    if queries not in QUERIES:
        raise ConfigError(unknown_name("way to ask", queries, QUERIES))
    labels = _labels(dataset)
    records = drawn_part(dataset, how.limit, how.seed)
    looked, asked = [], asked_for(labels, queries)
    with remembering(model, how.folder) as finder:
        for place, record in enumerate(records):
            looked.append(_look(finder, record, place, asked, how.blind))
            if how.progress is not None:
                how.progress(place + 1, len(records))
    samples = tuple(_sample(each, how.blind) for each in looked)
    metrics, by_label = _metrics(looked, [each.found for each in looked], how)
    groups: dict[str, dict[str, Metric]] = {"label": by_label}
    if how.blind:
        groups["blind"] = _metrics(looked, [each.blind for each in looked], how)[0]
    return results.build(
        model, "detect", VERSION, HEADLINE, places_sha(records),
        {"asked": queries, "labels": results.short_hash(labels), "blind": BASELINE,
         "n": len(looked)},
        started,
        variant="coco",
        metrics=metrics,
        n=len(looked),
        data=dataset.name,
        n_invalid=sum(each.invalid for each in looked),
        n_unparsed=sum(
            not each.found and each.reason is None and bool(each.record.regions) for each in looked
        ),
        n_missing=sum(each.reason is not None for each in looked),
        missing=tuple(f"{e.record.id}: {e.reason}" for e in looked if e.reason is not None),
        groups=groups,
        settings={"limit": how.limit, "queries": queries, "labels": labels, "blind": how.blind},
        seed=how.seed,
        partial=len(records) < len(dataset),
        samples=samples,
        **against_grey(samples, how.seed),
    )  # fmt: skip


def _labels(dataset: Dataset) -> list[str]:
    """What to ask for: of all the data, so that a limit does not change the question."""
    labels = sorted({region.label for record in dataset for region in record.regions})
    if not labels and len(dataset):
        raise no_truth(dataset, "a region", "detection needs boxes with labels (COCO, VOC, or "
                       "'sightline data park --to instances')")  # fmt: skip
    twice = [name for name, k in Counter(map(picture_of, dataset)).items() if k > 1]
    if twice:
        raise DataError(
            f"{len(twice)} picture(s) of {dataset.name!r} stand in several records: all boxes of a "
            "picture must be in one (for expressions there is 'sightline eval grounding')"
        )
    return labels


def asked_for(labels: Sequence[str], queries: Queries) -> list[list[str]]:
    """What each question about a picture asks for."""
    return [list(labels)] if queries == "together" else [[label] for label in labels]


def _look(
    model: FindingModel, record: Record, place: int, asked: Sequence[list[str]], blind: bool
) -> _Looked:
    shown = show(record, place)
    if shown.pixels is None:
        return _Looked(record, [], [], False, shown.reason)
    found, unseen = (
        [] if pixels is None else [each for words in asked for each in model.detect(pixels, words)]
        for pixels in (shown.pixels, shown.grey if blind else None)
    )
    return _Looked(
        record, [*map(_counted, found)], [*map(_counted, unseen)], not all(map(_finite, found)),
        None,
    )  # fmt: skip


def _finite(found: Detection) -> bool:
    if found.score is None:
        raise UnsupportedTaskError(
            f"the model gives {found.label!r} a box without a score, and average precision ranks "
            "by scores: measure it with 'sightline eval grounding'"
        )
    return bool(np.isfinite([*found.box, found.score]).all())


def _counted(found: Detection) -> Detection:
    """The same, or a box that fits nothing, ahead of all others."""
    return found if _finite(found) else Detection(found.label, 1.0, _NOWHERE)


def _count(record: Record, found: Sequence[Detection]) -> Counts:
    """What is right of one picture, crowds aside."""
    truth = [Detection(r.label, None, r.box) for r in record.regions if not r.crowd]
    matches = match(truth, found, OVERLAP)
    crowds = [region for region in record.regions if region.crowd]
    free = sum(
        own is None and any(_inside(each, crowd) for crowd in crowds)
        for own, each in zip(matches, found, strict=True)
    )
    return Counts(sum(own is not None for own in matches), len(found) - free, len(truth))


def _inside(found: Detection, crowd: Region) -> bool:
    """Whether so much of a box lies in a crowd of its label, as COCO counts it."""
    low, high = np.maximum(found.box[:2], crowd.box[:2]), np.minimum(found.box[2:], crowd.box[2:])
    shared = float((high - low).clip(min=0).prod())
    area = float(np.subtract(found.box[2:], found.box[:2]).clip(min=0).prod())
    return found.label == crowd.label and shared > 0 and shared >= OVERLAP * area


def _metrics(
    looked: Sequence[_Looked], found: Sequence[Sequence[Detection]], how: Measuring
) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """All numbers, and AP of each label; NaN for no picture."""
    names = (*STATISTICS, *_SHARES)
    if not looked:
        return {name: Metric(math.nan) for name in names}, {}
    precision = _precision(looked, found, range(len(looked)))
    counts = [_count(each.record, own) for each, own in zip(looked, found, strict=True)]
    whole = total(counts)
    single = [_of_picture(each, own) for each, own in zip(looked, counts, strict=True)]
    shares = _shares(counts, single)
    values = [*precision.statistics.values(), whole.precision, whole.recall, whole.f1,
              sum(single) / len(single)]  # fmt: skip
    low, high = bootstrap_counts(shares, len(looked), None, how.resamples, seed=how.seed)
    ends = [*_precision_ends(looked, found, how), *zip(low.tolist(), high.tolist(), strict=True)]
    metrics = {
        name: Metric(value, end, len(looked))
        for name, value, end in zip(names, values, ends, strict=True)
    }
    things = Counter(r.label for each in looked for r in each.record.regions if not r.crowd)
    by_label = {k: Metric(v, None, things[k]) for k, v in precision.per_label.items() if things[k]}
    return metrics, by_label


def _shares(counts: Sequence[Counts], single: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """Precision, recall and F1 of drawn sets, float64[R, N] to [R, 4]."""
    values = torch.tensor(counts, dtype=torch.float64)  # [N 3]
    means = torch.tensor(single, dtype=torch.float64)

    def of_sets(times: Tensor) -> Tensor:
        hits, found, truth = (times @ values).unbind(dim=1)
        empty = torch.where(found + truth > 0, 0.0, math.nan)
        return torch.stack([
            hits / found.clamp(min=1) + empty, hits / truth.clamp(min=1) + empty,
            2 * hits / (found + truth), times @ means / times.sum(dim=1),
        ], dim=1)  # fmt: skip

    return of_sets


def _precision(
    looked: Sequence[_Looked], found: Sequence[Sequence[Detection]], places: Sequence[int]
) -> AveragePrecision:
    """AP over the pictures at these places; one that comes twice is two pictures."""
    truth, things = [], []
    for number, place in enumerate(places):
        name = str(number)
        truth += [TrueThing(name, r.label, r.box, None, r.area, r.crowd)
                  for r in looked[place].record.regions]  # fmt: skip
        things += [FoundThing(name, f.label, f.score or 0.0, f.box) for f in found[place]]
    return average_precision([str(number) for number in range(len(places))], truth, things)


def _precision_ends(
    looked: Sequence[_Looked], found: Sequence[Sequence[Detection]], how: Measuring
) -> list[tuple[float, float] | None]:
    numbers = torch.arange(len(looked))

    def of_sets(times: Tensor) -> Tensor:
        rows = [
            _precision(looked, found, numbers.repeat_interleave(row.long()).tolist())
            for row in times
        ]
        return torch.tensor([list(row.statistics.values()) for row in rows]).double()

    if not how.resamples:
        return [None] * len(STATISTICS)
    draws = min(how.resamples, AP_DRAWS)
    low, high = bootstrap_counts(of_sets, len(looked), None, draws, seed=how.seed)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _of_picture(looked: _Looked, counts: Counts) -> float:
    """F1; 1 for rightly nothing, and 0 for a picture that was not read, whatever is in it."""
    if looked.reason is not None:
        return 0.0
    return 1.0 if not counts.found + counts.truth else counts.f1


def _sample(looked: _Looked, blind: bool) -> Sample:
    record = looked.record
    score = _of_picture(looked, _count(record, looked.found))
    return Sample(
        id=record.id,
        kind="f1@0.5/pictures",
        target=tuple(map(truth_line, record.regions)),
        ranking=tuple(
            (f"{each.label} {list(each.box)}", each.score or 0.0) for each in looked.found
        ),
        rank=1.0 if score == 1 else math.inf,
        score=score,
        group=picture_of(record),
        status="missing" if looked.reason is not None else "invalid" if looked.invalid else "ok",
        blind_score=_of_picture(looked, _count(record, looked.blind)) if blind else None,
    )
