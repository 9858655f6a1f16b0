"""The benchmark of a training step compares like with like; its times are never asserted."""

import sys

import pytest

from sightline.bench import step
from sightline.core.errors import ConfigError, SightlineError
from sightline.models.table import system


@pytest.fixture
def small(monkeypatch):
    """The tiny CLIP under the name of a size."""
    entry = system("clip")
    monkeypatch.setitem(entry.variants, "tiny", entry.tiny)
    return "clip:tiny"


def test_both_sides_begin_with_the_same_loss(small):
    result = step.bench_step(small, batch=4, rounds=2)
    assert [row.name for row in result.rows] == ["sightline", "transformers"]
    ours, theirs = (row.loss for row in result.rows)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert all(row.fastest <= row.seconds <= row.slowest for row in result.rows)
    assert result.ratio("sightline", "sightline") == 1.0
    assert result.to_json()["bench"] == "step"


def test_sides_that_compute_different_losses_are_not_timed():
    with pytest.raises(SightlineError, match="do not compute the same"):
        step._check({"sightline": 2.8, "transformers": 2.9})


def test_a_missing_peer_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = step.bench_step(small, batch=2, rounds=1)
    assert result.skipped == ("transformers",) and len(result.rows) == 1


def test_an_unknown_model_is_refused():
    with pytest.raises(ConfigError, match="unknown model to measure 'clip:B/64'"):
        step.bench_step("clip:B/64")
