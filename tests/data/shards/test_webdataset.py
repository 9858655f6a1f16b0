"""Shards of samples: read as the format's own library writes them, damage counted, exact resume."""

import io
import json
import os
import tarfile
from itertools import chain, islice

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data.formats import open_dataset
from sightline.data.loader import Loader
from sightline.data.shards import ranges, tar_index
from sightline.data.shards.files import expand_braces, shard_files
from sightline.data.shards.tar_index import index_tar, key_and_suffix
from sightline.data.shards.webdataset import open_shards
from sightline.data.shards.windows import InWindows, window_order
from sightline.data.shares import Share
from sightline.inputs.images import read_image
from tests.data.shards.shard_files import captioned, encoded, write_tar


@pytest.fixture
def three(tmp_path):
    """Three tars with 5, 1 and 7 samples."""
    for number, (first, count) in enumerate(((0, 5), (5, 1), (6, 7))):
        write_tar(tmp_path / f"set-{number:03d}.tar", captioned(first, count))
    return tmp_path


def read(record):
    return int(read_image(record.image)[0, 0, 0])


# reading


def test_shards_of_the_formats_own_library(tmp_path):
    webdataset = pytest.importorskip(
        "webdataset", reason="it writes the tars; the extra `test` has it"
    )
    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=3, verbose=0) as writer:
        for number in range(5):
            writer.write(
                {
                    "__key__": f"deep/{number:03d}",
                    "jpg": np.full((6, 8, 3), number, np.uint8),
                    "txt": f"a picture of {number}",
                    "json": {"licence": "none", "place": number},
                    "cls": number % 2,
                }
            )
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    data = open_dataset(tmp_path)
    assert data.format == "webdataset"
    assert "2 tar(s) with samples such as deep/000.{" in data.report.why
    assert [r.id for r in data] == [f"deep/{n:03d}" for n in range(5)]
    assert [r.caption for r in data] == [f"a picture of {n}" for n in range(5)]
    assert [r.label for r in data] == ["cat", "dog", "cat", "dog", "cat"]
    assert data[4].extra == {"licence": "none", "place": 4}
    assert [read(r) for r in data] == list(range(5))


@pytest.mark.parametrize(
    "spelling", ["set-{000..002}.tar", "set-00{0,1,2}.tar", "set-*.tar", "", "set-000.tar"]
)
def test_patterns_folders_and_single_tars(three, spelling):
    data = open_dataset(three / spelling if spelling else three)
    assert len(data) == (5 if spelling == "set-000.tar" else 13)
    assert [read(r) for r in data] == [int(r.id) for r in data]


def test_braces_are_expanded_as_in_a_shell():
    assert expand_braces("a{08..11}.tar") == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert expand_braces("{9..10}") == ["9", "10"]
    assert expand_braces("{a,b}{0..1}x") == ["a0x", "a1x", "b0x", "b1x"]
    for bad in ("{3..1}", "{0..99999999}", "{0..999}{0..999}{0..999}"):
        with pytest.raises(DataError, match=r"count up|more than"):
            expand_braces(bad)


def test_missing_shards_of_a_pattern_are_named(three):
    with pytest.raises(DataError, match=r"set-003\.tar: there is no such shard; did you mean set-"):
        open_dataset(three / "set-{000..003}.tar")
    with pytest.raises(DataError, match="no file has such a name"):
        open_dataset(three / "other-*.tar")


@pytest.mark.parametrize(
    "address", ["https://example.org/a-{000..002}.tar", "s3://bucket/a.tar", "pipe:cat a.tar"]
)
def test_addresses_and_commands_are_never_followed(address):
    with pytest.raises(DataError, match="data sets are read from files only"):
        open_dataset(address)
    with pytest.raises(DataError, match="data sets are read from files only"):
        open_shards(address)


def test_splits_by_folder_and_by_name(tmp_path):
    write_tar(tmp_path / "train/0.tar", captioned(0, 3))
    write_tar(tmp_path / "test/0.tar", captioned(3, 2))
    assert open_dataset(tmp_path).report.splits == {"test": 2, "train": 3}
    assert len(open_shards(tmp_path, split="test")) == 2
    other = tmp_path / "other"
    write_tar(other / "cc-train-000.tar", captioned(0, 3))
    write_tar(other / "cc-validation-000.tar", captioned(0, 1))
    data = open_dataset(other)
    assert data.report.splits == {"train": 3, "val": 1}
    assert data[3].id == "cc-validation-000/0000", "equal keys are told apart by their tar"
    with pytest.raises(DataError, match="no tars of the split 'test' here"):
        open_shards(other, split="test")


