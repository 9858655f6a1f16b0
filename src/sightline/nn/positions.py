"""Learned positions on the patch grid."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.norms import at_least_float32


class GridPositions(nn.Module):
    """One learned vector for each place of a grid, and for `prefix` tokens in front of it.

    Args:
        grid: rows and columns the table was made for.
        width: D.
        prefix: tokens before the patches that have a row of their own (a class token).
        filter: "bicubic" or "bilinear", for other grids.
        antialias: whether the filter widens where a grid shrinks.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        width: int,
        *,
        prefix: int = 0,
        filter: str = "bicubic",
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.filter = filter
        self.antialias = antialias
        self.table = nn.Parameter(torch.zeros(prefix + grid[0] * grid[1], width))

    def forward(self, grid: tuple[int, int]) -> Float[Tensor, "P D"]:
        """The table itself for its own grid; for another one, resampled by `resample_grid`."""
        if grid == self.grid:
            return self.table
        patches = resample_grid(
            self.table[self.prefix :], self.grid, grid, filter=self.filter, antialias=self.antialias
        )  # [P D]
        return torch.cat([self.table[: self.prefix], patches])  # [P D]

    def each(self, grids: Sequence[tuple[int, int]]) -> Float[Tensor, "S D"]:
        """Every picture's own positions, one behind the other; equal grids are resampled once."""
        known = {grid: self(grid) for grid in set(grids)}
        return torch.cat([known[grid] for grid in grids])  # [S D]


def sincos_grid(
    grid: tuple[int, int], width: int, longest: float = 10000.0
) -> Float[Tensor, "P D"]:
    """Fixed sines and cosines of column and row (Chen et al. 2021, arXiv:2104.02057, section 4).

    Four equal parts: sin and cos of the column, sin and cos of the row, at geometric wavelengths
    from 2 pi to 2 pi `longest`. Neighbours are alike from the start, which a learned table has to
    find out first.

    Raises:
        ConfigError: a width that four does not divide, or below 8.
    """
    if width % 4 or width < 8:
        raise ConfigError(
            f"width {width}: sine and cosine positions need a multiple of 4 from 8 on"
        )
    omega = longest ** -(torch.arange(width // 4) / (width // 4 - 1))  # [D/4]
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    x, y = columns.flatten()[:, None] * omega, rows.flatten()[:, None] * omega  # [P D/4]
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)  # [P D]


def resample_grid(
    table: Float[Tensor, "P D"],
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    filter: str = "bicubic",
    antialias: bool = False,
) -> Float[Tensor, "R D"]:
    """Positions of the `old` grid carried to a `new` one, corners not aligned.

    The defaults are what the published models of one size do when they change their resolution.
    """
    image = at_least_float32(table).T.unflatten(1, old)[None]  # [1 D rows columns]
    moved = F.interpolate(image, size=new, mode=filter, align_corners=False, antialias=antialias)
    return moved[0].flatten(1).T.to(table.dtype)  # [R D]
