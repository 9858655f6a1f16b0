"""The commands about pictures: rows for people, one document for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.hub import bundled
from sightline.tasks.embeddings import Embeddings
from sightline.tasks.model import load
from sightline.tasks.xmp import read_tags
from tests.cli.conftest import Run


def test_classify_prints_a_row_for_each_picture_of_a_folder(
    run: Run, model: Path, parks: Path
) -> None:
    answer = run("classify", parks, "--labels", "ball, car", "--model", model)
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert answer.code == 0 and answer.err == ""
    assert [row[0] for row in rows] == [str(parks / f"00000{i}.png") for i in range(4)]
    assert all("ball 0." in row[1] and "car 0." in row[1] for row in rows)


def test_classify_json_equals_the_library(run: Run, model: Path, parks: Path) -> None:
    picture = parks / "000002.png"
    document = run(
        "classify", picture, "--labels", "ball,car", "--template", "{}", "--model", model, "--json"
    ).json  # fmt: skip
    expected = load(model).classify(picture, ["ball", "car"], "{}")
    assert expected[0].score > expected[1].score
    assert document["command"] == "classify" and document["model"] == str(model)
    assert document["failed"] == [] and "domain" not in document
    (result,) = document["results"]
    assert [(row["label"], row["score"]) for row in result["labels"]] == [
        (label.label, pytest.approx(label.score, abs=1e-6)) for label in expected
    ]


def test_labels_and_templates_come_from_files(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("# things\nball\n\ncar\n")
    (tmp_path / "templates.txt").write_text("a {} on the grass\ntwo {}, beside a tree\n")
    picture = parks / "000000.png"
    document = run(
        "classify", picture, "--labels", f"@{tmp_path}/labels.txt",
        "--templates", f"@{tmp_path}/templates.txt", "--model", model, "--json",
    ).json  # fmt: skip
    templates = ["a {} on the grass", "two {}, beside a tree"]
    expected = load(model).classify(picture, ["ball", "car"], templates)
    assert document["labels"] == ["ball", "car"]
    assert document["results"][0]["labels"][0]["score"] == pytest.approx(expected[0].score)


def test_tag_finds_words_and_writes_side_cars(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes((parks / "000000.png").read_bytes())
    answer = run(
        "tag", picture, "--vocabulary", "ball,car", "--threshold", 0, "--model", model,
        "--write-xmp", "--json",
    )  # fmt: skip
    (result,) = answer.json["results"]
    assert {tag["label"] for tag in result["tags"]} == {"ball", "car"}
    assert result["sidecar"] == str(tmp_path / "a.png.xmp")
    assert set(read_tags(picture)) == {"ball", "car"}
    assert "ball" in run("tag", picture, "--threshold", 0, "--model", model).out


def test_a_damaged_side_car_is_one_failed_item(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((parks / "000000.png").read_bytes())
    (tmp_path / "a.png.xmp").write_text("not XML")
    answer = run(
        "tag", tmp_path / "a.png", tmp_path / "b.png", "--vocabulary", "ball", "--threshold", 0,
        "--model", model, "--write-xmp", "--json",
    )  # fmt: skip
    assert answer.code == 3
    assert [item["file"] for item in answer.json["failed"]] == [str(tmp_path / "a.png")]


@pytest.mark.parametrize(("command", "field"), [("match", "probability"), ("similarity", "logit")])
def test_texts_are_scored_in_the_order_given(
    command: str, field: str, run: Run, model: Path, parks: Path
) -> None:
    arguments = (command, parks / "000001.png", "--text", "a red ball, big", "--text", "a car")
    document = run(*arguments, "--model", model, "--json").json
    loaded = load(model)
    texts = ["a red ball, big", "a car"]
    method = loaded.match if command == "match" else loaded.similarity
    expected = method(parks / "000001.png", texts).flatten().tolist()
    (result,) = document["results"]
    assert [row["text"] for row in result["texts"]] == texts
    assert [row[field] for row in result["texts"]] == pytest.approx(expected, abs=1e-5)
    rows = run(*arguments, "--model", model).out.splitlines()
    assert [row.split("\t")[2] for row in rows] == texts


def test_ask_chooses(run: Run, model: Path, parks: Path) -> None:
    arguments = ("ask", parks / "000000.png", "a", "--choices", "ball,car")
    document = run(*arguments, "--model", model, "--json").json
    answer = document["results"][0]["answer"]
    assert answer == load(model).ask(parks / "000000.png", "a", ["ball", "car"])
    assert run(*arguments, "--model", model).out == answer + "\n"


def test_ask_without_choices_says_what_to_do(
    run: Run, parks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no model that writes was installed."""
    monkeypatch.setitem(bundled.BUNDLED, "park-paligemma", "nowhere")
    answer = run("ask", parks / "000000.png", "a")
    assert answer.code == 1
    assert "give --choices a,b" in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".jsonl"])
def test_embed_writes_vectors(
    suffix: str, run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"v{suffix}"
    answer = run("embed", parks, "--out", out, "--model", model, "--json")
    names = [str(parks / f"00000{i}.png") for i in range(4)]
    assert answer.json["ids"] == names and answer.json["count"] == 4
    expected = load(model).embed_images(names).numpy()
    if suffix == ".npy":
        vectors = np.load(out)
        assert json.loads((tmp_path / "v.ids.json").read_text())["ids"] == names
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        vectors = np.array([row["embedding"] for row in rows])
    else:
        vectors = Embeddings.load(out).vectors.numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_embed_texts_prints_json_lines(run: Run, model: Path) -> None:
    answer = run("embed", "--text", "a red ball", "--text", "a car", "--model", model)
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [row["id"] for row in rows] == ["a red ball", "a car"]
    np.testing.assert_allclose(
        [row["embedding"] for row in rows],
        load(model).embed_texts(["a red ball", "a car"]).numpy(),
        atol=1e-6,
    )


def test_retrieve_pictures_keeps_embeddings_and_draws_a_sheet(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    kept, sheet = tmp_path / "e.safetensors", tmp_path / "s.png"
    first = run(
        "retrieve", "a red ball", parks, "-k", 2, "--save", kept, "--sheet", sheet,
        "--model", model, "--json",
    ).json  # fmt: skip
    assert first["query"] == {"text": "a red ball"} and len(first["hits"]) == 2
    with Image.open(sheet) as drawn:
        assert first["gallery"] == 4 and drawn.width > 200
    again = run("retrieve", "a red ball", "--from", kept, "-k", 2, "--model", model, "--json").json
    assert again["hits"] == first["hits"]


def test_retrieve_by_picture_finds_itself_first(run: Run, model: Path, parks: Path) -> None:
    picture = parks / "000003.png"
    answer = run("retrieve", "--image", picture, parks, "--model", model)
    assert answer.out.splitlines()[0] == f"1.000\t{picture}"


def test_retrieve_texts_for_a_picture(run: Run, model: Path, parks: Path) -> None:
    texts = ["a red ball", "two ducks in the water"]
    document = run(
        "retrieve", "--image", parks / "000003.png", *texts, "--model", model, "--json"
    ).json  # fmt: skip
    assert {hit["id"] for hit in document["hits"]} == set(texts)


def test_embeddings_of_another_model_are_refused(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    from tests.hub.tiny import tiny_folder

    tiny_folder("clip", tmp_path / "other")
    kept = tmp_path / "e.safetensors"
    run("embed", parks, "--out", kept, "--model", model)
    answer = run("retrieve", "a ball", "--from", kept, "--model", tmp_path / "other")
    assert answer.code == 1 and "embed the collection again" in answer.err
