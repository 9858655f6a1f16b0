"""`sightline sweep`: one table, best first, and an exit code that tells of failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sightline.core.errors import TrainingError
from sightline.recipes import sweep as sweeping
from sightline.recipes.series import train_whole
from tests.cli.conftest import Run
from tests.cli.test_runs import SMALL


@pytest.fixture
def asked(parks: Path, tmp_path: Path) -> tuple[object, ...]:
    """A sweep of two runs of two steps."""
    return ("sweep", "siglip", "--data", parks, "--out", tmp_path / "s", "--grid", "lr=1e-3,1",
            *SMALL, "--set", "test_share=0.3")  # fmt: skip


def test_a_table_and_its_document(run: Run, asked: tuple[object, ...], tmp_path: Path) -> None:
    found = run(*asked, "--json")
    assert found.code == 0, found.err
    document = found.json
    assert document["recipe"] == "siglip" and len(document["rows"]) == 2
    scores = [row["held_out"] for row in document["rows"]]
    assert scores == sorted(scores, reverse=True) and document["score"] == "retrieval"
    assert Path(document["model"]).is_dir() and document["failed"] == []
    assert json.loads(Path(document["table"]).read_text())["rows"] == document["rows"]
    header, *rows = run(*asked).out.splitlines()
    assert header.split("\t") == [
        "lr", "held-out retrieval", "test retrieval", "steps", "minutes"
    ]  # fmt: skip
    assert float(rows[0].split("\t")[0]) == document["rows"][0]["settings"]["lr"]


def test_failures_are_named(
    run: Run, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(name: str, recipe: object, out: Path) -> object:
        if recipe.lr == 1:  # type: ignore[attr-defined]
            raise TrainingError("the loss became nan")
        return train_whole(name, recipe, out)

    monkeypatch.setattr(sweeping, "train_whole", sometimes)
    found = run(*asked, "--json")
    assert found.code == 3 and len(found.json["rows"]) == 1
    assert found.json["failed"] == [
        {"file": "lr=1.0, seed=0", "error": "the loss became nan", "code": "training_error"}
    ]
    assert "lr=1.0, seed=0: the loss became nan" in found.err


def test_wrong_use_is_named(run: Run, tmp_path: Path) -> None:
    assert "Missing option '--grid'" in run("sweep", "siglip", "--out", tmp_path).err
    wrong = run("sweep", "siglip", "--out", tmp_path, "--grid", "rate=1,2")
    assert wrong.code == 2 and "unknown setting 'rate'" in wrong.err
