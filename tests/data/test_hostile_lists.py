"""Lists that are damaged or mean harm: one clear line that names the file and the place."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.core.errors import DataError
from sightline.data import lines
from sightline.data.formats import open_dataset


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "a.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "outside.png")
    return root


GOOD = b'{"image": "a.png", "caption": "x"}\n'

DAMAGED = [
    ("d.jsonl", GOOD + GOOD[:20], r"d.jsonl, line 2, column \d+: not valid JSON, .*truncated"),
    ("d.jsonl", GOOD + b"[1, 2]\n", "d.jsonl, line 2: a JSON object is expected, got list"),
    ("d.jsonl", GOOD + b"{}\n", "d.jsonl, line 2: no picture named; .*found nothing"),
    ("d.jsonl", GOOD + b'{"image": 3}\n', "line 2: 'image' must be the path .*got int 3"),
    ("d.jsonl", GOOD + b'{"image": ""}\n', "line 2: 'image' must be the path"),
    ("d.jsonl", b'{"image": "a.png", "caption": 3}\n', "line 1: 'caption' must be text or a list"),
    ("d.jsonl", b'{"image": "a.png", "caption": [null]}\n', "'caption' must be text or a list"),
    ("d.jsonl", b'{"image": "a.png", "label": {"a": 1}}\n', "'label' must be text or a number"),
    ("d.jsonl", b'{"image": "a.png", "caption": "\\ud83d"}\n', "lone UTF-16 surrogate"),
    ("d.jsonl", b'{"image": "a\\u0000.png"}\n', "NUL character in the path"),
    ("d.jsonl", GOOD + b'{"image": "a.png", "caption": "caf\xe9"}\n', "line 2: byte 0xe9 is not"),
    ("d.jsonl", GOOD + b"\0\0\0\0\n", "line 2: contains NUL bytes"),
    ("d.jsonl", GOOD + b"[" * 100_000, "line 2: JSON nested too deeply"),
    ("d.jsonl", GOOD + b'{"image": "a.png", "n": ' + b"9" * 5000 + b"}", "line 2: not usable JSON"),
    ("d.jsonl", b"", "read as jsonl, but it holds no records"),
    ("d.csv", b"", "line 1: the header names no picture column"),
    ("d.csv", b"epoch,loss\n1,2\n", "line 1: the header names no picture column .*'epoch,loss'"),
    ("d.csv", b"image,caption\n", "it holds no records"),
    ("d.csv", b"image,image\na,b\n", "line 1: a column name occurs twice"),
    ("d.csv", b"image,caption\na.png,x\na.png\n", "line 3: 1 cells, but the header names 2"),
    ("d.csv", b"image,caption\na.png,x, y\n", "line 2: 3 cells"),
    ("d.csv", b'image,caption\na.png,x\na.png,"open\n\nmore\n', "line 3: not a valid table row"),
    ("d.csv", b'image,caption\na.png,"a" b\n', "line 2: not a valid table row"),
    ("d.csv", b'image,caption\na.png,"x\ny"\na.png,caf\xe9\n', "line 4: byte 0xe9 is not UTF-8"),
    ("d.csv", b"image,caption\na.png,\0\n", "line 2: contains NUL bytes"),
    ("d.csv", "image,caption\na.png,x\n".encode("utf-16"), "is UTF-16 text"),
    ("d.csv", b"image,caption\n,x\n", "line 2: 'image' must be the path of a picture"),
    ("d.csv", b"image,caption\na.png," + b"x" * 200_000, "line 2: not a valid table row .*limit"),
    ("d.json", b'[{"image": "a.png"},\n {"image": ', r"d.json, line 2, column \d+: .*truncated"),
    ("d.json", b'[{"image": "a.png"}, 3]', "d.json, entry 2: a JSON object is expected, got int"),
    ("d.json", b'[{"image": "a.png"},\n\n"\xe9"]', "d.json, line 3: byte 0xe9"),
    ("d.json", b'[{"image": "a.png"},\n\0]', "d.json, line 2: contains NUL"),
    ("d.json", b'{"a": 1}', "a JSON array of records is expected, got an object"),
    ("d.json", b'{"images": [], "annotations": 3, "caption": 1}', "the list 'annotations' is exp"),
    ("d.json", b'{"images": [3], "annotations": [{"caption": 1}]}', "images entry 1: a JSON obj"),
    ("d.json", b'{"images": [{"id": []}], "annotations": [{"caption": 1}]}', "'id' must be a num"),
    ("d.json", b'{"images": [{"id": 1}], "annotations": [{"caption": 1}]}', "'file_name' must be"),
    (
        "d.json",
        b'{"images": [{"id": 1, "file_name": "a.png"}], '
        b'"annotations": [{"caption": 1, "image_id": 1}]}',
        "annotations entry 1: 'caption' must be text, got 1",
    ),
    (
        "d.json",
        b'{"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "a.png"}], '
        b'"annotations": [{"caption": "x", "image_id": 1}]}',
        "images entry 2: id 1 occurs twice",
    ),
    ("d.json", b'{"images": [{"filename": "a.png", "sentences": 3}]}', "'sentences' must be a li"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED)
def test_damaged_lists_name_file_and_place(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(folder / name)
    assert name in str(caught.value) or "data: read as" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("../outside.png", "line 2: '../outside.png' leads out of the data folder"),
        ("..", "leads out of the data folder"),
        ("x/../../outside.png", "leads out of the data folder"),
        ("..\\outside.png", "leads out of the data folder"),
        ("https://example.org/a.png", "line 2: 'https://example.org/a.png' is an address"),
        ("file:///etc/passwd", "is an address"),
    ],
)
def test_paths_may_not_leave_the_folder(folder, name, image, message):
    row = f"image\n{image}\n" if name == "d.csv" else f"\n{json.dumps({'image': image})}\n"
    (folder / name).write_text(row)
    with pytest.raises(DataError, match=message.replace("\\", "\\\\")):
        open_dataset(folder / name)


def test_absolute_paths_and_inner_detours_are_allowed(folder):
    outside = folder.parent / "outside.png"
    (folder / "d.csv").write_text(f"image\n{outside}\nx/../a.png\n")
    data = open_dataset(folder / "d.csv")
    assert [r.image for r in data] == [outside, folder / "a.png"]
    assert data.report.missing == ()


@pytest.mark.skipif(os.sep != "/", reason="backslashes separate folders there anyway")
def test_windows_separators_are_understood(folder):
    (folder / "sub").mkdir()
    (folder / "a.png").rename(folder / "sub/a.png")
    (folder / "d.csv").write_text("image\nsub\\a.png\n")
    assert open_dataset(folder / "d.csv")[0].image == folder / "sub/a.png"


def test_an_endless_line_is_refused_without_reading_it(folder):
    import tracemalloc

    file = folder / "d.jsonl"
    with file.open("wb") as handle:  # a sparse gigabyte
        handle.write(b'{"image": "')
        handle.truncate(2**30)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"d.jsonl, line 1: longer than 16 MiB"):
        open_dataset(file)
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


def test_a_huge_document_is_refused_unread(folder, monkeypatch):
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 10)
    (folder / "d.json").write_bytes(b'[{"image": "a.png"}]')
    with pytest.raises(DataError, match="write it as JSON lines"):
        open_dataset(folder / "d.json")


def test_names_that_are_not_utf8_survive(folder):
    try:
        os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    data = open_dataset(folder)
    assert data[0].id == "caf\\xe9.png"
    assert data[0].image.is_file()
    json.dumps(data.report.to_json()).encode()
    assert len(data.fingerprint) == 64


def test_loops_of_links_end(folder):
    (folder / "loop").symlink_to(folder)
    assert len(open_dataset(folder)) == 1


def test_a_file_that_cannot_be_opened_is_a_clear_line(folder):
    with pytest.raises(DataError, match=r"data: cannot be read \(Is a directory\)"):
        list(lines.text_lines(folder))


fragments = st.sampled_from(
    [b'{"image": "a.png"', b', "caption": ', b'"x"', b"}", b"[", b"]", b"{", b",", b"\n", b'"',
     b"\r", b"image,caption", b"a.png", b"\t", b'{"images": [', b'"annotations": [',
     b'"sentences": []', b'"file_name": "a.png"', b'"id": 1', b"\xff", b"\0", b"\xef\xbb\xbf",
     b"null", b"1e999"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(["d.csv", "d.tsv", "d.jsonl", "d.json", "d.txt"]),
    content=st.one_of(st.binary(max_size=60), st.lists(fragments, max_size=25).map(b"".join)),
    whole=st.booleans(),
)
def test_nothing_but_a_data_set_or_a_clear_line(tmp_path_factory, name, content, whole):
    root = tmp_path_factory.mktemp("fuzz")
    (root / "a.png").write_bytes(b"")
    (root / name).write_bytes(content)
    try:
        data = open_dataset(root if whole else root / name)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(record.image.is_relative_to(root) for record in data)
        json.dumps(data.report.to_json())