def test_members_of_a_sample_may_lie_apart(tmp_path):
    members = captioned(0, 4)
    apart = dict(sorted(members.items(), key=lambda item: item[0].endswith("txt")))
    data = open_dataset(write_tar(tmp_path / "a.tar", apart))
    assert [r.caption for r in data] == [f"picture {n}" for n in range(4)]


def test_several_captions_and_json_and_upper_case(tmp_path):
    members = {
        "a.JPG": encoded(1, "JPEG"), "a.TXT": "one\n\ntwo \n",
        "b.webp": encoded(2, "WEBP"), "b.json": {"caption": "three", "label": 7, "url": "http://x"},
        "c.png": encoded(3), "c.json": {"text": "four", "split": "dev"},
        "d.seg.png": encoded(9), "d.png": encoded(4), "d.pyd": b"\x80\x04never unpickled",
        ".DS_Store": b"x", "._a.jpg": b"x", "README": b"x",
    }  # fmt: skip
    data = open_dataset(write_tar(tmp_path / "a.tar", members))
    assert [r.captions for r in data] == [("one", "two"), ("three",), ("four",), ()]
    assert (data[1].label, data[1].extra) == ("7", {"url": "http://x"})
    assert data[2].split == "val"
    assert read(data[3]) == 4, "d.png is the picture, d.seg.png a part"
    assert data.notes == ("1 picture(s) have neither caption nor label: d",)


def test_keys_and_suffixes():
    assert key_and_suffix("./a/b.c/x.seg.PNG") == ("a/b.c/x", "seg.png")


def test_compressed_tars_and_pictures_alone(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match="is compressed; pictures are read from the middle"):
        open_dataset(tmp_path / "a.tar.gz")
    bare = write_tar(tmp_path / "x/images.tar", {"a.png": encoded(1), "b.png": encoded(2)})
    assert len(open_dataset(bare.parent)) == 2
    (tmp_path / "x/cat").mkdir()
    (tmp_path / "x/cat/a.png").write_bytes(encoded(1))
    assert open_dataset(bare.parent).format == "imagefolder", "an archive beside what it held"
    write_tar(tmp_path / "x/more.tar", captioned(0, 1))
    bare.unlink()
    with pytest.raises(DataError, match=r"can be read in 2 ways: imagefolder .*webdataset \(1 tar"):
        open_dataset(tmp_path / "x")


# damage


def hostile(tmp_path):
    path = write_tar(
        tmp_path / "bad.tar",
        [
            ("../../evil.png", encoded(1)), ("../../evil.txt", "x"),
            ("/etc/evil.png", encoded(1)),
            ("a.png", encoded(1)), ("a.txt", "first"), ("a.txt", "second"), ("a.png", encoded(2)),
            ("lonely.txt", "no picture"),
            ("b.png", encoded(3)), ("b.json", b"{broken"),
            ("c.png", encoded(4)), ("c.txt", b"\xff\xfe not utf8"),
            ("d.png", b"no picture at all"), ("d.txt", "broken"),
            ("e.png", encoded(5)), ("e.json", {"caption": 5}),
            ("f.png", encoded(6)), ("f.json", b"[" * 100_000),
        ],
    )  # fmt: skip
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("g.png")
        link.type, link.linkname, link.size = tarfile.SYMTYPE, "/etc/passwd", 0
        tar.addfile(link)
    return path


def test_damage_is_counted_and_named_and_not_fatal(tmp_path, caplog):
    data = open_dataset(hostile(tmp_path))
    assert [r.id for r in data] == ["a", "b", "c", "d", "e", "f"]
    assert data[0].captions == ("first",)
    assert read(data[0]) == 1
    text = "; ".join(data.damage)
    assert "3 member(s) whose path leaves the archive: bad.tar: ../../evil.png, " in text
    assert "2 member(s) with a name used before: bad.tar: a.txt, bad.tar: a.png" in text
    assert "1 sample(s) without a picture: bad.tar: lonely" in text
    assert "2 JSON member(s) that are no object: bad.tar/b.json, bad.tar/f.json" in text
    assert "1 text(s) that are not UTF-8: bad.tar/c.txt" in text
    assert "1 sample(s) with unusable fields: e: 'caption' must be text" in text
    assert data.damage[0] in caplog.text
    with pytest.raises(DataError, match=r"path leaves the archive.*: repair the data, or open it"):
        open_dataset(tmp_path / "bad.tar", strict=True)
    with pytest.raises(DataError, match=r"bad.tar: .*repair the data, or open it without strict"):
        open_shards(tmp_path / "bad.tar", strict=True)


