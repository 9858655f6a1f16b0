"""`eval caption|vqa|docvqa|chartqa` and `rescore` from the command line, with a tiny PaliGemma."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.tasks.writers import writing_folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writing_folder(tmp_path_factory.mktemp("writer"))


@pytest.fixture
def asked(run: Run, tmp_path: Path) -> Path:
    folder = tmp_path / "park"
    assert run("data", "park", "--out", folder, "--count", 2, "--to", "vqa").code == 0
    return folder


def test_answers_are_measured_kept_shown_and_scored_again(
    run: Run, asked: Path, writer: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    said = ("eval", "vqa", "--data", asked, "--model", writer, "--out", out)
    answer = run(*said, "--pictures", 2, "--max-new-tokens", 4)
    assert answer.code == 0, answer.err
    assert "measure\tmodel\tblind" in answer.out and "vqa_acc:official" in answer.out
    document = json.loads((out / "results.json").read_text())
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().split("\n") if line]
    assert document["n"] == len(lines) > 4
    assert "count" in document["groups"]["question_type"]
    assert document["tests"]["blind"]["test"]
    assert {"prompt", "raw", "parsed", "blind", "target", "score"} <= lines[0].keys()
    page = (out / "report.html").read_text()
    assert page.count("<img") == 4 and "truth: " in page
    again = run("rescore", out / "samples.jsonl", "--metric", "anls", "--json")
    assert again.code == 0, again.err
    assert again.json["headline"] == "anls" and again.json["model"] == document["model"]
    refused = run("rescore", out, "--metric", "cider")
    assert refused.code == 2
    assert "use one of vqa_acc:official" in refused.err


@pytest.mark.parametrize("task", ["docvqa", "chartqa"])
def test_other_questions(run: Run, asked: Path, writer: Path, task: str) -> None:
    answer = run("eval", task, "--data", asked, "--model", writer, "--no-blind", "--limit", 3,
                 "--max-new-tokens", 2, "--json")  # fmt: skip
    assert answer.code == 0, answer.err
    document = answer.json
    assert (document["task"], document["n"], document["partial"]) == (task, 3, True)
    assert "blind" not in document["groups"]
    assert document["settings"]["options"] == {"max_new_tokens": 2}


def test_captions(run: Run, parks: Path, writer: Path) -> None:
    answer = run("eval", "caption", "--data", parks, "--model", writer, "--max-new-tokens", 4)
    assert answer.code == 0, answer.err
    assert "cider" in answer.out and "rouge_l:coco" in answer.out


def test_wrong_usage_is_told_before_anything_is_loaded(run: Run, asked: Path) -> None:
    answer = run("eval", "vqa", "--data", asked, "--model", "nowhere", "--pictures", 2)
    assert answer.code == 2
    assert "--out DIR" in answer.err


def test_data_without_questions_and_models_that_do_not_write(
    run: Run, parks: Path, asked: Path, writer: Path, model: Path
) -> None:
    silent = run("eval", "vqa", "--data", parks, "--model", writer)
    assert silent.code == 1
    assert "question with an answer" in silent.err
    mute = run("eval", "vqa", "--data", asked, "--model", model)
    assert mute.code == 1
    assert "cannot" in mute.err


def test_broken_pictures_are_named_and_a_set_of_nothing_else_fails(
    run: Run, asked: Path, writer: Path
) -> None:
    pictures = sorted((asked / "images").iterdir())
    pictures[0].write_bytes(b"torn")
    some = run("eval", "vqa", "--data", asked, "--model", writer, "--json", "--max-new-tokens", 2)
    assert some.code == 3
    assert 0 < some.json["n_missing"] < some.json["n"]
    pictures[1].write_bytes(b"torn")
    all_ = run("eval", "vqa", "--data", asked, "--model", writer, "--max-new-tokens", 2)
    assert all_.code == 1
    assert "no score" in all_.err
