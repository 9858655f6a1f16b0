"""Boxes, masks and labels on pictures, readable on any ground.

Every line is a colour between two dark ones: one of them differs from whatever lies beneath.
Colours are those of Okabe and Ito, which the colour-blind can tell apart; a label has one colour,
and from the eighth label on a thread in the frame tells it from the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sightline.core.errors import ConfigError
from sightline.core.outputs import Box, Detection, Segment
from sightline.inputs.coordinates import clipped
from sightline.inputs.views import View
from sightline.tasks.label_layout import place_labels
from sightline.tasks.sheets import INK, SheetItem, shortened

Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0),
    (0, 114, 178),
)  # fmt: skip
"""Okabe and Ito, "Color Universal Design" (2008), without their black."""
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
_THREADS = (None, WHITE, INK)
_FILL = 0.3
"""How much of a masked pixel is colour."""
_SMALLEST = 448
"""Smaller pictures are enlarged in whole steps to about this, so that labels have room."""


class _Mark(NamedTuple):
    """Something to draw, in pixels of what is drawn."""

    text: str
    box: Box
    mask: NDArray[np.bool_] | None
    colour: Colour
    thread: Colour | None

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def marked(
    pixels: NDArray[np.uint8], things: Sequence[Detection | Segment], side: int | None = None
) -> Image.Image:
    """A picture with what was found in it: boxes framed, masks tinted and outlined, all labelled.

    What is not finite is left out, and what reaches beyond the picture is cut off.

    Args:
        pixels: uint8[H, W, 3].
        things: boxes, or boxes with masks bool[H, W], in pixels of the picture.
        side: the longer side of the result at most, drawn at that size so that labels stay
            readable; by default the picture keeps its size, and a small one is enlarged.

    Raises:
        ImageError: pixels of another form.
        ConfigError: a side of less than 32 pixels.
    """
    if side is not None and side < 32:
        raise ConfigError(f"a picture with labels needs a side of at least 32 pixels: {side}")
    height, width = pixels.shape[:2]
    size = _shown_size((height, width), side)
    enlarged = size[0] > height or size[1] > width
    view = View((0, 0, width, height), size, filter="nearest" if enlarged else "lanczos")
    marks = sorted(_marks(things, view), key=lambda mark: -mark.area)  # small ones on top
    thick = max(2, round(max(size) / 250))
    canvas = np.array(view.pixels(pixels))
    for mark in marks:
        if mark.mask is not None:
            _tint(canvas, mark, thick)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for mark in marks:
        if mark.mask is None:
            _frame(draw, mark, thick)
    _write(draw, marks, picture.size)
    return picture


def marked_item(
    source: Any, things: Sequence[Detection | Segment], caption: str = "", side: int = 320
) -> SheetItem:
    """A picture with what was found in it as a cell of a sheet or a report.

    Args:
        source: anything that can be read as a picture.
        things: as in `marked`.
        caption: below the picture.
        side: of the cell, at which the labels are drawn.

    Raises:
        ImageError: the picture cannot be read.
    """
    from sightline.inputs.images import read_image

    return SheetItem(marked(read_image(source), things, side), caption)


def _shown_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """(H, W) of the drawing: in whole steps where a picture is enlarged."""
    longest = max(size)
    limit = _SMALLEST if side is None else side
    if longest <= limit:
        return size[0] * (limit // longest), size[1] * (limit // longest)
    if side is None:
        return size
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))


def _marks(things: Sequence[Detection | Segment], view: View) -> list[_Mark]:
    """Things in pixels of the view, each with the colour of its label."""
    _, _, width, height = view.window
    labels = list(dict.fromkeys(thing.label for thing in things))
    marks = []
    for thing in things:
        if not all(map(math.isfinite, thing.box)):
            continue
        x1, y1, x2, y2 = thing.box
        inside = clipped((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), (height, width))
        down, across = view.size[0] / height, view.size[1] / width
        box = inside[0] * across, inside[1] * down, inside[2] * across, inside[3] * down
        number = labels.index(thing.label)
        cycle = number // len(COLOURS) % len(_THREADS)
        mask = _resized(thing.mask, view) if isinstance(thing, Segment) else None
        colour = COLOURS[number % len(COLOURS)]
        marks.append(_Mark(_text(thing), box, mask, colour, _THREADS[cycle]))
    return marks


def _resized(mask: NDArray[np.bool_], view: View) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(picture.resize(view.size[::-1], Image.Resampling.NEAREST)) > 0


def _text(thing: Detection | Segment) -> str:
    words = "".join(letter if letter.isprintable() else " " for letter in thing.label)
    score = "" if thing.score is None else f" {thing.score:.2f}"
    return " ".join(words.split()) + score


def _tint(canvas: NDArray[np.uint8], mark: _Mark, thick: int) -> None:
    """A mask in its colour, its outline in the same between dark ones."""
    if mark.mask is None or not mark.mask.any():
        return
    inner = _eroded(mark.mask, 1)
    line = _eroded(inner, thick)
    core = _eroded(line, 1)
    canvas[core] = ((1 - _FILL) * canvas[core] + _FILL * np.array(mark.colour)).round()
    canvas[mark.mask & ~inner] = INK
    canvas[inner & ~line] = mark.colour
    canvas[line & ~core] = INK


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Without the pixels so few steps from outside; beyond the picture is outside."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _frame(draw: ImageDraw.ImageDraw, mark: _Mark, thick: int) -> None:
    """A box as a line of its colour between two dark ones, all inside of the box where it fits."""
    x1, y1 = math.floor(mark.box[0]), math.floor(mark.box[1])
    x2 = max(x1, math.ceil(mark.box[2]) - 1)
    y2 = max(y1, math.ceil(mark.box[3]) - 1)
    dark = max(1, thick // 3)
    _rectangle(draw, (x1, y1, x2, y2), INK, thick + 2 * dark)
    _rectangle(draw, (x1 + dark, y1 + dark, x2 - dark, y2 - dark), mark.colour, thick)
    if mark.thread is not None:
        inset = dark + thick // 2
        _rectangle(draw, (x1 + inset, y1 + inset, x2 - inset, y2 - inset), mark.thread, 1)


def _rectangle(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: Colour, width: int
) -> None:
    x1, y1, x2, y2 = box
    if x1 <= x2 and y1 <= y2:
        draw.rectangle(box, outline=colour, width=width)


def _write(draw: ImageDraw.ImageDraw, marks: Sequence[_Mark], size: tuple[int, int]) -> None:
    """Labels on tags in their colours, with a line to what they name where that is not beside."""
    named = [mark for mark in marks if mark.text]
    crowded = 1.0 if len(named) <= 12 else 0.8 if len(named) <= 30 else 0.65
    height = round(min(max(0.032 * max(size) * crowded, 11), 72))
    font = ImageFont.load_default(height)
    pad = max(2, height // 4)
    texts = [shortened(mark.text, font, size[0] - 2 * pad) for mark in named]
    tags = [(math.ceil(font.getlength(text)) + 2 * pad, height + pad + 2) for text in texts]
    corners = place_labels([mark.box for mark in named], tags, size)
    for mark, tag, corner in zip(named, tags, corners, strict=True):
        _lead(draw, mark, (*corner, corner[0] + tag[0], corner[1] + tag[1]))
    for mark, text, tag, (x, y) in zip(named, texts, tags, corners, strict=True):
        draw.rectangle((x, y, x + tag[0] - 1, y + tag[1] - 1), mark.colour, INK)
        draw.text((x + pad, y + tag[1] / 2), text, _ink_on(mark.colour), font, anchor="lm")


def _lead(draw: ImageDraw.ImageDraw, mark: _Mark, tag: tuple[int, int, int, int]) -> None:
    """A line from a tag to its box, if they do not touch."""
    near = [
        (min(max(mark.box[axis], tag[axis]), tag[axis + 2]),
         min(max(tag[axis], mark.box[axis]), mark.box[axis + 2]))
        for axis in (0, 1)
    ]  # fmt: skip
    if max(abs(start - stop) for start, stop in near) > 2:
        ends = [(near[0][0], near[1][0]), (near[0][1], near[1][1])]
        draw.line(ends, INK, 3)
        draw.line(ends, mark.colour, 1)


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read."""
    light = luminance(colour)
    return BLACK if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else WHITE


def luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.2)."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
