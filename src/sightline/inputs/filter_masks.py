"""Masks as values: weights with a divisor and an offset, and filters made of them.

Letters of this file beside the legend: R rows and S columns of a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Mask:
    """Weights, what their sum is divided by, and what is added then.

    Whole weights with a divisor stay exact where the same numbers as fractions would not.

    Raises:
        ConfigError: weights that are not a finite [R, S], or a divisor of 0.
    """

    weights: NDArray[np.float64]
    """float64[R, S]"""
    divisor: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        try:
            weights = np.array(self.weights, np.float64)
        except (TypeError, ValueError):
            raise ConfigError("the rows of a mask must be numbers, all rows equally long") from None
        if weights.ndim != 2 or 0 in weights.shape:
            raise ConfigError(
                f"a mask has rows and columns; an array of {list(weights.shape)} arrived"
            )
        if not np.isfinite([*weights.flat, self.divisor, self.offset]).all() or not self.divisor:
            raise ConfigError("numbers of a mask must be finite, and its divisor not 0")
        weights.flags.writeable = False
        object.__setattr__(self, "weights", weights)

    @property
    def shape(self) -> tuple[int, int]:
        """R and S."""
        rows, columns = self.weights.shape
        return rows, columns

    @property
    def centre(self) -> tuple[int, int]:
        """Row and column that stand for u = v = 0."""
        rows, columns = self.shape
        return (rows - 1) // 2, (columns - 1) // 2

    @property
    def total(self) -> float:
        """What a picture of ones becomes, before the offset: 1 keeps the brightness."""
        return float(self.weights.sum()) / self.divisor


class Filter(NamedTuple):
    """A mask with a name; or several, of whose answers the length is taken (gradients)."""

    name: str
    masks: tuple[Mask, ...]
