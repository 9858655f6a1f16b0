"""Detection and segmentation by models whose answers are known, and grounding's blind run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sightline.core.errors import ConfigError, DataError, InputError, UnsupportedTaskError
from sightline.core.outputs import Detection, Segment
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation.detect import detect
from sightline.evaluation.grounding import grounding
from sightline.evaluation.judged import Measuring
from sightline.evaluation.segment import segment

QUICK = Measuring(resamples=5)
SINGLE = Measuring(blind=False, resamples=5)
KINDS = ("cat", "dog")
BROKEN = Record("b", b"no picture", regions=(Region("cat", (0, 0, 5, 5), ((0, 0, 5, 0, 5, 5),)),))


def _square(label: str, x: int, side: int = 20) -> Region:
    outline = ((x, 2, x + side, 2, x + side, 2 + side, x, 2 + side),)
    return Region(label, (x, 2, x + side, 2 + side), outline)


def _data(count: int = 4) -> Dataset:
    return Dataset(
        [
            Record(
                f"r{k}",
                np.full((40, 60, 3), 10 * k, np.uint8),
                regions=(_square(KINDS[k % 2], k), _square("bird", 35)),
            )
            for k in range(count)
        ]
    )


class _Knows:
    """Finds what is there, in pictures whose grey level it knows; `blind` before grey ones."""

    def __init__(self, data=(), blind=(), change=lambda found: found):
        self.known = {int(np.asarray(r.image).flat[0]): r.regions for r in data
                      if not isinstance(r.image, bytes)}  # fmt: skip
        self.known[127] = blind
        self.change = change
        self.asked = []

    def _regions(self, image, queries):
        self.asked.append(list(queries))
        level = int(np.asarray(image).flat[0])
        return [region for region in self.known.get(level, ()) if region.label in queries]

    def detect(self, image, queries=None):
        found = [Detection(r.label, 0.9, r.box) for r in self._regions(image, queries)]
        return [self.change(each) for each in found]

    def segment(self, image, queries=None):
        size = np.asarray(image).shape[:2]
        found = self._regions(image, queries)
        return [self.change(Segment(r.label, 0.9, r.box, r.mask(*size))) for r in found]


@pytest.mark.parametrize("queries", ["together", "single"])
def test_a_perfect_detector_reaches_everything_and_nothing_blind(queries):
    data = _data()
    model = _Knows(data)
    result = detect(model, data, QUICK, queries)
    assert result.value == pytest.approx(1) and result.ci95 == pytest.approx((1, 1))
    assert result.metrics["f1@0.5"].value == result.metrics["f1@0.5/pictures"].value == 1
    assert {n: (m.value, m.n) for n, m in result.groups["label"].items()} == {
        "bird": (pytest.approx(1), 4), "cat": (pytest.approx(1), 2), "dog": (pytest.approx(1), 2),
    }  # fmt: skip
    assert result.groups["blind"]["AP"].value == result.groups["blind"]["f1@0.5"].value == 0
    assert result.tests["blind"].difference == 1
    assert "|blind:grey-same-size|" in result.signature and f"asked:{queries}" in result.signature
    assert model.asked[0] == (["bird", "cat", "dog"] if queries == "together" else ["bird"])


def test_one_that_says_the_same_of_grey_gains_nothing_by_looking():
    data = Dataset([Record(f"s{k}", np.full((40, 60, 3), k, np.uint8), regions=(_square("cat", 2),))
                    for k in range(6)])  # fmt: skip
    model = _Knows(data, blind=data[0].regions)
    for measure in (detect, segment):
        result = measure(model, data, QUICK)
        assert result.value == pytest.approx(1)
        assert result.groups["blind"][result.headline].value == pytest.approx(1)
        assert result.tests["blind"].difference == 0
        assert result.verdict.startswith("not told apart")


def test_without_the_grey_run_nothing_is_asked_twice():
    data = _data(2)
    for measure, asked in ((detect, 2), (segment, 4)):
        model = _Knows(data)
        there, alone = measure(_Knows(data), data, QUICK), measure(model, data, SINGLE)
        assert len(model.asked) == asked
        assert "blind" not in alone.groups and not alone.tests and not alone.verdict
        assert (alone.value, alone.signature) == (there.value, there.signature)


def test_broken_pictures_and_nonsense_stay_in_the_denominator_of_detection():
    empty = Record("e", b"neither", regions=())
    data = _data(2)
    result = detect(_Knows(data), Dataset([*data, BROKEN, empty]), QUICK)
    assert (result.n, result.n_missing, result.metrics["recall@0.5"].value) == (4, 2, 4 / 5)
    assert [s.score for s in result.samples] == [1, 1, 0, 0]  # nothing to find, and not read
    assert result.value < 1

    for change in (lambda d: d._replace(score=math.nan), lambda d: d._replace(box=(math.inf,) * 4)):
        wrong = detect(_Knows(data, change=change), data, QUICK)
        assert (wrong.value, wrong.metrics["f1@0.5"].value, wrong.n_invalid) == (0, 0, 2)


def test_what_is_found_too_much_and_a_crowd():
    crowd = Region("cat", (20, 20, 60, 40), crowd=True)
    record = Record("c", np.full((40, 60, 3), 9, np.uint8), regions=(_square("cat", 0, 15), crowd))
    seen = record.regions[:1]
    in_crowd, beside = Region("cat", (30, 22, 40, 30)), Region("cat", (0, 30, 8, 38))

    def measured(*more):
        model = _Knows()
        model.known[9] = (*seen, *more)
        return detect(model, Dataset([record]), QUICK)

    assert measured().metrics["f1@0.5"].value == measured(in_crowd).metrics["f1@0.5"].value == 1
    assert measured(beside).metrics["precision@0.5"].value == 0.5
    assert measured(beside, in_crowd).metrics["precision@0.5"].value == 0.5


def test_a_perfect_mask_and_half_of_one():
    data = _data()
    result = segment(_Knows(data), data, QUICK)
    assert {name: m.value for name, m in result.metrics.items()} == dict.fromkeys(
        ("mIoU", "oIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9"), 1
    )
    assert (result.n, result.groups["blind"]["mIoU"].value) == (8, 0)

    def half(found):
        mask = found.mask.copy()
        mask[12:] = False
        return found._replace(mask=mask)

    result = segment(_Knows(data, change=half), data, QUICK)
    assert result.value == result.metrics["oIoU"].value == 0.5
    assert result.metrics["P@0.5"].value == 1 and result.metrics["P@0.6"].value == 0


def test_the_masks_of_a_label_are_one():
    record = Record("u", np.full((40, 60, 3), 5, np.uint8),
                    regions=(_square("cat", 0, 10), _square("cat", 30, 10)))  # fmt: skip
    whole, part = _Knows([record]), _Knows()
    part.known[5] = record.regions[:1]
    assert segment(whole, Dataset([record]), QUICK).value == 1
    assert segment(part, Dataset([record]), QUICK).value == 0.5


def test_no_mask_one_of_another_size_and_a_broken_picture_are_wrong():
    data = _data(2)
    result = segment(_Knows(data), Dataset([*data, BROKEN]), QUICK)
    assert (result.n, result.n_missing, result.value) == (5, 1, 4 / 5)
    assert result.metrics["oIoU"].value < 1
    none = segment(_Knows(), data, QUICK)
    assert (none.value, none.n_unparsed) == (0, 4)
    turned = segment(_Knows(data, change=lambda s: s._replace(mask=s.mask.T)), data, QUICK)
    assert (turned.value, turned.n_invalid) == (0, 4)


@pytest.mark.parametrize("measure", [detect, segment])
def test_the_order_of_records_a_limit_and_other_truth(measure):
    data = _data()
    model = _Knows(data[:2])
    there = measure(model, data, QUICK)
    back = measure(model, Dataset(data.records[::-1]), QUICK)
    assert (there.value, there.signature) == (pytest.approx(back.value), back.signature)
    assert not there.partial and measure(model, data, Measuring(limit=2, resamples=5)).partial
    moved = Dataset([*data[:3], Record("r3", data[3].image, regions=(_square("dog", 9),))])
    assert measure(model, moved, QUICK).signature != there.signature
    assert measure(model, Dataset([]), QUICK).failed


def test_data_without_a_truth_and_settings_that_cannot_be():
    bare = Dataset([Record("x", b"")])
    with pytest.raises(DataError, match="no record of 'records' has a region"):
        detect(_Knows(), bare)
    with pytest.raises(DataError, match="no record of 'records' has an outline"):
        segment(_Knows(), bare)
    with pytest.raises(ConfigError, match="way to ask"):
        detect(_Knows(), _data(), queries="twice")
    data = _data(1)
    with pytest.raises(UnsupportedTaskError, match="a box without a score"):
        detect(_Knows(data, change=lambda d: d._replace(score=None)), data, QUICK)


def test_one_picture_in_several_records_is_refused(tmp_path):
    records = [Record(f"{k}", tmp_path / "a.png", regions=(_square("cat", k),)) for k in range(2)]
    with pytest.raises(DataError, match="stand in several records"):
        detect(_Knows(), Dataset(records))


class _Refuses(_Knows):
    """Cannot be asked for dogs."""

    def detect(self, image, queries=None):
        if "dog" in queries:
            raise InputError("queries must be words")
        return super().detect(image, queries)


def test_an_expression_that_cannot_be_asked_leaves_the_others_of_its_picture():
    data = _data()
    result = grounding(_Refuses(data), data, resamples=0)
    assert (result.value, result.n, result.n_invalid, result.n_missing) == (6 / 8, 8, 2, 0)
    assert result.tests["blind"].difference == 6 / 8
    alone = grounding(_Refuses(data), data, resamples=0, blind=False)
    assert "blind" not in alone.groups and not alone.tests
    assert (alone.value, alone.signature) == (result.value, result.signature)
