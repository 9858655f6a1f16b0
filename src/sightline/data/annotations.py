"""Groups of pictures, from an annotation file and from nowhere else.

Which group a picture belongs to (a person's stated gender, the region of a photograph) is what
somebody wrote down about it. Nothing here or anywhere in this project guesses it from pixels or
from names of people.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError, unknown_name
from sightline.data.detect import LIST_SUFFIXES, detect_file
from sightline.data.formats import read
from sightline.data.lines import place, read_document
from sightline.data.records import Dataset, Record
from sightline.inputs.folders import nearest_files, shown_name

LABEL = "label"


@dataclass(frozen=True)
class WordLists:
    """Words of an embedding association test: attributes A and B, and targets X and Y if given."""

    name: str
    attributes: tuple[tuple[str, ...], tuple[str, ...]]
    targets: tuple[tuple[str, ...], tuple[str, ...]] | None
    """None: the groups of pictures are the targets."""


def groups_of(
    dataset: Dataset, source: str | os.PathLike[str], column: str | None = None
) -> list[str | None]:
    """The group of each record in order; None where nobody wrote one down.

    Args:
        dataset: the pictures.
        source: an annotation file (any list of pictures that `open_dataset` reads: CSV, TSV, JSON
            lines ...) with a column for the picture and one for the group, or the name of a column
            of the data itself.
        column: which column of the file; needed where it has several.

    Raises:
        DataError: no such file or column, two groups for one picture, or no picture of the data is
            in the file.
    """
    path = Path(source)
    if not path.is_file():
        if path.suffix.lower() in LIST_SUFFIXES:
            raise DataError(f"{shown_name(path)}: there is no such file{nearest_files(path)}")
        return _of_column(dataset.records, str(source), dataset.name)
    annotated = read(path, detect_file(path)).records
    column = column or _only_column(annotated, path)
    values = _of_column(annotated, column, path.name)
    known = _by_picture(annotated, values)
    found = [_first(known, _keys(record)) for record in dataset]
    if len(dataset) and not any(group is not None for group in found):
        raise DataError(
            f"{shown_name(path.name)}: none of its {len(annotated)} pictures is among those of "
            f"{dataset.name!r}; it names {annotated[0].id!r}, the data {dataset[0].id!r}"
        )
    return found


def _of_column(records: Sequence[Record], column: str, name: str) -> list[str | None]:
    columns = {key for record in records for key in record.extra}
    if any(record.label is not None for record in records):
        columns.add(LABEL)
    if column not in columns:
        known = unknown_name("column", column, columns) if columns else "no further column"
        raise DataError(f"{shown_name(name)}: {known}")
    return [_value(record, column, name) for record in records]


def _value(record: Record, column: str, name: str) -> str | None:
    value = record.label if column == LABEL and record.label else record.extra.get(column)
    if isinstance(value, Mapping | list):
        raise DataError(
            f"{shown_name(name)}: {record.id!r} has several values of {column!r}: a picture is in "
            "one group"
        )
    return None if value is None or str(value).strip() == "" else str(value).strip()


def _only_column(records: Sequence[Record], path: Path) -> str:
    columns = sorted({key for record in records for key in record.extra})
    if not columns and any(record.label is not None for record in records):
        return LABEL
    if len(columns) != 1:
        listed = ", ".join(columns) or "none beside the picture"
        raise DataError(f"{shown_name(path.name)}: which column is the group? There are: {listed}")
    return columns[0]


def _by_picture(records: Sequence[Record], values: Sequence[str | None]) -> dict[str, str | None]:
    """Group by path, by id, and by file name where that names one picture only."""
    names = Counter(_name(record) for record in records)
    known: dict[str, str | None] = {}
    for record, value in zip(records, values, strict=True):
        for key in _keys(record):
            if key != _name(record) or names[key] == 1:
                known.setdefault(key, value)
    return known


def _keys(record: Record) -> list[str]:
    return [str(record.image) if isinstance(record.image, Path) else "", record.id, _name(record)]


def _name(record: Record) -> str:
    return record.image.name if isinstance(record.image, Path) else record.id.split("/")[-1]


def _first(known: Mapping[str, str | None], keys: Iterable[str]) -> str | None:
    return next((known[key] for key in keys if key and key in known), None)


def read_word_lists(path: str | os.PathLike[str]) -> WordLists:
    """Word lists as the sentence encoder association tests publish them (May et al. 2019).

    One JSON object with `attr1` and `attr2`, each `{"category": ..., "examples": [...]}` or a list
    of texts; with `targ1` and `targ2` the test is of words alone.

    Raises:
        DataError: a damaged file, a list that is missing or empty, or one target list alone.
    """
    file = Path(path)
    document = read_document(file)
    if not isinstance(document, Mapping):
        raise DataError(f"{place(file)}: a JSON object with attr1 and attr2 is expected")
    first, second = (_words(document, key, file) for key in ("attr1", "attr2"))
    if "targ1" not in document and "targ2" not in document:
        return WordLists(file.stem, (first, second), None)
    targets = _words(document, "targ1", file), _words(document, "targ2", file)
    return WordLists(file.stem, (first, second), targets)


def _words(document: Mapping[str, Any], key: str, file: Path) -> tuple[str, ...]:
    value = document.get(key)
    words = value.get("examples") if isinstance(value, Mapping) else value
    if isinstance(words, Mapping):  # some publish text to its encoding
        words = list(words)
    if not isinstance(words, list) or not words or not all(isinstance(w, str) for w in words):
        raise DataError(
            f"{place(file)}: {key!r} must be a list of texts, or hold one as 'examples'"
        )
    return tuple(words)
