"""Contact sheets: pictures in a grid, each with its caption and score, as one picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from sightline.core.errors import ConfigError, ImageError, InputError
from sightline.core.files import atomic_file

PAPER, CARD, EDGE = (246, 246, 243), (255, 255, 255), (226, 226, 220)
INK, QUIET, BAR, TRACK = (28, 30, 33), (110, 114, 120), (45, 108, 205), (231, 233, 238)
_GAP, _PAD, _FONT_SIZE, _TITLE_SIZE, _LINES = 16, 10, 14, 22, 2


class SheetItem(NamedTuple):
    """One cell: a picture (anything that can be read), its caption and its score, if any."""

    image: Any
    caption: str = ""
    score: float | None = None


def contact_sheet(
    items: Iterable[SheetItem],
    title: str = "",
    columns: int | None = None,
    thumbnail: int = 220,
    score_range: tuple[float, float] = (0.0, 1.0),
) -> Image.Image:
    """A sheet of labelled thumbnails, first item top left.

    A picture that cannot be read keeps its cell and says so.

    Args:
        items: what to show.
        title: a line above the grid.
        columns: by default as many as make the sheet a little wider than high.
        thumbnail: side in pixels of the square that each picture is fitted into.
        score_range: the scores of an empty and of a full bar.

    Raises:
        InputError: nothing to show.
        ConfigError: sizes that give no picture.
    """
    listed = [SheetItem(*item) for item in items]
    if not listed:
        raise InputError("a contact sheet needs at least one picture, none arrived")
    if thumbnail < 32 or (columns is not None and columns < 1):
        raise ConfigError(
            f"columns must be at least 1 and thumbnail at least 32: {columns}, {thumbnail} arrived"
        )
    across = min(columns or math.ceil(math.sqrt(1.3 * len(listed))), len(listed))
    down = math.ceil(len(listed) / across)
    text = ImageFont.load_default(_FONT_SIZE)
    cell = (thumbnail + 2 * _PAD, thumbnail + 2 * _PAD + _caption_height(listed))
    top = _GAP + (_TITLE_SIZE + _GAP + 6 if title else 0)
    size = (_GAP + across * (cell[0] + _GAP), top + down * (cell[1] + _GAP))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        heading = ImageFont.load_default(_TITLE_SIZE)
        line = shortened(title, heading, size[0] - 2 * _GAP)
        draw.text((_GAP, _GAP), line, INK, heading)
    for place, item in enumerate(listed):
        x = _GAP + place % across * (cell[0] + _GAP)
        y = top + place // across * (cell[1] + _GAP)
        draw.rounded_rectangle((x, y, x + cell[0], y + cell[1]), 10, CARD, EDGE)
        _paste(sheet, item.image, (x + _PAD, y + _PAD), thumbnail, text)
        _write(draw, item, (x + _PAD, y + 2 * _PAD + thumbnail), thumbnail, text, score_range)
    return sheet


def write_sheet(path: str | os.PathLike[str], items: Iterable[SheetItem], **options: Any) -> None:
    """`contact_sheet` as a PNG file, whole or not at all."""
    sheet = contact_sheet(items, **options)
    with atomic_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def thumbnail_of(source: Any, side: int) -> Image.Image:
    """A picture that fits into a square of `side` pixels; small ones are enlarged in whole steps.

    Raises:
        ImageError: it cannot be read.
    """
    from sightline.inputs.images import read_image

    picture = Image.fromarray(read_image(source))
    longest = max(picture.size)
    if longest * 2 <= side:
        # Nearest keeps a 32-pixel drawing crisp, where smoothing would only blur it.
        factor = side // longest
        size = (picture.width * factor, picture.height * factor)
        return picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _caption_height(items: Sequence[SheetItem]) -> int:
    lines = _LINES if any(item.caption for item in items) else 0
    bar = 24 if any(item.score is not None for item in items) else 0
    return lines * (_FONT_SIZE + 5) + bar + (4 if lines or bar else 0)


def _paste(sheet: Image.Image, source: Any, corner: tuple[int, int], side: int, font: Any) -> None:
    try:
        picture = thumbnail_of(source, side)
    except ImageError as error:
        draw = ImageDraw.Draw(sheet)
        x, y = corner
        draw.rectangle((x, y, x + side, y + side), TRACK)
        for row, line in enumerate(_wrapped(f"not readable: {error}", font, side - 16, 6)):
            draw.text((x + 8, y + 8 + row * (_FONT_SIZE + 5)), line, QUIET, font)
        return
    left, top = (side - picture.width) // 2, (side - picture.height) // 2
    sheet.paste(picture, (corner[0] + left, corner[1] + top))


def _write(
    draw: ImageDraw.ImageDraw, item: SheetItem, corner: tuple[int, int], width: int, font: Any,
    score_range: tuple[float, float],
) -> None:  # fmt: skip
    x, y = corner
    for row, line in enumerate(_wrapped(item.caption, font, width, _LINES)):
        draw.text((x, y + row * (_FONT_SIZE + 5)), line, INK, font)
    if item.score is None:
        return
    y += (_LINES * (_FONT_SIZE + 5) if item.caption else 0) + 4
    low, high = score_range
    share = (item.score - low) / (high - low) if high > low else 0.0
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    number = f"{item.score:.3f}"
    track = width - round(font.getlength("-0.000")) - 8
    draw.rounded_rectangle((x, y + 4, x + track, y + 12), 4, TRACK)
    if share > 0:
        draw.rounded_rectangle((x, y + 4, x + max(8, round(track * share)), y + 12), 4, BAR)
    draw.text((x + width, y), number, QUIET, font, anchor="ra")


def _wrapped(text: str, font: Any, width: int, lines: int) -> list[str]:
    """Words into at most `lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    rest = text.split()
    out: list[str] = []
    while rest and len(out) < lines - 1:
        line = rest.pop(0)
        while rest and font.getlength(f"{line} {rest[0]}") <= width:
            line = f"{line} {rest.pop(0)}"
        if font.getlength(line) > width:  # one word, a path mostly: continue it below
            fits = len(_cut(line, font, width))
            rest.insert(0, line[fits:])
            line = line[:fits]
        out.append(line)
    return [*out, shortened(" ".join(rest), font, width)] if rest else out


def shortened(text: str, font: Any, width: int) -> str:
    """A text of at most `width` pixels; a longer one ends in an ellipsis."""
    if font.getlength(text) <= width:
        return text
    return _cut(text, font, width - font.getlength("...")) + "..."


def _cut(text: str, font: Any, width: float) -> str:
    """The longest beginning that fits, at least one character so that wrapping ends."""
    low, high = 1, max(1, len(text))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return text[:low]
