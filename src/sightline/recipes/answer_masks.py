"""Masks as what a model that writes learns: the codes of a mask codec behind a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.outputs import Box
from sightline.data.regions import Region
from sightline.hub.bundled import BUNDLED, bundled_path
from sightline.inputs.grounded_text import Place
from sightline.inputs.location_tokens import write_paligemma
from sightline.recipes.run import best_model
from sightline.tasks.mask_tokens import mask_tokens
from sightline.tasks.segment import FOLDER, read_codec

if TYPE_CHECKING:
    from sightline.core.interfaces import MaskCodec
    from sightline.hub.load import Loaded


@dataclass(frozen=True)
class MaskWriter:
    """Regions with outlines as PaliGemma writes them; the writer of the task `segment`."""

    codec: MaskCodec

    def __call__(self, regions: Sequence[Region], size: tuple[int, int]) -> str:
        """Of each region its box, the codes of the mask inside it, and its label.

        Args:
            size: (H, W) of the picture.

        Raises:
            DataError: an outline that is damaged or of another picture.
        """
        boxes = [inside(region.box, size) for region in regions]
        codes = mask_tokens(self.codec, [region.mask(*size) for region in regions], boxes)
        places = [
            Place(region.label, box, tuple(own))
            for region, box, own in zip(regions, boxes, codes.tolist(), strict=True)
        ]
        return write_paligemma(places, size)


def inside(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box inside its picture, at least a pixel: people mark beyond the border."""
    height, width = size
    (x1, x2), (y1, y2) = _side(box[0], box[2], width), _side(box[1], box[3], height)
    return x1, y1, x2, y2


def _side(low: float, high: float, most: int) -> tuple[float, float]:
    low, high = (min(max(edge, 0.0), float(most)) for edge in (low, high))
    if round(low) < round(high):
        return low, high
    first = min(math.floor(low), most - 1)
    return float(first), float(first + 1)


def codec_folder(name: str) -> Path:
    """The model folder of a codec, or of the best one of a codec's run."""
    folder = Path(name)
    return best_model(folder) if (folder / "checkpoints").is_dir() else folder


def find_codec(named: str | None, init: str | None) -> Loaded | None:
    """The codec that is named, or the one beside the weights that a run starts from.

    Args:
        named: folder or name of a codec, or the folder of its run.
        init: folder or name of the weights.

    Raises:
        UnsupportedTaskError: what is named is no mask codec.
        CheckpointError: a codec of other masks than those that models write.
    """
    if named is not None:
        return read_codec(codec_folder(named))
    if init is None:
        return None
    own = (bundled_path(init) if init in BUNDLED else Path(init)) / FOLDER
    return read_codec(own) if (own / "config.json").is_file() else None
