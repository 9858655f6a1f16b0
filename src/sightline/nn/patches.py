"""A picture cut into patches, each projected to a vector."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Conv2d, Linear, product_type


class PatchEmbedding(nn.Module):
    """Non-overlapping patches through one linear map (Dosovitskiy et al. 2021, equation 1).

    What published networks have as a convolution whose kernel is its stride: each patch unfolded
    in (channel, row, column) order and multiplied, patches in raster order.
    """

    def __init__(
        self, patch_size: tuple[int, int], channels: int, width: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = Conv2d(channels, width, patch_size, stride=patch_size, bias=bias)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of whole patches in a picture of that size.

        What is left at the right and the bottom is not seen: SigLIP's So400m/14 was trained at
        384 pixels so, with 27 patches of 14 and 6 pixels over.

        Raises:
            ConfigError: the picture is smaller than one patch.
        """
        rows, columns = height // self.patch_size[0], width // self.patch_size[1]
        if not rows or not columns:
            raise ConfigError(
                f"a picture of {height}x{width} pixels is smaller than one patch of "
                f"{self.patch_size[0]}x{self.patch_size[1]}: resize it first"
            )
        return rows, columns

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P D"]:
        rows, columns = self.grid(*pixels.shape[-2:])
        tall, wide = self.patch_size
        whole = pixels[:, :, : rows * tall, : columns * wide]
        cut = whole.unflatten(3, (columns, wide)).unflatten(2, (rows, tall))  # [B C h tall w wide]
        flat = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B P C*tall*wide]
        weight = self.projection.weight
        # one product: a convolution's way back takes twenty times as long on a CPU
        return F.linear(flat.to(product_type(weight)), weight.flatten(1), self.projection.bias)


class FlatPatchEmbedding(nn.Module):
    """Patches that arrive cut out and flattened, through one linear map.

    Within a patch the numbers lie in (row, column, channel) order, where `PatchEmbedding`'s
    convolution has (channel, row, column).
    """

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.projection = Linear(patch_size * patch_size * channels, width)

    def forward(self, patches: Float[Tensor, "B P values"]) -> Float[Tensor, "B P D"]:
        """Patches of any batch layout.

        Raises:
            ConfigError: patches of another size than the network's.
        """
        expected, found = self.projection.in_features, patches.shape[-1]
        if found != expected:
            raise ConfigError(
                f"patches of {found} numbers arrived and this network takes {expected}: cut the "
                "pictures with the network's own patch size"
            )
        return self.projection(patches)  # [B P D]
