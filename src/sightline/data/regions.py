"""A named part of a picture: its box, and where somebody drew it, its outline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sightline.core.errors import DataError
from sightline.core.outputs import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RunLengths = Mapping[str, Any]
"""COCO's runs of pixels: `size` [height, width] and `counts`, a list or a compressed text."""
Outline = tuple[tuple[float, ...], ...] | RunLengths
"""Polygons (x1, y1, x2, y2, ...) in pixels, or runs of pixels."""


@dataclass(frozen=True)
class Region:
    """What somebody marked in a picture and called by a name.

    The box is (x1, y1, x2, y2) in pixels of the original picture, x2 and y2 exclusive.
    """

    label: str
    box: Box
    outline: Outline | None = None
    crowd: bool = False
    """Whether it stands for many of a kind that nobody told apart (COCO's `iscrowd`)."""
    area: float | None = None
    """Pixels covered, where the source says it; COCO sorts objects by it into small and large."""

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """bool[H, W]: the pixels inside the outline, as pycocotools draws polygons.

        Raises:
            DataError: there is no outline, it is damaged, or it is of another size.
        """
        from sightline.inputs import polygons, run_lengths

        if self.outline is None:
            raise DataError(f"region {self.label!r} has a box and no outline, so there is no mask")
        if not isinstance(self.outline, Mapping):
            return polygons.fill(self.outline, height, width)
        size = self.outline.get("size")
        if not isinstance(size, Sequence) or list(size) != [height, width]:
            raise DataError(
                f"region {self.label!r}: its runs are of a picture of {size!r:.40}, not of "
                f"[{height}, {width}]"
            )
        return run_lengths.decode(self.outline)

    def to_json(self) -> dict[str, Any]:
        """The region as JSON values, without what is not known."""
        fields: dict[str, Any] = {"label": self.label, "box": list(self.box)}
        if isinstance(self.outline, Mapping):
            fields["outline"] = dict(self.outline)
        elif self.outline is not None:
            fields["outline"] = [list(polygon) for polygon in self.outline]
        if self.crowd:
            fields["crowd"] = True
        if self.area is not None:
            fields["area"] = self.area
        return fields


def region_from(value: Any, where: str) -> Region:
    """What `Region.to_json` wrote.

    Raises:
        DataError: another type than a field may have, or a box that is none.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: a region is a JSON object with 'label' and 'box'")
    label, crowd = value.get("label"), value.get("crowd", False)
    if not isinstance(label, str) or not isinstance(crowd, bool):
        raise DataError(f"{where}: a region's 'label' is text and its 'crowd' true or false")
    outline = value.get("outline")
    return Region(
        label,
        box_from(value.get("box"), where),
        None if outline is None else outline_from(outline, where),
        crowd,
        number_from(value.get("area"), "area", where) if value.get("area") is not None else None,
    )


def box_from(value: Any, where: str) -> Box:
    """Four numbers x1, y1, x2, y2 as a box.

    Raises:
        DataError: not four finite numbers, or an edge before the one opposite.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        raise DataError(f"{where}: a box is four numbers [x1, y1, x2, y2], got {_kind(value)}")
    x1, y1, x2, y2 = (number_from(edge, "box", where) for edge in value)
    if x2 < x1 or y2 < y1:
        raise DataError(f"{where}: the box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] ends before it begins")
    return x1, y1, x2, y2


def outline_from(value: Any, where: str) -> Outline:
    """A list of polygons, or COCO's runs of pixels.

    Only the form is looked at; what runs add up to is checked when they are drawn.

    Raises:
        DataError: neither of both, or a polygon of fewer than three points.
    """
    if isinstance(value, Mapping):
        if not isinstance(value.get("counts"), str | list) or not _is_size(value.get("size")):
            raise DataError(f"{where}: runs of pixels need 'counts' and 'size' [height, width]")
        return {"size": list(value["size"]), "counts": value["counts"]}
    if not isinstance(value, list) or not all(isinstance(polygon, list) for polygon in value):
        raise DataError(f"{where}: an outline is a list of polygons or an object with 'counts'")
    polygons = tuple(tuple(number_from(x, "polygon", where) for x in polygon) for polygon in value)
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise DataError(
                f"{where}: a polygon is three points or more, x and y in turn, got "
                f"{len(polygon)} numbers"
            )
    return polygons


def number_from(value: Any, name: str, where: str) -> float:
    """A finite number.

    Raises:
        DataError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: {name!r} must hold numbers, got {_kind(value)}")
    if not abs(value) < 1e9 or not math.isfinite(value):
        raise DataError(f"{where}: {name!r} holds a number that is no place in a picture")
    return float(value)


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(
            isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in value
        )
    )


def _kind(value: Any) -> str:
    """What arrived, in a word: a value of strangers may be too large to be shown."""
    many = f" of {len(value)}" if isinstance(value, list | tuple | str | Mapping) else ""
    return type(value).__name__ + many
