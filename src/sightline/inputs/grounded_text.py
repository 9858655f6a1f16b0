"""What answers that name places have in common: the places, their labels, what is well formed.

How each family spells them stands in `location_tokens` (PaliGemma, Florence-2) and
`coordinate_tags` (Fuyu). Whatever a network wrote, a parser returns every well-formed instance,
inside the picture, and counts what it dropped, in time that grows with the length of the text only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from sightline.core.errors import InputError
from sightline.core.outputs import Box
from sightline.inputs.coordinates import Convention, Point

Span = tuple[int, int]
"""Characters [start, stop) of a text."""

LONGEST_NUMBER = 9
"""Digits; more make no number that any family has, and Python takes long to read very many."""


class Place(NamedTuple):
    """Something named, and where it is, in pixels of the original picture."""

    label: str
    box: Box | None = None
    """Of an outline the box around it; None for a point."""
    codes: tuple[int, ...] = ()
    """The codes of a mask within the box."""
    outlines: tuple[tuple[Point, ...], ...] = ()
    """Polygons that together cover it, or the four corners of a line of text."""
    point: Point | None = None
    span: Span = (0, 0)
    """Where the tokens of the place stand."""
    label_span: Span = (0, 0)
    """Where the label stands; empty where there is none."""


class Grounded(NamedTuple):
    """What a parser found."""

    places: list[Place]
    invalid: int
    """How many beginnings of places were not well formed, or gave no box inside the picture."""


def plain(label: str) -> str:
    """A label that cannot be taken for a token or for two labels: without <, >, and ;."""
    return " ".join(label.translate({60: " ", 62: " ", 59: ","}).split())


def box_of(place: Place) -> Box:
    """The box of a place that is to be written.

    Raises:
        InputError: it has none.
    """
    if place.box is None:
        raise InputError(f"{place.label[:60]!r} has no box to be written")
    return place.box


def decoded(
    numbers: Sequence[int] | None, size: tuple[int, int], convention: Convention
) -> Box | None:
    """The box of four numbers; None if there are not four, one does not exist, or it is empty."""
    if numbers is None or len(numbers) != 4:
        return None
    if not convention.in_range(numbers, convention.order, size):
        return None
    box = convention.decode(numbers, size)
    return box if is_box(box) else None


def is_box(box: Box) -> bool:
    """Whether it is neither empty nor turned over."""
    return box[0] < box[2] and box[1] < box[3]


def label_in(text: str, span: Span, stop: str = "") -> tuple[str, Span]:
    """The words of a part of a text, without tags, and where they stand."""
    start, end = span
    cut = text.find(stop, start, end) if stop else -1
    end = cut if cut >= 0 else end
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    end = max(start, end - (len(part) - len(part.rstrip())))
    return " ".join(re.sub("<[^<>]*>", " ", part).split()), (start, end)
