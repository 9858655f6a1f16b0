"""`eval hallucination` and `eval mcq` from the command line, with a tiny PaliGemma."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sightline.data import park
from tests.cli.conftest import Run
from tests.tasks.writers import writing_folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writing_folder(tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions with choices, two of them with yes and no."""
    folder = tmp_path_factory.mktemp("asked")
    rows = []
    for seed in range(3):
        park.scene(seed).image.save(folder / f"{seed}.png")
        yes_no = {"answers": ["yes", "no"][seed % 2], "choices": ["yes", "no"]}
        colour = {"answers": "red", "choices": ["red", "blue", "green"]}
        own = {"question": f"which {seed}?", **(colour if seed == 2 else yes_no)}
        rows.append(
            {"file_name": f"{seed}.png", **own, "category": ["random", "popular"][seed % 2]}
        )
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_questions_with_yes_and_no(run: Run, asked: Path, writer: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    answer = run("eval", "hallucination", "--data", asked, "--model", writer, "--out", out,
                 "--pictures", 1, "--max-new-tokens", 2)  # fmt: skip
    assert answer.code == 0, answer.err
    assert "pope_acc:official" in answer.out and "pope_yes_share" in answer.out
    document = json.loads((out / "results.json").read_text())
    assert (document["n"], document["n_excluded"], document["variant"]) == (2, 1, "pope")
    assert {"random", "popular", "mean of 2"} == document["groups"]["category"].keys()
    assert (out / "report.html").read_text().count("<img") == 2
    again = run("rescore", out, "--metric", "pope_f1", "--json")
    assert again.code == 0, again.err
    assert again.json["headline"] == "pope_f1"


def test_captions_with_an_object_list(run: Run, parks: Path, writer: Path, tmp_path: Path) -> None:
    said = ("eval", "hallucination", "--data", parks, "--model", writer, "--max-new-tokens", 2)
    answer = run(*said, "--objects", "park", "--json", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    document = answer.json
    assert (document["headline"], document["n"], document["variant"]) == ("chair_s", 4, "chair")
    assert document["metrics"]["chair_s"]["value"] == 1  # the writer says nothing: that is no merit
    assert document["n_unparsed"] == 4
    refused = run("rescore", tmp_path / "out", "--metric", "chair_i")
    assert refused.code == 2 and "--objects FILE" in refused.err
    again = run("rescore", tmp_path / "out", "--metric", "chair_i", "--objects", "park", "--json")
    assert again.json["metrics"]["chair_i"]["value"] == 1
    odd = tmp_path / "objects.json"
    odd.write_text("{}")
    for file, reason in ((odd, "no object list"), (tmp_path / "absent.json", "cannot be read")):
        wrong = run(*said, "--objects", file)
        assert wrong.code == 2 and reason in wrong.err and "--objects" in wrong.err
    prompted = run("eval", "hallucination", "--data", parks, "--prompt", "x", "--model", "nowhere")
    assert prompted.code == 2 and "give --objects too" in prompted.err


def test_names_that_the_list_does_not_know_are_said(run: Run, writer: Path, tmp_path: Path) -> None:
    park.scene(0).image.save(tmp_path / "a.png")
    row = {"file_name": "a.png", "regions": [{"label": "zebra", "box": [0, 0, 4, 4]}]}
    (tmp_path / "regions.jsonl").write_text(json.dumps(row) + "\n")
    answer = run(
        "eval", "hallucination", "--data", tmp_path, "--model", writer, "--objects", "park"
    )
    assert answer.code == 0, answer.err
    assert "1 name(s) of regions are not in the object list" in answer.err and "zebra" in answer.err


def test_choices_by_likelihood_and_by_letter(
    run: Run, asked: Path, writer: Path, tmp_path: Path
) -> None:
    said = ("eval", "mcq", "--data", asked, "--model", writer)
    answer = run(*said, "--out", tmp_path / "a", "--pictures", 1, "--json")
    assert answer.code == 0, answer.err
    document = answer.json
    assert (document["headline"], document["n"], document["variant"]) == (
        "accuracy:sum", 3, "likelihood",
    )  # fmt: skip
    assert "accuracy:per_token" in document["groups"]["blind"]
    lines = (tmp_path / "a" / "samples.jsonl").read_text().splitlines()
    assert len(json.loads(lines[2])["ranking"]) == 3
    letters = run(*said, "--by", "letter", "--circular", "--max-new-tokens", 2, "--json",
                  "--out", tmp_path / "b", "--limit", 2)  # fmt: skip
    assert letters.code == 0, letters.err
    found = letters.json
    assert (found["headline"], found["partial"], found["n_excluded"]) == (
        "circular:letter", True, 0,
    )  # fmt: skip
    assert found["n_unparsed"] == found["n"] > 3
    again = run("rescore", tmp_path / "b", "--metric", "accuracy:letter")
    assert again.code == 0, again.err
    wrong = run(*said, "--max-new-tokens", 2)
    assert wrong.code == 2 and "change no likelihood" in wrong.err


@pytest.mark.parametrize("task", ["hallucination", "mcq"])
def test_no_question_no_picture_no_score(
    run: Run, parks: Path, asked: Path, writer: Path, tmp_path: Path, task: str
) -> None:
    silent = run("eval", task, "--data", parks, "--model", writer)
    assert silent.code == 1 and "has a question with" in silent.err
    for file in asked.iterdir():
        torn = file.read_bytes() if file.suffix == ".jsonl" else b"torn"
        (tmp_path / file.name).write_bytes(torn)
    answer = run("eval", task, "--data", tmp_path, "--model", writer, "--no-blind")
    assert answer.code == 1
    assert "no score" in answer.err
