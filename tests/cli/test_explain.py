"""`explain` and `eval explain` from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.hub.tiny import tiny_folder


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_sheet_a_row_and_a_document(run: Run, model: Path, parks: Path, tmp_path: Path) -> None:
    picture, out = parks / "000000.png", tmp_path / "out.png"
    words = ("explain", picture, "a red ball", "--model", model, "--out", out)
    name, method, score, box = run(*words).out.strip().split("\t")
    assert (name, method) == (str(picture), "gradient")
    assert size_of(out)[0] > 400
    answer = run(*words, "--json").json
    (result,) = answer["results"]
    (found,) = result["explanations"]
    assert answer["text"] == "a red ball" and answer["out"] == str(out)
    assert found["method"] == "gradient" and f"{found['score']:.3f}" == score
    assert ",".join(f"{end:.0f}" for end in found["region"]["box"]) == box
    x, y = found["region"]["centre"]
    x1, y1, x2, y2 = found["region"]["box"]
    assert 0 <= x1 <= x <= x2 <= 64 and 0 <= y1 <= y <= y2 <= 64


def test_all_methods_and_all_pictures_of_a_folder(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    words = ("explain", parks, "a tree", "--model", model, "--method", "all", "--out", out)
    answer = run(*words, "--against", "a car,a cat", "--window", 20, "--stride", 10, "--json").json
    assert len(answer["results"]) == 4 and answer["against"] == ["a car", "a cat"]
    for result in answer["results"]:
        methods = [found["method"] for found in result["explanations"]]
        assert methods == ["gradient", "rollout", "occlusion"]
    assert size_of(out)[1] > 4 * 220


def test_numbers_are_the_map(run: Run, model: Path, parks: Path, tmp_path: Path) -> None:
    out, numbers = tmp_path / "out.png", tmp_path / "heat.npy"
    run("explain", parks / "000001.png", "a tree", "--model", model, "--out", out,
        "--numbers", numbers)  # fmt: skip
    heat = np.load(numbers)
    assert heat.dtype == np.float32 and heat.shape == (64, 64)
    assert heat.min() == 0 and heat.max() == 1


@pytest.mark.parametrize("more", [("--method", "all"), ("FOLDER",)])
def test_numbers_of_several_maps_are_refused(
    run: Run, model: Path, parks: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    files = [parks] if more == ("FOLDER",) else [parks / "000001.png"]
    options = () if more == ("FOLDER",) else more
    answer = run("explain", *files, "a tree", "--model", model, "--numbers", tmp_path / "n.npy",
                 *options)  # fmt: skip
    assert answer.code == 2 and "give one picture and one method" in answer.err


def test_a_picture_is_never_overwritten(run: Run, model: Path, parks: Path) -> None:
    picture = parks / "000001.png"
    before = picture.read_bytes()
    answer = run("explain", picture, "a tree", "--model", model, "--out", picture)
    assert answer.code == 2 and "is one of the pictures: name another file" in answer.err
    assert picture.read_bytes() == before


def test_a_broken_picture_costs_its_own_row(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    answer = run("explain", broken, parks / "000000.png", "a tree", "--model", model,
                 "--out", tmp_path / "out.png", "--json")  # fmt: skip
    assert answer.code == 3 and len(answer.json["results"]) == 1
    assert answer.json["failed"][0]["file"] == str(broken)
    nothing = run("explain", broken, "a tree", "--model", model, "--out", tmp_path / "no.png")
    assert nothing.code == 1 and not (tmp_path / "no.png").exists()


def test_a_method_that_the_network_has_not_is_explained(
    run: Run, parks: Path, tmp_path: Path
) -> None:
    tiny_folder("unicl", tmp_path / "m")
    words = ("explain", parks / "000000.png", "a tree", "--model", tmp_path / "m",
             "--out", tmp_path / "out.png")  # fmt: skip
    answer = run(*words, "--method", "gradient")
    assert answer.code == 1 and "use occlusion" in answer.err
    assert run(*words).out.split("\t")[1] == "occlusion"


def test_a_stride_beyond_the_window_is_wrong_usage(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    answer = run("explain", parks / "000000.png", "a tree", "--model", model, "--window", 4,
                 "--stride", 9, "--out", tmp_path / "out.png")  # fmt: skip
    assert answer.code == 2 and "gaps would stay uncovered" in answer.err


def test_the_measurement_prints_a_row_for_each_method(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    words = ("eval", "explain", "--data", "park", "--limit", 2, "--model", model)
    lines = [line.split("\t") for line in run(*words).out.splitlines()]
    assert lines[0] == ["method", "inside", "times_chance", "pointing", "deletion", "insertion"]
    assert [line[0] for line in lines[1:5]] == ["gradient", "rollout", "occlusion", "random"]
    document = run(*words, "--out", tmp_path / "r", "--json").json
    assert document["n"] == 2 and document["headline"] == "gradient/times_chance"
    assert (tmp_path / "r" / "results.json").is_file()
    boxes = run("eval", "explain", "--data", parks, "--limit", 2, "--model", model, "--json").json
    assert boxes["n"] == 2 and boxes["signature"] != document["signature"]
    assert (document["partial"], boxes["partial"]) == (False, True)
