"""A picture cut into patches, each projected to a vector."""

from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Conv2d, Linear


class PatchEmbedding(nn.Module):
    """Non-overlapping patches through one linear map (Dosovitskiy et al. 2021, equation 1).

    A convolution whose kernel is its stride: the same numbers as unfolding each patch in
    (channel, row, column) order and multiplying, with patches in raster order.
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
        self.grid(*pixels.shape[-2:])
        return self.projection(pixels).flatten(2).transpose(1, 2)  # [B P D]


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
