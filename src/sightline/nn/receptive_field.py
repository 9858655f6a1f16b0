"""Which pixels a unit of a feature map can see, found out by asking the network.

A pixel that is no number (NaN) makes every unit that it reaches no number either: sums, norms,
rectifiers and maxima pass it on, and a weight of 0 does not stop it. So the units that a column
of such pixels spoils are those whose receptive field has this column. For stacked convolutions
the answer is that of the recurrence in Araujo, Norris and Sim, "Computing Receptive Fields of
Convolutional Neural Networks", Distill 2019; nothing about the network has to be known.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Maps = Callable[[Tensor], Sequence[Tensor]]
"""Pixels [B, C, H, W] to feature maps [B, D, h, w]; a network in evaluation mode."""

STEP = 32
"""Pixels from one unit to the next, at most: the strides of published networks divide it."""


class Reach(NamedTuple):
    """What unit i of an axis sees: pixels stride * i + low up to stride * i + high, exclusive."""

    stride: int
    low: int
    high: int
    whole: bool
    """Everything is seen: `low` and `high` were cut off by the border of the picture."""

    @property
    def size(self) -> int:
        """Pixels that are seen, where not `whole`."""
        return self.high - self.low

    def span(self, unit: int, length: int) -> tuple[int, int]:
        """First pixel and the one behind the last; may reach out of the picture, into padding."""
        if self.whole:
            return 0, length
        return self.stride * unit + self.low, self.stride * unit + self.high


class ReceptiveField(NamedTuple):
    """Of every unit of one feature map."""

    rows: Reach
    columns: Reach

    @property
    def whole(self) -> bool:
        """Whether a unit sees the whole picture."""
        return self.rows.whole and self.columns.whole


def receptive_fields(
    maps: Maps, size: tuple[int, int], channels: int = 3, device: torch.device | str = "cpu"
) -> list[ReceptiveField]:
    """The field of each map, for pictures of (height, width).

    For networks that do the same at every place, as convolutions do; windows of attention do not.
    The network must take pictures of any size that is a multiple of 32, and its strides divide 32.
    """
    height, width = (STEP * max(3, -(-side // STEP)) for side in size)
    rows = _reaches(lambda x: [m.mT for m in maps(x.mT)], height, channels, device)
    columns = _reaches(maps, width, channels, device)
    return [ReceptiveField(*pair) for pair in zip(rows, columns, strict=True)]


def _reaches(maps: Maps, width: int, channels: int, device: torch.device | str) -> list[Reach]:
    """Along the columns: one spoiled column at a time, for one whole period of the strides."""
    spoiled = torch.zeros(STEP, channels, STEP, width, device=device)
    # All phases of every stride, in the middle, where both ends of a field are inside.
    first = (width - STEP) // 2
    for number in range(STEP):
        spoiled[number, :, :, first + number] = torch.nan
    # cuDNN's Winograd kernels mix neighbours and would spread what is no number further.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=False):
        found = [m.isnan().flatten(1, 2).any(dim=1) for m in maps(spoiled)]  # [32 w]
    return [_reach(hit.cpu(), first, width) for hit in found]


def _reach(hit: Tensor, first: int, width: int) -> Reach:
    """From bool[32, w]: which units a spoiled column reaches."""
    stride = width // hit.shape[1]
    probes, units = hit.nonzero(as_tuple=True)
    offsets = first + probes - stride * units
    whole = bool(hit[:, 0].any() or hit[:, -1].any())
    return Reach(stride, int(offsets.min()), int(offsets.max()) + 1, whole)
