"""The index of what lies where in a tar.

A tar is scanned once. The index (names, offsets, sizes, 30 bytes a member) of a tar of 64 MiB or
more is kept in a cache folder and not beside the data, which may belong to others or be read-only;
it is used again as long as the tar's size and time of change are the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import DataError
from sightline.core.files import atomic_file
from sightline.data.shards.ranges import Shard
from sightline.data.shards.tar import Member, TarDamageError, is_unsafe, members
from sightline.inputs.folders import shown_name

log = logging.getLogger(__name__)

INDEX_FORMAT = "sightline.tar-index"
INDEX_VERSION = 1
CACHED_FROM_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TarIndex:
    """Where every usable member of one tar lies, grouped into samples in order of appearance.

    A sample is what shares a key: the path up to the first dot of the file's name.
    """

    shard: Shard
    keys: tuple[str, ...]
    first: NDArray[np.int64]
    """int64[samples + 1]: where the members of a sample begin in the arrays below."""
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    kinds: NDArray[np.int32]
    """Which of `suffixes`, for each member."""
    suffixes: tuple[str, ...]
    """In lower case, without the dot: "jpg", "seg.png"."""
    damage: tuple[tuple[str, str], ...] = ()
    """What could not be used: kind and name, in order; long lists are cut."""

    def __len__(self) -> int:
        return len(self.keys)

    def members_of(self, sample: int) -> Iterator[tuple[str, int, int]]:
        """Suffix, offset and size of each member."""
        part = slice(self.first[sample], self.first[sample + 1])
        kinds, offsets = self.kinds[part].tolist(), self.offsets[part].tolist()
        for kind, offset, size in zip(kinds, offsets, self.sizes[part].tolist(), strict=True):
            yield self.suffixes[kind], offset, size


UNSAFE = "member(s) whose path leaves the archive"
DUPLICATE = "member(s) with a name used before"
NO_FILE = "link(s), device(s) or sparse file(s)"
CUT_OFF = "damaged archive(s)"
_MOST_DAMAGE = 100_000


@dataclass
class _Growing:
    """A sample list while a tar is scanned."""

    places: dict[str, int] = field(default_factory=dict)
    suffixes: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)
    """sample, suffix, offset, size"""
    seen: set[tuple[int, int]] = field(default_factory=set)
    damage: list[tuple[str, str]] = field(default_factory=list)

    def add(self, member: Member) -> None:
        if not member.regular:
            if not member.name.endswith("/") and member.size:
                self.damage.append((NO_FILE, shown_name(member.name)))
            return
        if is_unsafe(member.name):
            self.damage.append((UNSAFE, shown_name(member.name)))
            return
        key, suffix = key_and_suffix(member.name)
        if not suffix or key.rpartition("/")[2] == "":
            return  # no sample: README, .DS_Store, ._x.jpg
        sample = self.places.setdefault(key, len(self.places))
        kind = self.suffixes.setdefault(suffix, len(self.suffixes))
        if (sample, kind) in self.seen:
            self.damage.append((DUPLICATE, shown_name(member.name)))
            return
        self.seen.add((sample, kind))
        self.rows.append((sample, kind, member.offset, member.size))

    def index(self, shard: Shard) -> TarIndex:
        rows = np.array(self.rows, dtype=np.int64).reshape(-1, 4)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        first = np.searchsorted(rows[:, 0], np.arange(len(self.places) + 1))
        return TarIndex(
            shard,
            tuple(self.places),
            first.astype(np.int64),
            np.ascontiguousarray(rows[:, 2]),
            np.ascontiguousarray(rows[:, 3]),
            rows[:, 1].astype(np.int32),
            tuple(self.suffixes),
            tuple(self.damage[:_MOST_DAMAGE]),
        )


def key_and_suffix(name: str) -> tuple[str, str]:
    """A member's sample and its part: "train/0001.seg.png" is "train/0001", "seg.png"."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def index_tar(path: Path, cache: bool = True) -> TarIndex:
    """Where the members of a tar lie, from the cache where it is as it was.

    Damage does not stop it: what lies whole before a cut is indexed, the rest is in `damage`.

    Raises:
        DataError: the file cannot be opened, or is no tar from its first byte on.
    """
    shard = Shard.of(path)
    cache = cache and shard.size >= CACHED_FROM_BYTES
    cached = _read_cached(shard) if cache else None
    if cached is not None:
        return cached
    index = _scan(shard)
    if cache:
        _write_cached(index)
    return index


