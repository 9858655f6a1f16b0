"""Convolutions with batch normalisation, and the residual blocks made of them.

Letters of this file beside the legend: E channels out, U V rows and columns out. Feature maps keep
float32 between the layers when convolution weights are lowered: each convolution narrows its own
input, and the normalisation behind it widens again.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Conv2d
from sightline.nn.mlp import activation as activation_named
from sightline.nn.norms import at_least_float32

Downsampling = Literal["first", "middle", "pooled"]
"""Where a bottleneck takes its stride; the values are explained in `Bottleneck`."""

INNER = "relu"
"""Within a block the activation is always this one; where a published configuration names another,
it means the one behind the sum (and the stem's)."""


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), never below float32.

    In training mode a channel is brought to mean 0 and variance 1 over the batch and all places,
    and the running mean and the unbiased running variance move a tenth of the way; in evaluation
    mode the running statistics are used, so that a picture's answer does not depend on its batch.
    A frozen network must be in evaluation mode: its statistics are buffers and move without any
    gradient.
    """

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return super().forward(at_least_float32(x))


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, activation.

    The border is filled with zeros so that stride 1 keeps the size (the convolution is a
    cross-correlation, as in every network). The norm has the bias that the convolution lacks.

    Args:
        channels: of the input.
        width: channels of the result.
        kernel: odd side of the kernel.
        stride: of the convolution, both ways.
        activation: a name of `nn.mlp.ACTIVATIONS`; None for none.

    Raises:
        ConfigError: a kernel that has no middle, or an unknown activation.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int,
        *,
        stride: int = 1,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(f"a kernel of {kernel}x{kernel} has no middle: use an odd side")
        self.conv = Conv2d(
            channels, width, kernel, stride=stride, padding=kernel // 2, bias=False
        )  # fmt: skip
        self.norm = BatchNorm(width)
        self.activation = None if activation is None else activation_named(activation)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B E U V"]:
        normed = self.norm(self.conv(x))  # [B E U V]
        return normed if self.activation is None else self.activation(normed)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which the input passes (He et al. 2016, figure 2).

    The stride is on the first, `activation` behind the sum. Where size or channels change, the
    input passes through a 1x1 convolution with a norm of its own (option B of section 3.3);
    elsewhere it passes unchanged.
    """

    def __init__(
        self, channels: int, width: int, *, stride: int = 1, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                ConvNorm(channels, width, 3, stride=stride, activation=INNER),
                ConvNorm(width, width, 3),
            ]
        )
        self.shortcut = _shortcut(channels, width, stride, changes=stride > 1 or channels != width)
        self.activation = activation_named(activation)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B E U V"]:
        passed = x if self.shortcut is None else self.shortcut(x)  # [B E U V]
        for layer in self.layers:
            x = layer(x)  # [B E U V]
        return self.activation(x + passed)


class Bottleneck(nn.Module):
    """1x1 to few channels, 3x3 among them, 1x1 to many (He et al. 2016, figure 5).

    `downsampling` says where a stride is taken:

    - "first": on the first 1x1, as the paper has it; three places of four are never looked at;
    - "middle": on the 3x3 ("v1.5"), which most published weights use;
    - "pooled": all convolutions have stride 1, and an average over stride x stride follows the
      3x3 and precedes the 1x1 of the shortcut: no place is skipped, which removes aliasing
      (Zhang 2019, arXiv:1904.11486; the shortcut as in He et al. 2019, arXiv:1812.01187, D).

    Args:
        channels: of the input.
        inner: of the 3x3.
        width: of the result.
        stride: by how much the block shrinks the map, both ways.
        activation: behind the sum, a name of `nn.mlp.ACTIVATIONS`.

    Raises:
        ConfigError: an unknown activation.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        width: int,
        *,
        stride: int = 1,
        downsampling: Downsampling = "middle",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        first = stride if downsampling == "first" else 1
        middle = stride if downsampling == "middle" else 1
        self.pooled = stride if downsampling == "pooled" else 1
        self.layers = nn.ModuleList(
            [
                ConvNorm(channels, inner, 1, stride=first, activation=INNER),
                ConvNorm(inner, inner, 3, stride=middle, activation=INNER),
                ConvNorm(inner, width, 1),
            ]
        )
        changes = stride > 1 or channels != width
        self.shortcut = _shortcut(channels, width, stride // self.pooled, changes=changes)
        self.activation = activation_named(activation)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B E U V"]:
        passed = x if self.shortcut is None else self.shortcut(self._pool(x))  # [B E U V]
        first, middle, last = self.layers
        return self.activation(last(self._pool(middle(first(x)))) + passed)  # [B E U V]

    def _pool(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C U V"]:
        return x if self.pooled == 1 else F.avg_pool2d(x, self.pooled)


def raster(maps: Float[Tensor, "B D H W"]) -> Float[Tensor, "B P D"]:
    """A feature map as one vector a place, row by row."""
    return maps.flatten(2).transpose(1, 2)  # [B P D]


def _shortcut(channels: int, width: int, stride: int, *, changes: bool) -> ConvNorm | None:
    return ConvNorm(channels, width, 1, stride=stride) if changes else None
