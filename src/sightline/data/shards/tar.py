"""The members of a tar archive as places in the file: nothing is unpacked, linked or executed.

POSIX.1-1988 (ustar), the POSIX.1-2001 extended headers and GNU long names, uncompressed. Written
for shards of many small files, where `tarfile` spends more time on a header than the decoder on
the picture; agrees with `tarfile` on what is a regular file, where it lies and what it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sightline.core.errors import DataError

BLOCK = 512
MAX_EXTENDED_BYTES = 2**20
"""A longer name or extended header is an attack on the memory, not a name."""
_CHUNK = 16 * 1024
_ZEROS = bytes(BLOCK)
_SPARSE = b"S"
_REGULAR = frozenset((b"0", b"\0", b"7"))
_EXTENDED = frozenset((b"L", b"K", b"x", b"g", b"X"))

ReadAt = Callable[[int, int], bytes]
"""(offset, length) to bytes, fewer only at the end of the file."""


class Member(NamedTuple):
    """One entry of an archive."""

    name: str
    """As stored; bytes that are not UTF-8 are escaped with a backslash."""
    offset: int
    """Where its content begins in the file."""
    size: int
    regular: bool
    """False for folders, links, devices and sparse files."""


class TarDamageError(DataError):
    """The archive cannot be read beyond the members that were given; one line says where."""


def members(read_at: ReadAt, file_size: int) -> Iterator[Member]:
    """The entries in the order of the archive, up to its end mark.

    Raises:
        TarDamageError: cut off, a damaged header, no end mark. Every entry that lies whole before
            the damage has been given by then.
    """
    headers = _Headers(read_at)
    position = 0
    long_name: bytes | None = None
    long_size: int | None = None
    sparse = False
    while True:
        header = headers.at(position)
        if header == _ZEROS:
            return
        kind, size = _checked(header, position, file_size)
        start = position + BLOCK
        if kind in _EXTENDED:
            content = _extended(read_at, start, size, file_size)
            if kind == b"L":
                long_name = content.split(b"\0", 1)[0]
            elif kind in (b"x", b"X"):
                fields = _pax_fields(content, start)
                long_name = fields.get(b"path", long_name)
                long_size = _number(fields.get(b"size"), start)
                sparse = any(key.startswith(b"GNU.sparse") for key in fields)
            position = start + _padded(size)
            continue
        size = size if long_size is None else long_size
        stored = size if kind in _REGULAR or kind == _SPARSE else 0
        if start + stored > file_size:
            raise TarDamageError(
                f"ends at byte {file_size:,} inside a member that goes on to {start + stored:,}: "
                "it is cut off"
            )
        name = long_name if long_name is not None else _short_name(header)
        regular = kind in _REGULAR and not sparse and not name.endswith(b"/")
        yield Member(name.decode("utf-8", "backslashreplace"), start, size, regular)
        position = start + _padded(stored)
        long_name = long_size = None
        sparse = False


class _Headers:
    """Reads headers a chunk at a time: small members lie several to a chunk."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._chunk = b""
        self._start = 0

    def at(self, position: int) -> bytes:
        """The block at a place.

        Raises:
            TarDamageError: the file ends there.
        """
        within = position - self._start
        if not 0 <= within <= len(self._chunk) - BLOCK:
            self._chunk, self._start, within = self._read_at(position, _CHUNK), position, 0
        header = self._chunk[within : within + BLOCK]
        if len(header) < BLOCK:
            raise TarDamageError(
                f"stops at byte {position + len(header):,} without the end mark of an archive: "
                "it is cut off"
            )
        return header


def _checked(header: bytes, position: int, file_size: int) -> tuple[bytes, int]:
    """Kind and size of a header whose check sum is right."""
    unsigned = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    stored = _octal(header[148:156])
    if stored != unsigned and stored != _signed_sum(header):
        raise TarDamageError(f"has a damaged header at byte {position:,} of {file_size:,}")
    size = _octal(header[124:136])
    if size is None or size < 0:
        raise TarDamageError(f"has a header without a size at byte {position:,} of {file_size:,}")
    return header[156:157], size


def _signed_sum(header: bytes) -> int:
    """Some old writers summed signed characters."""
    fields = header[:148] + header[156:]
    return sum(byte - 256 if byte > 127 else byte for byte in fields) + 8 * ord(" ")


def _octal(field: bytes) -> int | None:
    """A number in octal digits, or in base 256 where the first bit says so (GNU)."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big", signed=False) - (
            0 if field[0] == 0x80 else 1 << (8 * (len(field) - 1))
        )
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return None


def _short_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":  # GNU's own magic keeps times where POSIX has the prefix
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _extended(read_at: ReadAt, start: int, size: int, file_size: int) -> bytes:
    if size > MAX_EXTENDED_BYTES:
        raise TarDamageError(f"has an extended header of {size:,} bytes at byte {start:,}")
    content = read_at(start, size)
    if len(content) < size:
        raise TarDamageError(f"ends at byte {file_size:,} inside an extended header: it is cut off")
    return content


def _pax_fields(content: bytes, start: int) -> dict[bytes, bytes]:
    """Records "length key=value" and a line end each (POSIX.1-2001, pax)."""
    fields: dict[bytes, bytes] = {}
    position = 0
    while position < len(content) and content[position] != 0:
        length, blank, _ = content[position : position + 20].partition(b" ")
        begin, end = position + len(length) + 1, position + (_number(length, start) or 0)
        key, equals, value = content[begin : max(begin, end - 1)].partition(b"=")
        if not blank or not equals or end > len(content):
            raise TarDamageError(f"has a damaged extended header at byte {start:,}")
        fields[key] = value
        position = end
    return fields


def _number(digits: bytes | None, start: int) -> int | None:
    if digits is None:
        return None
    if not digits.isdigit() or len(digits) > 19:
        raise TarDamageError(f"has a damaged extended header at byte {start:,}")
    return int(digits)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def is_unsafe(name: str) -> bool:
    """Whether a member's path is absolute or climbs, so that unpacking it would write elsewhere."""
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")
