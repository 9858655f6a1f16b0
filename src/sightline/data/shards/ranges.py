"""Files read at places by several threads, as they were when they were opened."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from sightline.core.errors import DataError, ImageError
from sightline.inputs.folders import shown_name
from sightline.inputs.limits import MAX_BYTES

OPEN_FILES = 64


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
