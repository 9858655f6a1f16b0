"""Attention within windows of a feature map (Liu et al. 2021, arXiv:2103.14030, section 3.2).

Letters of this file: W, all windows of all pictures, picture by picture and each in raster order;
L, the places in a window, row by row. Maps keep their channels last.

Windows of 2 x 2 on a map of 4 x 4; shifted by 1, the map is rolled up and to the left, so that
what falls off comes back at the far side. Those places are in one window with strangers, and see
only their own kind:

    a a b b        places rolled by 1, by where they come from
    a a b b        0 0 0 1
    c c d d        0 0 0 1        the window at the bottom right holds
    c c d d        0 0 0 1        four kinds, and each sees itself
                   2 2 2 3
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.attention import Attention
from sightline.nn.linear import Linear
from sightline.nn.masks import same_owner
from sightline.nn.mlp import MLP
from sightline.nn.norms import LayerNorm
from sightline.nn.stochastic_depth import drop_branch


def partition(x: Float[Tensor, "B H V D"], side: int) -> Float[Tensor, "W L D"]:
    """A map whose sides are multiples of `side` as windows of side x side places."""
    rows = x.unflatten(1, (-1, side)).unflatten(3, (-1, side))  # [B H/s s V/s s D]
    return rows.transpose(2, 3).flatten(3, 4).flatten(0, 2)  # [W L D]


def merge(
    windows: Float[Tensor, "W L D"], side: int, height: int, width: int
) -> Float[Tensor, "B H V D"]:
    """The inverse of `partition`, for a map of height x width places."""
    grid = windows.unflatten(0, (-1, height // side, width // side)).unflatten(3, (side, side))
    return grid.transpose(2, 3).flatten(1, 2).flatten(2, 3)  # [B H V D]


def shifted_windows(
    height: int, width: int, side: int, shift: int, device: torch.device | None = None
) -> Bool[Tensor, "W 1 L L"]:
    """Who may attend to whom in the windows of one map rolled by `shift` (figure 4 of the paper).

    Places that were neighbours before the roll see each other; those that came round from the far
    side are kept apart from the rest of their window.
    """

    def kinds(length: int) -> Int[Tensor, " length"]:
        return (torch.arange(length, device=device) >= length - shift).int()

    kind = 2 * kinds(height)[:, None] + kinds(width)  # [H V]
    return same_owner(partition(kind[None, ..., None].float(), side)[..., 0].int())  # [W 1 L L]


class RelativePositionBias(nn.Module):
    """One learned number for each head and each step from a query to a key (equation 4).

    Args:
        side: of the largest window; there are (2 side - 1)^2 steps.
        num_heads: N.
    """

    def __init__(self, side: int, num_heads: int) -> None:
        super().__init__()
        self.side = side
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, num_heads))

    def forward(self, side: int) -> Float[Tensor, "1 N L L"]:
        """The numbers for a window of that side; a smaller one needs the shorter steps only.

        Raises:
            ConfigError: a window larger than the table was made for.
        """
        if side > self.side:
            raise ConfigError(
                f"a window of {side}x{side}: this table knows the steps of {self.side}x{self.side}"
            )
        places = torch.arange(side, device=self.table.device)
        step = places[:, None] - places + self.side - 1  # [query key], from 0 on
        rows, columns = step[:, None, :, None], step[None, :, None, :]
        index = (rows * (2 * self.side - 1) + columns).flatten(2).flatten(0, 1)  # [L L]
        return self.table[index].permute(2, 0, 1)[None]  # [1 N L L]


class WindowBlock(nn.Module):
    """x + attention within windows(norm1(x)), then x + mlp(norm2(x)), on a map.

    A map that windows do not cover exactly is filled with zeros at the right and the bottom, which
    the places beside them see (their keys are the bias alone). A map no larger than a window in
    one direction gets windows of its smaller side, and no shift.

    Args:
        side: of a window, in places.
        shifted: whether windows are moved by half a side, so that neighbours of the block before
            meet.
        dropout: behind attention and mlp.
        branch_drop: probability that an example skips a branch while training.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        *,
        side: int,
        shifted: bool,
        activation: str,
        norm_eps: float,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        branch_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.side = side
        self.shift = side // 2 if shifted else 0
        self.norm1 = LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, num_heads, bias=qkv_bias)
        self.position_bias = RelativePositionBias(side, num_heads)
        self.norm2 = LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp_width, activation)
        self.dropout = dropout
        self.branch_drop = branch_drop

    def forward(self, x: Float[Tensor, "B H V D"]) -> Float[Tensor, "B H V D"]:
        x = x + self._dropped(self._attend(self.norm1(x)))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _attend(self, x: Float[Tensor, "B H V D"]) -> Float[Tensor, "B H V D"]:
        batch, height, width, _ = x.shape
        side = min(self.side, height, width)
        shift = self.shift if min(height, width) > self.side else 0
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        high, wide = x.shape[1:3]
        mask = None
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
            mask = shifted_windows(high, wide, side, shift, x.device).repeat(batch, 1, 1, 1)
        windows = self.attention(
            partition(x, side), mask=mask, offset=self.position_bias(side)
        )  # [W L D]
        x = merge(windows, side, high, wide)  # [B H V D]
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width]

    def _dropped(self, x: Float[Tensor, "B H V D"]) -> Float[Tensor, "B H V D"]:
        x = F.dropout(x, self.dropout, self.training)
        return drop_branch(x, self.branch_drop, self.training)


class PatchMerging(nn.Module):
    """Four neighbours become one of twice the width (section 3.1 of the paper).

    They are joined down the left column first, then down the right one; a map with an odd side is
    filled with zeros at the right and the bottom.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * width, eps=1e-5)
        self.reduction = Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Float[Tensor, "B H V D"]) -> Float[Tensor, "B _ _ _"]:
        """float[B, H/2, V/2, 2 D], sides rounded up."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))  # [B H/2 2 V/2 2 D]
        joined = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # [B H/2 V/2 4D]: column, row, channel
        return self.reduction(self.norm(joined))  # [B H/2 V/2 2D]
