"""Archives: the same members as the standard library finds, and every damage by name."""

import io
import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.shards.tar import TarDamageError, is_unsafe, members
from tests.data.shards.shard_files import write_tar


def found(data: bytes):
    return list(members(lambda offset, length: data[offset : offset + length], len(data)))


def expected(data: bytes):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]


NAMES = ["a.txt", "folder/b.png", "x" * 150 + ".jpg", "d/" * 80 + "deep.txt", "grün.txt", "猫.png"]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_the_standard_library(tmp_path, kind):
    names = NAMES if kind != tarfile.USTAR_FORMAT else NAMES[:2] + NAMES[4:]
    path = write_tar(
        tmp_path / "a.tar", {n: bytes([i]) * (i * 511) for i, n in enumerate(names)}, format=kind
    )
    data = path.read_bytes()
    ours = [(m.name, m.offset, m.size) for m in found(data) if m.regular]
    assert ours == expected(data)
    assert [name for name, _, _ in ours] == names


def test_ustar_prefixes_and_folders_and_links(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("d/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        long = tarfile.TarInfo("p" * 90 + "/" + "q" * 60 + ".txt")
        long.size = 3
        tar.addfile(long, io.BytesIO(b"abc"))
    data = path.read_bytes()
    assert [m.regular for m in found(data)] == [False, False, True]
    assert [(m.name, m.offset, m.size) for m in found(data) if m.regular] == expected(data)


def test_headers_of_large_members_are_read_in_place(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{i}.bin": bytes(40_000 + i) for i in range(20)})
    data = path.read_bytes()
    reads = []

    def read_at(offset, length):
        reads.append(length)
        return data[offset : offset + length]

    assert len(list(members(read_at, len(data)))) == 20
    assert sum(reads) < len(data) / 2


def test_a_cut_keeps_what_lies_whole_before_it(tmp_path):
    data = write_tar(tmp_path / "a.tar", {"a.txt": b"a" * 600, "b.txt": b"b" * 600}).read_bytes()
    for cut, whole in ((0, 0), (100, 0), (700, 0), (1536, 1), (1600, 1), (2100, 1), (3072, 2)):
        given = []
        with pytest.raises(TarDamageError, match="cut off"):
            for member in members(lambda o, n, c=cut: data[:c][o : o + n], cut):
                given.append(member.name)
        assert len(given) == whole, cut


def test_damaged_headers_are_named(tmp_path):
    data = bytearray(write_tar(tmp_path / "a.tar", {"a.txt": b"a", "b.txt": b"b"}).read_bytes())
    data[1024 + 5] ^= 1
    with pytest.raises(TarDamageError, match="damaged header at byte 1,024"):
        found(bytes(data))
    with pytest.raises(TarDamageError, match="damaged header at byte 0"):
        found(b"no archive at all" * 100)


def header(name=b"a.jpg", size=b"00000000001\0", kind=b"0"):
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136], block[156:157] = size, kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (header(size=b"77777777777\0"), "inside a member that goes on to"),
        (header(size=b"\x80" + b"\xff" * 11), "inside a member that goes on to"),
        (header(size=b"\xff" * 12), "without a size"),
        (header(size=b"zzzzzzzzzzz\0"), "without a size"),
        (header(kind=b"L", size=b"77777777777\0"), "an extended header of"),
        (header(kind=b"x", size=b"00000000012\0") + b"99 path=a\n", "damaged extended header"),
        (header(kind=b"x", size=b"00000000012\0") + b"0 path=aa\n", "damaged extended header"),
        (header(kind=b"x", size=b"00000000012\0") + b"nothing ==", "damaged extended header"),
    ],
)
def test_sizes_that_lie_are_refused(block, message):
    with pytest.raises(TarDamageError, match=message):
        found(block.ljust(2048, b"\0"))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3))
def test_arbitrary_bytes_end_with_members_or_a_clear_line(noise, blocks):
    data = header() + b"x".ljust(512, b"\0")
    try:
        found(data * blocks + noise)
    except TarDamageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "..\\a.jpg", "\\a.jpg"]
)
def test_paths_that_leave_the_archive(name):
    assert is_unsafe(name)


def test_ordinary_paths_stay():
    assert not any(is_unsafe(name) for name in ("a..b.jpg", "./a.jpg", "a/b.jpg", "...jpg"))
    assert os.sep in "/\\"
