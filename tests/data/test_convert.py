"""Round trips between layouts: captions, labels, splits and bytes are the same."""

import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sightline.core.errors import ConfigError, DataError
from sightline.data.convert import OWN_LAYOUTS, convert
from sightline.data.formats import open_dataset
from sightline.data.items import picture_bytes
from sightline.data.records import Dataset, Record
from tests.data.shards.shard_files import encoded

ROWS = [
    {"image": "a.png", "captions": ["one", "two"], "label": "cat", "split": "train", "id": "x.1",
     "url": "http://example.org/a", "text": "kept", "n": 3},
    {"image": "b.jpg", "captions": ["line\nbreak", "  "], "label": "dog", "split": "test",
     "id": "../b"},
    {"image": "c.webp", "captions": [], "label": None, "split": "train", "id": "c",
     "category": "k"},
    {"image": "d.gif", "captions": ["grün 猫"], "label": "7", "split": "train", "id": "d"},
]  # fmt: skip


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for number, row in enumerate(ROWS):
        kind = {"jpg": "JPEG"}.get(row["image"][2:], row["image"][2:].upper())
        (folder / row["image"]).write_bytes(encoded(number * 40, kind))
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return open_dataset(folder)


def facts(data, extra=True):
    found = []
    for record in data:
        digest = hashlib.sha256(picture_bytes(record)).hexdigest()
        found.append((digest, record.captions, record.label, record.split))
        if extra:
            found[-1] += (json.dumps(dict(record.extra), sort_keys=True),)
    return sorted(found, key=str)


@pytest.mark.parametrize("layout", OWN_LAYOUTS)
def test_nothing_changes_on_the_way(source, tmp_path, layout):
    if layout == "parquet":
        pytest.importorskip("pyarrow", reason="it reads Parquet; the extra `test` brings it")
    done = convert(source, tmp_path / "out", layout)
    assert (done.records, done.failed) == (4, {})
    again = open_dataset(tmp_path / "out", strict=True)
    expected = {"folder": "sidecar"}.get(layout, layout)
    assert again.format == expected
    if layout != "folder":
        assert facts(again) == facts(source)
        assert sorted(r.id for r in again) == sorted(r.id for r in source)
    else:
        assert facts(again, extra=False) == facts(source, extra=False)


@pytest.mark.parametrize("first", OWN_LAYOUTS)
@pytest.mark.parametrize("second", OWN_LAYOUTS)
def test_every_layout_leads_to_every_other(source, tmp_path, first, second):
    pytest.importorskip("pyarrow", reason="it reads Parquet; the extra `test` brings it")
    convert(source, tmp_path / "one", first)
    convert(open_dataset(tmp_path / "one"), tmp_path / "two", second)
    assert facts(open_dataset(tmp_path / "two"), extra=False) == facts(source, extra=False)


def test_shards_are_cut_and_named_for_their_split(source, tmp_path):
    convert(source, tmp_path / "out", "webdataset", per_shard=2)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["classnames.txt", "test-000000.tar", "train-000000.tar", "train-000001.tar"]
    assert len(open_dataset(tmp_path / "out" / "train-{000000..000001}.tar")) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaks the tar
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_we_write_the_formats_own_libraries_read(source, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    datasets = pytest.importorskip("datasets")
    convert(source, tmp_path / "tars", "webdataset")
    samples = list(
        webdataset.WebDataset(str(tmp_path / "tars/train-000000.tar"), shardshuffle=False)
    )
    assert [s["txt"].decode() for s in samples if "txt" in s] == ["one\ntwo", "grün 猫"]
    assert samples[0]["png"] == picture_bytes(source[0])
    assert json.loads(samples[1]["json"])["category"] == "k"
    convert(source, tmp_path / "tables", "parquet")
    files = {"train": str(tmp_path / "tables/train-00000.parquet")}
    rows = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows[0]["captions"] == ["one", "two"]
    assert rows[0]["image"].size == (8, 6)


def test_pictures_in_memory_become_png(tmp_path):
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    records = [
        Record("a", pixels, ("array",)),
        Record("b", Image.fromarray(pixels), ("picture",)),
        Record("c", encoded(5), ("bytes",)),
    ]
    convert(Dataset(records), tmp_path / "out", "folder")
    again = open_dataset(tmp_path / "out")
    with Image.open(again[0].image) as image:
        assert (image.format, np.asarray(image).tolist()) == ("PNG", pixels.tolist())
    assert picture_bytes(again[2]) == encoded(5)


def test_unreadable_pictures_are_left_out_and_named(tmp_path):
    records = [Record("a", encoded(1)), Record("b", b"no picture"), Record("c", tmp_path / "gone")]
    done = convert(Dataset(records), tmp_path / "out", "jsonl")
    assert done.records == 1
    assert list(done.failed) == ["b", "c"]
    assert "there is no such file" in done.failed["c"]
    with pytest.raises(DataError, match="record 'b': the content"):
        convert(Dataset(records), tmp_path / "strict", "jsonl", strict=True)
    with pytest.raises(DataError, match="no picture of it can be read; the first: "):
        convert(Dataset(records[1:]), tmp_path / "none", "jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "nothing half is left"


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="is there already; nothing is overwritten"):
        convert(source, tmp_path / "out", "folder")
    with pytest.raises(ConfigError, match="unknown layout 'tar'"):
        convert(source, tmp_path / "new", "tar")
    with pytest.raises(ConfigError, match="a shard holds at least one record, got 0"):
        convert(source, tmp_path / "new", "webdataset", per_shard=0)


def test_an_interruption_leaves_nothing(source, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    for layout in ("webdataset", "jsonl"):
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", layout, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def run(*arguments):
    from sightline.cli.program import program

    return CliRunner().invoke(program, ["data", "convert", *map(str, arguments)])


def test_the_command(source, tmp_path):
    folder = tmp_path / "source"
    result = run(folder, tmp_path / "out", "--to", "webdataset", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["records"], document["to"], document["from"]) == (4, "webdataset", "jsonl")
    again = run(folder, tmp_path / "out", "--to", "folder")
    assert again.exit_code == 2
    assert "is there already; nothing is overwritten" in again.stderr
    (folder / "a.png").write_bytes(b"broken now")
    some = run(folder, tmp_path / "some", "--to", "jsonl")
    assert some.exit_code == 3
    assert "x.1" in some.stderr
    assert "wrote 3 records" in some.stdout
