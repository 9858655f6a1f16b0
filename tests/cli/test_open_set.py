"""The comparison of closed and open labels from the command line, its trainings stood in for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sightline.evaluation.results import Metric
from sightline.recipes import open_set as module
from sightline.recipes.open_set import OpenSetSettings, Row
from tests.cli.conftest import Run

ROWS = [
    Row("new words", model, "known", Metric(0.75, (0.6, 0.9), 20), Metric(0.0, (0.0, 0.16), 20),
        among, 1280, 0.25)
    for model, among in (("classifier", None), ("dual encoder", Metric(0.5, (0.3, 0.7), 20)))
]  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the comparison was asked for."""
    found: list[Any] = []

    def carry_out(out: Path, settings: OpenSetSettings, progress: Any) -> list[Row]:
        found.append((out, settings))
        progress(2, 2)
        return ROWS

    monkeypatch.setattr(module, "open_set", carry_out)
    return found


def test_one_table_and_one_document(run: Run, asked: list[Any], tmp_path: Path) -> None:
    words = ("bench", "open-set", "--out", tmp_path / "o", "--steps", 20, "--again", 5, "--seed", 3)
    lines = run(*words).out.splitlines()
    assert asked == [(tmp_path / "o", OpenSetSettings(steps=20, again=5, seed=3))]
    assert lines[0].split("\t")[:5] == ["classes", "model", "trained on", "known", "new"]
    assert lines[1].split("\t") == [
        "new words", "classifier", "known", "0.750 (0.600 to 0.900)", "0.000 (0.000 to 0.160)",
        "-", "1,280", "0.2",
    ]  # fmt: skip
    rows = run(*words, "--json").json["rows"]
    assert rows[1]["among_new"] == {"value": 0.5, "ci95": [0.3, 0.7], "n": 20}
    assert rows[0]["among_new"] is None and rows[0]["core_minutes"] == 0.25


def test_it_brings_its_own_models(run: Run, asked: list[Any], tmp_path: Path) -> None:
    answer = run("bench", "open-set", "--out", tmp_path / "o", "--model", "clip")
    assert answer.code == 2 and "trains its own models: leave these options out" in answer.err
    answer = run("bench", "open-set", "--out", tmp_path / "o", "--device", "cuda")
    assert answer.code == 2 and "this comparison runs on the CPU" in answer.err
    assert not asked
