"""Records and the sequence of them."""

import dataclasses
import hashlib

import numpy as np
import pytest

from sightline.core.errors import DataError
from sightline.data.records import Dataset, Record, split_name


@pytest.fixture
def dataset():
    rows = [("a", ("x", "y"), "cat", "train"), ("b", (), None, "test"), ("c", ("z",), "dog", None)]
    return Dataset([Record(i, b"", c, lab, s) for i, c, lab, s in rows], "three")


def test_an_index_gives_a_record_and_a_slice_a_data_set(dataset):
    assert dataset[0].caption == "x"
    part = dataset[1:]
    assert isinstance(part, Dataset)
    assert [r.id for r in part] == ["b", "c"]
    assert (part.name, part.labels, dataset.labels) == ("three", ("dog",), ("cat", "dog"))
    assert dataset.splits == ("test", "train")


def test_records_are_frozen_and_hold_any_picture():
    record = Record("a", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.id = "b"
    assert Dataset([record]).report.missing == ()


def test_the_caption_of_a_record_without_captions_is_an_error(dataset):
    with pytest.raises(DataError, match="record 'b' has no caption"):
        _ = dataset[1].caption


def test_the_fingerprint_sees_every_change(dataset):
    prints = {dataset.fingerprint, dataset[:2].fingerprint}
    for changes in (
        {"id": "q"}, {"captions": ("xy",)}, {"captions": ("y", "x")}, {"label": "dog"},
        {"split": "val"}, {"label": "train", "split": "cat"},
    ):  # fmt: skip
        changed = [dataclasses.replace(dataset[0], **changes), *dataset.records[1:]]
        prints.add(Dataset(changed).fingerprint)
    prints.add(Dataset(dataset.records[::-1]).fingerprint)
    assert len(prints) == 9
    assert Dataset(dataset.records, "other name").fingerprint == dataset.fingerprint


def test_the_fingerprint_of_captions_and_labels_is_what_it_always_was(dataset):
    digest = hashlib.sha256()
    for record in dataset:
        said = (str(len(record.captions)), record.id, *record.captions)
        for text in (*said, record.label or "", record.split or ""):
            digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
    assert dataset.fingerprint == digest.hexdigest()
    asked = dataclasses.replace(dataset[0], question="?")
    assert Dataset([asked, *dataset.records[1:]]).fingerprint != digest.hexdigest()


def test_a_part_keeps_what_is_known_to_be_broken(dataset):
    dataset.note_broken("c", "cut off")
    assert dataset[2:].report.broken == {"c": "cut off"}
    assert dataset[:2].report.broken == {}
    with pytest.raises(DataError, match=r"three: 1 broken picture\(s\) \('c'\): repair"):
        dataset.check()


def test_long_lists_of_names_are_cut():
    twice = Dataset([Record(str(i % 9), b"") for i in range(18)])
    assert twice.report.problems == ("9 id(s) used twice ('0', '1', '2' and 6 more)",)


@pytest.mark.parametrize(
    ("name", "expected"), [("Validation", "val"), (" dev", "val"), ("test", "test"), ("odd", "odd")]
)
def test_split_names(name, expected):
    assert split_name(name) == expected
