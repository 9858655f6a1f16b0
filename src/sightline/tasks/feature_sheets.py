"""Features on paper: one sheet a layer, the first filters, and an HTML page with all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sightline.core.errors import ConfigError
from sightline.core.files import atomic_file, write_json
from sightline.tasks.features import Features, LayerFeatures, Piece
from sightline.tasks.report import Report
from sightline.tasks.sheets import EDGE, INK, PAPER, QUIET, thumbnail_of

FORMAT, VERSION = "sightline.features", 1
PAGE = "features.html"
_GAP, _LABEL, _TITLE = 6, 92, 30
_SMALLEST_FRAME = 10
_LIGHT, _DARK = (255, 255, 255), (20, 20, 20)


def layer_sheet(layer: LayerFeatures, side: int = 72) -> Image.Image:
    """A row for each unit, its pieces from left to right, the most exciting first.

    A thin frame is the unit's own place, where what it sees is much larger.

    Args:
        side: pixels of a piece on the sheet; small pieces are enlarged in whole steps.

    Raises:
        ConfigError: a side below 16.
    """
    if side < 16:
        raise ConfigError(f"side must be at least 16 pixels: {side} arrived")
    across = max(len(unit.best) for unit in layer.sample)
    width = _GAP + _LABEL + across * (side + _GAP)
    sheet = Image.new("RGB", (width, _TITLE + len(layer.sample) * (side + _GAP) + _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), f"{layer.name}: {len(layer.sample)} of {layer.units:,} units", INK,
              ImageFont.load_default(15))  # fmt: skip
    small = ImageFont.load_default(12)
    for row, unit in enumerate(layer.sample):
        y = _TITLE + row * (side + _GAP)
        draw.text((_GAP, y + 4), f"unit {unit.unit}", INK, small)
        draw.text((_GAP, y + 20), f"up to {unit.best[0].score:.2f}", QUIET, small)
        for column, piece in enumerate(unit.best):
            x = _GAP + _LABEL + column * (side + _GAP)
            draw.rectangle((x - 1, y - 1, x + side, y + side), EDGE)
            tile = _tile(piece, side)
            sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
    return sheet


def filter_sheet(filters: NDArray[np.uint8], side: int = 56, columns: int = 16) -> Image.Image:
    """Small pictures in a grid, row by row.

    Args:
        filters: uint8[n, h, w, 3].
    """
    across = min(columns, len(filters))
    down = -(-len(filters) // across)
    size = (_GAP + across * (side + _GAP), _GAP + down * (side + _GAP))
    sheet = Image.new("RGB", size, PAPER)
    for place, pixels in enumerate(filters):
        row, column = divmod(place, across)
        tile = _enlarged(pixels, side)
        sheet.paste(tile, (_GAP + column * (side + _GAP), _GAP + row * (side + _GAP)))
    return sheet


def write_features(found: Features, folder: str | os.PathLike[str], model: str) -> list[Path]:
    """Write the sheets as PNG, the page that shows them, and the numbers as JSON.

    Args:
        model: its name, for the page.

    Returns:
        The files, the page first.
    """
    target = Path(folder)
    report = Report("What the units look for", f"{model}, {found.pictures:,} pictures")
    report.text(INTRODUCTION)
    sheets = {"filters": filter_sheet(found.filters)}
    report.section("First filters", FILTERS).picture(sheets["filters"])
    for number, layer in enumerate(found.layers, start=1):
        sheet = layer_sheet(layer)
        sheets[f"{number:02d}-{layer.name}"] = sheet
        report.section(layer.name, f"A unit sees {layer.sees}.").picture(sheet)
    files = []
    for name, sheet in sheets.items():
        files.append(target / f"{name}.png")
        with atomic_file(files[-1]) as temporary:
            sheet.save(temporary, format="PNG", optimize=True)
    report.write(target / PAGE)
    head = {"format": FORMAT, "version": VERSION, "model": model, "pictures": found.pictures}
    write_json(target / "features.json", {**head, **summary(found)})
    return [target / PAGE, target / "features.json", *files]


INTRODUCTION = (
    "Each row is one unit of the network, each piece a part of a picture that excites it most "
    "among all the pictures given. The units were drawn by lot and not chosen for their looks: "
    "some look for something that has a name, many do not. A piece shows where a unit answers, "
    "not why; a unit that seems to look for boats may look for the water below them."
)
FILTERS = (
    "The numbers that meet the pixels, as colours: grey is 0. Of a convolution the strongest "
    "filters; of a projection of patches its principal components, the strongest first."
)


def summary(found: Features) -> dict[str, Any]:
    """Layers, units and where their pieces come from, as plain JSON."""
    return {
        "layers": [
            {
                "layer": layer.name,
                "units": layer.units,
                "sees": layer.sees,
                "sample": [
                    {
                        "unit": unit.unit,
                        "best": [{"file": p.name, "score": p.score} for p in unit.best],
                    }
                    for unit in layer.sample
                ],
            }
            for layer in found.layers
        ]
    }


def _tile(piece: Piece, side: int) -> Image.Image:
    """A piece, fitted into the square, with its frame."""
    tile = _enlarged(piece.pixels, side)
    factor = tile.width / piece.pixels.shape[1]
    x1, y1, x2, y2 = (round(end * factor) for end in piece.centre)
    inside = 0 <= x1 < x2 <= tile.width and 0 <= y1 < y2 <= tile.height
    if inside and _SMALLEST_FRAME <= x2 - x1 <= tile.width // 2:
        draw = ImageDraw.Draw(tile)
        draw.rectangle((x1 - 1, y1 - 1, x2, y2), outline=_DARK)
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=_LIGHT)
    return tile


def _enlarged(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """In whole steps where that fits; otherwise as large as the square."""
    height, width = pixels.shape[:2]
    if 2 * max(height, width) <= side:
        picture = thumbnail_of(pixels, side)
    else:
        picture = Image.fromarray(pixels)
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