def test_a_broken_picture_costs_itself_alone(tmp_path):
    records = open_shards(hostile(tmp_path))
    loader = Loader(records, list, 5, epochs=1, transform=lambda r, _: read(r))
    assert sorted(next(iter(loader))) == [1, 3, 4, 5, 6]
    assert list(records.broken) == ["d"]
    assert "bad.tar/d.png: the content looks like plain text" in records.broken["d"]
    with pytest.raises(ImageError, match=r"bad.tar/d.png"):
        list(Loader(records, list, 6, on_error="raise", transform=lambda r, _: read(r)))


def test_a_cut_tar_keeps_its_whole_samples(three):
    path = three / "set-002.tar"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    records = open_dataset(three)
    assert 6 < len(records) < 13
    assert [read(r) for r in records] == [int(r.id) for r in records]
    assert records.damage[0].startswith("1 damaged archive(s): set-002.tar ")
    assert "cut off" in records.damage[0]
    path.write_bytes(b"")
    assert (
        "1 tar(s) that cannot be read: set-002.tar: stops at byte 0"
        in open_dataset(three).damage[0]
    )


def test_a_bomb_is_refused_by_the_decoder_and_named(tmp_path):
    import zlib

    def chunk(kind, data):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = (50_000).to_bytes(4, "big")
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + size + b"\1\0\0\0\0")
        + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")
    )  # fmt: skip
    members = {"a.png": bomb, "a.txt": "x", "b.png": encoded(1), "b.txt": "y"}
    data = open_dataset(write_tar(tmp_path / "a.tar", members))
    with pytest.raises(ImageError, match=r"a.tar/a.png: 50,000 x 50,000 pixels are too many"):
        read(data[0])
    assert read(data[1]) == 1


def test_a_tar_that_changes_afterwards_is_noticed(three):
    records = open_shards(three)
    ranges._handle.cache_clear()
    write_tar(three / "set-000.tar", captioned(50, 5))
    os.utime(three / "set-000.tar", ns=(1, 1))
    with pytest.raises(ImageError, match=r"set-000.tar has changed since it was opened"):
        read(records[0])


def test_a_tar_that_is_gone_is_an_unreadable_picture(three):
    records = open_shards(three)
    ranges._handle.cache_clear()
    (three / "set-001.tar").unlink()
    with pytest.raises(ImageError, match=r"set-001.tar: cannot be read"):
        read(records[5])


# the cache of indexes


def test_the_index_is_kept_and_used_until_the_tar_changes(three, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tar_index, "CACHED_FROM_BYTES", 1)
    path = three / "set-002.tar"
    first = index_tar(path)
    (kept,) = (tmp_path / "cache/tar-indexes").iterdir()

    def no_scan(shard):
        raise AssertionError("scanned again")

    with monkeypatch.context() as patched:
        patched.setattr(tar_index, "_scan", no_scan)
        again = index_tar(path)
    assert (again.keys, again.suffixes) == (first.keys, first.suffixes)
    for name in ("first", "offsets", "sizes", "kinds"):
        assert np.array_equal(getattr(again, name), getattr(first, name))
    size = path.stat().st_size
    write_tar(path, captioned(90, 7))
    assert path.stat().st_size == size
    assert index_tar(path).keys[0] == "0090", "another tar of the same size"
    write_tar(path, captioned(0, 2))
    assert len(index_tar(path)) == 2
    kept.write_bytes(kept.read_bytes()[:-20])
    assert len(index_tar(path)) == 2, "a damaged cache is scanned anew"


def test_a_foreign_index_that_does_not_fit_is_not_trusted(three, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tar_index, "CACHED_FROM_BYTES", 1)
    path = three / "set-000.tar"
    index = index_tar(path)
    index.offsets[0] = 10**12
    tar_index._write_cached(index)
    assert index_tar(path).offsets[0] < path.stat().st_size


# streaming


def loader(data, batch=2, **settings):
    return Loader(InWindows(data, 2, 6), list, batch, transform=lambda r, _: read(r), **settings)


