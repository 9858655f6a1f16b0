"""Places in a picture as the numbers that a network reads and writes, and back.

A `Convention` says everything in which families differ: the order of the four numbers, how many
there are, how a coordinate is rounded to one and what a number stands for afterwards. On this side
boxes are always (x1, y1, x2, y2) in pixels of the original picture, x2 and y2 exclusive; a size is
(H, W).

Read with another family's convention every box is wrong and none looks it, so nothing here guesses:
the convention is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sightline.core.errors import InputError
from sightline.core.outputs import Box

Point = tuple[float, float]
"""(x, y) in pixels of the original picture."""

_CORNERS: tuple[str, str, str, str] = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Convention:
    """How one family numbers places.

    A coordinate is measured in units: the side of the picture, or with `window` a pixel of the
    picture as shrunk to fit it. Numbers are marks on a ruler, of which the nearest is taken (a half
    goes to the even one), or bins, which are read as their middles.

    Attributes:
        name: for messages.
        order: in which the four coordinates of a box are written.
        point_order: the same for the two of a point.
        token: how a number is spelled, as a format string.
        count: how many numbers there are: 0 to `count` - 1; larger coordinates get the last.
        numbers_are: "marks" or "bins".
        multiplier: numbers a unit, in writing.
        divisor: numbers a unit, in reading.
        cut_to: what was read is cut down to a multiple of so many pixels, as the published code of
            some families does; 0 leaves it as exact as it is.
        window: (H, W) that larger pictures are shrunk into before they are numbered.
    """

    name: str
    order: tuple[str, str, str, str]
    point_order: tuple[str, str]
    token: str
    count: int
    numbers_are: Literal["marks", "bins"]
    multiplier: float
    divisor: float
    cut_to: int = 0
    window: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(_CORNERS) or sorted(self.point_order) != ["x", "y"]:
            raise InputError(
                f"{self.name}: the order must name each of {', '.join(_CORNERS)} once, and that of "
                f"points x and y: {self.order}, {self.point_order}"
            )

    def encode(self, box: Box, size: tuple[int, int]) -> tuple[int, ...]:
        """A box as four numbers in this order; what lies outside of the picture is cut off.

        A box narrower than a step can get equal numbers, as in the published code; read back it is
        empty, which parsers count as invalid.

        Args:
            box: (x1, y1, x2, y2) in pixels of the original.
            size: (H, W) of the original.

        Raises:
            InputError: no box, or a picture without pixels.
        """
        named = dict(zip(_CORNERS, clipped(box, size), strict=True))
        return tuple(self._number(named[name], axis_of(name), size) for name in self.order)

    def decode(self, numbers: Sequence[int], size: tuple[int, int]) -> Box:
        """Four numbers in this order as a box inside the picture; it may be empty or turned over.

        Raises:
            InputError: not four numbers, or a picture without pixels.
        """
        named = {
            name: self._coordinate(number, axis_of(name), size)
            for name, number in zip(self.order, _checked(numbers, 4), strict=True)
        }
        return named["x1"], named["y1"], named["x2"], named["y2"]

    def encode_points(self, points: Sequence[Point], size: tuple[int, int]) -> tuple[int, ...]:
        """Points, or the corners of a polygon, as two numbers each.

        Raises:
            InputError: no points, or a picture without pixels.
        """
        named = [dict(zip("xy", _checked(point, 2), strict=True)) for point in points]
        return tuple(
            self._number(point[name], axis_of(name), size)
            for point in named
            for name in self.point_order
        )

    def decode_points(self, numbers: Sequence[int], size: tuple[int, int]) -> list[Point]:
        """Numbers, two a point, as points inside the picture.

        Raises:
            InputError: an odd count of numbers, or a picture without pixels.
        """
        if len(numbers) % 2:
            raise InputError(f"points take two numbers each, {len(numbers)} arrived")
        points = []
        for place in range(0, len(numbers), 2):
            pair = _checked(numbers[place : place + 2], 2)
            named = {
                name: self._coordinate(number, axis_of(name), size)
                for name, number in zip(self.point_order, pair, strict=True)
            }
            points.append((named["x"], named["y"]))
        return points

    def spelled(self, numbers: Sequence[int]) -> str:
        """Numbers as the text of their tokens."""
        return "".join(self.token.format(number) for number in numbers)

    def largest(self, size: tuple[int, int]) -> tuple[int, int]:
        """The largest number that a coordinate of this picture gets: (down, across)."""
        return self._number(size[0], 0, size), self._number(size[1], 1, size)

    def in_range(self, numbers: Sequence[int], order: Sequence[str], size: tuple[int, int]) -> bool:
        """Whether numbers, named by `order` again and again, exist for this picture."""
        largest = self.largest(size)
        names = [order[place % len(order)] for place in range(len(numbers))]
        return all(
            0 <= number <= largest[axis_of(name)]
            for number, name in zip(numbers, names, strict=True)
        )

    def step(self, size: tuple[int, int]) -> tuple[float, float]:
        """Pixels of the original from one number to the next: (down, across)."""
        down, across = self._units(size)
        return down / self.divisor, across / self.divisor

    def _units(self, size: tuple[int, int]) -> tuple[float, float]:
        """What a coordinate is measured in, in pixels of the original: (down, across)."""
        height, width = size
        if min(height, width) < 1:
            raise InputError(f"a picture has a size (H, W) of at least one pixel: {size}")
        if self.window is None:
            return height, width
        longest = max(1.0, height / self.window[0], width / self.window[1])
        return longest, longest

    def _number(self, value: float, axis: int, size: tuple[int, int]) -> int:
        unit = self._units(size)[axis]
        inside = min(max(value, 0.0), size[axis])
        # As the published code computes each: the same factors in another order round otherwise.
        if self.numbers_are == "marks":
            number = round(inside / unit * self.multiplier)
        else:
            number = math.floor(inside / (unit / self.multiplier))
        return min(number, self.count - 1)

    def _coordinate(self, number: float, axis: int, size: tuple[int, int]) -> float:
        unit = self._units(size)[axis]
        if self.numbers_are == "marks":
            value = number / self.divisor * unit
        else:
            value = (number + 0.5) * (unit / self.divisor)
        if self.cut_to:
            value = value // self.cut_to * self.cut_to
        return min(max(value, 0.0), float(size[axis]))


def clipped(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box inside a picture of a size (H, W), on its border if there is none.

    Raises:
        InputError: no box.
    """
    x1, y1, x2, y2 = _checked(box, 4)
    if x2 < x1 or y2 < y1:
        raise InputError(f"a box is (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2: {box}")
    height, width = map(float, size)
    left, right = (min(max(x, 0.0), width) for x in (x1, x2))
    top, bottom = (min(max(y, 0.0), height) for y in (y1, y2))
    return left, top, right, bottom


