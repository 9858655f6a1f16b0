"""One picture that shows what the model does: scenes with their predicted names, and a search.

It is drawn with Pillow's own font alone, so that it looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sightline.demo.answers import Classified, Found
from sightline.demo.pictures import enlarged

WIDTH, HEIGHT = 1200, 480
PAPER, CARD, EDGE = (247, 247, 244), (255, 255, 255), (228, 228, 222)
INK, QUIET = (28, 30, 33), (110, 114, 120)
GOOD, BAD, ACCENT = (42, 157, 111), (209, 73, 91), (45, 108, 205)
Colour = tuple[int, int, int]
_MARGIN, _GAP, _CELL, _STRIP = 28, 12, 148, 34
_RIGHT = _MARGIN + 4 * (_CELL + _GAP) + 28
_HIT = (WIDTH - _MARGIN - _RIGHT - 2 * _GAP) // 3
_FINE = 4
"""Corners and marks are drawn so many times larger, then reduced."""


def composite(
    known: Sequence[Classified], unseen: Sequence[Classified], found: Found, second: str
) -> Image.Image:
    """The picture, RGB, `WIDTH` x `HEIGHT`.

    Args:
        known: four pictures of pairs of kind and colour that training showed.
        unseen: four pictures of pairs that it did not show.
        found: a query with six hits.
        second: the heading of the unseen ones.
    """
    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    _heading(sheet, (_MARGIN, 18), "Which of 200 things is it?")
    _row(sheet, (_MARGIN, 48), known[:4])
    top = 48 + _CELL + _STRIP + 12
    _heading(sheet, (_MARGIN, top), second)
    _row(sheet, (_MARGIN, top + 30), unseen[:4])
    _heading(sheet, (_RIGHT, 18), "Which picture is it?")
    bottom = _query(sheet, (_RIGHT, 48), found.query.text)
    _hits(sheet, (_RIGHT, bottom + 14), found)
    return sheet


def _heading(sheet: Image.Image, corner: tuple[int, int], text: str) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text(corner, text, INK, ImageFont.load_default(18), stroke_width=0.35, stroke_fill=INK)


def _row(sheet: Image.Image, corner: tuple[int, int], answers: Sequence[Classified]) -> None:
    x, y = corner
    for answer in answers:
        _card(sheet, (x, y, x + _CELL, y + _CELL + _STRIP), EDGE, 1)
        _picture(sheet, answer.shown.scene.image, (x + 6, y + 6), _CELL - 12)
        _label(sheet, (x + 8, y + _CELL + 1), answer)
        x += _CELL + _GAP


def _label(sheet: Image.Image, corner: tuple[int, int], answer: Classified) -> None:
    x, y = corner
    colour = GOOD if answer.right else BAD
    _mark(sheet, (x, y + 4), colour, answer.right)
    name = answer.labels[0].label.split(" ", 1)[1]
    draw = ImageDraw.Draw(sheet)
    draw.text((x + 24, y + 13), name, INK, _fitting(name, 15, _CELL - 40), anchor="lm")


def _query(sheet: Image.Image, corner: tuple[int, int], text: str) -> int:
    """A speech balloon with the sentence; returns where it ends."""
    font = ImageFont.load_default(16)
    x, y = corner
    lines = _wrapped(text, font, WIDTH - _MARGIN - x - 36)[:3]
    bottom = y + 20 + 22 * len(lines)
    _card(sheet, (x, y, WIDTH - _MARGIN, bottom), ACCENT, 0, fill=ACCENT)
    draw = ImageDraw.Draw(sheet)
    for place, line in enumerate(lines):
        draw.text((x + 18, y + 10 + 22 * place), line, (255, 255, 255), font)
    return bottom


def _hits(sheet: Image.Image, corner: tuple[int, int], found: Found) -> None:
    left, top = corner
    # Two rows of squares that end with the names at the left, whatever the query's height.
    bottom = 48 + 2 * (_CELL + _STRIP) + 42
    side = min(_HIT, (bottom - top - _GAP) // 2)
    step = (WIDTH - _MARGIN - left - side) // 2
    for place, (scene, _, right) in enumerate(found.hits[:6]):
        x, y = left + place % 3 * step, top + place // 3 * (side + _GAP)
        frame, thick = (GOOD, 4) if right else (EDGE, 1)
        _card(sheet, (x, y, x + side, y + side), frame, thick)
        _picture(sheet, enlarged(scene).image, (x + 6, y + 6), side - 12)
        if right:
            _mark(sheet, (x + side - 30, y + 12), GOOD, True)


def _card(
    sheet: Image.Image, box: tuple[int, int, int, int], edge: Colour, thick: int,
    fill: Colour = CARD,
) -> None:  # fmt: skip
    width, height = box[2] - box[0], box[3] - box[1]
    layer = Image.new("RGBA", (_FINE * width, _FINE * height))
    area = (0, 0, _FINE * width - 1, _FINE * height - 1)
    draw = ImageDraw.Draw(layer)
    draw.rounded_rectangle(area, 12 * _FINE, fill, edge, thick * _FINE)
    small = layer.resize((width, height), Image.Resampling.LANCZOS)
    sheet.paste(small, box[:2], small)


def _picture(sheet: Image.Image, image: Image.Image, corner: tuple[int, int], side: int) -> None:
    fitted = image.resize((side, side), Image.Resampling.LANCZOS)
    mask = Image.new("L", (_FINE * side, _FINE * side))
    area = (0, 0, _FINE * side - 1, _FINE * side - 1)
    ImageDraw.Draw(mask).rounded_rectangle(area, 8 * _FINE, 255)
    sheet.paste(fitted, corner, mask.resize((side, side), Image.Resampling.LANCZOS))


def _mark(sheet: Image.Image, corner: tuple[int, int], colour: Colour, right: bool) -> None:
    """A disc of 18 pixels with a tick or a cross."""
    size = 18 * _FINE
    layer = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(layer)
    draw.ellipse((0, 0, size - 1, size - 1), colour)
    strokes = [((4.6, 9.4), (7.8, 12.6), (13.4, 6))] if right else [
        ((5.8, 5.8), (12.2, 12.2)),
        ((5.8, 12.2), (12.2, 5.8)),
    ]  # fmt: skip
    for stroke in strokes:
        points = [(x * _FINE, y * _FINE) for x, y in stroke]
        draw.line(points, (255, 255, 255), 2 * _FINE, joint="curve")
    small = layer.resize((18, 18), Image.Resampling.LANCZOS)
    sheet.paste(small, corner, small)


def _fitting(text: str, size: int, width: float) -> Any:
    """The font, smaller where the text would not fit."""
    while size > 9 and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    return ImageFont.load_default(size)


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
