"""Shards: the files of a set in order, read at places, and the index of what lies where in a tar.

A tar is scanned once. The index (names, offsets, sizes, 30 bytes a member) of a tar of 64 MiB or
more is kept in a cache folder and not beside the data, which may belong to others or be read-only;
it is used again as long as the tar's size and time of change are the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import DataError, ImageError
from sightline.core.files import atomic_file
from sightline.data.records import SPLIT_NAMES, split_name
from sightline.data.shards.tar import Member, TarDamageError, is_unsafe, members
from sightline.inputs.folders import nearest_files, shown_name
from sightline.inputs.limits import MAX_BYTES

log = logging.getLogger(__name__)

INDEX_FORMAT = "sightline.tar-index"
INDEX_VERSION = 1
CACHED_FROM_BYTES = 64 * 2**20
OPEN_FILES = 64
MAX_SHARDS = 1_000_000
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


# Which files


def expand_braces(pattern: str) -> list[str]:
    """`a-{000..127}.tar` and `{a,b}.tar` as the names they stand for, in order, as bash has it.

    Raises:
        DataError: a range that counts down or stands for more than a million names.
    """
    parts: list[list[str]] = []
    rest, count = pattern, 1
    while found := _BRACES.search(rest):
        if found[3] is None:
            first, last = found[1], found[2]
            if int(first) > int(last) or int(last) - int(first) >= MAX_SHARDS:
                raise DataError(
                    f"{shown_name(pattern)}: {found[0]} must count up, at most {MAX_SHARDS:,} names"
                )
            width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
            names = [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
        else:
            names = found[3].split(",")
        count *= len(names)
        if count > MAX_SHARDS:
            raise DataError(f"{shown_name(pattern)}: stands for more than {MAX_SHARDS:,} names")
        parts += [[rest[: found.start()]], names]
        rest = rest[found.end() :]
    return ["".join(words) for words in product(*parts, [rest])]


def is_pattern(path: str) -> bool:
    """Whether a path is written with braces or a star."""
    return bool(_BRACES.search(path) or "*" in path)


def refuse_address(path: str | os.PathLike[str]) -> None:
    """Data is read from files only.

    Raises:
        DataError: the path is an address or a command.
    """
    text = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text) and not (os.name == "nt" and text[1] == ":"):
        kind = "an address"
    elif text.startswith("pipe:"):
        kind = "a command"
    else:
        return
    raise DataError(
        f"{shown_name(text)}: is {kind}; data sets are read from files only: fetch the shards "
        "first and name the files"
    )


def shard_files(path: Path, suffix: str, depth: int = 1) -> list[tuple[Path, str | None]]:
    """The files of a set with this suffix, each with the split that a folder or name tells.

    A file stands for itself, a pattern for what it names, a folder for the files in it and, to
    `depth`, in folders below it. Sorted by path.

    Raises:
        DataError: a pattern names a file that is not there, or matches nothing.
    """
    if is_pattern(str(path)) and not path.exists():
        found = _matches(str(path))
        return [(file, split_in(file.name)) for file in found]
    if path.is_file():
        return [(path, split_in(path.name))] if path.suffix.lower() == suffix else []
    found = []
    for level in range(depth + 1):
        found += [f for f in path.glob("*/" * level + "*") if _is_shard(f, path, suffix)]
    return [(file, _folder_split(file, path) or split_in(file.name)) for file in sorted(found)]


def _is_shard(file: Path, root: Path, suffix: str) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.suffix.lower() == suffix and not hidden and file.is_file()


def _matches(pattern: str) -> list[Path]:
    found: list[Path] = []
    for name in expand_braces(pattern):
        if "*" in name:
            path = Path(name)
            if "*" in str(path.parent):
                raise DataError(f"{shown_name(name)}: a star may stand in the file's name only")
            found += sorted(path.parent.glob(path.name))
        elif Path(name).is_file():
            found.append(Path(name))
        else:
            raise DataError(
                f"{shown_name(name)}: there is no such shard{nearest_files(Path(name))}"
            )
    if not found:
        raise DataError(f"{shown_name(pattern)}: no file has such a name")
    return found


def split_in(name: str) -> str | None:
    """The split that a file's name tells: `cc3m-train-0001.tar` is "train"."""
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None


