"""The scores that a dual encoder of drawn parks is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sightline.data.park.records import ParkRecords
from sightline.data.park.vocabulary import COLOURS, KINDS
from sightline.data.records import Dataset, Record
from sightline.evaluation.results import Metric
from sightline.evaluation.retrieval import retrieval
from sightline.evaluation.zeroshot import zeroshot

if TYPE_CHECKING:
    from sightline.tasks.model import Model

PHRASES = tuple(f"{colour} {kind}" for kind in KINDS for colour in COLOURS)
"""All 200, the 30 held-out pairs included."""


def park_scores(
    model: Model,
    count: int = 2000,
    pairs: int = 1000,
    start: int = 0,
    shapes: Sequence[tuple[int, int]] = (),
) -> dict[str, Metric]:
    """Zero-shot accuracy on scenes of one object, and R@1 both ways among full scenes.

    "test kind" chooses among all 20 kinds, "test phrase" among all 200 phrases of colour and kind;
    "pairs phrase" the same where the pair was never seen in training. R@1 is taken among scenes
    no two of which share a caption.

    Args:
        count: scenes of one object for each of the three.
        pairs: scenes for R@1, at most.
        start: first seed. Whoever chooses by these scores reports those of other seeds.
        shapes: of the scenes, which are square where none is given.
    """
    found = {}
    for split in ("test", "pairs"):
        for label, names in (("kind", KINDS), ("phrase", PHRASES)):
            scenes = ParkRecords(split, start, count, objects=1, label=label, shapes=shapes)  # type: ignore[arg-type]
            result = zeroshot(model, scenes, labels=names)
            found[f"{split} {label}"] = result.metrics["top1"]
    metrics = retrieval(model, distinct(min(pairs, count), start=start, shapes=shapes)).metrics
    found["image to text"] = metrics["image_to_text/hit@1"]
    found["text to image"] = metrics["text_to_image/hit@1"]
    return found


def distinct(
    count: int,
    split: str = "test",
    start: int = 0,
    shapes: Sequence[tuple[int, int]] = (),
) -> Dataset:
    """Scenes no two of which share their caption; each keeps its first caption only."""
    records: dict[str, Record] = {}
    for record in ParkRecords(split, start, 4 * count, shapes=shapes):
        records.setdefault(
            record.caption, replace(record, captions=record.captions[:1], label=None)
        )
        if len(records) == count:
            break
    return Dataset(list(records.values()), name=f"park {split}, distinct captions")
