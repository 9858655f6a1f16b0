"""Probes, names and templates from files, and tables of several runs, from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sightline.data import park
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with three pictures to learn from and two to score."""
    folder = tmp_path_factory.mktemp("data") / "split"
    for part, count in (("train", 3), ("test", 2)):
        for place, name in enumerate(["ball", "car"]):
            (folder / part / name).mkdir(parents=True)
            for seed in range(count):
                scene = park.scene(10 * place + seed, split="train" if part == "train" else "test")
                scene.image.save(folder / part / name / f"{seed}.png")
    return folder


@pytest.mark.parametrize("way", ["linear-probe", "knn", "few-shot"])
def test_probes_print_and_write_results(
    way: str, run: Run, model: Path, split: Path, tmp_path: Path
) -> None:
    arguments = ["eval", way, "--data", split, "--model", model]
    if way == "linear-probe":  # three pictures of a class are too few to choose a penalty by some
        arguments += ["--penalty", 1]
    answer = run(*arguments, "--out", tmp_path / "r", "--json")
    document = answer.json
    assert answer.code == 0, answer.err
    assert document["task"] == way and document["n"] == 4 and 0 <= document["value"] <= 1
    assert "parts:train>test" in document["signature"]
    assert json.loads((tmp_path / "r/results.json").read_text())["value"] == document["value"]
    assert "signature\t" in run(*arguments).out


def test_the_splits_to_learn_from_and_to_score_can_be_named(
    run: Run, model: Path, split: Path
) -> None:
    arguments = ("eval", "knn", "--data", split, "--model", model, "-k", 3, "--temperature", 0)
    document = run(*arguments, "--split", "train", "--train-split", "test", "--json").json
    assert document["n"] == 6 and document["settings"]["k"] == 3
    assert document["settings"]["temperature"] is None
    both = run(*arguments, "--split", "train")
    assert both.code == 2 and "cannot be both learned from and scored" in both.err


def test_what_could_not_be_learned_from_is_named(
    run: Run, model: Path, split: Path, tmp_path: Path
) -> None:
    for file in split.rglob("*.png"):
        copy = tmp_path / file.relative_to(split)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (tmp_path / "train" / "car" / "9.png").write_bytes(b"no")
    (tmp_path / "test" / "boat").mkdir()
    (tmp_path / "test" / "car" / "0.png").rename(tmp_path / "test" / "boat" / "0.png")
    answer = run("eval", "knn", "--data", tmp_path, "--model", model, "--json")
    assert answer.code == 3 and "not learned from: " in answer.err
    assert [Path(item["file"]).name for item in answer.json["failed"]] == ["9.png"]
    assert "1 label(s) have no picture to learn from, and count as wrong: boat" in answer.err


