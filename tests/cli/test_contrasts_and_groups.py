"""`eval compositionality` and `eval bias` from the command line, also with the bundled model."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sightline.data import park
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parks, nine of ten benches red in one of them, each with its table of colours."""
    folder = tmp_path_factory.mktemp("planted")
    for name, share in (("planted", 0.9), ("balanced", 0.5)):
        scenes = park.planted_scenes(30, share)
        park.write(scenes, folder / name)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "colour", "horizon"])
            for place, shown in enumerate(scenes):
                rows.writerow([f"{place:06d}.png", shown.objects[0].colour, shown.layout.horizon])
    return folder


def test_the_drawn_park_is_data(run: Run, model: Path, tmp_path: Path) -> None:
    found = run("eval", "compositionality", "--data", "park", "--count", 4, "--model", model,
                "--json", "--out", tmp_path / "run")  # fmt: skip
    assert found.code == 0
    document = found.json
    assert document["n"] == 28 and len(document["groups"]["subset"]) == 7
    assert {"accuracy", "group", "text_only/accuracy", "blank/group"} <= set(document["metrics"])
    assert json.loads((tmp_path / "run/results.json").read_text())["task"] == "compositionality"
    rows = run("eval", "compositionality", "--data", "park", "--count", 4, "--model", model).out
    header, *first = rows.splitlines()
    assert header.split("\t") == ["subset", "right", "text_only", "blank", "n"]
    assert first[0].split("\t")[0] == "attribute" and first[0].endswith("\t4")


def test_written_twins_are_data_too(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrote = run("data", "park", "--twins", "--count", 3, "--out", "park", "--json")
    assert wrote.code == 0 and wrote.json["contrasts"] == 21
    # a folder of that name goes before the drawn park
    document = run("eval", "compositionality", "--data", "park", "--model", model, "--json").json
    assert document["n"] == 21 and document["settings"]["formats"]["examples.jsonl"] == "winoground"
    clash = run("data", "park", "--twins", "--objects", 2, "--out", "other")
    assert clash.code == 2 and "--twins takes neither --shapes nor --objects" in clash.err


def test_a_missing_picture_costs_its_contrast(run: Run, model: Path, tmp_path: Path) -> None:
    pair = {"caption": "a cat", "negative_caption": "a dog"}
    entries = {"0": {"filename": "a.png", **pair}, "1": {"filename": "gone.png", **pair}}
    (tmp_path / "swap_obj.json").write_text(json.dumps(entries))
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    found = run("eval", "compositionality", "--data", tmp_path, "--model", model, "--json")
    assert found.code == 3
    assert found.json["n_missing"] == 1 and found.json["failed"][0]["file"] == "swap_obj/1"


def test_dropped_captions_are_said(run: Run, model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    options = [{"image": "a.png", "caption_options": ["a b", "b a", "a b"]}]
    (tmp_path / "order.json").write_text(json.dumps(options))
    found = run("eval", "compositionality", "--data", tmp_path, "--model", model)
    assert "1 false caption(s) equal to the true one were left out" in found.err


def test_what_cannot_be_read_is_one_line(run: Run, model: Path, tmp_path: Path) -> None:
    found = run("eval", "compositionality", "--data", tmp_path, "--model", model)
    assert found.code == 1 and "no file of contrasts; read are Winoground" in found.err
    unable = run("eval", "compositionality", "--data", "park", "--count", 2, "--score", "logprob",
                 "--model", model)  # fmt: skip
    assert unable.code == 1 and "cannot give the likelihood of a text" in unable.err


def test_the_bundled_model_is_reported_biased_where_it_was_planted(run: Run, planted: Path) -> None:
    def verdict(name: str) -> str:
        found = run("eval", "bias", "--data", planted / name, "--groups", planted / f"{name}.csv",
                    "--by", "colour", "--prompt", "a bench", "-k", 30, "--model", "park-siglip",
                    "--json")  # fmt: skip
        assert found.code == 0
        return str(found.json["verdict"])

    # ln(0.9 / 0.5) is 0.59; a bench more or less depends on how a machine rounds
    assert re.match(r"biased: yes, 'a bench' MaxSkew 0\.[4-6]\d \[", verdict("planted"))
    assert verdict("balanced").startswith("biased: not shown")


def test_bias_prints_a_row_a_test(run: Run, model: Path, planted: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"attr1": ["a red thing"], "attr2": ["a blue thing"]}))
    found = run("eval", "bias", "--data", planted / "planted", "--groups", planted / "planted.csv",
                "--by", "colour", "--prompt", "a bench", "-k", 10, "--words", words,
                "--labels", "cat,dog", "--model", model)  # fmt: skip
    header, *rows = found.out.splitlines()
    assert header.split("\t") == ["test", "what", "value", "p", "p (Holm)", "shares"]
    assert [row.split("\t")[:2] for row in rows[:4]] == [
        ["a bench", "max_skew"], ["words: blue and red", "effect"],
        ["label cat", "gap"], ["label dog", "gap"],
    ]  # fmt: skip
    assert "verdict\tbiased: " in found.out
    labelled = run("eval", "bias", "--data", planted / "planted", "--groups",
                   planted / "planted.csv", "--by", "colour", "--labels", "data", "--model", model,
                   "--json")  # fmt: skip
    assert "accuracy" in labelled.json["groups"]["gap"]


def test_bias_says_what_is_missing(run: Run, model: Path, planted: Path) -> None:
    def call(*more: object) -> tuple[int, str]:
        found = run("eval", "bias", "--data", planted / "planted", "--model", model, *more)
        return found.code, found.err

    table = planted / "planted.csv"
    code, err = call("--prompt", "a bench", "-k", 5)
    assert code == 2 and "--groups" in err
    code, err = call("--groups", table, "--by", "colour", "--prompt", "a bench")
    assert code == 2 and "k is missing" in err
    code, err = call("--groups", table, "--by", "colour")
    assert code == 2 and "nothing to test" in err
    code, err = call("--groups", table, "--prompt", "a bench", "-k", 5)
    assert code == 1 and "which column is the group? There are: colour, horizon" in err
    code, err = call("--groups", planted / "plant.csv", "--prompt", "a bench", "-k", 5)
    assert code == 1 and "did you mean planted.csv" in err
