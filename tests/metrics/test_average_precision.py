"""Average precision against pycocotools, and once by hand."""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sightline.core.errors import ConfigError, InputError
from sightline.metrics.average_precision import (
    STATISTICS,
    AveragePrecision,
    FoundThing,
    TrueThing,
    average_precision,
)

# The tools' arrays predate NumPy 2's `copy` keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Case = tuple[list[str], list[TrueThing], list[FoundThing]]


def blob(dice: np.random.Generator, box: tuple[float, ...]) -> np.ndarray:
    """An ellipse in a box: its area is not that of the box."""
    x1, y1, x2, y2 = box
    mask = np.zeros((200, 300), bool)
    rows, columns = (
        slice(int(max(y1, 0)), int(max(y2, 0)) + 1),
        slice(int(max(x1, 0)), int(max(x2, 0)) + 1),
    )
    down, across = np.ogrid[rows, columns]
    centre, radius = ((x1 + x2) / 2, (y1 + y2) / 2), (max(x2 - x1, 1) / 2, max(y2 - y1, 1) / 2)
    inside = ((across - centre[0]) / radius[0]) ** 2 + ((down - centre[1]) / radius[1]) ** 2 <= 1
    kept = inside & (dice.random(inside.shape) < 0.97)
    mask[rows, columns] = kept[: mask[rows].shape[0], : mask[:, columns].shape[1]]
    return mask


def case(seed: int, images: int = 8, crowded: bool = False) -> Case:
    """Crowds, equal scores, empty pictures, empty labels, labels of nothing, many detections."""
    dice = np.random.default_rng(seed)
    names = [f"picture {place}" for place in range(images)]
    truth, found = [], []
    for name in names:
        for _ in range(int(dice.integers(0, 5))):
            corner = dice.uniform(0, [200, 120])
            side = dice.choice([10, 25, 36, 45, 90, 106, 150]) * dice.uniform(0.8, 1.2, 2)
            box = tuple(float(v) for v in (*corner, *(corner + side)))
            label = str(dice.choice(["cat", "dog", "car"]))
            mask = blob(dice, box)
            area = float(mask.sum()) if dice.random() < 0.7 else float(side.prod())
            truth.append(TrueThing(name, label, box, mask, area, bool(dice.random() < 0.2)))  # type: ignore[arg-type]
            for _ in range(150 if crowded else int(dice.integers(0, 4))):
                moved = np.array(box) + dice.normal(0, 0.06 * side.mean(), 4)
                moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
                score = float(dice.choice([0.1, 0.3, 0.5, 0.7, 0.9]))
                said = label if dice.random() < 0.85 else str(dice.choice(["cat", "dog", "sofa"]))
                shape = tuple(map(float, moved))
                found.append(FoundThing(name, said, score, shape, blob(dice, shape)))  # type: ignore[arg-type]
    return names, truth, found


