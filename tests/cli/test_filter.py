"""`sightline filter` and `sightline features`: files written, rows, one document, codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.cli.conftest import Run


@pytest.fixture
def photo(parks: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "photo.png"
    copy.write_bytes((parks / "000001.png").read_bytes())
    return copy


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def test_one_mask_writes_one_picture_beside(run: Run, photo: Path) -> None:
    before = photo.read_bytes()
    answer = run("filter", photo, "--mask", "pillow-sharpen", "--border", "keep")
    out = photo.with_name("photo.pillow-sharpen.png")
    assert (answer.code, answer.out, answer.err) == (0, f"{photo}\t{out}\n", "")
    expected = Image.fromarray(pixels(photo)[..., :3]).filter(ImageFilter.SHARPEN)
    np.testing.assert_array_equal(pixels(out), np.asarray(expected))
    assert photo.read_bytes() == before
    again = run("filter", photo, "--mask", "pillow-sharpen")
    assert again.code == 0 and len(list(photo.parent.iterdir())) == 2


def test_a_folder_stands_for_its_pictures(run: Run, parks: Path, tmp_path: Path) -> None:
    answer = run("filter", parks, "--mask", "blur", "--out", tmp_path / "out", "--json")
    document = answer.json
    assert answer.code == 0 and document["command"] == "filter" and document["model"] is None
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        f"00000{number}.blur.png" for number in range(4)
    ]
    assert [Path(row["file"]).name for row in document["results"]] == [
        f"00000{number}.png" for number in range(4)
    ]
    assert document["masks"] == [
        {"name": "blur", "masks": [{"rows": "1,1,1;1,1,1;1,1,1/9", "sum": 1.0}]}
    ]


def test_several_masks_make_one_sheet(run: Run, photo: Path) -> None:
    answer = run("filter", photo, "--mask", "sobel", "--mask", "1,0,-1", "--mask", "sobel")
    out = photo.with_name("photo.masks.png")
    assert answer.code == 0 and answer.out.endswith(f"\t{out}\n")
    assert out.exists() and len(list(photo.parent.iterdir())) == 2
    single = run("filter", photo, "--mask", "sobel", "--sheet")
    sheet = photo.with_name("photo.sobel-sheet.png")
    assert single.code == 0 and pixels(sheet).shape[1] > 2 * 256


def test_grey_borders_signs_and_turning(run: Run, photo: Path, tmp_path: Path) -> None:
    def drawn(*options: str) -> np.ndarray:
        out = tmp_path / "-".join(options)
        assert run("filter", photo, "--mask", "sobel-x", "--grey", "--out", out, *options).code == 0
        return pixels(out / "photo.sobel-x.png").astype(int)

    plain = drawn()
    assert plain.ndim == 2
    assert drawn("--border", "valid").shape == (plain.shape[0] - 2, plain.shape[1] - 2)
    turned, absolute = drawn("--correlate"), drawn("--show", "absolute")
    assert (turned != plain).any()
    np.testing.assert_array_equal(np.maximum(plain, turned), absolute)


def test_two_pictures_of_one_name_get_two_files(run: Run, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "more" / "photo.bmp"
    other.parent.mkdir()
    Image.fromarray(pixels(photo)[..., :3]).save(other)
    out = tmp_path / "out"
    assert run("filter", photo, other, "--mask", "box:5", "--out", out).code == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "photo-2.box-5.png", "photo.box-5.png"
    ]  # fmt: skip


def test_an_original_is_never_replaced(run: Run, photo: Path) -> None:
    original = photo.with_name("photo.blur.png")
    original.write_bytes(photo.read_bytes())
    assert run("filter", photo, original, "--mask", "blur").code == 0
    assert original.read_bytes() == photo.read_bytes()
    assert photo.with_name("photo-2.blur.png").exists()


def test_some_failed(run: Run, photo: Path) -> None:
    (photo.parent / "bad.png").write_bytes(b"nothing of the kind")
    answer = run("filter", photo, photo.parent / "bad.png", "--mask", "edges", "--json")
    assert answer.code == 3 and len(answer.json["results"]) == 1
    assert answer.json["failed"][0]["code"] == "image_unsupported"
    assert run("filter", "gone.png", "--mask", "edges").code == 1
    small = run("filter", photo, "--mask", "box:99", "--border", "valid")
    assert small.code == 1 and "does not fit into a picture" in small.err


def test_the_list_has_every_mask_with_its_numbers(run: Run) -> None:
    rows = dict(line.split("\t") for line in run("filter", "--list").out.splitlines())
    assert rows["sharpen"] == "0,-1,0;-1,5,-1;0,-1,0"
    assert "gaussian:S" in rows and "pillow-find-edges" in rows
    named = {mask["name"] for mask in run("filter", "--list", "--json").json["masks"]}
    assert {"sobel", "emboss", "pillow-blur"} <= named


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give pictures (FILE...) and --mask NAME; --list names the masks"),
        (["x.png"], "give pictures (FILE...) and --mask NAME"),
        (["x.png", "--mask", "sharpn"], "unknown mask 'sharpn': did you mean 'sharpen'"),
        (["x.png", "--mask", "1,2;3"], "row 2 of the mask has 1 numbers"),
        (["x.png", "--mask", "blur", "--border", "mirror"], "'mirror' is not one of"),
        (["http://a.invalid/x.png", "--mask", "blur"], "is an address: give --out DIR"),
        ([".", "--mask", "blur"], ". is a folder: give --out DIR, or the answers would be"),
        (["x.png", *["--mask", "blur"] * 25], "25 masks: at most 24 fit on one sheet"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run("filter", *arguments)
    assert answer.code == 2 and message in answer.err and answer.out == ""
    assert answer.err.count("\n") <= 2


def test_features_writes_sheets_a_page_and_a_document(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    options = ["--units", 3, "--best", 2, "--layer", "block1", "--layer", "block3"]
    answer = run("features", parks, tmp_path / "bad.png", "--model", model, "--out", out,
                 *options, "--json")  # fmt: skip
    document = answer.json
    assert answer.code == 3 and document["model"] == str(model) and document["pictures"] == 4
    assert [layer["layer"] for layer in document["layers"]] == ["block1", "block3"]
    assert [len(unit["best"]) for unit in document["layers"][0]["sample"]] == [2, 2, 2]
    assert sorted(file.name for file in out.iterdir()) == [
        "01-block1.png", "02-block3.png", "features.html", "features.json", "filters.png"
    ]  # fmt: skip
    assert json.loads((out / "features.json").read_text())["layers"] == document["layers"]
    rows = run("features", parks, "--model", model, "--out", out, *options)
    assert rows.code == 0 and rows.out.startswith("block1\t40 units\tsees ")
    assert "unknown layer 'block7'" in run(
        "features", parks, "--model", model, "--out", out, "--layer", "block7"
    ).err  # fmt: skip