def _folder_split(file: Path, root: Path) -> str | None:
    for part in file.relative_to(root).parts[:-1]:
        if part.lower() in SPLIT_NAMES:
            return split_name(part)
    return None


# Reading at places


class _Handle:
    """An open file that is closed when nobody reads from it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = None if hasattr(os, "pread") else threading.Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        if self._lock is None:
            return os.pread(self.number, length, offset)
        with self._lock:
            os.lseek(self.number, offset, os.SEEK_SET)
            return os.read(self.number, length)

    def will_need(self, offset: int, length: int) -> None:
        """Have the system fetch a range before it is asked for, where it can."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(self.number, offset, length, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self.number)


@lru_cache(maxsize=OPEN_FILES)
def _handle(path: str, size: int, changed: int) -> _Handle:
    handle = _Handle(path)
    state = os.fstat(handle.number)
    if (state.st_size, state.st_mtime_ns) != (size, changed):
        raise ImageError(
            f"{shown_name(path)} has changed since it was opened: open the data set again",
            "image_not_found",
        )
    return handle


@dataclass(frozen=True)
class Shard:
    """A file of a set as it was when it was opened."""

    path: str
    size: int
    changed: int
    """Time of the last change in nanoseconds."""

    @classmethod
    def of(cls, path: Path) -> Shard:
        """The file as it is now.

        Raises:
            DataError: it cannot be looked at.
        """
        try:
            state = path.stat()
        except OSError as error:
            raise DataError(f"{shown_name(path)}: cannot be read ({error.strerror})") from None
        return cls(str(path), state.st_size, state.st_mtime_ns)

    @cached_property
    def name(self) -> str:
        """The file's own name, printable."""
        return shown_name(os.path.basename(self.path))

    def read(self, offset: int, length: int) -> bytes:
        """A range of the file.

        Raises:
            ImageError: the file is gone, has changed, or ends before the range does.
        """
        try:
            data = _handle(self.path, self.size, self.changed).read_at(offset, length)
        except OSError as error:
            raise ImageError(
                f"{self.name}: cannot be read ({error.strerror or error})", "image_not_found"
            ) from None
        if len(data) < length:
            raise ImageError(f"{self.name}: is shorter than it was", "image_truncated")
        return data

    def read_some(self, offset: int, length: int) -> bytes:
        """As `read`, but fewer bytes where the file ends."""
        return _handle(self.path, self.size, self.changed).read_at(offset, length)

    def will_need(self, offset: int, length: int) -> None:
        """Have the system fetch a range before it is asked for, where it can."""
        with suppress(OSError, ImageError):
            _handle(self.path, self.size, self.changed).will_need(offset, length)


@dataclass(frozen=True)
class StoredRange:
    """A picture that is a range of a file, such as a member of an uncompressed tar."""

    shard: Shard
    offset: int
    size: int
    name: str

    def read_stored(self) -> bytes:
        """The bytes as they were stored.

        Raises:
            ImageError: more than a picture may have, or the file is gone or has changed.
        """
        if self.size > MAX_BYTES:
            raise ImageError(
                f"the member has {self.size:,} bytes, at most {MAX_BYTES:,} are read",
                "image_too_large",
            )
        return self.shard.read(self.offset, self.size)


# What was wrong


class Damage:
    """What could not be used, counted by kind, with the first names; safe to print."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def note(self, kind: str, name: str, count: int = 1) -> None:
        """One more of a kind, such as "member(s) with a path that leaves the archive"."""
        self._counts[kind] = self._counts.get(kind, 0) + count
        names = self._names.setdefault(kind, [])
        if len(names) < 3 and name not in names:
            names.append(name)

    def sentences(self) -> tuple[str, ...]:
        """One a kind."""
        return tuple(
            f"{count} {kind}: {', '.join(self._names[kind])}"
            + (" ..." if count > len(self._names[kind]) else "")
            for kind, count in self._counts.items()
        )


# The index of a tar


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
