"""`eval grounding|detect|segment` from the command line, with a tiny random PaliGemma on parks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sightline.data.formats import open_dataset
from sightline.evaluation.detect import detect
from sightline.evaluation.grounding import grounding
from sightline.evaluation.judged import Measuring
from tests.cli.conftest import Run
from tests.tasks.writers import scripted, writing_folder


@pytest.fixture
def instances(run: Run, tmp_path: Path) -> Path:
    folder = tmp_path / "park"
    assert run("data", "park", "--out", folder, "--count", 3, "--to", "instances").code == 0
    return folder


def test_a_random_model_is_measured(run: Run, instances: Path, tmp_path: Path) -> None:
    model = writing_folder(tmp_path / "model")
    out = tmp_path / "scores"
    answer = run("eval", "grounding", "--data", instances, "--model", model, "--out", out)
    assert answer.code == 0, answer.err
    assert "blind" in answer.out and "acc@0.5" in answer.out
    document = json.loads((out / "results.json").read_text())
    lines = (out / "samples.jsonl").read_text().splitlines()
    assert document["n"] == len(lines) > 0
    assert document["n_missing"] == 0


@pytest.mark.parametrize("answer", ["", "<loc0001> cat", "no idea", "<loc9999>" * 4, "<seg001>"])
def test_hostile_answers_are_no_boxes(instances: Path, answer: str) -> None:
    result = grounding(scripted(answer), open_dataset(str(instances)), resamples=0)
    assert result.value == 0
    assert result.n_unparsed == result.n > 0


@pytest.mark.parametrize("answer", ["", "<loc0001> cat", "no idea", "<loc9999>" * 4, "<seg001>"])
def test_hostile_answers_are_nothing_detected(instances: Path, answer: str) -> None:
    result = detect(scripted(answer), open_dataset(str(instances)), Measuring(resamples=0))
    assert result.value == result.metrics["f1@0.5"].value == 0
    assert result.n_unparsed == result.n > 0


@pytest.mark.parametrize(
    ("task", "headline"), [("grounding", "acc@0.5"), ("detect", "AP"), ("segment", "mIoU")]
)
def test_pictures_are_drawn_and_the_grey_run_can_be_left_out(
    run: Run, instances: Path, tmp_path: Path, task: str, headline: str
) -> None:
    model, out = writing_folder(tmp_path / "model"), tmp_path / "scores"
    said = ("eval", task, "--data", instances, "--model", model, "--limit", 1, "--out", out)
    answer = run(*said, "--pictures", 1, "--no-blind")
    assert answer.code == 0, answer.err
    assert f"{headline}\t0.0000\t-" in answer.out and "PARTIAL" in answer.out
    document = json.loads((out / "results.json").read_text())
    assert (document["headline"], document["groups"].get("blind")) == (headline, None)
    page = (out / "report.html").read_text()
    assert page.count("<img") == 4 and "Worst" in page and "Best" in page


def test_a_page_needs_a_folder(run: Run, instances: Path) -> None:
    answer = run("eval", "detect", "--data", instances, "--model", "m", "--pictures", 1)
    assert answer.code == 2 and "say where with --out DIR" in answer.err