def test_an_epoch_holds_every_record_once_in_windows(three):
    records = open_shards(three)
    epochs = [list(chain(*loader(records, 13, epochs=1, seed=s))) for s in range(3)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle_of_a_shard_reads_nothing_twice(three, workers, monkeypatch):
    whole = list(islice(loader(open_shards(three), workers=workers), 15))
    for stop in range(1, 15):
        first = loader(open_shards(three), workers=workers)
        list(islice(first, stop))
        state = json.loads(json.dumps(first.state_dict()))
        assert len(json.dumps(state)) < 400
        rest = loader(open_shards(three), workers=workers)
        rest.load_state_dict(state)
        records = rest.dataset.dataset
        asked = []
        original = type(records).__getitem__

        def counted(self, index, asked=asked, original=original):
            asked.append(index)
            return original(self, index)

        with monkeypatch.context() as patched:
            patched.setattr(type(records), "__getitem__", counted)
            follow = list(islice(rest, 15 - stop))
        assert follow == whole[stop:]
        ahead = 2 * 2 * workers
        assert len(asked) <= 2 * (15 - stop) + ahead, "pictures before the state were read again"


def test_more_ranks_than_shards_get_equal_numbers_of_batches(three):
    shares = [
        list(loader(open_shards(three), 4, epochs=1, share=Share(rank, 4, lambda own: [own])))
        for rank in range(4)
    ]
    assert [len(batches) for batches in shares] == [3, 3, 3, 3]
    alone = list(loader(open_shards(three), 4, epochs=1))
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == alone


def test_another_number_of_ranks_goes_on_where_the_first_stopped(three):
    whole = list(loader(open_shards(three), 4, epochs=2))
    first = loader(open_shards(three), 4, epochs=2, share=Share(0, 2, lambda own: [own]))
    list(islice(first, 2))
    rest = loader(open_shards(three), 4, epochs=2)
    rest.load_state_dict(first.state_dict())
    assert list(rest) == whole[2:]


def test_windows_read_runs_and_mix_places():
    order = window_order(10_000, block=100, window=1000, seed=3, epoch=0)
    assert sorted(order.tolist()) == list(range(10_000))
    for first in range(0, 10_000, 1000):
        blocks = {int(i) // 100 for i in order[first : first + 1000]}
        assert len(blocks) <= 23, "a window comes from few places"
        assert max(blocks) - min(blocks) > 20, "and these lie far apart"
    again = window_order(10_000, 100, 1000, 3, 0)
    assert np.array_equal(order, again)
    other = window_order(10_000, 100, 1000, 3, 1)
    assert (order == other).mean() < 0.01
    neighbours = np.abs(np.diff(order)) == 1
    assert neighbours.mean() < 0.02


@pytest.mark.parametrize(("block", "window"), [(0, 4), (8, 4)])
def test_windows_out_of_range_are_refused(block, window):
    with pytest.raises(ConfigError, match="a block has at least one record"):
        InWindows([1, 2, 3], block, window)


def test_a_state_of_other_shards_is_refused(three):
    first = loader(open_shards(three))
    next(iter(first))
    state = first.state_dict()
    write_tar(three / "set-000.tar", captioned(20, 5))
    with pytest.raises(DataError, match="the data set has changed: as many records"):
        loader(open_shards(three)).load_state_dict(state)


def test_shards_and_the_opened_set_agree(three):
    opened, streamed = open_dataset(three), open_shards(three)
    assert list(streamed) == list(opened)
    assert streamed[-1].id == opened[len(opened) - 1].id
    assert [r.id for r in streamed[2:4]] == ["0002", "0003"]
    with pytest.raises(IndexError):
        streamed[13]


def test_many_shards_need_few_open_files(tmp_path):
    for number in range(80):
        write_tar(tmp_path / f"{number:03d}.tar", captioned(number, 1))
    records = open_shards(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert [read(r) for r in records] == list(range(80))
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + ranges.OPEN_FILES
    assert len(shard_files(tmp_path, ".tar")) == 80


def test_pictures_in_tars_reach_everything_that_reads_pictures(three):
    from sightline.data.inspect import inspect_dataset
    from sightline.evaluation.records import data_sha256

    found = inspect_dataset(three)
    assert found.checked == 13 and not found.report.broken
    assert found.file_formats == {"PNG": 13}
    assert data_sha256(list(open_dataset(three))[:2]) != data_sha256(list(open_dataset(three))[1:3])
    assert Image.open(io.BytesIO(open_dataset(three)[0].image.read_stored())).size == (8, 6)
