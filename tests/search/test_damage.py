"""Broken manifests, a full disk: one step back, said aloud; repaired by command; nothing lost."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.core.errors import DamagedStoreError, StoreError
from sightline.search import manifests as guard
from sightline.search.lance import LanceStore
from sightline.search.manifests import manifests
from sightline.search.opening import check_rows, told
from sightline.search.repair import repair
from tests.search.stores import contents, expected, rows, store

ROOT = Path(__file__).parent.parent.parent
OLD, NEW = rows(20), rows(10, seed=1, first=20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store(tmp_path, OLD, NEW)
    return tmp_path


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))


def break_newest(folder: Path, how: str) -> None:
    path = manifests(folder)[0].path
    size = path.stat().st_size
    if how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(path.read_bytes()[: size // 2])
    elif how == "zeros":
        path.write_bytes(bytes(size))
    else:
        flip(path, *{"first": (0, 3), "middle": (size // 2, 5), "last": (size - 1, 1)}[how])


@pytest.mark.parametrize("how", ["empty", "half", "zeros", "first", "middle", "last"])
def test_a_broken_manifest_is_stepped_back_from_and_repaired(
    folder: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    version = manifests(folder)[0].version
    break_newest(folder, how)
    with caplog.at_level(logging.WARNING):
        opened = LanceStore.open(folder)
    assert f"version {version} is damaged" in caplog.text
    assert f"run sightline index repair {folder}" in caplog.text
    assert contents(opened) == expected(OLD)
    assert opened.search(OLD.vectors[3], 1)[0].id == OLD.ids[3]
    assert len(opened.info().damage) == 1
    with pytest.raises(DamagedStoreError, match=f"run sightline index repair {folder}"):
        opened.upsert(NEW)
    view = opened._view
    assert view is not None and view.is_dir()
    opened.close()
    assert not view.exists()

    found = repair(folder)
    assert len(found.set_aside) == 1 and found.rows == 20 and found.version == version - 1
    assert len(list((folder / "broken").iterdir())) == 1
    caplog.clear()
    again = LanceStore.open(folder)
    assert not caplog.records and again.info().damage == ()
    again.upsert(NEW)
    assert contents(LanceStore.open(folder)) == expected(OLD, NEW)
    assert repair(folder).set_aside == ()


def test_every_bit_of_a_sealed_manifest_is_watched(folder: Path) -> None:
    newest = manifests(folder)[0]
    size = newest.path.stat().st_size
    for place in np.random.default_rng(0).choice(size, 50, replace=False).tolist():
        flip(newest.path, place, place % 8)
        assert guard.damage_of(folder, newest) == "its bytes have changed since they were written"
        flip(newest.path, place, place % 8)
    assert guard.damage_of(folder, newest) is None


@pytest.mark.parametrize("how", ["empty", "half", "zeros", "last"])
def test_an_unsealed_manifest_is_trusted_when_it_can_be_read(folder: Path, how: str) -> None:
    newest = manifests(folder)[0]
    seal = folder / "seals" / f"{newest.version}.json"
    seal.unlink()  # killed between the commit and its seal
    opened = LanceStore.open(folder)
    assert contents(opened) == expected(OLD, NEW) and not seal.exists()
    opened.remove([])
    assert seal.exists()  # whoever writes next makes up for it, also where there is nothing to do
    seal.write_text("{")
    assert contents(LanceStore.open(folder)) == expected(OLD, NEW)
    break_newest(folder, how)
    assert contents(LanceStore.open(folder)) == expected(OLD)


def test_an_unsealed_manifest_with_a_flipped_bit_never_ends_in_a_traceback(folder: Path) -> None:
    newest = manifests(folder)[0]
    dice = np.random.default_rng(2)
    for place in dice.choice(newest.path.stat().st_size, 40, replace=False).tolist():
        (folder / "seals" / f"{newest.version}.json").unlink(missing_ok=True)
        bit = int(dice.integers(8))
        flip(newest.path, place, bit)
        opened = LanceStore.open(folder)
        # Nothing vouches for this manifest, so that a bit that still reads may change a row.
        assert set(contents(opened)) in (set(expected(OLD, NEW)), set(expected(OLD)))
        opened.close()
        flip(newest.path, place, bit)


def test_an_unsealed_version_whose_rows_are_gone_is_not_trusted(folder: Path) -> None:
    data = sorted((folder / "vectors.lance" / "data").iterdir(), key=lambda f: f.stat().st_mtime_ns)
    (folder / "seals" / f"{manifests(folder)[0].version}.json").unlink()
    data[-1].write_bytes(b"")  # what a power cut leaves of a file that was not synced
    assert contents(LanceStore.open(folder)) == expected(OLD)


@pytest.mark.parametrize("text", ["", "garbage", '{"version":1}', '{"version":99}'])
def test_lances_own_hint_may_say_anything(folder: Path, text: str) -> None:
    hint = folder / "vectors.lance" / "_versions" / "latest_version_hint.json"
    assert hint.is_file()
    hint.write_text(text)
    opened = LanceStore.open(folder)
    assert contents(opened) == expected(OLD, NEW)
    opened.upsert(rows(3, seed=2, first=50))
    assert LanceStore.open(folder).count() == 33


def test_several_broken_versions_are_stepped_over(folder: Path) -> None:
    LanceStore.open(folder).upsert(rows(5, seed=2, first=50))
    for manifest in manifests(folder)[:2]:
        manifest.path.write_bytes(b"")
    opened = LanceStore.open(folder)
    assert contents(opened) == expected(OLD) and len(opened.info().damage) == 2
    assert len(repair(folder).set_aside) == 2


def test_a_store_without_a_whole_version_says_so(folder: Path) -> None:
    for manifest in manifests(folder):
        manifest.path.write_bytes(b"")
    with pytest.raises(StoreError, match="no version of this index can be opened"):
        LanceStore.open(folder)
    with pytest.raises(StoreError, match="index the pictures again into a new folder"):
        repair(folder)


def test_a_store_that_was_killed_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    for name in ("_versions", "data", "_transactions"):
        (tmp_path / "vectors.lance" / name).mkdir(parents=True)
    (tmp_path / "vectors.lance" / "_transactions" / "0-half.txn").write_bytes(b"")
    with pytest.raises(StoreError, match="there is no index in this folder"):
        LanceStore.open(tmp_path)
    assert contents(store(tmp_path, OLD)) == expected(OLD)


def test_repair_needs_an_index(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no index in this folder"):
        repair(tmp_path)


def test_repair_steps_back_from_rows_that_cannot_be_read(folder: Path) -> None:
    data = sorted((folder / "vectors.lance" / "data").iterdir(), key=lambda f: f.stat().st_mtime_ns)
    data[-1].write_bytes(b"")
    found = repair(folder)
    assert len(found.set_aside) == 1 and found.rows == 20
    assert contents(LanceStore.open(folder)) == expected(OLD)


def test_rows_with_broken_vectors_or_doubled_ids_are_noticed(tmp_path: Path) -> None:
    long = OLD._replace(vectors=OLD.vectors * 2)
    with pytest.raises(ValueError, match="not of length one"):
        check_rows(store(tmp_path / "long", long)._table)
    double = rows(2)._replace(ids=["same", "same"])
    with pytest.raises(ValueError, match="there twice"):
        check_rows(store(tmp_path / "double", double)._table)


def test_what_was_committed_is_synced_before_it_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(guard, "sync", synced.append)
    store(tmp_path, OLD)
    table = tmp_path / "vectors.lance"
    written = {path for path in table.rglob("*") if path.is_file()}
    assert written <= set(synced)
    assert {table, table / "data", table / "_versions", tmp_path} <= set(synced)
    sealed = {int(path.stem) for path in (tmp_path / "seals").iterdir()}
    assert sealed == {manifest.version for manifest in manifests(tmp_path)}


FULL = """
import resource, sys
from pathlib import Path
from sightline.core.errors import StoreError
from sightline.search.lance import LanceStore
from tests.search.stores import rows
store = LanceStore.open(Path(sys.argv[1]))
store.upsert(rows(10, seed=3, first=500))
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    store.upsert(rows(2000, seed=4, first=1000))
except StoreError as error:
    print(error)
