"""How each kind looks: vector shapes in the unit square, x to the right and y down.

Every kind is drawn in one main colour with a darker tone of it and fixed neutral details. Shapes
fill the unit square in their longer direction, so that "side" means the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

NOTHING, MAIN, SHADE, LIGHT, DARK, OUTLINE = range(6)
"""Inks: the numbers in the drawn index picture."""

Point = tuple[float, float]


class Pen:
    """Draws inks into a square index picture; coordinates are fractions of its inner square.

    Coordinates are rounded to whole fine pixels, so that the last bit of a sine cannot matter.
    """

    def __init__(self, side: int, margin: int) -> None:
        self.image = Image.new("L", (side, side), NOTHING)
        self._draw = ImageDraw.Draw(self.image)
        self._margin = margin
        self._scale = side - 1 - 2 * margin

    def _at(self, x: float, y: float) -> tuple[int, int]:
        return (
            self._margin + math.floor(x * self._scale + 0.5),
            self._margin + math.floor(y * self._scale + 0.5),
        )

    def polygon(self, ink: int, *points: Point) -> None:
        self._draw.polygon([self._at(*point) for point in points], fill=ink)

    def rectangle(self, ink: int, x1: float, y1: float, x2: float, y2: float) -> None:
        self._draw.rectangle([self._at(x1, y1), self._at(x2, y2)], fill=ink)

    def ellipse(self, ink: int, x: float, y: float, rx: float, ry: float | None = None) -> None:
        """An ellipse around (x, y); a circle without `ry`."""
        ry = rx if ry is None else ry
        self._draw.ellipse([self._at(x - rx, y - ry), self._at(x + rx, y + ry)], fill=ink)

    def slice(self, ink: int, x: float, y: float, radii: Point, start: float, end: float) -> None:
        """A filled sector; degrees clockwise from the right."""
        rx, ry = radii
        box = [self._at(x - rx, y - ry), self._at(x + rx, y + ry)]
        self._draw.pieslice(box, start, end, fill=ink)

    def line(self, ink: int, width: float, *points: Point) -> None:
        """A line with round ends and joints."""
        pixels = max(1, math.floor(width * self._scale + 0.5))
        self._draw.line([self._at(*p) for p in points], fill=ink, width=pixels, joint="curve")
        for x, y in points:
            self.ellipse(ink, x, y, width / 2)


def _around(x: float, y: float, radius: float, count: int, turn: float) -> list[Point]:
    angles = [math.radians(turn + 360 * i / count) for i in range(count)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def _bench(pen: Pen) -> None:
    for x in (0.1, 0.8):
        pen.rectangle(SHADE, x, 0.14, x + 0.1, 0.6)
    pen.rectangle(MAIN, 0.0, 0.12, 1.0, 0.25)
    pen.rectangle(MAIN, 0.0, 0.33, 1.0, 0.46)
    pen.rectangle(MAIN, 0.0, 0.56, 1.0, 0.7)
    for x in (0.06, 0.82):
        pen.rectangle(SHADE, x, 0.71, x + 0.12, 0.96)


def _tree(pen: Pen) -> None:
    pen.rectangle(DARK, 0.42, 0.8, 0.58, 1.0)
    pen.polygon(MAIN, (0.5, 0.44), (0.04, 0.88), (0.96, 0.88))
    pen.polygon(SHADE, (0.5, 0.26), (0.24, 0.64), (0.76, 0.64))
    pen.polygon(MAIN, (0.5, 0.2), (0.14, 0.6), (0.86, 0.6))
    pen.polygon(SHADE, (0.5, 0.05), (0.32, 0.36), (0.68, 0.36))
    pen.polygon(MAIN, (0.5, 0.0), (0.24, 0.32), (0.76, 0.32))


def _car(pen: Pen) -> None:
    pen.polygon(MAIN, (0.16, 0.48), (0.3, 0.2), (0.7, 0.2), (0.86, 0.48))
    pen.polygon(LIGHT, (0.27, 0.46), (0.36, 0.27), (0.48, 0.27), (0.48, 0.46))
    pen.polygon(LIGHT, (0.54, 0.46), (0.54, 0.27), (0.66, 0.27), (0.75, 0.46))
    pen.polygon(MAIN, (0.0, 0.5), (0.06, 0.44), (0.92, 0.44), (1.0, 0.52), (1.0, 0.74), (0.0, 0.74))
    for x in (0.24, 0.76):
        pen.ellipse(DARK, x, 0.74, 0.13)
        pen.ellipse(LIGHT, x, 0.74, 0.05)


def _house(pen: Pen) -> None:
    pen.rectangle(SHADE, 0.7, 0.06, 0.82, 0.3)
    pen.rectangle(MAIN, 0.12, 0.42, 0.88, 1.0)
    pen.polygon(SHADE, (0.0, 0.46), (0.5, 0.0), (1.0, 0.46))
    pen.rectangle(DARK, 0.42, 0.66, 0.58, 1.0)
    pen.rectangle(LIGHT, 0.2, 0.56, 0.34, 0.72)
    pen.rectangle(LIGHT, 0.66, 0.56, 0.8, 0.72)


def _ball(pen: Pen) -> None:
    pen.ellipse(MAIN, 0.5, 0.5, 0.5)
    rim = _around(0.5, 0.5, 0.49, 72, 0)
    for start, ink in ((2, SHADE), (26, LIGHT), (50, SHADE)):
        pen.polygon(ink, (0.38, 0.34), *[rim[i % 72] for i in range(start, start + 11)])
    pen.ellipse(LIGHT, 0.38, 0.34, 0.08)


def _star(pen: Pen) -> None:
    outer, inner = _around(0.5, 0.53, 0.52, 5, -90), _around(0.5, 0.53, 0.22, 5, -54)
    pen.polygon(MAIN, *[point for pair in zip(outer, inner, strict=True) for point in pair])


def _cat(pen: Pen) -> None:
    pen.line(MAIN, 0.11, (0.7, 0.93), (0.93, 0.88), (0.94, 0.64), (0.86, 0.54))
    pen.ellipse(MAIN, 0.46, 0.76, 0.29, 0.24)
    pen.polygon(MAIN, (0.16, 0.0), (0.14, 0.34), (0.46, 0.14))
    pen.polygon(MAIN, (0.76, 0.0), (0.78, 0.34), (0.46, 0.14))
    pen.ellipse(MAIN, 0.46, 0.34, 0.34, 0.25)
    for x in (0.33, 0.59):
        pen.ellipse(LIGHT, x, 0.31, 0.075)
        pen.ellipse(DARK, x, 0.31, 0.035, 0.06)
    pen.polygon(DARK, (0.41, 0.42), (0.51, 0.42), (0.46, 0.48))
    pen.line(SHADE, 0.03, (0.46, 0.8), (0.46, 0.98))


def _dog(pen: Pen) -> None:
    for x in (0.3, 0.42, 0.76, 0.87):
        pen.rectangle(SHADE if x in (0.42, 0.76) else MAIN, x - 0.05, 0.6, x + 0.05, 0.95)
    pen.line(MAIN, 0.09, (0.88, 0.5), (0.95, 0.26))
    pen.ellipse(MAIN, 0.6, 0.55, 0.35, 0.16)
    pen.polygon(MAIN, (0.2, 0.3), (0.42, 0.3), (0.5, 0.6), (0.28, 0.62))
    pen.ellipse(MAIN, 0.27, 0.26, 0.18, 0.16)
    pen.rectangle(MAIN, 0.03, 0.24, 0.24, 0.4)
    pen.ellipse(DARK, 0.05, 0.27, 0.05)
    pen.ellipse(DARK, 0.2, 0.2, 0.035)
    pen.ellipse(SHADE, 0.4, 0.33, 0.07, 0.18)


def _fish(pen: Pen) -> None:
    pen.polygon(MAIN, (0.6, 0.5), (1.0, 0.16), (0.92, 0.5), (1.0, 0.84))
    pen.polygon(SHADE, (0.26, 0.3), (0.44, 0.12), (0.62, 0.32))
    pen.polygon(SHADE, (0.32, 0.7), (0.46, 0.88), (0.56, 0.7))
    pen.ellipse(MAIN, 0.38, 0.5, 0.38, 0.27)
    pen.slice(SHADE, 0.2, 0.5, (0.16, 0.22), -70, 70)
    pen.slice(MAIN, 0.16, 0.5, (0.16, 0.24), -80, 80)
    pen.ellipse(LIGHT, 0.18, 0.43, 0.075)
    pen.ellipse(DARK, 0.17, 0.43, 0.035)


def _boat(pen: Pen) -> None:
    pen.rectangle(DARK, 0.46, 0.0, 0.52, 0.72)
    pen.polygon(MAIN, (0.53, 0.03), (0.53, 0.62), (0.96, 0.62))
    pen.polygon(SHADE, (0.45, 0.14), (0.45, 0.62), (0.1, 0.62))
    pen.polygon(MAIN, (0.0, 0.7), (1.0, 0.7), (0.82, 0.98), (0.18, 0.98))
    pen.polygon(LIGHT, (0.045, 0.77), (0.955, 0.77), (0.925, 0.82), (0.075, 0.82))


def _umbrella(pen: Pen) -> None:
    pen.line(DARK, 0.06, (0.5, 0.1), (0.5, 0.88), (0.44, 0.95), (0.34, 0.94), (0.31, 0.86))
    pen.line(DARK, 0.05, (0.5, 0.03), (0.5, 0.1))
    pen.slice(MAIN, 0.5, 0.54, (0.5, 0.46), 180, 360)
    pen.slice(SHADE, 0.5, 0.54, (0.2, 0.46), 180, 360)
    for x in (0.15, 0.5, 0.85):
        pen.slice(NOTHING, x, 0.55, (0.15 if x != 0.5 else 0.18, 0.1), 180, 360)
    pen.line(DARK, 0.06, (0.5, 0.46), (0.5, 0.7))


def _flower(pen: Pen) -> None:
    pen.line(DARK, 0.07, (0.5, 0.5), (0.5, 0.95))
    pen.polygon(DARK, (0.5, 0.95), (0.3, 0.92), (0.18, 0.74), (0.4, 0.8))
    pen.polygon(DARK, (0.5, 0.95), (0.7, 0.92), (0.82, 0.74), (0.6, 0.8))
    for index, (x, y) in enumerate(_around(0.5, 0.35, 0.2, 6, 30)):
        pen.ellipse(SHADE if index % 2 else MAIN, x, y, 0.145)
    for x, y in _around(0.5, 0.35, 0.2, 6, 30)[::2]:
        pen.ellipse(MAIN, x, y, 0.14)
    pen.ellipse(LIGHT, 0.5, 0.35, 0.12)
    pen.ellipse(DARK, 0.5, 0.35, 0.05)


def _person(pen: Pen) -> None:
    pen.line(SHADE, 0.14, (0.42, 0.66), (0.36, 0.93))
    pen.line(SHADE, 0.14, (0.58, 0.66), (0.64, 0.93))
    pen.line(MAIN, 0.11, (0.38, 0.36), (0.17, 0.56))
    pen.line(MAIN, 0.11, (0.62, 0.36), (0.83, 0.56))
    pen.polygon(MAIN, (0.3, 0.3), (0.7, 0.3), (0.68, 0.7), (0.32, 0.7))
    pen.ellipse(LIGHT, 0.5, 0.15, 0.15)
    pen.slice(DARK, 0.5, 0.14, (0.16, 0.14), 180, 360)
    for x, y in ((0.17, 0.57), (0.83, 0.57)):
        pen.ellipse(LIGHT, x, y, 0.05)


def _bird(pen: Pen) -> None:
    pen.polygon(DARK, (0.0, 0.46), (0.18, 0.32), (0.18, 0.54))
    pen.polygon(SHADE, (0.7, 0.56), (1.0, 0.46), (0.98, 0.66), (0.7, 0.7))
    pen.polygon(SHADE, (0.46, 0.6), (0.66, 0.12), (0.82, 0.1), (0.74, 0.62))
    pen.ellipse(MAIN, 0.5, 0.62, 0.33, 0.19)
    pen.ellipse(MAIN, 0.26, 0.42, 0.16)
    pen.polygon(MAIN, (0.14, 0.48), (0.4, 0.38), (0.6, 0.6), (0.24, 0.7))
    pen.polygon(MAIN, (0.36, 0.58), (0.46, 0.06), (0.62, 0.04), (0.68, 0.6))
    pen.ellipse(LIGHT, 0.22, 0.38, 0.06)
    pen.ellipse(DARK, 0.21, 0.38, 0.03)
    for x in (0.44, 0.56):
        pen.line(DARK, 0.035, (x, 0.8), (x, 0.92))


def _kite(pen: Pen) -> None:
    pen.line(DARK, 0.035, (0.5, 0.66), (0.6, 0.76), (0.44, 0.84), (0.58, 0.92), (0.5, 0.98))
    for x, y in ((0.58, 0.78), (0.5, 0.92)):
        pen.polygon(MAIN, (x, y), (x - 0.13, y - 0.07), (x - 0.13, y + 0.07))
        pen.polygon(MAIN, (x, y), (x + 0.13, y - 0.07), (x + 0.13, y + 0.07))
    pen.polygon(MAIN, (0.5, 0.0), (0.86, 0.28), (0.5, 0.7), (0.14, 0.28))
    pen.polygon(SHADE, (0.5, 0.0), (0.86, 0.28), (0.5, 0.28))
    pen.polygon(SHADE, (0.5, 0.7), (0.14, 0.28), (0.5, 0.28))
    pen.line(DARK, 0.025, (0.5, 0.02), (0.5, 0.68))
    pen.line(DARK, 0.025, (0.16, 0.28), (0.84, 0.28))


def _lamp(pen: Pen) -> None:
    pen.rectangle(MAIN, 0.43, 0.44, 0.57, 0.94)
    pen.polygon(MAIN, (0.24, 1.0), (0.32, 0.88), (0.68, 0.88), (0.76, 1.0))
    pen.polygon(SHADE, (0.22, 0.14), (0.78, 0.14), (0.66, 0.48), (0.34, 0.48))
    pen.polygon(LIGHT, (0.32, 0.18), (0.68, 0.18), (0.61, 0.42), (0.39, 0.42))
    pen.rectangle(SHADE, 0.47, 0.18, 0.53, 0.42)
    pen.polygon(MAIN, (0.14, 0.17), (0.5, 0.0), (0.86, 0.17))
    pen.rectangle(MAIN, 0.3, 0.46, 0.7, 0.53)


def _mushroom(pen: Pen) -> None:
    pen.polygon(LIGHT, (0.38, 0.5), (0.62, 0.5), (0.7, 0.98), (0.3, 0.98))
    pen.slice(MAIN, 0.5, 0.58, (0.5, 0.56), 180, 360)
    pen.ellipse(SHADE, 0.5, 0.58, 0.5, 0.06)
    for x, y, radius in ((0.28, 0.4, 0.09), (0.54, 0.2, 0.09), (0.74, 0.42, 0.08)):
        pen.ellipse(LIGHT, x, y, radius)


def _bicycle(pen: Pen) -> None:
    for x in (0.23, 0.77):
        pen.ellipse(DARK, x, 0.66, 0.23)
        pen.ellipse(NOTHING, x, 0.66, 0.15)
    back, crank, front = (0.23, 0.66), (0.5, 0.66), (0.77, 0.66)
    saddle, head = (0.4, 0.32), (0.69, 0.34)
    pen.line(MAIN, 0.085, back, saddle, crank, back)
    pen.line(MAIN, 0.085, saddle, head, crank)
    pen.line(MAIN, 0.085, front, head, (0.65, 0.17), (0.8, 0.13))
    pen.line(MAIN, 0.1, (0.29, 0.26), (0.5, 0.26))


def _cloud(pen: Pen) -> None:
    lumps = ((0.18, 0.62, 0.18), (0.36, 0.38, 0.23), (0.68, 0.42, 0.19), (0.84, 0.64, 0.16))
    pen.polygon(SHADE, (0.1, 0.7), (0.9, 0.7), (0.86, 0.88), (0.14, 0.88))
    for x, y, radius in lumps:
        pen.ellipse(SHADE, x, y + 0.08, radius)
    for x, y, radius in lumps:
        pen.ellipse(MAIN, x, y, radius)
    pen.rectangle(MAIN, 0.18, 0.5, 0.84, 0.78)


def _butterfly(pen: Pen) -> None:
    for side in (-1, 1):
        pen.line(DARK, 0.035, (0.5, 0.3), (0.5 + side * 0.12, 0.06))
        pen.ellipse(SHADE, 0.5 + side * 0.2, 0.74, 0.15, 0.19)
        pen.polygon(
            MAIN,
            (0.5 + side * 0.04, 0.6),
            (0.5 + side * 0.04, 0.36),
            (0.5 + side * 0.34, 0.04),
            (0.5 + side * 0.5, 0.12),
            (0.5 + side * 0.47, 0.46),
            (0.5 + side * 0.3, 0.6),
        )
        pen.ellipse(LIGHT, 0.5 + side * 0.33, 0.29, 0.08)
    pen.ellipse(DARK, 0.5, 0.52, 0.06, 0.3)


_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "bench": _bench,
    "tree": _tree,
    "car": _car,
    "house": _house,
    "ball": _ball,
    "star": _star,
    "cat": _cat,
    "dog": _dog,
    "fish": _fish,
    "boat": _boat,
    "umbrella": _umbrella,
    "flower": _flower,
    "person": _person,
    "bird": _bird,
    "kite": _kite,
    "lamp": _lamp,
    "mushroom": _mushroom,
    "bicycle": _bicycle,
    "cloud": _cloud,
    "butterfly": _butterfly,
}


def index_picture(kind: str, side: int, margin: int) -> Image.Image:
    """The inks of a kind in a square of fine pixels, with an empty margin around."""
    pen = Pen(side, margin)
    _DRAWINGS[kind](pen)
    return pen.image


def drawn_kinds() -> Sequence[str]:
    """The kinds that have a drawing."""
    return tuple(_DRAWINGS)
