"""Every format written by hand, read back, and told apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import ConfigError, DataError
from sightline.data.formats import FORMATS, open_dataset


def picture(path: Path, value: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def json_lines(path: Path, *rows: object) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def seen(dataset):
    return [(r.id, r.captions, r.label, r.split) for r in dataset]


# folders


def test_a_folder_for_each_class(tmp_path):
    for name in ("cat/1.png", "cat/deep/2.png", "dog/1.jpg"):
        picture(tmp_path / name)
    data = open_dataset(tmp_path)
    assert data.format == "imagefolder"
    assert "2 folders" in data.report.why
    assert seen(data) == [
        ("cat/1.png", (), "cat", None),
        ("cat/deep/2.png", (), "cat", None),
        ("dog/1.jpg", (), "dog", None),
    ]
    assert data.labels == ("cat", "dog")
    assert data[0].image == tmp_path / "cat/1.png"


def test_class_folders_below_splits(tmp_path):
    for name in ("train/cat/1.png", "train/dog/1.png", "validation/cat/1.png", "test/dog/1.png"):
        picture(tmp_path / name)
    data = open_dataset(tmp_path)
    assert [(r.label, r.split) for r in data] == [
        ("dog", "test"), ("cat", "train"), ("dog", "train"), ("cat", "val"),
    ]  # fmt: skip
    assert [r.id for r in open_dataset(tmp_path, split="dev")] == ["validation/cat/1.png"]


def test_a_class_named_train_beside_other_vehicles_is_a_class(tmp_path):
    for name in ("bus/1.png", "car/1.png", "train/1.png"):
        picture(tmp_path / name)
    assert open_dataset(tmp_path).labels == ("bus", "car", "train")


def test_a_split_beside_something_else_is_refused(tmp_path):
    for name in ("train/cat/1.png", "extra/1.png"):
        picture(tmp_path / name)
    with pytest.raises(DataError, match="'train' looks like a split, but 'extra' beside it does"):
        open_dataset(tmp_path)


def test_pictures_outside_the_classes_are_named(tmp_path):
    picture(tmp_path / "cat/1.png")
    picture(tmp_path / "loose.png")
    data = open_dataset(tmp_path)
    assert len(data) == 1
    assert data.report.notes == ("1 picture(s) in no class folder were left out: loose.png",)


def test_pictures_and_nothing_else(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    data = open_dataset(tmp_path)
    assert data.format == "pictures"
    assert seen(data) == [("a.png", (), None, None), ("b.png", (), None, None)]
    with pytest.raises(DataError, match=r"'a.png' has no caption"):
        _ = data[0].caption


def test_text_beside_pictures(tmp_path):
    for name in ("a.png", "b.png", "c.png", "sub/d.png"):
        picture(tmp_path / name)
    write(tmp_path / "a.txt", "a cat\r\n\r\none cat\r\n")
    write(tmp_path / "b.caption", "ein Hündchen")
    write(tmp_path / "sub/d.json", '{"caption": "a dog", "label": 3, "score": 0.5}')
    data = open_dataset(tmp_path)
    assert data.format == "sidecar"
    assert seen(data) == [
        ("a.png", ("a cat", "one cat"), None, None),
        ("b.png", ("ein Hündchen",), None, None),
        ("c.png", (), None, None),
        ("sub/d.png", ("a dog",), "3", None),
    ]
    assert data[3].extra == {"score": 0.5}
    assert data.report.notes == ("1 picture(s) have no side-car and so no caption: c.png",)


def test_text_and_json_beside_a_picture_in_numbered_shards(tmp_path):
    for shard in ("00000", "00001"):
        picture(tmp_path / shard / "7.jpg")
        write(tmp_path / shard / "7.txt", "a cat")
        write(tmp_path / shard / "7.json", '{"caption": "a cat", "url": "https://x.org/7.jpg"}')
    data = open_dataset(tmp_path)
    assert data.format == "sidecar"
    assert data[1].captions == ("a cat",)
    assert data[1].extra == {"url": "https://x.org/7.jpg"}


def test_boxes_in_text_files_are_not_captions(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.3 0.4\n")
    assert open_dataset(tmp_path).format == "pictures"


def test_side_cars_below_splits(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "a.png")
        write(tmp_path / split / "a.txt", f"for {split}")
    data = open_dataset(tmp_path, split="test")
    assert seen(data) == [("test/a.png", ("for test",), None, "test")]


# tables


@pytest.mark.parametrize(
    ("name", "header", "delimiter"),
    [
        ("c.csv", "image,caption", ","),
        ("c.csv", "File Name;Text", ";"),
        ("c.csv", "image_name| comment", "|"),
        ("c.tsv", "filepath\ttitle", "\t"),
        ("c.csv", "path\tcaption", "\t"),
        ("captions.txt", "image,caption", ","),
    ],
)
def test_tables_by_their_header(tmp_path, name, header, delimiter):
    picture(tmp_path / "pics/a.png")
    file = write(tmp_path / name, f"{header}\npics/a.png{delimiter}a cat\n")
    for path in (file, tmp_path):
        data = open_dataset(path)
        assert data.format == ("tsv" if delimiter == "\t" else "csv")
        assert seen(data) == [("pics/a.png", ("a cat",), None, None)]
        assert data[0].image == tmp_path / "pics/a.png"


def test_lines_about_one_picture_join_and_nothing_is_lost(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    write(
        tmp_path / "c.csv",
        "id,image,caption,label,split,source,n\n"
        "1,a.png,one,cat,train,web,1\n2,b.png,x,dog,dev,web,2\n3,a.png,two,cat,train,web,3\n",
    )
    a, b = open_dataset(tmp_path / "c.csv")
    assert (a.id, a.captions, a.label, a.split) == ("a.png", ("one", "two"), "cat", "train")
    assert a.extra == {"source": "web", "n": ["1", "3"], "id": ["1", "3"]}
    assert (b.id, b.label, b.split, b.extra) == ("2", "dog", "val", {"source": "web", "n": "2"})


def test_one_picture_with_two_labels_stays_two_records(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "c.csv", "image,label\na.png,cat\na.png,dog\n")
    data = open_dataset(tmp_path)
    assert [r.label for r in data] == ["cat", "dog"]
    assert data.report.duplicate_ids == ("a.png",)
    with pytest.raises(DataError, match=r"1 id\(s\) used twice \('a.png'\)"):
        open_dataset(tmp_path, strict=True)


def test_byte_order_mark_windows_lines_and_quoted_line_breaks(tmp_path):
    picture(tmp_path / "a.png")
    text = '\ufeffimage,caption\r\na.png,"a ""red"" cat,\r\nasleep"\r\n\r\na.png,second\r\n'
    data = open_dataset(write(tmp_path / "c.csv", text))
    assert data[0].captions == ('a "red" cat,\r\nasleep', "second")


def test_empty_captions_are_counted(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "c.csv", "image,caption\na.png,\na.png,  \na.png,a cat\n")
    data = open_dataset(tmp_path)
    assert (data[0].captions, data.report.empty_captions) == (("a cat",), 2)
    assert data.report.captions_per_picture == {1: 1}
    with pytest.raises(DataError, match=r"2 empty caption\(s\)"):
        open_dataset(tmp_path, strict=True)


# JSON


def test_json_lines_with_captions_of_both_spellings(tmp_path):
    picture(tmp_path / "a.png")
    json_lines(
        tmp_path / "captions.jsonl",
        {"file_name": "a.png", "caption": "two", "captions": ["one", "two"], "objects": [1]},
    )
    data = open_dataset(tmp_path)
    assert data.format == "jsonl"
    assert seen(data) == [("a.png", ("two", "one"), None, None)]
    assert data[0].extra == {"objects": [1]}


def test_metadata_of_each_split_with_equal_file_names(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "0.png")
        json_lines(tmp_path / split / "metadata.jsonl", {"file_name": "0.png", "text": split})
    data = open_dataset(tmp_path)
    assert seen(data) == [
        ("test/0.png", ("test",), None, "test"),
        ("train/0.png", ("train",), None, "train"),
    ]
    assert data[0].image == tmp_path / "test/0.png"


def test_json_lines_in_a_json_file(tmp_path):
    picture(tmp_path / "a.png")
    json_lines(tmp_path / "d.json", {"image": "a.png", "caption": "x"}, {"image": "a.png"})
    assert open_dataset(tmp_path).format == "jsonl"


def test_one_json_array(tmp_path):
    picture(tmp_path / "images/a.png")
    rows = [{"image": "a.png", "caption": ["one", "two"], "label": 7, "split": "validation"}]
    write(tmp_path / "d.json", json.dumps(rows, indent=1))
    data = open_dataset(tmp_path)
    assert data.format == "json"
    assert seen(data) == [("a.png", ("one", "two"), "7", "val")]
    assert data[0].image == tmp_path / "images/a.png"


def coco(images, annotations):
    document = {"info": {}, "images": images, "licenses": [], "annotations": annotations}
    return json.dumps(document)


def test_coco_captions_with_pictures_beside_the_annotations(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2017/1.jpg")
        document = coco(
            [{"id": 9, "file_name": "1.jpg", "height": 6}],
            [{"image_id": 9, "id": i, "caption": f" {split} {i}"} for i in range(2)],
        )
        write(tmp_path / f"annotations/captions_{split}2017.json", document)
        write(tmp_path / f"annotations/instances_{split}2017.json", coco([], [{"bbox": []}]))
    data = open_dataset(tmp_path)
    assert data.format == "coco"
    assert seen(data) == [
        ("train/9", ("train 0", "train 1"), None, "train"),
        ("val/9", ("val 0", "val 1"), None, "val"),
    ]
    assert data[1].image == tmp_path / "val2017/1.jpg"
    single = open_dataset(tmp_path / "annotations/captions_val2017.json")
    assert seen(single) == [("9", ("val 0", "val 1"), None, "val")]


def test_coco_with_a_folder_of_pictures_elsewhere(tmp_path):
    picture(tmp_path / "else/1.jpg")
    file = write(
        tmp_path / "lists/c.json",
        coco([{"id": 1, "file_name": "1.jpg"}], [{"image_id": 1, "caption": "x"},
                                                 {"image_id": 2, "caption": "y"}]),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"none of its 1 pictures is there.*images=FOLDER"):
        open_dataset(file)
    data = open_dataset(file, images=tmp_path / "else")
    assert data[0].captions == ("x",)
    assert data.report.notes == (
        "1 caption(s) of pictures that c.json does not list were left out",
    )


def test_coco_is_recognised_although_its_captions_lie_beyond_the_head(tmp_path):
    picture(tmp_path / "0.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(9000)]
    write(tmp_path / "c.json", coco(images, [{"image_id": 0, "caption": "x"}] * 9000))
    data = open_dataset(tmp_path)
    assert (data.format, len(data), len(data.report.missing)) == ("coco", 9000, 8999)


def test_karpathy_splits(tmp_path):
    picture(tmp_path / "val2014/a.jpg")
    sentences = [{"raw": "a cat", "tokens": ["a", "cat"]}]
    rows = [
        {"filename": "a.jpg", "filepath": "val2014", "split": s, "sentences": sentences, "imgid": 0}
        for s in ("restval", "test")
    ]
    write(tmp_path / "dataset_coco.json", json.dumps({"images": rows, "dataset": "coco"}))
    data = open_dataset(tmp_path)
    assert data.format == "karpathy"
    assert data.splits == ("test", "train")
    assert [r.extra["split"] for r in data] == ["restval", "test"]
    assert "1 picture(s) of the split 'restval' count as train" in data.notes[0]
    assert open_dataset(tmp_path, split="test")[0].caption == "a cat"


# telling them apart


def test_a_list_explains_the_folders_its_pictures_lie_in(tmp_path):
    picture(tmp_path / "cat/1.png")
    json_lines(tmp_path / "list.jsonl", {"image": "cat/1.png", "caption": "x"})
    assert open_dataset(tmp_path).format == "jsonl"
    assert open_dataset(tmp_path, format="imagefolder").labels == ("cat",)


def test_a_list_of_other_pictures_beside_classes_is_ambiguous(tmp_path):
    picture(tmp_path / "cat/1.png")
    json_lines(tmp_path / "list.jsonl", {"image": "elsewhere.png", "caption": "x"})
    with pytest.raises(DataError, match=r"2 ways: jsonl .*imagefolder .*jsonl or imagefolder$"):
        open_dataset(tmp_path)


def test_a_list_and_side_cars_are_ambiguous(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "a.txt", "from the text file")
    write(tmp_path / "list.csv", "image,caption\na.png,from the table\n")
    with pytest.raises(DataError, match=r"Choose with --format or format=: csv or sidecar$"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, format="csv")[0].caption == "from the table"
    assert open_dataset(tmp_path, format="sidecar")[0].caption == "from the text file"


def test_classes_with_side_cars_are_ambiguous(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / name / "a.png")
        write(tmp_path / name / "a.txt", "hm")
    with pytest.raises(DataError, match=r"sidecar or imagefolder$"):
        open_dataset(tmp_path)


def test_two_lists_of_different_kinds_are_ambiguous(tmp_path):
    picture(tmp_path / "a.png")
    json_lines(tmp_path / "x.jsonl", {"image": "a.png", "caption": "x"})
    write(tmp_path / "y.csv", "image,caption\na.png,y\n")
    with pytest.raises(DataError, match=r"csv or jsonl$"):
        open_dataset(tmp_path)


def test_two_lists_of_one_kind_are_named(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("x.csv", "y.csv"):
        write(tmp_path / name, "image,caption\na.png,y\n")
    with pytest.raises(DataError, match=r"2 lists of the format csv: open one of x.csv, y.csv"):
        open_dataset(tmp_path)


def test_lists_named_for_splits_are_one_set(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("train.csv", "my_test.csv"):
        write(tmp_path / name, f"image,caption\na.png,{name}\n")
    data = open_dataset(tmp_path)
    assert {r.split: r.caption for r in data} == {"train": "train.csv", "test": "my_test.csv"}


def test_other_files_do_not_disturb(tmp_path):
    picture(tmp_path / "cat/1.png")
    write(tmp_path / "README.txt", "An image of a cat, with a caption.\n")
    write(tmp_path / "config.json", '{"size": 3}')
    write(tmp_path / "scores.csv", "epoch,loss\n1,2\n")
    write(tmp_path / ".hidden.csv", "image,caption\na.png,y\n")
    assert open_dataset(tmp_path).format == "imagefolder"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "gone: there is no such file"),
        ("a.png", "is a picture; a data set is a folder"),
        ("a.tar", "no samples at its beginning: a shard holds pictures"),
        ("a.parquet", "is no Parquet file, or is cut off"),
        ("empty", "empty: no pictures in this folder"),
    ],
)
def test_what_is_no_data_set_is_named(tmp_path, name, message):
    picture(tmp_path / "a.png")
    write(tmp_path / "a.tar", "x")
    write(tmp_path / "a.parquet", "PAR1 and no end")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / name)


def test_wrong_formats_are_refused(tmp_path):
    picture(tmp_path / "a.png")
    file = write(tmp_path / "y.csv", "image,caption\na.png,y\n")
    with pytest.raises(ConfigError, match="unknown data format 'imagefolders': did you mean"):
        open_dataset(tmp_path, format="imagefolders")
    with pytest.raises(DataError, match=r"nothing here is 'coco'; found y.csv \(csv\)"):
        open_dataset(tmp_path, format="coco")
    with pytest.raises(DataError, match="is a file, but format 'sidecar' reads folders"):
        open_dataset(file, format="sidecar")
    with pytest.raises(DataError, match="no folders of classes"):
        open_dataset(tmp_path, format="imagefolder")
    with pytest.raises(DataError, match=r"no picture has a \.txt"):
        open_dataset(tmp_path, format="sidecar")
    assert len(FORMATS) == 26


def test_asking_for_a_split_that_is_not_there(tmp_path):
    picture(tmp_path / "train/cat/1.png")
    with pytest.raises(DataError, match="unknown split 'tests': known are train"):
        open_dataset(tmp_path, split="tests")
    picture(tmp_path / "flat/a.png")
    with pytest.raises(DataError, match="nothing in this data names a split"):
        open_dataset(tmp_path / "flat", split="train")


def test_the_whole_report(tmp_path):
    picture(tmp_path / "a.png")
    json_lines(
        tmp_path / "d.jsonl",
        {"image": "a.png", "captions": ["x", "y", ""], "label": "cat", "split": "train"},
        {"image": "gone.png", "captions": ["z"], "label": "dog", "split": "test"},
    )
    data = open_dataset(tmp_path)
    data.note_broken("a.png", "a.png: it ends too early")
    report = data.report.to_json()
    assert report == {
        "format": "jsonl",
        "why": "d.jsonl: a JSON object a line, with 'image'",
        "records": 2,
        "captions": 3,
        "captions_per_picture": {"1": 1, "2": 1},
        "empty_captions": 1,
        "missing": ("gone.png",),
        "duplicate_ids": (),
        "labels": {"cat": 1, "dog": 1},
        "splits": {"test": 1, "train": 1},
        "broken": {"a.png": "a.png: it ends too early"},
        "notes": (),
        "damage": (),
        "questions": 0,
        "answers": 0,
        "regions": 0,
        "outlines": 0,
        "region_labels": {},
        "turns": 0,
        "further_pictures": 0,
    }
    json.dumps(report)
    with pytest.raises(DataError, match=r"1 missing picture\(s\) \('gone.png'\); 1 empty"):
        open_dataset(tmp_path, strict=True)
