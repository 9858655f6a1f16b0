"""Drawing on pictures: heat over a picture, and sheets that show what spoke for a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sightline.core.errors import InputError
from sightline.tasks.sheets import INK, PAPER, SheetItem, contact_sheet, thumbnail_of

HEAT_COLOURS = np.array(
    [
        (42, 0, 102), (84, 15, 117), (128, 34, 118), (170, 55, 112), (208, 81, 99),
        (236, 113, 80), (255, 151, 60), (255, 194, 87), (253, 233, 115),
    ],
    np.float32,
)  # fmt: skip
"""From cold to hot in equal steps of lightness (CIE L* 12 to 92), so that equal differences of heat
look equal, also in grey and to the colour-blind."""
STRENGTH = 0.85
"""How much of the hottest pixel is heat and not picture."""
_SIDE, _LEGEND, _GAP, _BAR = 220, 44, 16, (160, 12)


def coloured(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Heat float32[H, W] of 0..1 as colours uint8[H, W, 3]."""
    place = heat.clip(0, 1) * (len(HEAT_COLOURS) - 1)
    anchors = np.arange(len(HEAT_COLOURS))
    channels = [np.interp(place, anchors, channel) for channel in HEAT_COLOURS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_overlay(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> Image.Image:
    """Heat over a picture whose own colours are taken back, so that none looks like heat.

    Args:
        pixels: uint8[H, W, 3].
        heat: float32 of 0..1, of the picture's size or another, which is then stretched.

    Raises:
        InputError: heat that is no map.
    """
    if heat.ndim != 2 or not np.isfinite(heat).all():
        raise InputError(
            f"heat must be finite numbers [H, W], {heat.dtype}{list(heat.shape)} arrived"
        )
    height, width = pixels.shape[:2]
    if heat.shape != (height, width):
        stretched = Image.fromarray(heat.astype(np.float32)).resize((width, height))
        heat = np.asarray(stretched)
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)[..., None]
    quiet = 0.25 * pixels + 0.75 * grey
    share = STRENGTH * heat.clip(0, 1)[..., None]
    mixed = (1 - share) * quiet + share * coloured(heat)
    return Image.fromarray(mixed.round().astype(np.uint8))


def heat_items(
    source: Any, maps: Iterable[tuple[str, NDArray[np.float32]]], caption: str = ""
) -> list[SheetItem]:
    """A picture and its maps as cells of a sheet.

    Args:
        source: anything that can be read as a picture.
        maps: a caption and the heat of each.
        caption: of the picture.
    """
    shown = thumbnail_of(source, _SIDE)
    pixels = np.asarray(shown)
    cells = [SheetItem(heat_overlay(pixels, heat), name) for name, heat in maps]
    return [SheetItem(shown, caption), *cells]


def heat_sheet(rows: Sequence[Sequence[SheetItem]], title: str) -> Image.Image:
    """A sheet with a row for each picture (`heat_items`), and the scale of heat below.

    Raises:
        InputError: nothing to show.
    """
    if not rows:
        raise InputError("a sheet of heat needs at least one picture, none arrived")
    cells = [cell for row in rows for cell in row]
    sheet = contact_sheet(cells, title, columns=len(rows[0]), thumbnail=_SIDE)
    page = Image.new("RGB", (sheet.width, sheet.height + _LEGEND), PAPER)
    page.paste(sheet)
    _legend(page, (_GAP, sheet.height))
    return page


def _legend(page: Image.Image, corner: tuple[int, int]) -> None:
    """The scale, with words at both ends."""
    x, y = corner
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    scale = np.linspace(0, 1, _BAR[0], dtype=np.float32)[None].repeat(_BAR[1], axis=0)
    cold, hot = "spoke least", "spoke most for it"
    draw.text((x, y + 4), cold, INK, font)
    x += round(font.getlength(cold)) + 10
    page.paste(Image.fromarray(coloured(scale)), (x, y + 6))
    draw.text((x + _BAR[0] + 10, y + 4), hot, INK, font)
