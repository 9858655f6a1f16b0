"""Average precision and recall of detections as COCO defines them, for boxes and for masks.

Lin et al. 2014 (arXiv:1405.0312), computed by faster-coco-eval, whose numbers are those of
pycocotools: overlaps 0.50:0.05:0.95, 101 recall points, at most 1, 10 or 100 detections a picture
and label, areas split at 32² and 96² pixels. A crowd may match many detections and is never to be
found itself. What the model finds needs a score; an order is no ranking over pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, InputError, unknown_name
from sightline.core.lazy import require
from sightline.core.outputs import Box

STATISTICS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""In COCO's order. AP and AR are means over overlaps, labels and what else is not named."""

_NO_SIZE = {"height": 1, "width": 1}
"""Of pictures without masks, where it is not looked at."""

Mask = NDArray[np.bool_] | Mapping[str, Any]
"""bool[H, W], or COCO's compressed run lengths, which stay as they are in memory."""


class TrueThing(NamedTuple):
    """Something there is to find."""

    image: str
    label: str
    box: Box
    mask: Mask | None = None
    area: float | None = None
    """In pixels, as annotated: it decides whether the thing is small, for boxes too. None: of the
    mask, or of the box where there is none, which moves AP_small and its kin."""
    crowd: bool = False


class FoundThing(NamedTuple):
    """Something that a model says there is."""

    image: str
    label: str
    score: float
    box: Box | None = None
    mask: Mask | None = None


class AveragePrecision(NamedTuple):
    """What `average_precision` finds."""

    statistics: dict[str, float]
    """The twelve of `STATISTICS`; NaN where there was nothing to find."""
    per_label: dict[str, float]
    """AP of each label that there was to find."""


def average_precision(
    images: Sequence[str],
    truth: Sequence[TrueThing],
    found: Sequence[FoundThing],
    by: Literal["boxes", "masks"] = "boxes",
) -> AveragePrecision:
    """Score detections over pictures.

    Args:
        images: names of all pictures; in those without truth every detection is wrong.
        truth: what there is.
        found: what was found; equal scores rank in this order.
        by: whether boxes or masks have to overlap.

    Raises:
        InputError: a picture that is not among `images`, a box or mask that is missing, masks of
            two sizes in one picture, or a score that is not finite.
        ConfigError: another word than boxes or masks.
        MissingDependencyError: faster-coco-eval is not installed.
    """
    if by not in ("boxes", "masks"):
        raise ConfigError(unknown_name("kind of overlap", by, ("boxes", "masks")))
    coco = require("faster_coco_eval", "eval", "average precision")
    numbers = {name: number for number, name in enumerate(images, start=1)}
    labels = {name: k for k, name in enumerate(sorted({t.label for t in truth}), start=1)}
    things: list[TrueThing | FoundThing] = [*truth, *found]
    for thing in things:
        _check(thing, numbers, by)
    annotations = [
        _annotation(each, place, numbers, labels, coco.mask)
        for place, each in enumerate(truth, start=1)  # the id 0 would mean "unmatched"
    ]
    # A label that there is nothing of is not among COCO's categories, and counts for nothing there.
    known = [_result(f, numbers, labels, by, coco.mask) for f in found if f.label in labels]
    sizes = _sizes([*annotations, *known], images) if by == "masks" else {}
    wanted = coco.COCO(
        {
            "images": [{"id": n} | sizes.get(n, _NO_SIZE) for n in numbers.values()],
            "categories": [{"id": number, "name": name} for name, number in labels.items()],
            "annotations": annotations,
        }
    )
    evaluation = coco.COCOeval_faster(
        wanted, wanted.loadRes(known), "bbox" if by == "boxes" else "segm", rle_iou_max_workers=1
    )
    evaluation.run()
    statistics = dict(zip(STATISTICS, map(_defined, evaluation.stats), strict=False))
    precision = np.asarray(evaluation.eval["precision"])  # [overlap recall label area most]
    per_label = {
        name: _mean_defined(precision[:, :, number - 1, 0, -1]) for name, number in labels.items()
    }
    return AveragePrecision(statistics, per_label)


def _check(thing: TrueThing | FoundThing, images: Mapping[str, int], by: str) -> None:
    if thing.image not in images:
        raise InputError(unknown_name("picture", thing.image, images))
    if (thing.mask if by == "masks" else thing.box) is None:
        raise InputError(f"{thing.label!r} in {thing.image!r} has none of the {by} to score")
    if isinstance(thing, FoundThing) and not np.isfinite(thing.score):
        raise InputError(
            f"{thing.label!r} in {thing.image!r} has the score {thing.score}: average precision "
            "ranks by scores"
        )


def _annotation(
    thing: TrueThing, place: int, images: Mapping[str, int], labels: Mapping[str, int], mask: Any
) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    area = thing.area
    annotation = {
        "id": place,
        "image_id": images[thing.image],
        "category_id": labels[thing.label],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": int(thing.crowd),
    }
    if thing.mask is not None:
        annotation["segmentation"] = _run_lengths(thing.mask, mask)
        area = float(mask.area(annotation["segmentation"])) if area is None else area
    annotation["area"] = (x2 - x1) * (y2 - y1) if area is None else area
    return annotation


def _result(
    thing: FoundThing, images: Mapping[str, int], labels: Mapping[str, int], by: str, mask: Any
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "image_id": images[thing.image],
        "category_id": labels[thing.label],
        "score": float(thing.score),
    }
    if by == "boxes" and thing.box is not None:
        x1, y1, x2, y2 = thing.box
        return result | {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    return result | {"segmentation": _run_lengths(thing.mask, mask)}


def _sizes(things: Sequence[Mapping[str, Any]], images: Sequence[str]) -> dict[int, dict[str, int]]:
    """Height and width of each picture that has masks, which have to agree."""
    sizes: dict[int, dict[str, int]] = {}
    for thing in things:
        height, width = thing["segmentation"]["size"]
        size = sizes.setdefault(thing["image_id"], {"height": height, "width": width})
        if list(size.values()) != [height, width]:
            raise InputError(
                f"{images[thing['image_id'] - 1]!r} has masks of sizes {list(size.values())} and "
                f"{[height, width]}: they must be those of the picture"
            )
    return sizes


def _run_lengths(given: Any, mask: Any) -> Any:
    return (
        dict(given) if isinstance(given, Mapping) else mask.encode(np.asfortranarray(given, "u1"))
    )


def _defined(value: float) -> float:
    """COCO's -1 says that there was nothing to find."""
    return float("nan") if value == -1 else float(value)


def _mean_defined(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