def theirs(data: Case, by: str) -> tuple[list[float], dict[str, float]]:
    """The same by pycocotools; masks as their own run lengths."""
    images, truth, found = data
    labels = sorted({thing.label for thing in truth})

    def packed(mask: Any) -> Any:
        return coco_mask.encode(np.asfortranarray(mask, np.uint8))

    def sized(box: Any) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    api = COCO()
    api.dataset = {
        "info": {},
        "images": [{"id": place, "height": 200, "width": 300} for place, _ in enumerate(images, 1)],
        "categories": [{"id": place, "name": name} for place, name in enumerate(labels, 1)],
        "annotations": [
            {
                "id": place, "image_id": images.index(t.image) + 1,
                "category_id": labels.index(t.label) + 1, "bbox": sized(t.box),
                "segmentation": packed(t.mask), "area": t.area, "iscrowd": int(t.crowd),
            }
            for place, t in enumerate(truth, 1)
        ],
    }  # fmt: skip
    results = [
        {"image_id": images.index(f.image) + 1, "category_id": labels.index(f.label) + 1,
         "score": f.score}
        | ({"bbox": sized(f.box)} if by == "boxes" else {"segmentation": packed(f.mask)})
        for f in found if f.label in labels
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(results), "bbox" if by == "boxes" else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    each = {}
    for place, name in enumerate(labels):
        values = evaluation.eval["precision"][:, :, place, 0, -1]
        each[name] = float(values[values > -1].mean()) if (values > -1).any() else math.nan
    return [float(value) for value in evaluation.stats], each


def same(ours: AveragePrecision, reference: tuple[list[float], dict[str, float]]) -> None:
    numbers, labels = reference
    assert list(ours.statistics) == list(STATISTICS)
    for name, number in zip(STATISTICS, numbers, strict=True):
        want = math.nan if number == -1 else number
        assert ours.statistics[name] == pytest.approx(want, abs=1e-12, nan_ok=True), name
    assert ours.per_label == pytest.approx(labels, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("by", ["boxes", "masks"])
@pytest.mark.parametrize("seed", range(6))
def test_the_numbers_are_those_of_pycocotools(seed: int, by: Any) -> None:
    data = case(seed)
    assert any(thing.crowd for thing in data[1])
    same(average_precision(*data, by=by), theirs(data, by))


def test_more_than_a_hundred_detections_of_a_picture() -> None:
    data = case(1, images=3, crowded=True)
    assert max(Counter((f.image, f.label) for f in data[2]).values()) > 100
    same(average_precision(*data), theirs(data, "boxes"))


def mistake(change: Callable[[TrueThing], TrueThing | None]) -> None:
    """A changed truth gives other numbers: the comparison above would see it."""
    images, truth, found = case(2, images=20)
    changed = [new for thing in truth if (new := change(thing)) is not None]
    right = average_precision(images, truth, found).statistics
    wrong = average_precision(images, changed, found).statistics
    assert any(abs(right[name] - wrong[name]) > 1e-6 for name in STATISTICS)


def test_known_mistakes_change_the_numbers() -> None:
    mistake(lambda thing: None if thing.crowd else thing)  # crowds left out
    mistake(lambda thing: thing._replace(crowd=False))  # crowds to be found
    mistake(lambda thing: thing._replace(area=None, mask=None))  # the area of the box


def test_one_case_by_hand() -> None:
    """Two things, of one label, in one picture; three detections, by falling score: right at every
    overlap, wrong, right up to 0.70 (14 / 20)."""
    truth = [TrueThing("a", "cat", (0, 0, 20, 20)), TrueThing("a", "cat", (100, 0, 120, 20))]
    found = [
        FoundThing("a", "cat", 0.9, (0, 0, 20, 20)),
        FoundThing("a", "cat", 0.8, (50, 50, 70, 70)),
        FoundThing("a", "cat", 0.7, (100, 0, 120, 14.2)),
    ]
    scores = average_precision(["a", "b"], truth, found)
    # Recall 0 to 0.50 (51 of 101 points) at precision 1, the others at 2/3 or at 0.
    low = (51 + 50 * 2 / 3) / 101
    high = 51 / 101
    assert scores.statistics["AP50"] == pytest.approx(low)
    assert scores.statistics["AP75"] == pytest.approx(high)
    assert scores.statistics["AP"] == pytest.approx((5 * low + 5 * high) / 10)
    assert scores.statistics["AR_1"] == pytest.approx(0.5)
    assert scores.statistics["AR_100"] == pytest.approx((5 * 1 + 5 * 0.5) / 10)
    assert scores.statistics["AP_small"] == pytest.approx(scores.statistics["AP"])
    assert math.isnan(scores.statistics["AP_large"])  # there was nothing to find
    assert scores.per_label == {"cat": pytest.approx(scores.statistics["AP"])}


def test_nothing_found_is_0_and_nothing_to_find_is_nan() -> None:
    truth = [TrueThing("a", "cat", (0, 0, 20, 20))]
    assert average_precision(["a"], truth, []).statistics["AP"] == 0
    found = [FoundThing("a", "cat", 0.9, (0, 0, 20, 20))]
    for things in (found, []):
        empty = average_precision(["a"], [], things)
        assert all(math.isnan(value) for value in empty.statistics.values())
        assert empty.per_label == {}
    assert average_precision(["a"], truth, found).statistics["AP"] == pytest.approx(1)


def test_run_lengths_are_taken_as_they_are_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    images, truth, found = case(4)
    packed = [
        thing._replace(mask=coco_mask.encode(np.asfortranarray(thing.mask, np.uint8)))
        for thing in (*truth, *found)
    ]
    again = average_precision(images, packed[: len(truth)], packed[len(truth) :], "masks")
    plain = average_precision(images, truth, found, "masks")
    assert again.statistics == pytest.approx(plain.statistics, nan_ok=True)
    assert capfd.readouterr() == ("", "")


def test_refusals() -> None:
    truth = [TrueThing("a", "cat", (0, 0, 20, 20))]
    with pytest.raises(InputError, match="unknown picture 'b'"):
        average_precision(["a"], truth, [FoundThing("b", "cat", 0.5, (0, 0, 1, 1))])
    with pytest.raises(InputError, match="'cat' in 'a' has none of the masks to score"):
        average_precision(["a"], truth, [], by="masks")
    with pytest.raises(InputError, match="'cat' in 'a' has none of the boxes to score"):
        average_precision(["a"], truth, [FoundThing("a", "cat", 0.5)])
    with pytest.raises(InputError, match="has the score nan: average precision ranks by scores"):
        average_precision(["a"], truth, [FoundThing("a", "cat", math.nan, (0, 0, 1, 1))])
    small, large = np.ones((2, 3), bool), np.ones((3, 3), bool)
    masked = [TrueThing("a", "cat", (0, 0, 3, 2), small)]
    with pytest.raises(InputError, match=r"'a' has masks of sizes \[2, 3\] and \[3, 3\]"):
        average_precision(["a"], masked, [FoundThing("a", "cat", 0.5, None, large)], by="masks")
    with pytest.raises(ConfigError, match="unknown kind of overlap 'segm'"):
        average_precision(["a"], truth, [], by="segm")  # type: ignore[arg-type]