def _scan(shard: Shard) -> TarIndex:
    growing = _Growing()
    try:
        for member in members(shard.read_some, shard.size):
            growing.add(member)
    except TarDamageError as error:
        if not growing.rows:
            raise DataError(f"{shard.name}: {error}; no member of it can be read") from None
        growing.damage.append((CUT_OFF, f"{shard.name} {error}"))
    except OSError as error:
        raise DataError(f"{shard.name}: cannot be read ({error.strerror or error})") from None
    return growing.index(shard)


# The cache of indexes


def cache_folder() -> Path:
    """`SIGHTLINE_CACHE`, or the system's folder for caches."""
    own = os.environ.get("SIGHTLINE_CACHE")
    if own:
        return Path(own) / "tar-indexes"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "sightline" / "tar-indexes"


def _cached_file(shard: Shard) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.abspath(shard.path))).hexdigest()[:32]
    return cache_folder() / f"{digest}.safetensors"


def _read_cached(shard: Shard) -> TarIndex | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_cached_file(shard), framework="numpy") as file:
            said = file.metadata() or {}
            wanted = _identity(shard)
            if any(said.get(name) != value for name, value in wanted.items()):
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        keys = _words(arrays["keys"])
        index = TarIndex(
            shard, keys, arrays["first"], arrays["offsets"], arrays["sizes"], arrays["kinds"],
            _words(arrays["suffixes"]),
            tuple(zip(*[iter(_words(arrays["damage"]))] * 2, strict=True)),
        )  # fmt: skip
    except (OSError, SafetensorError, KeyError, ValueError):
        return None  # not there, or damaged: scanned anew
    return index if _is_sound(index) else None


def _is_sound(index: TarIndex) -> bool:
    """A cached index may have been damaged or written by someone else; it must fit the tar."""
    counts = {len(index.offsets), len(index.sizes), len(index.kinds)}
    first = index.first
    if len(counts) != 1 or len(first) != len(index) + 1 or first[0] != 0:
        return False
    if first[-1] != len(index.offsets) or bool((np.diff(first) < 0).any()):
        return False
    if not len(index.offsets):
        return True
    ends = index.offsets + index.sizes
    inside = min(index.offsets.min(), index.sizes.min()) >= 0 and ends.max() <= index.shard.size
    return bool(inside and 0 <= index.kinds.min() and index.kinds.max() < len(index.suffixes))


def _write_cached(index: TarIndex) -> None:
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[Any]] = {
        "first": index.first,
        "offsets": index.offsets,
        "sizes": index.sizes,
        "kinds": index.kinds,
        "keys": _letters(index.keys),
        "suffixes": _letters(index.suffixes),
        "damage": _letters([word for pair in index.damage for word in pair]),
    }
    try:
        with atomic_file(_cached_file(index.shard)) as temporary:
            save_file(tensors, temporary, metadata=_identity(index.shard))
    except OSError as error:
        log.info("the index of %s is not kept: %s", index.shard.name, error)


def _identity(shard: Shard) -> dict[str, str]:
    return {"format": INDEX_FORMAT, "version": str(INDEX_VERSION), "size": str(shard.size),
            "changed": str(shard.changed)}  # fmt: skip


def _letters(words: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\0".join([*words, ""]).encode("utf-8", "replace"), dtype=np.uint8)


def _words(letters: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(letters.tobytes().decode("utf-8").split("\0")[:-1])
