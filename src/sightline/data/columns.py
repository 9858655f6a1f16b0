"""Rows of tables and JSON objects to records: the column names people use, and where files lie."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sightline.core.errors import DataError
from sightline.data.records import Record, split_name
from sightline.data.said import NOTHING, Said, said_in

IMAGE_NAMES = (
    "image", "imagepath", "filename", "filepath", "path", "file", "img", "imgpath", "imagefile",
    "imagename", "picture", "photo", "url", "imageurl",
)  # fmt: skip
CAPTION_NAMES = ("caption", "captions", "text", "texts", "title", "sentence", "sentences",
                 "description", "comment", "txt")  # fmt: skip
LABEL_NAMES = ("label", "class", "classname", "category", "target")
SPLIT_COLUMN_NAMES = ("split", "subset", "partition")
ID_NAMES = ("questionid", "id", "imageid", "key", "uid")


class Columns(NamedTuple):
    """Which column plays which role; names as the file spells them."""

    image: str | None
    captions: tuple[str, ...]
    label: str | None
    split: str | None
    id: str | None


@lru_cache(maxsize=256)
def find_columns(names: tuple[str, ...]) -> Columns:
    """Roles by name: case, blanks, `_` and `-` do not matter; the earlier known name wins.

    `caption` and `captions` are read together; any other column stays in `Record.extra`.
    """
    plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in reversed(names)}

    def first(known: Sequence[str]) -> str | None:
        return next((plain[name] for name in known if name in plain), None)

    both = tuple(plain[name] for name in ("caption", "captions") if name in plain)
    caption = first(CAPTION_NAMES)
    captions = both or ((caption,) if caption else ())
    return Columns(first(IMAGE_NAMES), captions, first(LABEL_NAMES), first(SPLIT_COLUMN_NAMES),
                   first(ID_NAMES))  # fmt: skip


@dataclass
class Row:
    """One line of a source, before lines about the same picture are joined."""

    image: str
    captions: list[str]
    where: str
    label: str | None = None
    split: str | None = None
    id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    said: Said = NOTHING


def row_from(fields: Mapping[str, Any], where: str, split: str | None = None) -> Row:
    """One table line or JSON object as a row.

    Raises:
        DataError: no picture, or a value of a type that its role cannot have.
    """
    columns = find_columns(tuple(fields))
    if columns.image is None:
        raise DataError(
            f"{where}: no picture named; known columns are {', '.join(IMAGE_NAMES[:6])} ...; "
            f"found {', '.join(map(repr, fields)) or 'nothing'}"
        )
    said, used = said_in(fields, where)
    roles = {columns.image, *columns.captions, columns.label, columns.split, columns.id, *used}
    captions: list[str] = []
    for name in columns.captions:
        captions += [text for text in texts_in(fields[name], name, where) if text not in captions]
    found = _word(fields, columns.split, where)
    return Row(
        image=_picture(fields[columns.image], columns.image, where),
        captions=captions,
        where=where,
        label=_word(fields, columns.label, where),
        split=split_name(found) if found else split,
        id=_word(fields, columns.id, where),
        extra={name: value for name, value in fields.items() if name not in roles},
        said=said,
    )


def _picture(value: Any, name: str, where: str) -> str:
    if isinstance(value, Mapping):  # {"path": ..., "bytes": null}, as some exports write it
        value = value.get("path")
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {name!r} must be the path of a picture, got {_shown(value)}")
    return value.strip()


def texts_in(value: Any, name: str, where: str) -> list[str]:
    """A text or a list of them, stripped; nothing is one empty text.

    Raises:
        DataError: something else, or half a character.
    """
    if value is None:
        return [""]
    values = value if isinstance(value, list) else [value]
    for text in values:
        if not isinstance(text, str):
            raise DataError(
                f"{where}: {name!r} must be text or a list of texts, got {_shown(text)}"
            )
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise DataError(f"{where}: {name!r} holds half a character (a lone UTF-16 surrogate)")
    return [text.strip() for text in values]


def _word(fields: Mapping[str, Any], name: str | None, where: str) -> str | None:
    value = fields[name] if name else None
    if value is None or value == "":
        return None
    if not isinstance(value, str | int | float):
        raise DataError(f"{where}: {name!r} must be text or a number, got {_shown(value)}")
    return str(value).strip() or None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


@dataclass(frozen=True)
class Reading:
    """What a reader made of its files."""

    records: list[Record]
    empty_captions: int = 0
    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    """Parts of the source that could not be used, one sentence a kind."""


def assemble(rows: Iterable[Row], roots: Sequence[Path]) -> Reading:
    """Rows to records: lines about one picture join into one record with several captions.

    Lines join when picture, label and split agree; a question or a conversation stays a record of
    its own. Other columns that differ between the lines become lists, one entry a line, so that
    nothing is lost.

    Args:
        roots: folders in which the pictures may lie; the one that holds the first three wins.

    Raises:
        DataError: a picture's path is an address or climbs out of the folder.
    """
    groups: dict[tuple[str, str | None, str | None, int], list[Row]] = {}
    empty = 0
    asked: Counter[str] = Counter()
    for row in rows:
        empty += sum(not text for text in row.captions)
        row.captions = [text for text in row.captions if text]
        number = 0
        if row.said.alone:
            asked[row.image] += 1
            number = asked[row.image]
            if row.id is None and number > 1:
                row.id = f"{row.image}#{number}"
        groups.setdefault((row.image, row.label, row.split, number), []).append(row)
    first = [group[0] for _, group in zip(range(3), groups.values(), strict=False)]
    root = choose_root([(row.image, row.where) for row in first], roots)
    return Reading([_join(group, root) for group in groups.values()], empty)


def choose_root(images: Sequence[tuple[str, str]], roots: Sequence[Path]) -> Path:
    """The folder in which most of these pictures lie; the first of `roots` when none does."""

    def found(root: Path) -> int:
        return sum(resolve(root, image, where).is_file() for image, where in images)

    return max(roots, key=found)  # max keeps the first of equals


def _join(rows: Sequence[Row], root: Path) -> Record:
    first = rows[0]
    ids = [row.id for row in rows]
    own_id = first.id if len(set(ids)) == 1 else None
    extra = _join_extra([row.extra for row in rows]) if len(rows) > 1 else first.extra
    if own_id is None and any(ids):
        extra = {**extra, "id": ids}
    images = (first.image, *first.said.more_images)
    pictures = [resolve(root, image, first.where) for image in images]
    said = first.said
    if len(rows) > 1:  # lines that each mark a region of one picture
        said = replace(said, regions=tuple(r for row in rows for r in row.said.regions))
    return Record(
        id=own_id or first.image,
        image=pictures[0],
        captions=tuple(text for row in rows for text in row.captions),
        label=first.label,
        split=first.split,
        extra=extra,
        **(said.of_record(pictures, first.where) if said is not NOTHING else {}),
    )


def _join_extra(extras: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(name for extra in extras for name in extra):
        values = [extra.get(name) for extra in extras]
        joined[name] = values[0] if all(value == values[0] for value in values) else values
    return joined


def resolve(root: Path, image: str, where: str) -> Path:
    """The file that a source means, inside `root`.

    A relative path may not leave the folder; an absolute one was written on purpose and is taken
    as it is. Links inside the folder are followed: whoever laid out the folder set them.

    Raises:
        DataError: an address, or a relative path that climbs out.
    """
    if "://" in image[:12]:
        raise DataError(
            f"{where}: {image[:60]!r} is an address; data sets are read from files only: "
            "fetch the pictures first and name the files"
        )
    if "\0" in image:
        raise DataError(f"{where}: a NUL character in the path of a picture")
    if os.path.isabs(image):
        return Path(image)
    path = _inside(root, image, where)
    if "\\" in image and os.sep == "/" and not path.is_file():  # written on Windows
        path = _inside(root, image.replace("\\", "/"), where)
    return path


def _inside(root: Path, image: str, where: str) -> Path:
    relative = os.path.normpath(image)
    if relative == ".." or relative.startswith(".." + os.sep):
        raise DataError(
            f"{where}: {image[:60]!r} leads out of the data folder: move the pictures inside, "
            "pass images=FOLDER, or write absolute paths"
        )
    return root / relative
