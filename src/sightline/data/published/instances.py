"""COCO instances: boxes with names, polygons or runs of pixels, crowds (Lin et al. 2014).

    {"images": [{"id", "file_name"}], "categories": [{"id", "name"}],
     "annotations": [{"image_id", "category_id", "bbox": [x, y, width, height],
                      "segmentation", "area", "iscrowd"}]}

A picture without annotations is a record without regions: nothing is in it that has a name here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.columns import Reading, Row, assemble
from sightline.data.entries import key_of, lists_of, object_of, text_of
from sightline.data.lines import place
from sightline.data.records import split_name
from sightline.data.regions import Outline, Region, box_from, number_from, outline_from
from sightline.data.said import Said

RECORD_ID = "record_id"
"""In files that we wrote: the record's own id, which may be no number."""
_ROLES = ("id", "file_name", "split", RECORD_ID)


@dataclass(frozen=True)
class Instances:
    """The three lists of such a file, by their numbers."""

    images: Mapping[str | int, Mapping[str, Any]]
    names: Mapping[str | int, str]
    annotations: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, path: Path) -> Instances:
        """
        Raises:
            DataError: a list is not there, or a number is used twice.
        """
        images, annotations, categories = lists_of(path, "images", "annotations", "categories")
        names = {
            key: text_of(entry, "name", f"{place(path)}, category {key!r:.40}")
            for key, entry in _numbered(categories, f"{place(path)}, categories").items()
        }
        return cls(_numbered(images, f"{place(path)}, images"), names, annotations)

    def region(self, annotation: Any, where: str) -> Region:
        """One annotation as a region.

        Raises:
            DataError: a category that the file does not have, or a box or outline that is none.
        """
        category = key_of(annotation, "category_id", where)
        if category not in self.names:
            raise DataError(f"{where}: category_id {category!r:.40} is in no category of the file")
        area, crowd = annotation.get("area"), annotation.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise DataError(f"{where}: 'iscrowd' must be 0 or 1, got {crowd!r:.40}")
        return Region(
            self.names[category],
            _corners(annotation.get("bbox"), where),
            _outline(annotation.get("segmentation"), where),
            bool(crowd),
            None if area is None else number_from(area, "area", where),
        )


def read_instances(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """Every picture of the file with its regions, in the order of its annotations.

    Raises:
        DataError: missing lists or keys, unknown categories, boxes or outlines that are none.
    """
    found = Instances.of(path)
    regions: dict[str | int, list[Region]] = {key: [] for key in found.images}
    strangers = 0
    for number, annotation in enumerate(found.annotations, 1):
        where = f"{place(path)}, annotations entry {number}"
        of_picture = regions.get(key_of(annotation, "image_id", where))
        strangers += of_picture is None
        if of_picture is not None:
            of_picture.append(found.region(annotation, where))
    rows = []
    for key, image in found.images.items():
        where = f"{place(path)}, image {key!r:.40}"
        extra = {name: value for name, value in image.items() if name not in _ROLES}
        own, part = image.get(RECORD_ID), image.get("split")
        said = Said(regions=tuple(regions[key]))
        name = text_of(image, "file_name", where)
        id = own if isinstance(own, str) and own else str(key)
        part = split_name(part) if isinstance(part, str) and part else split
        rows.append(Row(name, [], where, None, part, id, extra, said))
    note = f"{strangers} region(s) of pictures that {place(path)} does not list were left out"
    return replace(assemble(rows, roots), notes=(note,) if strangers else ())


def _numbered(entries: Sequence[Any], where: str) -> dict[str | int, Mapping[str, Any]]:
    found: dict[str | int, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        key = key_of(entry, "id", f"{where} entry {number}")
        if key in found:
            raise DataError(f"{where} entry {number}: id {key!r} occurs twice")
        found[key] = object_of(entry, where)
    return found


def _corners(value: Any, where: str) -> tuple[float, float, float, float]:
    """COCO's [x, y, width, height] as corners."""
    if not isinstance(value, list) or len(value) != 4:
        raise DataError(f"{where}: 'bbox' must be four numbers [x, y, width, height]")
    x, y, width, height = (number_from(number, "bbox", where) for number in value)
    if width < 0 or height < 0:
        raise DataError(f"{where}: a 'bbox' of {width:g} x {height:g} pixels")
    return box_from([x, y, x + width, y + height], where)


def _outline(value: Any, where: str) -> Outline | None:
    return outline_from(value, where) if value else None
