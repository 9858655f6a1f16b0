"""Parquet, Arrow, img2dataset, Flickr30k and the BLIP list, as their own libraries write them."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from sightline.core import lazy
from sightline.core.errors import DataError, ImageError, MissingDependencyError
from sightline.data.formats import open_dataset
from sightline.data.shards import picture_tables
from sightline.inputs.images import read_image
from tests.data.shards.shard_files import captioned, encoded, write_tar

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def read(record):
    return int(read_image(record.image)[0, 0, 0])


def pictures(count, first=0):
    return [{"bytes": encoded(first + n), "path": f"{n:03d}.png"} for n in range(count)]


def seen(data):
    return [(r.id, r.captions, r.label, r.split) for r in data]


# parquet


def test_a_struct_of_bytes_and_path(tmp_path):
    rows = {"image": pictures(5), "caption": [f"number {n}" for n in range(5)],
            "licence": ["cc0"] * 5}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "train-00000-of-00001.parquet", row_group_size=2)
    data = open_dataset(tmp_path)
    assert data.format == "parquet"
    assert seen(data)[4] == ("004.png", ("number 4",), None, "train")
    assert data[4].extra == {"licence": "cc0"}
    assert [read(r) for r in data] == list(range(5))
    assert [read(data[n]) for n in (4, 0, 3)] == [4, 0, 3]


def test_plain_bytes_as_pandas_writes_them(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"image": [encoded(1), encoded(2)], "text": ["one", "two"], "label": ["cat", "dog"]}
    )
    file = tmp_path / "a.parquet"
    frame.to_parquet(file)
    data = open_dataset(file)
    assert seen(data) == [("0", ("one",), "cat", None), ("1", ("two",), "dog", None)]
    assert [read(r) for r in data] == [1, 2]


def test_tables_that_datasets_writes_and_saves(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "captions": datasets.List(datasets.Value("string")),
        }
    )
    rows = {"image": pictures(3), "label": [0, 1, 1], "captions": [["a", "b"], ["c"], []]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    expected = [("a", "b"), ("c",), ()]

    whole.to_parquet(tmp_path / "p/data/validation-00000-of-00001.parquet")
    data = open_dataset(tmp_path / "p")
    assert [r.captions for r in data] == expected
    assert [r.label for r in data] == ["cat", "dog", "dog"]
    assert data.splits == ("val",)
    assert [read(r) for r in data] == [0, 1, 2]

    whole.save_to_disk(tmp_path / "saved")
    data = open_dataset(tmp_path / "saved")
    assert data.format == "arrow"
    assert [r.captions for r in data] == expected
    assert [r.label for r in data] == ["cat", "dog", "dog"]
    assert [read(r) for r in data] == [0, 1, 2]

    parts = datasets.DatasetDict({"train": whole, "test": whole.select([1])})
    parts.save_to_disk(tmp_path / "dict")
    data = open_dataset(tmp_path / "dict")
    assert data.report.splits == {"test": 1, "train": 3}
    assert sorted(read(r) for r in data) == [0, 1, 1, 2]
    assert len({r.id for r in data}) == 4


def test_tables_that_name_files(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(encoded(3))
    pq.write_table(pa.table({"file_name": ["a.png"], "text": ["x"]}), tmp_path / "m.parquet")
    data = open_dataset(tmp_path / "m.parquet")
    assert (data[0].caption, read(data[0])) == ("x", 3)


def test_tables_of_addresses_are_not_fetched(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": ["http://localhost:1/a.jpg"], "caption": ["x"]}), file)
    with pytest.raises(DataError, match=r"row 1: 'http://localhost:1/a.jpg' is an address"):
        open_dataset(file)


def test_several_columns_of_pictures_are_refused(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"left": pictures(1), "right": pictures(1)}), file)
    with pytest.raises(DataError, match="several columns hold pictures: left, right"):
        open_dataset(file)


def test_damaged_tables_are_clear_lines(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pictures(50)}), file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] + whole[-4:])
    with pytest.raises(DataError, match=r"a.parquet: (cannot be read as Parquet|is damaged)"):
        open_dataset(file)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is no Parquet file, or is cut off"):
        open_dataset(file)
    broken = bytearray(whole)
    broken[200:3000] = bytes(2800)
    file.write_bytes(broken)
    with pytest.raises((ImageError, DataError)):
        for record in open_dataset(file):
            read_image(record.image)


def test_empty_cells_and_bombs_cost_themselves(tmp_path, monkeypatch):
    file = tmp_path / "a.parquet"
    rows = [{"bytes": None, "path": "x.png"}, {"bytes": encoded(1), "path": "y.png"}]
    pq.write_table(pa.table({"image": rows}), file)
    data = open_dataset(file)
    with pytest.raises(ImageError, match=r"a.parquet, row 1: the cell holds no bytes"):
        read_image(data[0].image)
    assert read(data[1]) == 1
    monkeypatch.setattr(picture_tables, "MAX_GROUP_BYTES", 10)
    with pytest.raises(ImageError, match=r"row group 0 has .* bytes of pictures"):
        read_image(open_dataset(file)[0].image)


def test_reading_at_random_beyond_the_cache_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(picture_tables, "CACHED_BYTES", 1)
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pictures(4)}), file, row_group_size=1)
    data = open_dataset(file)
    with caplog.at_level(logging.WARNING):
        for n in list(range(4)) * 8:
            assert read(data[n]) == n
    assert caplog.text.count("sightline data convert") == 1


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pictures(1)}), file)

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="pyarrow")

    monkeypatch.setattr(lazy.importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sightline\[datasets\]'"):
        open_dataset(file)


def test_a_table_never_answers_for_an_earlier_one(tmp_path):
    for value in range(30):  # each is dropped before the next is opened
        file = tmp_path / f"{value}.parquet"
        pq.write_table(pa.table({"image": pictures(1, value)}), file)
        assert read(open_dataset(file)[0]) == value


# img2dataset


STATS = {"count": 4, "successes": 3, "failed_to_download": 1, "failed_to_resize": 0,
         "status_dict": {"success": 3, "HTTP Error 404: Not Found": 1}}  # fmt: skip


def side(number):
    return {"url": f"http://x/{number}", "caption": f"picture {number}", "status": "success",
            "key": f"{number:09d}", "width": 8, "height": 6, "error_message": None}  # fmt: skip


@pytest.mark.parametrize("kind", ["files", "webdataset", "parquet"])
def test_the_three_outputs_of_img2dataset(tmp_path, kind):
    members = {}
    for n in range(3):
        members |= {f"{n:09d}.jpg": encoded(n, "JPEG"), f"{n:09d}.txt": f"picture {n}",
                    f"{n:09d}.json": side(n)}  # fmt: skip
    failed = {**side(3), "status": "failed_to_download", "error_message": "HTTP Error 404"}
    rows = [*(side(n) for n in range(3)), failed]
    if kind == "webdataset":
        write_tar(tmp_path / "00000.tar", members)
    if kind == "files":
        (tmp_path / "00000").mkdir()
        for name, content in members.items():
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            data = data.encode() if isinstance(data, str) else data
            (tmp_path / "00000" / name).write_bytes(data)
    if kind == "parquet":
        rows = [{**row, "jpg": members.get(f"{row['key']}.jpg")} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text(json.dumps(STATS))
    data = open_dataset(tmp_path)
    assert data.format == "img2dataset"
    assert f"output as {kind}" in data.report.why
    assert [r.captions for r in data] == [(f"picture {n}",) for n in range(3)]
    assert [r.extra["url"] for r in data] == [f"http://x/{n}" for n in range(3)]
    assert "1 of 4 addresses gave no picture: 1 HTTP Error 404: Not Found" in data.notes
    assert [abs(read(r) - n) <= 1 for n, r in enumerate(data)] == [True] * 3


def test_what_is_no_output_of_img2dataset(tmp_path):
    write_tar(tmp_path / "a.tar", captioned(0, 1))
    with pytest.raises(DataError, match="no output of img2dataset: its folder holds 00000_stats"):
        open_dataset(tmp_path, format="img2dataset")


# lists


def jpeg(path, value=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(value, "JPEG"))


def test_flickr30k_tokens(tmp_path):
    jpeg(tmp_path / "flickr30k-images/1.jpg")
    jpeg(tmp_path / "flickr30k-images/2.jpg")
    text = "1.jpg#0\tTwo men | talk .\n1.jpg#1\tMen\n2.jpg#0\tA dog\nnonsense\n\n"
    (tmp_path / "results_20130124.token").write_text(text)
    data = open_dataset(tmp_path)
    assert data.format == "flickr30k"
    assert seen(data) == [
        ("1.jpg", ("Two men | talk .", "Men"), None, None), ("2.jpg", ("A dog",), None, None),
    ]  # fmt: skip
    assert data.damage == ("1 line(s) that are no captions: results_20130124.token, line 4",)
    assert data[0].image == tmp_path / "flickr30k-images/1.jpg"


def test_flickr30k_csv_with_its_known_damage(tmp_path):
    jpeg(tmp_path / "flickr30k_images/1.jpg")
    text = (
        "image_name| comment_number| comment\n"
        '1.jpg| 0| A man says "hello .\n'
        "1.jpg| 4   A dog runs across the grass .\n"
    )
    (tmp_path / "results.csv").write_text(text)
    data = open_dataset(tmp_path / "results.csv")
    assert data.format == "flickr30k"
    assert data[0].captions == ('A man says "hello .', "A dog runs across the grass .")


def test_blip_and_lavis_lists(tmp_path):
    jpeg(tmp_path / "val2014/COCO_1.jpg")
    rows = [
        {"image": "val2014/COCO_1.jpg", "caption": "one", "image_id": "coco_1"},
        {"image": "val2014/COCO_1.jpg", "caption": "two", "image_id": "coco_1"},
    ]
    (tmp_path / "coco_karpathy_train.json").write_text(json.dumps(rows))
    assert seen(open_dataset(tmp_path)) == [("coco_1", ("one", "two"), None, "train")]
    both = [{"image": "val2014/COCO_1.jpg", "caption": ["one", "two"]}]
    (tmp_path / "coco_karpathy_train.json").write_text(json.dumps(both))
    assert open_dataset(tmp_path)[0].captions == ("one", "two")


def test_bytes_are_those_that_were_written(tmp_path):
    data = encoded(7)
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None}]}), tmp_path / "a.parquet")
    record = open_dataset(tmp_path / "a.parquet")[0]
    assert record.image.read_stored() == data
    assert np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0] == read(record)
