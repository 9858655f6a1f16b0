"""Explanations against the truth: measures beside chance, and results that can be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sightline
from sightline.core.errors import ConfigError, DataError, UnsupportedTaskError
from sightline.data import park
from sightline.data.formats import open_dataset
from sightline.evaluation import explain as module
from sightline.evaluation.explain import (
    MEASURES,
    RANDOM,
    Subject,
    explanations,
    park_subjects,
    rows_of,
    subjects_of,
)
from sightline.evaluation.results import read_result
from sightline.tasks.explain import Explanation
from sightline.tasks.model import Model
from tests.evaluation.fakes import FakeDataset, FakeRecord
from tests.tasks.colours import colour_model


@pytest.fixture(scope="module")
def model() -> Model:
    return sightline.load("park-siglip", device="cpu", dtype="float32")


def test_a_subject_is_named_once_in_its_scene() -> None:
    found = park_subjects(30)
    assert len({subject.id for subject in found}) == 30
    sizes = []
    for subject in found:
        split, seed = subject.id.rsplit("-", 1)
        drawn = park.scene(int(seed), split)
        named = [thing for thing in drawn.objects if park.with_article(thing.name) == subject.text]
        assert len(named) == 1 and len(drawn.objects) > 1
        assert [thing.kind for thing in drawn.objects].count(named[0].kind) == 1
        assert np.array_equal(named[0].mask, subject.mask)
        sizes.append(named[0].size)
    assert {"small", "large"} == set(sizes)


def test_a_map_of_the_truth_is_perfect_and_one_by_lot_is_chance(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = park_subjects(12)
    masks = {subject.pixels.tobytes(): subject.mask for subject in subjects}
    monkeypatch.setattr(
        module, "explain_each",
        lambda model, pixels, text, method, against: iter(
            [Explanation(masks[pixels.tobytes()].astype(np.float32), 1.0, method)]
        ),
    )  # fmt: skip
    found = explanations(model, subjects, ["occlusion"], steps=4, resamples=50).metrics
    chance = found["chance"].value
    assert found["occlusion/inside"].value == found["occlusion/pointing"].value == 1
    assert found["occlusion/times_chance"].value == pytest.approx(1 / chance)
    assert found[f"{RANDOM}/times_chance"].value == pytest.approx(1, abs=0.15)
    assert found["occlusion/deletion"].value < found[f"{RANDOM}/deletion"].value
    assert found["occlusion/insertion"].value > found[f"{RANDOM}/insertion"].value


def test_the_best_method_finds_the_thing(model: Model) -> None:
    seen: list[tuple[int, int]] = []
    result = explanations(
        model, park_subjects(24), ["gradient"], steps=4, resamples=100,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (24, 24) and result.n == 24
    assert result.value > 3 and result.headline == "gradient/times_chance"
    low, high = result.ci95 or (0, 0)
    assert low < result.value < high


def test_a_result_is_written_and_read_and_says_what_it_was(model: Model, tmp_path: Path) -> None:
    subjects = park_subjects(3)
    result = explanations(model, subjects, ["rollout"], steps=2, resamples=10)
    result.write(tmp_path)
    again = read_result(tmp_path)
    assert again.metrics == result.metrics and again.samples == result.samples
    assert [row[0] for row in rows_of(again)] == ["rollout", RANDOM]
    assert all(len(row) == 1 + len(MEASURES) for row in rows_of(result))
    assert [sample.target for sample in result.samples] == [(s.text,) for s in subjects]
    same = explanations(model, subjects, ["rollout"], steps=2, resamples=10)
    assert same.metrics == result.metrics and same.signature == result.signature
    for other in (
        explanations(model, subjects, ["rollout"], steps=3, resamples=0),
        explanations(model, subjects[:2], ["rollout"], steps=2, resamples=0),
        explanations(model, subjects, ["rollout"], ["a tree"], steps=2, resamples=0),
    ):
        assert other.signature != result.signature


def test_boxes_of_an_exported_park_stand_for_masks(tmp_path: Path) -> None:
    scenes = [park.scene(seed, "test") for seed in range(8)]
    park.write(scenes, tmp_path / "p")
    found, partial = subjects_of(open_dataset(tmp_path / "p"))
    assert 0 < len(found) <= 8 and not partial
    assert len(subjects_of(open_dataset(tmp_path / "p"), limit=2)[0]) == 2
    for subject in found:
        drawn = next(s for s in scenes if np.array_equal(s.pixels, subject.pixels))
        (thing,) = (t for t in drawn.objects if park.with_article(t.name) == subject.text)
        rows, columns = subject.mask.nonzero()
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == thing.box
        assert subject.mask.sum() == np.prod(np.subtract(thing.box[2:], thing.box[:2]))


def test_data_without_objects_is_refused() -> None:
    pictures = FakeDataset([FakeRecord("a", b"x", label="cat")])
    with pytest.raises(DataError, match="no record of 'fakes' names several objects"):
        subjects_of(pictures)


def test_what_cannot_be_measured_is_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="no picture to explain"):
        explanations(model, [])
    subject = Subject("a", np.zeros((8, 8, 3), np.uint8), "red", np.ones((8, 8), bool))
    with pytest.raises(UnsupportedTaskError, match="cannot compare pictures with text"):
        explanations(colour_model("vit"), [subject])
