"""Lists that our own reader reads back."""

import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import DataError
from sightline.data.curation.listing import uid_array, write_listing, write_uids
from sightline.data.formats import open_dataset
from sightline.data.records import Record
from tests.data.curation.copies import png, scenes


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b c.png", "ü.png"):
        (tmp_path / "pictures" / name).write_bytes(png(scenes(1)[0]))
    return tmp_path


def records(folder, **changes):
    made = [
        Record("1", folder / "pictures/a.png", ("a cat", "ein Kätzchen\nzwei"), "cat", "train",
               {"license": "cc-by", "n": [1, 2]}),
        Record("two", folder / "pictures/b c.png", (), None, None, {"license": None}),
        Record("ü.png", folder / "pictures/ü.png", ("a dog",), None, "val"),
    ]  # fmt: skip
    return made


def test_records_come_back_as_they_were(folder):
    out = folder / "kept.jsonl"
    assert write_listing(records(folder), out) == 3
    again = open_dataset(out)
    assert again.format == "jsonl"
    for old, new in zip(records(folder), again, strict=True):
        assert (old.id, old.image, old.captions, old.label, old.split) == (
            new.id, new.image, new.captions, new.label, new.split
        )  # fmt: skip
        assert {**old.extra} == {
            k: v for k, v in new.extra.items() if v is not None or k in old.extra
        }
    assert json.loads(out.read_text("utf-8").splitlines()[0])["file_name"] == "pictures/a.png"


def test_pictures_elsewhere_are_named_absolutely(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("lists") / "kept.jsonl"
    write_listing(records(folder), other)
    name = json.loads(other.read_text("utf-8").splitlines()[0])["file_name"]
    assert os.path.isabs(name)
    assert open_dataset(other)[0].image.samefile(folder / "pictures/a.png")


def test_columns_that_would_change_roles_are_renamed(folder):
    extra = {"image": "original.png", "caption": "another", "url": "x", "text": "y", "title": "z"}
    out = folder / "kept.jsonl"
    write_listing([Record("1", folder / "pictures/a.png", ("a cat",), extra=extra)], out)
    again = open_dataset(out)[0]
    assert again.image == folder / "pictures/a.png" and again.captions == ("a cat",)
    assert again.extra["source_image"] == "original.png"
    assert again.extra["source_caption"] == "another"
    assert again.extra["url"] == "x" and again.extra["text"] == "y"


COLUMNS = st.dictionaries(
    st.sampled_from(["image", "File Name", "caption", "CAPTIONS", "label", "class", "Split", "ID",
                     "uid", "path", "weight", "source_image", "file_name", "subset", "text"]),
    st.sampled_from(["x", 3, None, ["p"]]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(COLUMNS)
def test_no_column_changes_what_a_record_is(tmp_path_factory, columns):
    folder = tmp_path_factory.mktemp("roles")
    (folder / "a.png").write_bytes(b"x")
    old = Record("1", folder / "a.png", ("a cat",), "cat", "train", columns)
    write_listing([old], folder / "list.jsonl")
    new = open_dataset(folder / "list.jsonl")[0]
    assert (old.id, old.image, old.captions, old.label, old.split) == (
        new.id, new.image, new.captions, new.label, new.split
    )  # fmt: skip
    assert len(new.extra) == len(columns)
    assert sorted(map(repr, new.extra.values())) == sorted(map(repr, columns.values()))


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_file_name_that_is_not_utf8_survives(folder):
    path = folder / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(png(scenes(1)[0]))
    write_listing([Record("x", path, ("a cat",))], folder / "kept.jsonl")
    assert open_dataset(folder / "kept.jsonl")[0].image == path


def test_nothing_is_replaced_unasked_and_nothing_half_written(folder):
    out = folder / "kept.jsonl"
    out.write_text("mine")
    with pytest.raises(DataError, match=r"kept.jsonl exists already: name a new file"):
        write_listing(records(folder), out)
    bad = [*records(folder), Record("memory", np.zeros((2, 2, 3), np.uint8))]
    with pytest.raises(DataError, match="record 'memory': its picture is in no file of its own"):
        write_listing(bad, out, overwrite=True)
    assert out.read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir()) == ["kept.jsonl", "pictures"]


def test_uids_are_stored_as_datacomp_stores_them(tmp_path):
    uids = ["ffffffffffffffff0000000000000001", "0000000000000001fffffffffffffffe",
            "0000000000000001ffffffffffffffff"]  # fmt: skip
    listed = [Record(uids[0], b""), Record("x", b"", extra={"uid": uids[2].upper()}),
              Record(uids[1], b"")]  # fmt: skip
    assert write_uids(listed, tmp_path / "kept.npy") == 3
    stored = np.load(tmp_path / "kept.npy")
    assert stored.dtype == np.dtype("u8,u8")
    assert [f"{high:016x}{low:016x}" for high, low in stored.tolist()] == sorted(uids)
    # the reduction of the published baseline, by division instead of slices
    whole = [int(uid, 16) for uid in uids]
    peer = np.sort(np.array([(n // 2**64, n % 2**64) for n in whole], np.dtype("u8,u8")))
    np.testing.assert_array_equal(uid_array(listed), peer)


@pytest.mark.parametrize("uid", ["12", "g" * 32, "0" * 33, 7])
def test_other_ids_are_no_uids(uid):
    with pytest.raises(DataError, match="has no uid of 32 hexadecimal digits"):
        uid_array([Record("x", b"", extra={"uid": uid})])
