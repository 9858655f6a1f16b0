"""Boxes for expressions, by models whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sightline.core.errors import DataError
from sightline.core.outputs import Detection
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation.grounding import grounding


def _data(count: int = 4) -> Dataset:
    return Dataset(
        [
            Record(
                f"r{k}",
                np.full((40, 60, 3), 10 * k, np.uint8),
                label="cat" if k % 2 else "dog",
                regions=(Region(f"thing {k}", (k, 2, k + 20, 30)),),
            )
            for k in range(count)
        ]
    )


class _Answers:
    """Finds by name what it was told, in pictures that are not grey."""

    def __init__(self, boxes, blind=None):
        self.boxes, self.blind = boxes, blind or {}

    def detect(self, image, queries=None):
        (query,) = queries
        known = self.blind if np.asarray(image).flat[0] == 127 else self.boxes
        return [Detection(query, None, known[query])] if query in known else []


def _truth(data: Dataset):
    return {r.label: r.box for record in data for r in record.regions}


def test_a_perfect_model_reaches_everything_and_nothing_blind():
    data = _data()
    result = grounding(_Answers(_truth(data)), data, resamples=20)
    assert {name: metric.value for name, metric in result.metrics.items()} == {
        "acc@0.5": 1, "acc@0.7": 1, "acc@0.9": 1, "mean_iou": 1,
    }  # fmt: skip
    assert result.groups["blind"]["acc@0.5"].value == 0
    assert {name: m.n for name, m in result.groups["label"].items()} == {"cat": 2, "dog": 2}
    assert "blind:grey-same-size" in result.signature
    assert result.ci95 == (1, 1)


def test_no_box_nonsense_and_broken_pictures_stay_in_the_denominator():
    data = _data(3)
    broken = Record("b", b"no picture", regions=(Region("thing b", (0, 0, 5, 5)),))
    boxes = _truth(data)
    del boxes["thing 1"]
    boxes["thing 2"] = (math.nan, 0, 1, 1)
    result = grounding(_Answers(boxes), Dataset([*data, broken]), resamples=0)
    assert result.value == pytest.approx(1 / 4)
    assert (result.n, result.n_unparsed, result.n_invalid, result.n_missing) == (4, 1, 1, 1)
    assert [s.status for s in result.samples] == ["ok", "ok", "invalid", "missing"]


def test_the_order_of_records_and_a_limit():
    data = _data()
    model = _Answers({"thing 0": (0, 2, 20, 30)})
    there = grounding(model, data, resamples=0)
    back = grounding(model, Dataset(data.records[::-1]), resamples=0)
    assert (there.value, there.signature) == (back.value, back.signature)
    assert not there.partial
    assert grounding(model, data, limit=2, resamples=0).partial


def test_other_boxes_are_other_data():
    data, model = _data(1), _Answers({})
    moved = Dataset([Record("r0", data[0].image, label="dog",
                            regions=(Region("thing 0", (1, 2, 20, 30)),))])  # fmt: skip
    first, second = (grounding(model, d, resamples=0).signature for d in (data, moved))
    assert first != second


def test_an_empty_set_has_no_score_and_names_that_mean_two_things_are_refused():
    assert grounding(_Answers({}), Dataset([])).failed
    twice = Record("t", b"", regions=(Region("a", (0, 0, 1, 1)), Region("a", (1, 1, 2, 2))))
    with pytest.raises(DataError, match="name means it alone"):
        grounding(_Answers({}), Dataset([twice]))


def test_expressions_of_one_file_stand_together(tmp_path):
    records = [
        Record(f"e{k}", tmp_path / name, regions=(Region("it", (0, 0, 5, 5)),))
        for k, name in enumerate(["a.png", "a.png", "b.png"])
    ]
    first, second, third = (
        s.group for s in grounding(_Answers({}), Dataset(records), resamples=0).samples
    )
    assert first == second != third
