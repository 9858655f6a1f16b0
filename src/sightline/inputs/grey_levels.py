"""Answers of filters, which may be negative or large, as grey levels to look at."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, unknown_name

Shown = Literal["clip", "absolute", "offset", "stretch"]
"""How an answer becomes grey levels 0..255; the rules are those of `as_picture`."""

Pixels: TypeAlias = NDArray[Any]
"""[H, W] or [H, W, C] of any number type."""


def as_picture(values: Pixels, shown: Shown = "clip", full: float = 255.0) -> NDArray[np.uint8]:
    """Answers to grey levels.

    - "clip": below 0 is black, above `full` is white (Pillow's rule);
    - "absolute": the sign is dropped first, so that edges of both directions are bright;
    - "offset": half of `full` is added first, so that 0 is grey;
    - "stretch": the smallest value becomes black and the largest white.

    Args:
        values: of any range and shape.
        shown: one of these rules.
        full: the value that is white: 255, or 1.0 for pictures in 0..1.

    Raises:
        ConfigError: an unknown rule, or a `full` that is not above 0.
    """
    if not full > 0:
        raise ConfigError(f"full is the value of white and must be above 0: {full} arrived")
    values = np.asarray(values)
    ends = (values.min(), values.max()) if shown == "stretch" and values.size else (0.0, full)
    return grey_levels(values, check_shown(shown), full, (float(ends[0]), float(ends[1])))


def grey_levels(
    values: NDArray[Any], shown: Shown, full: float, ends: tuple[float, float]
) -> NDArray[np.uint8]:
    """`as_picture` with the ends of "stretch" given, for answers that come in strips."""
    low, high = (ends[0], max(ends[1] - ends[0], 1e-30)) if shown == "stretch" else (0.0, full)
    levels = (np.abs(values) if shown == "absolute" else values) * (255 / high)
    levels += -low * (255 / high) + (128 if shown == "offset" else 0) + 0.5
    # Halves go up, as in Pillow; numpy's rint would take the even neighbour.
    return np.clip(np.nan_to_num(levels), 0, 255.5).astype(np.uint8)


def to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[H, W, 3] to uint8[H, W]: the luma of ITU-R BT.601, as Pillow's "L" has it."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))


def check_shown(shown: str) -> Any:
    """The rule, if it is one.

    Raises:
        ConfigError: it is none.
    """
    if shown not in get_args(Shown):
        raise ConfigError(unknown_name("way to show", str(shown), get_args(Shown)))
    return shown