"""


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "the disk is full; what was committed before is safe" in done.stdout, done.stderr
    assert "run the same command again" in done.stdout
    small, large = rows(10, seed=3, first=500), rows(2000, seed=4, first=1000)
    again = LanceStore.open(folder)
    assert contents(again) == expected(OLD, NEW, small)
    again.upsert(large)
    assert contents(again) == expected(OLD, NEW, small, large)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a file system, and not in every container")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_fills_at_any_moment_of_a_commit_loses_nothing(small_disk: Path) -> None:
    folder = small_disk / "index"
    made = store(folder, OLD)
    kept = expected(OLD)
    outcomes = []
    for number, left in enumerate([0, 1, 2, 3, 4, 5, 6, 8, 10, 12]):
        free = os.statvfs(small_disk).f_bavail - left
        (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_frsize * max(0, free)))
        part = rows(40, seed=number, first=1000 * (number + 1))
        try:
            made.upsert(part)
            outcomes.append(True)
        except StoreError as error:
            assert "the disk is full" in str(error)
            outcomes.append(False)
        found = contents(LanceStore.open(folder))
        # Where only the seal found no room, the rows are there all the same.
        assert found in (kept, kept | expected(part))
        (small_disk / "filler").unlink()
        made.upsert(part)
        kept |= expected(part)
        assert contents(LanceStore.open(folder)) == kept
        assert LanceStore.open(folder).info().damage == ()
    assert outcomes[0] is False and outcomes[-1] is True


def test_errors_of_the_engine_become_sentences(tmp_path: Path) -> None:
    def raising(error: Exception) -> Any:
        with told(tmp_path):
            raise error

    for error in (OSError(28, "x"), RuntimeError("io: No space left on device (os error 28)")):
        with pytest.raises(StoreError, match="the disk is full"):
            raising(error)
    with pytest.raises(StoreError, match=r"cannot be read or written: first$"):
        raising(RuntimeError("first\nsecond"))

    class RustPanic(Exception):
        pass

    with pytest.raises(StoreError, match="cannot be read or written: rust future panicked"):
        raising(RustPanic("rust future panicked"))
    with pytest.raises(KeyError):  # a mistake of the program stays one
        raising(KeyError("x"))
    with pytest.raises(DamagedStoreError, match=r"^as it is$"):
        raising(DamagedStoreError("as it is"))
