"""Learned positions on the patch grid."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.norms import at_least_float32


class GridPositions(nn.Module):
    """One learned vector for each place of a grid, and for `prefix` tokens in front of it.

    Args:
        grid: rows and columns the table was made for.
        width: D.
        prefix: tokens before the patches that have a row of their own (a class token).
    """

    def __init__(self, grid: tuple[int, int], width: int, *, prefix: int = 0) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.table = nn.Parameter(torch.zeros(prefix + grid[0] * grid[1], width))

    def forward(self, grid: tuple[int, int]) -> Float[Tensor, "P D"]:
        """The table itself for its own grid; for another one, resampled by `resample_grid`."""
        if grid == self.grid:
            return self.table
        patches = resample_grid(self.table[self.prefix :], self.grid, grid)
        return torch.cat([self.table[: self.prefix], patches])  # [P D]


def resample_grid(
    table: Float[Tensor, "P D"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "R D"]:
    """Positions of the `old` grid carried to a `new` one, bicubic, corners not aligned.

    No antialiasing, as the published models do it when they change their resolution.
    """
    image = at_least_float32(table).T.unflatten(1, old)[None]  # [1 D rows columns]
    moved = F.interpolate(image, size=new, mode="bicubic", align_corners=False)
    return moved[0].flatten(1).T.to(table.dtype)  # [R D]
