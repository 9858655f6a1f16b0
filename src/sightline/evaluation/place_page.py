"""Measured places as one HTML page: the numbers, and the pictures that went worst and best, drawn.

The model is asked for these few again, so that a run need not keep what was found in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sightline.core.outputs import Detection, Segment
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation.answer_page import opened
from sightline.evaluation.results import Result
from sightline.evaluation.samples import Sample
from sightline.tasks.batching import read_named
from sightline.tasks.marked import marked_item
from sightline.tasks.report import Report
from sightline.tasks.sheets import SheetItem

Things = Sequence[Detection | Segment]
Finder = Callable[[Any, Sample], Things]
"""What a model finds in the pixels of a picture, asked as for a sample."""


def place_page(result: Result, dataset: Dataset, find: Finder, count: int) -> Report:
    """The page.

    Args:
        result: of `evaluation.detect`, `segment` or `grounding`.
        dataset: the records that were measured; the pictures that are shown are read again.
        find: asks the model again.
        count: pictures of each kind.
    """
    page = opened(result)
    records = {record.id: record for record in dataset}
    read = [sample for sample in result.samples if sample.status != "missing"]
    ordered = sorted(read, key=lambda sample: sample.score)
    for title, chosen in (("Worst", ordered[:count]), ("Best", ordered[::-1][:count])):
        page.section(title, "What was found, and beside it what is there.")
        for sample in chosen:
            page.gallery(_pair(sample, records[_record_id(sample)], find))
    return page.section("Signature").code(result.signature)


def _record_id(sample: Sample) -> str:
    """Of a sample about a part of a record, whose id says which behind a sign."""
    return sample.id if sample.prompt is None else sample.id.rpartition("#")[0]


def _pair(sample: Sample, record: Record, find: Finder) -> list[SheetItem]:
    pixels = read_named(record.image, 0)
    height, width = pixels.shape[:2]
    asked = "" if sample.prompt is None else f"asked: {sample.prompt}\n"
    truth = [
        _thing(region, height, width)
        for region in record.regions
        if sample.prompt in (None, region.label)
    ]
    found = marked_item(pixels, list(find(pixels, sample)), f"{asked}found")
    return [found._replace(score=sample.score), marked_item(pixels, truth, f"{asked}truth")]


def _thing(region: Region, height: int, width: int) -> Detection | Segment:
    if region.outline is None:
        return Detection(region.label, None, region.box)
    return Segment(region.label, None, region.box, region.mask(height, width))
