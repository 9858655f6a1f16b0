"""Lists of records: JSON lines as `open_dataset` reads them back, and DataComp's arrays of uids."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import DataError
from sightline.core.files import atomic_file
from sightline.data.columns import find_columns
from sightline.data.records import Record
from sightline.data.said import said_fields
from sightline.inputs.folders import shown_name

if TYPE_CHECKING:
    from sightline.data.records import Picture

_UID = re.compile(r"[0-9a-fA-F]{32}")


def write_listing(
    records: Iterable[Record], path: str | os.PathLike[str], overwrite: bool = False
) -> int:
    """Write one JSON object a line: file_name, id, captions, label, split, what is asked, answered
    and marked, and all other columns.

    The layout of `metadata.jsonl`, foreign and therefore without a version of ours. Pictures below
    the folder of the list are named relative to it, others by their absolute path. A column whose
    name would be taken for another role when the list is read is renamed with "source_" in front.

    Returns:
        The number of records.

    Raises:
        DataError: the file exists and `overwrite` is off, or a picture is in no file of its own.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise DataError(f"{shown_name(target)} exists already: name a new file, or overwrite it")
    folder = target.parent.resolve()
    count = 0
    with atomic_file(target) as temporary:
        with temporary.open("w", encoding="utf-8", newline="\n") as lines:
            for record in records:
                lines.write(_line(_fields(record, folder)) + "\n")
                count += 1
    return count


def check_listable(records: Iterable[Record]) -> None:
    """Refuse records that a list cannot name, before any work is done for it.

    Raises:
        DataError: a picture is in no file of its own.
    """
    for record in records:
        if not all(isinstance(picture, Path) for picture in record.pictures):
            raise DataError(
                f"record {record.id!r}: its picture is in no file of its own, so a list cannot "
                "name it: write the pictures to files first (sightline data convert)"
            )


def uid_array(records: Iterable[Record]) -> NDArray[np.void]:
    """Sorted (u8, u8)[N], the upper and lower half of each 128-bit uid, as DataComp stores subsets.

    The uid is the column `uid`, else the record's id: 32 hexadecimal digits.

    Raises:
        DataError: an id that is no such number.
    """
    halves = []
    for record in records:
        uid = record.extra.get("uid", record.id)
        if not isinstance(uid, str) or not _UID.fullmatch(uid):
            raise DataError(
                f"record {record.id!r} has no uid of 32 hexadecimal digits: add a column uid, or "
                "write the list without uids"
            )
        halves.append((int(uid[:16], 16), int(uid[16:], 16)))
    return np.sort(np.array(halves, np.dtype("u8,u8")))


def write_uids(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write `uid_array` as .npy, whole or not at all; returns the number of records.

    Raises:
        DataError: an id that is no uid.
    """
    uids = uid_array(records)
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, uids)
    return len(uids)


def _fields(record: Record, folder: Path) -> dict[str, Any]:
    check_listable([record])
    roles = {
        "file_name": _file_name(record.image, folder),
        "id": record.id,
        "captions": list(record.captions),
        "label": record.label,
        "split": record.split,
    }
    further = [_file_name(picture, folder) for picture in record.more_images]
    roles |= said_fields(record, further)
    fields = dict(roles)
    for name, value in record.extra.items():
        free = name
        # "image" would be taken for the picture, "caption" for one more caption
        while free in fields or _changes_roles(fields, free):
            free = f"source_{free}"
        fields[free] = value
    return fields


def _changes_roles(fields: dict[str, Any], name: str) -> bool:
    before, after = find_columns(tuple(fields)), find_columns((*fields, name))
    return before != after


def _file_name(image: Picture, folder: Path) -> str:
    assert isinstance(image, Path), "just checked"
    # the folder's links are followed, the picture's own are not: its name is what people know
    path = image.parent.resolve() / image.name
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _line(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, ensure_ascii=False, default=str)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return json.dumps(fields, default=str)
    return text
