"""Text files of strangers, read with limits: every refusal names the file and the line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.inputs.folders import shown_name

MAX_LINE_BYTES = 16 * 2**20
"""A longer line is no record but a damaged file, or one that wants to fill the memory."""
MAX_DOCUMENT_BYTES = 2**30
"""A whole JSON document is held in memory, several times its size; COCO's largest is half this."""


_shown = lru_cache(maxsize=64)(shown_name)  # asked for once a line


def place(path: Path, line: int | None = None) -> str:
    """How messages name a place in a file."""
    name = _shown(path.name)
    return f"{name}, line {line}" if line else name


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1; a byte order mark is dropped.

    Never holds more than one line.

    Raises:
        DataError: other encodings, NUL bytes, a line above `MAX_LINE_BYTES`, an unreadable file.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                yield number, _decode(data, path, number)
    except OSError as error:
        raise DataError(
            f"{shown_name(path)}: cannot be read ({error.strerror or error})"
        ) from error


def _decode(data: bytes, path: Path, number: int) -> str:
    if len(data) > MAX_LINE_BYTES:
        raise DataError(
            f"{place(path, number)}: longer than {MAX_LINE_BYTES >> 20} MiB: is the file damaged?"
        )
    return _as_text(data, path, number)


def _as_text(data: bytes, path: Path, first: int = 1) -> str:
    """Bytes that begin on line `first` of a file as text, without a byte order mark."""

    def at(offset: int) -> str:
        return place(path, first + data.count(b"\n", 0, offset))

    if first == 1 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{place(path)}: is UTF-16 text, UTF-8 is expected: save it as UTF-8")
    nul = data.find(b"\0")
    if nul >= 0:
        raise DataError(f"{at(nul)}: contains NUL bytes: the file is damaged or is not text")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{at(error.start)}: byte 0x{data[error.start]:02x} is not UTF-8 "
            "(Latin-1 or Windows text?): save the file as UTF-8"
        ) from None
    return text.removeprefix("\ufeff") if first == 1 else text


def parse_json(text: str, path: Path, line: int | None = None) -> Any:
    """One JSON value; `line` says where a single line comes from.

    Raises:
        DataError: broken or truncated JSON, a number too long, nesting too deep.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        ended = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        cut = "it ends too early: is the file truncated?" if ended else ""
        where = place(path, line or error.lineno)
        raise DataError(
            f"{where}, column {error.colno}: not valid JSON, {cut or error.msg}"
        ) from None
    except RecursionError:
        raise DataError(f"{place(path, line)}: JSON nested too deeply to be a data set") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise DataError(f"{place(path, line)}: not usable JSON, {error}") from None


def read_document(path: Path) -> Any:
    """A file that is one JSON document.

    Raises:
        DataError: as `text_lines` and `parse_json`, or above `MAX_DOCUMENT_BYTES`.
    """
    try:
        size = path.stat().st_size
        if size > MAX_DOCUMENT_BYTES:
            raise DataError(
                f"{place(path)}: one JSON document of {size >> 20} MiB, at most "
                f"{MAX_DOCUMENT_BYTES >> 20} MiB are read: write it as JSON lines"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{shown_name(path)}: cannot be read ({error.strerror or error})"
        ) from error
    return parse_json(_as_text(data, path), path)