def test_few_shot_takes_numbers_names_and_templates(
    run: Run, model: Path, split: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.json").write_text('{"ball": ["ball", "sphere"], "car": "car"}')
    document = run(
        "eval", "few-shot", "--data", split, "--model", model, "--shots", "1,2", "--draws", 2,
        "--labels", f"@{tmp_path}/names.json", "--template", "a {}", "--json",
    ).json  # fmt: skip
    assert set(document["metrics"]) == {"1-shot/top1", "2-shot/top1", "zeroshot/top1"}
    assert document["prompt_templates"] == ["a {}"]
    wrong = run("eval", "few-shot", "--data", split, "--model", model, "--shots", "few")
    assert wrong.code == 2 and "'few' are no numbers: write 1,2,4,8,16" in wrong.err


def test_labels_have_one_name_or_several(
    run: Run, model: Path, classes: Path, tmp_path: Path
) -> None:
    def evaluated(names: object) -> dict[str, object]:
        (tmp_path / "names.json").write_text(json.dumps(names))
        return run("eval", "zeroshot", "--data", classes, "--model", model,
                   "--labels", f"@{tmp_path}/names.json", "--json").json  # fmt: skip

    one = evaluated({"a red ball": "a ball", "a blue car": ["a car"], "x": "a cat"})
    several = evaluated({"a red ball": ["a ball", "a sphere"], "a blue car": "a car", "x": "a cat"})
    listed = evaluated(["a red ball", "a blue car", "a cat"])
    assert one["settings"]["labels"] == ["a ball", "a car", "a cat"]  # type: ignore[index]
    assert several["settings"]["labels"] == ["a ball, a sphere", "a car", "a cat"]  # type: ignore[index]
    assert len({found["signature"] for found in (one, several, listed)}) == 3  # type: ignore[misc]


@pytest.mark.parametrize(("content", "message"), [
    ("{", "is no JSON"),
    ("[" * 100_000, "is no JSON"),
    ("{}", "must be a list of names, or an object of data labels"),
    ('[1, "a"]', "must be a list of names, or an object of data labels"),
    ('{"a": []}', "the label 'a' has \\[\\], not a name or a list of names"),
    ('{"a": {"b": 1}}', "not a name or a list of names"),
])  # fmt: skip
def test_files_of_names_that_make_no_sense(
    content: str, message: str, run: Run, model: Path, classes: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.json").write_text(content)
    answer = run("eval", "zeroshot", "--data", classes, "--model", model,
                 "--labels", f"@{tmp_path}/names.json")  # fmt: skip
    assert answer.code == 2
    assert re.search(message, " ".join(answer.err.split()))


def test_templates_come_from_a_file_an_ensemble_or_the_line(
    run: Run, model: Path, classes: Path, tmp_path: Path
) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("\ufeff# two of them\n\na {}.\nthe {}!\n", "utf-8")
    arguments = ("eval", "zeroshot", "--data", classes, "--model", model, "--json", "--templates")
    for source in (file, f"@{file}"):
        assert run(*arguments, source).json["prompt_templates"] == ["a {}.", "the {}!"]
    assert len(run(*arguments, "drawn").json["prompt_templates"]) == 5
    assert run(*arguments, "one {}").json["prompt_templates"] == ["one {}"]
    file.write_text("a {}.\nnothing here\n")
    answer = run(*arguments, file)
    assert answer.code == 2 and "templates.txt, line 2: template 'nothing here' has 0" in answer.err
    gone = run(*arguments, "gone.txt")
    assert gone.code == 2 and "neither an ensemble (general, drawn) nor a readable" in gone.err


def test_several_captions_of_a_picture_are_searched(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    """COCO's layout, five captions each: 4 pictures, 20 texts, a hit is any of the five."""
    files = sorted(parks.glob("*.png"))
    images = [{"id": n, "file_name": file.name} for n, file in enumerate(files)]
    captions = [
        {"image_id": n, "id": 5 * n + c, "caption": f"park number {n}, sentence {c}"}
        for n in range(4)
        for c in range(5)
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    document = run("eval", "retrieval", "--data", tmp_path / "captions.json", "--images", parks,
                   "--model", model, "--json").json  # fmt: skip
    assert (document["n"], document["settings"]["texts"]) == (4, 20)
    assert document["metrics"]["text_to_image/hit@1"]["n"] == 20
    assert document["metrics"]["image_to_text/hit@10"]["n"] == 4


def test_compare_makes_a_table_of_several_runs(
    run: Run, model: Path, split: Path, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        run("eval", "knn", "--data", split, "--model", model, "--out", tmp_path / name)
    runs = [tmp_path / name for name in "abc"]
    document = run("compare", *runs[:2], "--json").json
    assert document["models"] == [str(runs[0]), str(runs[1])]
    assert document["metrics"]["top1"]["tests"][0]["difference"] == 0
    assert document["metrics"]["top1"]["tests"][0]["p_value"] == 1
    assert document["metrics"]["ece15"]["tests"] == [None]
    header, *lines = run("compare", *runs).out.splitlines()
    assert header.split("\t")[0] == "metric" and header.split("\t")[4] == "difference"
    assert len([line for line in lines if line.startswith("top1\t")]) == 2
    drawn = run("compare", *runs[:2], "--markdown").out.splitlines()
    assert drawn[1].startswith("| --- | ---") and drawn[2].startswith("| top1 | ")


def test_runs_that_cannot_be_compared_say_in_what_they_differ(
    run: Run, model: Path, split: Path, tmp_path: Path
) -> None:
    for k in (1, 2):
        run("eval", "knn", "--data", split, "--model", model, "-k", k, "--out", tmp_path / str(k))
    answer = run("compare", tmp_path / "1", tmp_path / "2")
    assert answer.code == 1 and "not comparable: k is 1 in result 1 and 2 in result 2" in answer.err
    alone = run("compare", tmp_path / "1")
    assert alone.code == 2 and "give two or more folders" in alone.err
