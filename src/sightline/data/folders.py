"""Readers of folders: a folder for each class, pictures with text files beside them, or neither."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.columns import Reading, find_columns, row_from
from sightline.data.lines import read_document, text_lines
from sightline.data.records import SPLIT_NAMES, Record, split_name
from sightline.inputs.folders import find_images, shown_name

SIDE_CARS = (".txt", ".caption", ".json")


@dataclass(frozen=True)
class Located:
    """A picture below the root, its split and the folders between."""

    path: Path
    id: str
    split: str | None
    folders: tuple[str, ...]
    side_cars: tuple[Path, ...]


@dataclass(frozen=True)
class Layout:
    """How the pictures of a folder are arranged, from names alone."""

    root: Path
    pictures: tuple[Located, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """First folder below the root or the split, sorted."""
        return tuple(sorted({p.folders[0] for p in self.pictures if p.folders}))

    @property
    def with_side_cars(self) -> tuple[Located, ...]:
        """The pictures that have a text file of the same stem beside them."""
        return tuple(picture for picture in self.pictures if picture.side_cars)


def find_layout(root: Path) -> Layout:
    """List the pictures below a folder.

    Raises:
        DataError: no pictures, or split folders beside other folders with classes.
    """
    paths = find_images(root)
    parts = [path.relative_to(root).parts for path in paths]
    splits = _split_folders(root, parts)
    names = {parent: set(os.listdir(parent)) for parent in {path.parent for path in paths}}
    pictures = []
    for path, place in zip(paths, parts, strict=True):
        inner = place[1:-1] if place[0] in splits and len(place) > 1 else place[:-1]
        beside = names[path.parent]
        side_cars = [path.with_suffix(s) for s in SIDE_CARS if path.stem + s in beside]
        split = split_name(place[0]) if splits and len(place) > 1 else None
        pictures.append(Located(path, _printable(place), split, inner, tuple(side_cars)))
    return Layout(root, tuple(pictures))


def _split_folders(root: Path, parts: list[tuple[str, ...]]) -> frozenset[str]:
    """The top folders that are splits: all of them bear a split's name, or none is one.

    "train" beside "car" and "bus" is a class of vehicles, unless it has folders of its own.
    """
    tops = {place[0] for place in parts if len(place) > 1}
    named = {top for top in tops if top.lower() in SPLIT_NAMES}
    if named == tops:
        return frozenset(named)
    deep = sorted({place[0] for place in parts if len(place) > 2} & named)
    if deep:
        raise DataError(
            f"{shown_name(root)}: {deep[0]!r} looks like a split, but "
            f"{sorted(tops - named)[0]!r} beside it does not: move it away, or open {deep[0]!r} "
            "itself"
        )
    return frozenset()


def _printable(parts: tuple[str, ...]) -> str:
    """A path as an id that can be written anywhere, also when the name is not UTF-8."""
    return os.fsencode("/".join(parts)).decode("utf-8", "backslashreplace")


def read_class_folders(root: Path) -> Reading:
    """One folder for each class (ImageFolder), also below train, val and test.

    Deeper folders belong to the class above them.

    Raises:
        DataError: no picture lies in a folder of a class.
    """
    layout = find_layout(root)
    records = [
        Record(p.id, p.path, label=_printable(p.folders[:1]), split=p.split)
        for p in layout.pictures
        if p.folders
    ]
    if not records:
        raise DataError(f"{shown_name(root)}: no folders of classes with pictures in them")
    loose = [p.id for p in layout.pictures if not p.folders]
    note = f"{len(loose)} picture(s) in no class folder were left out: {', '.join(loose[:3])}"
    return Reading(records, notes=(note,) if loose else ())


def read_pictures(root: Path) -> Reading:
    """Pictures alone, without captions and labels."""
    return Reading([Record(p.id, p.path, split=p.split) for p in find_layout(root).pictures])


def read_side_cars(root: Path) -> Reading:
    """x.jpg with x.txt or x.caption (a caption a line) or x.json (caption, label ...) beside it.

    Where both are there, the text file gives the captions and the JSON file the rest.

    Raises:
        DataError: no picture has a side-car, or one cannot be read.
    """
    layout = find_layout(root)
    if not layout.with_side_cars:
        raise DataError(
            f"{shown_name(root)}: no picture has a .txt, .caption or .json file beside it"
        )
    records, empty, bare = [], 0, []
    for picture in layout.pictures:
        fields = _side_car_fields(picture)
        fields.pop("image", None)  # the picture is the one beside the file, whatever it says
        row = row_from({"image": picture.id, **fields}, picture.id, picture.split)
        captions = tuple(text for text in row.captions if text)
        empty += len(row.captions) - len(captions)
        bare += [] if picture.side_cars else [picture.id]
        said = row.said.of_record([picture.path], picture.id)
        records.append(
            Record(picture.id, picture.path, captions, row.label, row.split, row.extra, **said)
        )
    note = f"{len(bare)} picture(s) have no side-car and so no caption: {', '.join(bare[:3])}"
    return Reading(records, empty, (note,) if bare else ())


def _side_car_fields(picture: Located) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    captions: list[str] = []
    for file in picture.side_cars:
        if file.suffix == ".json":
            document = read_document(file)
            if not isinstance(document, Mapping):
                raise DataError(
                    f"{shown_name(file.name)}: a JSON object is expected beside a picture"
                )
            fields = {**document}
        else:
            captions += [line.strip() for _, line in text_lines(file) if line.strip()] or [""]
    if any(captions):
        roles = ("caption", "captions")
        fields = {k: v for k, v in fields.items() if k.lower() not in roles}
        fields["captions"] = captions
    elif captions and not fields:
        fields["captions"] = captions
    return fields


def holds_captions(file: Path) -> bool:
    """Whether a side-car looks like captions rather than boxes in numbers (YOLO, LabelMe)."""
    if file.suffix == ".json":
        document = read_document(file)
        if not isinstance(document, Mapping):
            return False
        return bool(find_columns(tuple(document)).captions)
    with file.open("rb") as handle:
        head = handle.read(4096)
    return not re.fullmatch(rb"[\d.eE+\-\s]+", head)
