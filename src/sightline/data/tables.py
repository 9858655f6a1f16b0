"""Readers of files that list pictures: tables, JSON lines, JSON arrays, COCO and Karpathy JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.columns import Reading, Row, assemble, find_columns, row_from
from sightline.data.entries import key_of, lists_of, object_of, text_of
from sightline.data.lines import parse_json, place, read_document, text_lines
from sightline.data.records import split_name

DELIMITERS = ",\t;|"
REST_OF_VAL = "restval"
"""COCO's validation pictures beyond Karpathy's own val and test; everyone trains on them."""


def delimiter_of(header: str) -> str | None:
    """The delimiter under which a header line names a picture column; None when none does."""
    for delimiter in DELIMITERS:
        names = header_names(header, delimiter)
        if len(names) > 1 and find_columns(names).image:
            return delimiter
    return "," if find_columns(header_names(header, ",")).image else None


def header_names(header: str, delimiter: str) -> tuple[str, ...]:
    """The column names of one header line."""
    try:
        names = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return ()
    return tuple(name.strip() for name in names)


def read_table(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """CSV or TSV with a header; quoted cells may hold line breaks (RFC 4180).

    Raises:
        DataError: no header with a picture column, a row of another length, an open quote.
    """
    return assemble(_table_rows(path, split), roots)


def _table_rows(path: Path, split: str | None) -> Iterator[Row]:
    lines = text_lines(path)
    header = next(lines, (1, ""))[1].rstrip("\r\n")
    delimiter = delimiter_of(header)
    if delimiter is None:
        raise DataError(
            f"{place(path, 1)}: the header names no picture column (image, file_name, filepath, "
            f"path ...): found {header[:80]!r}"
        )
    names = header_names(header, delimiter)
    if len(set(names)) < len(names):
        raise DataError(f"{place(path, 1)}: a column name occurs twice: {', '.join(names)}")
    for line, cells in _cells(path, lines, delimiter):
        if len(cells) != len(names):
            raise DataError(
                f"{place(path, line)}: {len(cells)} cells, but the header names {len(names)} "
                "columns: is a delimiter or a quote missing?"
            )
        where = place(path, line)
        yield row_from(dict(zip(names, cells, strict=True)), where, split)


def _cells(
    path: Path, lines: Iterator[tuple[int, str]], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, each with the line on which it starts; blank lines are skipped."""
    reader = csv.reader((text for _, text in lines), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 2  # the header went before
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{place(path, start)}: not a valid table row ({error}): "
                "quotes inside a quoted cell are written twice"
            ) from None
        if any(cell.strip() for cell in cells):
            yield start, cells


def read_json_lines(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """One JSON object a line, also the `metadata.jsonl` of the ImageFolder layout.

    Raises:
        DataError: a line that is not a JSON object with a picture.
    """
    return assemble(_json_line_rows(path, split), roots)


def _json_line_rows(path: Path, split: str | None) -> Iterator[Row]:
    for number, text in text_lines(path):
        if not text.strip():
            continue
        value = parse_json(text.rstrip("\r\n"), path, number)
        yield row_from(object_of(value, place(path, number)), place(path, number), split)


def read_json_array(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """A single JSON array of objects, as BLIP and LAVIS write their annotations.

    Raises:
        DataError: not an array, or an entry that is not an object with a picture.
    """
    document = read_document(path)
    if not isinstance(document, list):
        raise DataError(f"{place(path)}: a JSON array of records is expected, got an object")
    entries = ((f"{place(path)}, entry {i}", value) for i, value in enumerate(document, 1))
    return assemble((row_from(object_of(v, where), where, split) for where, v in entries), roots)


def read_coco(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """COCO captions: `images` (id, file_name) and `annotations` (image_id, caption).

    Raises:
        DataError: missing lists or keys, or annotations without captions.
    """
    images, annotations = lists_of(path, "images", "annotations")
    rows: dict[Any, Row] = {}
    for i, image in enumerate(images, 1):
        where = f"{place(path)}, images entry {i}"
        key = key_of(image, "id", where)
        if key in rows:
            raise DataError(f"{where}: id {key!r} occurs twice")
        name = text_of(image, "file_name", where)
        extra = {k: v for k, v in image.items() if k not in ("id", "file_name")}
        rows[key] = Row(name, [], where, split=split, id=str(key), extra=extra)
    strangers = 0
    for i, annotation in enumerate(annotations, 1):
        where = f"{place(path)}, annotations entry {i}"
        if "caption" not in object_of(annotation, where) and "bbox" in annotation:
            raise DataError(
                f"{where}: boxes and no caption: read it as instances, or use the captions file"
            )
        row = rows.get(key_of(annotation, "image_id", where))
        strangers += row is None
        if row is not None:
            row.captions.append(text_of(annotation, "caption", where, empty=True).strip())
    reading = assemble(rows.values(), roots)
    note = f"{strangers} caption(s) of pictures that {place(path)} does not list were left out"
    return Reading(reading.records, reading.empty_captions, (note,) if strangers else ())


def read_karpathy(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """The caption splits of Karpathy and Fei-Fei (2015): `images` with `sentences` and `split`.

    Raises:
        DataError: missing lists or keys.
    """
    (images,) = lists_of(path, "images")
    rows = []
    for i, image in enumerate(images, 1):
        where = f"{place(path)}, images entry {i}"
        name = text_of(image, "filename", where)
        folder = image.get("filepath")
        sentences = image.get("sentences")
        if not isinstance(sentences, list):
            raise DataError(f"{where}: 'sentences' must be a list")
        captions = [text_of(s, "raw", where, empty=True).strip() for s in sentences]
        own = image.get("split")
        rows.append(
            Row(
                f"{folder}/{name}" if isinstance(folder, str) and folder else name,
                captions,
                where,
                split=_karpathy_split(own) if isinstance(own, str) else split,
                extra={k: image[k] for k in ("cocoid", "imgid", "split") if k in image},
            )
        )
    rest = sum(row.extra.get("split") == REST_OF_VAL for row in rows)
    note = f"{rest} picture(s) of the split {REST_OF_VAL!r} count as train, as is the custom"
    reading = assemble(rows, roots)
    return Reading(reading.records, reading.empty_captions, (note,) if rest else ())


def _karpathy_split(name: str) -> str:
    return "train" if name == REST_OF_VAL else split_name(name)
