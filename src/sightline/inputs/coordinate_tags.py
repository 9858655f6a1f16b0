"""Places spelled as numbers between tags: Fuyu's answers.

<box>y1, x1, y2, x2</box>, <point>x, y</point> in pixels of the original picture; its processor
turns them into the network's numbers between <0x00> and <0x01>, or <0x02> and <0x03>
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sightline.inputs.coordinates import FUYU, Convention, axis_of, clipped
from sightline.inputs.grounded_text import (
    LONGEST_NUMBER,
    Grounded,
    Place,
    box_of,
    decoded,
    is_box,
    label_in,
    plain,
)  # fmt: skip


def write_fuyu(places: Iterable[Place], size: tuple[int, int]) -> str:
    """Boxes, or points, in whole pixels of the original, each behind its label.

    Args:
        places: what to name, in this order.
        size: (H, W) of the original picture.

    Raises:
        InputError: a place with neither box nor point.
    """
    written = []
    for place in places:
        if place.point is not None:
            x, y, _, _ = clipped((*place.point, *place.point), size)
            where = f"<point>{round(x)}, {round(y)}</point>"
        else:
            x1, y1, x2, y2 = map(round, clipped(box_of(place), size))
            where = f"<box>{y1}, {x1}, {y2}, {x2}</box>"
        written.append(plain(place.label) + where)
    return " ".join(written)


_TAGS = re.compile(
    r"<(?:box>([^<]*)</box|point>([^<]*)</point|0x00>([^<]*)<0x01|0x02>([^<]*)<0x03)>"
    r"|<(?:box|point|0x00|0x02)>"
)
"""A pair of tags with what is between them, or one that is never closed."""
_PIXELS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def parse_fuyu(text: str, size: tuple[int, int], convention: Convention = FUYU) -> Grounded:
    """Boxes and points, each with the text before it as its label.

    Between words (`<box>`) stand pixels of the original, between bytes (`<0x00>`) the numbers of
    the network. Invalid are: tags that are not closed, another count of numbers, what is no number,
    numbers beyond the picture by more than the network's rounding, empty boxes.

    Args:
        text: what the network wrote.
        size: (H, W) of the original picture.
        convention: how the numbers of the network are read.
    """
    found: list[Place] = []
    invalid, read = 0, 0
    for match in _TAGS.finditer(text):
        box, point, box_numbers, point_numbers = match.groups()
        if box is not None:
            place = _in_pixels(box, convention.order, size, convention)
        elif point is not None:
            place = _in_pixels(point, convention.point_order, size, convention)
        elif box_numbers is not None:
            place = _in_numbers(box_numbers, convention.order, size, convention)
        else:
            place = _in_numbers(point_numbers or "", convention.point_order, size, convention)
        if place is None:
            invalid += 1
        else:
            label, span = label_in(text, (read, match.start()))
            found.append(place._replace(label=label, span=match.span(), label_span=span))
        read = match.end()
    return Grounded(found, invalid)


def _in_pixels(
    inside: str, order: tuple[str, ...], size: tuple[int, int], convention: Convention
) -> Place | None:
    """Pixels of the original picture, separated by commas."""
    parts = [part.strip() for part in inside.split(",")]
    if len(parts) != len(order) or not all(_PIXELS.fullmatch(part) for part in parts):
        return None
    named = {}
    for name, part in zip(order, parts, strict=True):
        axis = axis_of(name)
        if float(part) > size[axis] + convention.step(size)[axis]:
            return None
        named[name] = min(float(part), float(size[axis]))
    if len(order) == 2:
        return Place("", point=(named["x"], named["y"]))
    box = named["x1"], named["y1"], named["x2"], named["y2"]
    return Place("", box) if is_box(box) else None


def _in_numbers(
    inside: str, order: tuple[str, ...], size: tuple[int, int], convention: Convention
) -> Place | None:
    """Numbers of the network, separated by anything."""
    parts = re.findall("[0-9]+", inside)
    if len(parts) != len(order) or any(len(part) > LONGEST_NUMBER for part in parts):
        return None
    numbers = [int(part) for part in parts]
    if len(order) == 4:
        box = decoded(numbers, size, convention)
        return None if box is None else Place("", box)
    if not convention.in_range(numbers, order, size):
        return None
    return Place("", point=convention.decode_points(numbers, size)[0])
