"""Groups from annotation files and word lists; nothing else is a source of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.core.errors import DataError
from sightline.data.annotations import groups_of, read_word_lists
from sightline.data.formats import open_dataset
from sightline.data.records import Dataset


@pytest.fixture
def pictures(tmp_path: Path) -> Dataset:
    for name in ("one/a.png", "one/b.png", "two/c.png"):
        file = tmp_path / "faces" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)
    return open_dataset(tmp_path / "faces")


def table(folder: Path, text: str, name: str = "groups.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_rows_are_found_by_path_and_by_file_name(pictures: Dataset, tmp_path: Path) -> None:
    by_path = table(tmp_path, "file,group\none/b.png,y\none/a.png,x\ntwo/c.png,x\n")
    assert groups_of(pictures, by_path) == ["x", "y", "x"]
    by_name = table(tmp_path, "file,group\nb.png,y\na.png,x\nz.png,x\n")
    assert groups_of(pictures, by_name) == ["x", "y", None]
    absolute = table(tmp_path, f"file,group\n{pictures[1].image},y\n")
    assert groups_of(pictures, absolute) == [None, "y", None]


def test_a_file_name_that_two_pictures_have_tells_nothing(
    pictures: Dataset, tmp_path: Path
) -> None:
    twice = table(tmp_path, "file,group\nx/a.png,x\ny/a.png,y\none/b.png,y\n")
    assert groups_of(pictures, twice) == [None, "y", None]


def test_an_empty_cell_is_no_group(pictures: Dataset, tmp_path: Path) -> None:
    file = table(tmp_path, "file,group\none/a.png,\none/b.png, y \n")
    assert groups_of(pictures, file) == [None, "y", None]


def test_one_of_several_columns(pictures: Dataset, tmp_path: Path) -> None:
    file = table(tmp_path, "file,age,race\none/a.png,20,p\none/b.png,30,q\n")
    assert groups_of(pictures, file, "race") == ["p", "q", None]
    assert groups_of(pictures, file, "age") == ["20", "30", None]
    with pytest.raises(DataError, match=r"which column is the group\? There are: age, race"):
        groups_of(pictures, file)
    with pytest.raises(DataError, match="unknown column 'raze': did you mean 'race'"):
        groups_of(pictures, file, "raze")


def test_a_column_of_the_data_itself(pictures: Dataset, tmp_path: Path) -> None:
    assert groups_of(pictures, "label") == ["one", "one", "two"]
    faces = table(tmp_path / "faces", "file,race\none/a.png,p\ntwo/c.png,q\n", "list.csv")
    assert groups_of(open_dataset(faces), "race") == ["p", "q"]
    with pytest.raises(DataError, match="unknown column 'gender'"):
        groups_of(pictures, "gender")


def test_json_lines_and_label_columns(pictures: Dataset, tmp_path: Path) -> None:
    text = "".join(
        json.dumps({"image": f"one/{n}.png", "label": g}) + "\n" for n, g in ("ax", "by")
    )
    assert groups_of(pictures, table(tmp_path, text, "g.jsonl")) == ["x", "y", None]


def test_what_is_no_annotation_is_said(pictures: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no such file; did you mean groups\.csv"):
        table(tmp_path, "file,group\none/a.png,x\n")
        groups_of(pictures, tmp_path / "group.csv")
    with pytest.raises(DataError, match="has several values of 'group': a picture is in one"):
        groups_of(pictures, table(tmp_path, "file,group\none/a.png,x\none/a.png,y\n"))
    with pytest.raises(DataError, match="none of its 1 pictures is among those of 'faces'"):
        groups_of(pictures, table(tmp_path, "file,group\nother.png,x\n"))
    with pytest.raises(DataError, match=r"which column is the group\? There are: none beside"):
        groups_of(pictures, table(tmp_path, "file\none/a.png\n"))
    with pytest.raises(DataError, match="leads out of the data folder"):
        groups_of(pictures, table(tmp_path, "file,group\n../../a.png,x\n"))


def test_word_lists_with_and_without_targets(tmp_path: Path) -> None:
    lists = {"attr1": {"category": "good", "examples": ["joy", "love"]}, "attr2": ["war"]}
    file = table(tmp_path, json.dumps(lists), "weat.json")
    found = read_word_lists(file)
    assert (found.name, found.attributes, found.targets) == (
        "weat", (("joy", "love"), ("war",)), None,
    )  # fmt: skip
    both = {**lists, "targ1": ["x"], "targ2": {"examples": {"y": [0.1, 0.2]}}}
    assert read_word_lists(table(tmp_path, json.dumps(both), "w.jsonl")).targets == (("x",), ("y",))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1], "w.json: a JSON object with attr1 and attr2 is expected"),
        ({"attr1": ["x"]}, "w.json: 'attr2' must be a list of texts"),
        ({"attr1": [], "attr2": ["y"]}, "'attr1' must be a list of texts"),
        ({"attr1": ["x"], "attr2": [3]}, "'attr2' must be a list of texts"),
        ({"attr1": ["x"], "attr2": ["y"], "targ1": ["z"]}, "'targ2' must be a list of texts"),
    ],
)
def test_damaged_word_lists(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_word_lists(table(tmp_path, json.dumps(document), "w.json"))