PALIGEMMA = Convention(
    "PaliGemma", ("y1", "x1", "y2", "x2"), ("y", "x"), "<loc{:04d}>", 1024, "marks", 1023, 1023
)
"""As big_vision trains and evaluates it. Demonstrations of detection read with the divisor 1024:
`dataclasses.replace(PALIGEMMA, divisor=1024)`."""

FLORENCE2 = Convention(
    "Florence-2", _CORNERS, ("x", "y"), "<loc_{}>", 1000, "bins", 1000, 1000, cut_to=1
)
"""As its published processor. `cut_to=0` keeps the middles of the bins, which is closer by up to a
pixel and comes back as the same numbers at every size."""

FUYU = Convention(
    "Fuyu", ("y1", "x1", "y2", "x2"), ("x", "y"), "{}", 961, "marks", 0.5, 0.5, 2, (1080, 1920)
)
"""As its published processor, but for the scale in writing: there it is that of the height after
rounding to whole pixels, here the exact one that reading uses too. Points are x before y."""


def axis_of(name: str) -> int:
    """Which axis of [H, W] a coordinate such as "x1" is measured along."""
    return 1 if name.startswith("x") else 0


def _checked(values: Sequence[float], count: int) -> Sequence[float]:
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise InputError(f"{count} finite numbers are needed: {str(values)[:60]}")
    return values
