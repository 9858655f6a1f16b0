"""VLMEvalKit's tables: a question a row, its picture in base64, choices A to Z (Duan et al. 2024).

    index   image       question   hint   A   B   C   D   answer   category   split

A short value under `image` is the index of the row that has the picture. Cells are found as ranges
of the file, so that pictures stay in it until they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sightline.core.errors import DataError
from sightline.data.columns import Reading, choose_root, resolve
from sightline.data.lines import MAX_LINE_BYTES, place
from sightline.data.records import Record, split_name
from sightline.data.shards.encoded import EncodedRange
from sightline.data.shards.ranges import Shard, StoredRange
from sightline.inputs.folders import shown_name

if TYPE_CHECKING:
    from sightline.data.records import Picture

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LONGEST_INDEX = 64
"""A value of more characters is a picture."""
MAX_ROW_BYTES = 4 * MAX_LINE_BYTES
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{%d,}" % (LONGEST_INDEX + 1))
_ROLES = ("index", "image", "image_path", "question", "split", *LETTERS)


class _Cell(NamedTuple):
    """The bytes of one cell, and where they stand in the file."""

    value: bytes
    offset: int


def read_choice_table(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """The questions of such a table.

    A right choice that is given by its letter becomes its text; the letter stays in `extra`.

    Raises:
        DataError: no such header, a row of another length, an open quote, text that is not UTF-8,
            or a picture of a row that is not there.
    """
    rows = _rows(path)
    names = [_text(cell.value, place(path, 1)) for cell in next(rows, (1, []))[1]]
    if "question" not in names or not {"image", "image_path"} & set(names):
        raise DataError(f"{place(path, 1)}: a header with index, image and question is expected")
    shard = Shard.of(path)
    pictures: dict[str, tuple[Picture, ...]] = {}
    root: Path | None = None
    records: list[Record] = []
    for line, cells in rows:
        where = place(path, line)
        if len(cells) != len(names):
            raise DataError(f"{where}: {len(cells)} cells, but the header names {len(names)}")
        named = dict(zip(names, cells, strict=True))
        held = named.pop("image", None)
        fields = {name: _text(cell.value, where) for name, cell in named.items()}
        id = fields.get("index", "").strip() or str(len(records) + 1)
        images: tuple[Picture, ...]
        if held is not None and held.value.strip():
            images = _images(held, pictures, shard, id, where)
        else:
            name = fields.get("image_path", "").strip()
            if not name:
                raise DataError(f"{where}: no picture: 'image' is empty")
            root = root or choose_root([(name, where)], roots)
            images = (resolve(root, name, where),)
        pictures[id] = images
        records.append(_record(id, images, fields, split, where))
    return Reading(records)


def _images(
    cell: _Cell, known: Mapping[str, tuple[Picture, ...]], shard: Shard, id: str, where: str
) -> tuple[Picture, ...]:
    """The pictures of a cell: base64, a list of it, or the index of an earlier row."""
    if len(cell.value) > LONGEST_INDEX:
        found = list(_BASE64.finditer(cell.value)) if cell.value.startswith(b"[") else []
        spans = [match.span() for match in found] or [(0, len(cell.value))]
        return tuple(
            EncodedRange(
                StoredRange(shard, cell.offset + a, b - a, f"{shard.name}/{shown_name(id)}")
            )
            for a, b in spans
        )
    other = _text(cell.value, where).strip()
    if other not in known:
        raise DataError(
            f"{where}: 'image' is neither base64 nor the index of an earlier row: {other[:40]!r}"
        )
    return known[other]


def _record(
    id: str, images: tuple[Picture, ...], fields: dict[str, str], split: str | None, where: str
) -> Record:
    offered = {
        letter: fields[letter].strip() for letter in LETTERS if fields.get(letter, "").strip()
    }
    answer = fields.get("answer", "").strip()
    if offered and answer and answer in LETTERS and answer not in offered:
        raise DataError(f"{where}: the answer is {answer}, the choices are {', '.join(offered)}")
    own = fields.get("split", "").strip()
    return Record(
        id,
        images[0],
        split=split_name(own) if own else split,
        extra={name: value for name, value in fields.items() if name not in _ROLES and value},
        question=fields["question"].strip(),
        answers=(offered.get(answer, answer),) if answer else (),
        choices=tuple(offered.values()),
        more_images=images[1:],
    )


def _rows(path: Path) -> Iterator[tuple[int, list[_Cell]]]:
    """The rows of the table with the line on which each starts; empty lines are skipped."""
    try:
        with path.open("rb") as stream:
            offset = number = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                parts, quotes, start = [line], line.count(b'"'), number + 1
                size = len(line)
                number += 1
                while quotes % 2:  # a cell with line breaks in it
                    line = stream.readline(MAX_LINE_BYTES + 1)
                    number += 1
                    size += len(line)
                    if not line or size > MAX_ROW_BYTES:
                        raise DataError(f"{place(path, start)}: a quote is opened and never closed")
                    parts.append(line)
                    quotes += line.count(b'"')
                if max(map(len, parts)) > MAX_LINE_BYTES:
                    raise DataError(f"{place(path, start)}: longer than {MAX_LINE_BYTES >> 20} MiB")
                row = b"".join(parts)
                if row.strip():
                    yield start, _cells(row.rstrip(b"\r\n"), offset, place(path, start))
                offset += size
    except OSError as error:
        raise DataError(f"{shown_name(path)}: cannot be read ({error.strerror})") from None


def _cells(row: bytes, offset: int, where: str) -> list[_Cell]:
    """The cells of a row; a quoted one may hold tabs, and quotes written twice (RFC 4180)."""
    found, start = [], 0
    if row.startswith(b"\xef\xbb\xbf") and not offset:
        start = 3
    while True:
        quoted = row[start : start + 1] == b'"'
        if quoted:
            end = start + 1
            while (end := row.find(b'"', end)) >= 0 and row[end + 1 : end + 2] == b'"':
                end += 2
            if end < 0 or row[end + 1 : end + 2] not in (b"", b"\t"):
                raise DataError(f"{where}: quotes inside a quoted cell are written twice")
            found.append(_Cell(row[start + 1 : end].replace(b'""', b'"'), offset + start + 1))
            end += 1
        else:
            end = row.find(b"\t", start)
            end = len(row) if end < 0 else end
            found.append(_Cell(row[start:end], offset + start))
        if end >= len(row):
            return found
        start = end + 1


def _text(value: bytes, where: str) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{where}: is not UTF-8 text: save the file as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{where}: contains NUL bytes: the file is damaged or is not text")
    return text
