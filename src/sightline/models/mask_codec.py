"""The mask codec of PaliGemma: a mask in 16 tokens of a vocabulary of 128.

Jia Ning, Chen Li, Zheng Zhang, Zigang Geng, Qi Dai, Kun He and Han Hu, "All in Tokens: Unifying
Output Space of Visual Tasks via Soft Token" 2023, https://arxiv.org/abs/2301.02229 (section 3.1; a
VQ-VAE, https://arxiv.org/abs/1711.00937), with the code of https://github.com/SwinTransformer/AiT.
PaliGemma (Lucas Beyer et al. 2024, https://arxiv.org/abs/2407.07726) writes its masks with these
tokens, `<seg000>` to `<seg127>`, and with weights trained on Open Images: `vae-oid.npz` of
https://github.com/google-research/big_vision, read by its pp/proj/paligemma/segmentation.py and
evaluators/proj/paligemma/transfers/segmentation.py. `sightline.load("vae-oid.npz")` reads it, and
`sightline convert FOLDER --to ait` writes such a file.

What is inside a box is squeezed to 64 x 64 values of -1 outside to 1 inside. Four convolutions,
each of which halves the side, two residual blocks and a 1x1 convolution leave a vector for each of
4 x 4 places, and the nearest codeword's index is the place's token, row by row. The decoder goes
the same way back; above 0 is inside. Neither side has a norm, and the residual blocks no activation
behind the sum.

Differs from the paper: nothing in the network. Its convolutions keep float32 whatever type a model
is loaded in: an index is a decision, which rounding would turn over, and the network is too small
to gain from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sightline.core.errors import CheckpointError
from sightline.core.interfaces import System
from sightline.core.outputs import CodedMasks
from sightline.models.keys import KeyTable
from sightline.models.published import field
from sightline.nn.codebooks import Codebook, straight_through
from sightline.nn.convolutions import raster

MOST_BLOCKS = 100
"""Residual blocks or halvings; the published codec has two and four."""


@dataclass(frozen=True)
class MaskCodecConfig:
    """Everything that shapes the network; the defaults are the published size."""

    mask_size: int = 64
    """Pixels of a side."""
    halvings: int = 4
    """Convolutions of stride 2: the side of the grid of tokens is `mask_size` / 2^halvings."""
    width: int = 128
    """Channels at the grid; each step towards the mask has half of them."""
    depth: int = 2
    """Residual blocks on each side."""
    codewords: int = 128
    code_width: int = 512

    @property
    def grid(self) -> int:
        """Tokens in a row."""
        return self.mask_size // 2**self.halvings

    @property
    def tokens(self) -> int:
        """Tokens of a mask."""
        return self.grid**2

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels behind each halving."""
        return tuple(self.width >> step for step in reversed(range(self.halvings)))


# vae/configs/insseg/ait_insseg_vqvae.py of the code; big_vision's decoder has the same widths. The
# small one is trained on drawn parks, whose objects are few of kind.
VARIANTS = {
    "oid": MaskCodecConfig(),
    "park": MaskCodecConfig(width=64, code_width=64),
}

TINY = MaskCodecConfig(
    mask_size=32, halvings=3, width=12, depth=1, codewords=11, code_width=6
)  # fmt: skip


class ResBlock(nn.Module):
    """Two 3x3 convolutions and one of 1x1, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(width, width, 3, padding=1),
                nn.Conv2d(width, width, 3, padding=1),
                nn.Conv2d(width, width, 1),
            ]
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        first, second, last = self.layers
        return x + last(F.relu(second(F.relu(first(x)))))  # [B C H W]


class Encoder(nn.Module):
    """Masks to one vector for each place of the grid."""

    def __init__(self, config: MaskCodecConfig) -> None:
        super().__init__()
        before = (1, *config.widths)
        self.down = nn.ModuleList(
            nn.Conv2d(channels, width, 4, stride=2, padding=1)
            for channels, width in zip(before, config.widths, strict=False)
        )
        self.blocks = nn.ModuleList(ResBlock(config.width) for _ in range(config.depth))
        self.out = nn.Conv2d(config.width, config.code_width, 1)

    def forward(self, masks: Float[Tensor, "B H W"]) -> Float[Tensor, "B P D"]:
        x = masks[:, None]  # [B 1 H W]
        for halve in self.down:
            x = F.relu(halve(x))  # [B C H/2 W/2]
        for block in self.blocks:
            x = block(x)
        return raster(self.out(x))  # [B P D]


class Decoder(nn.Module):
    """Codewords on the grid to masks."""

    def __init__(self, config: MaskCodecConfig) -> None:
        super().__init__()
        self.grid = config.grid
        widths = tuple(reversed(config.widths))
        before = (config.width, *widths)
        self.enter = nn.Conv2d(config.code_width, config.width, 1)
        self.blocks = nn.ModuleList(ResBlock(config.width) for _ in range(config.depth))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1)
            for channels, width in zip(before, widths, strict=False)
        )
        self.out = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, codewords: Float[Tensor, "B P D"]) -> Float[Tensor, "B H W"]:
        x = codewords.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # [B D grid grid]
        x = F.relu(self.enter(x))  # [B C grid grid]
        for block in self.blocks:
            x = block(x)
        for double in self.up:
            x = F.relu(double(x))  # [B C/2 2H 2W]
        return self.out(x).squeeze(1)  # [B H W]


class MaskCodec(nn.Module):
    """Masks to tokens and back."""

    def __init__(self, config: MaskCodecConfig) -> None:
        super().__init__()
        self.mask_size = config.mask_size
        self.encoder = Encoder(config)
        self.codebook = Codebook(config.codewords, config.code_width)
        self.decoder = Decoder(config)

    def encode(self, masks: Float[Tensor, "B H W"]) -> Int[Tensor, "B P"]:
        """Masks of -1 outside to 1 inside, to the tokens of the grid, row by row."""
        return self.codebook.nearest(self.encoder(masks))  # [B P]

    def decode(self, indices: Int[Tensor, "B P"]) -> Float[Tensor, "B H W"]:
        """Tokens 0 to codewords - 1 to masks of about -1 to 1, above 0 inside."""
        return self.decoder(self.codebook.look_up(indices))  # [B H W]

    def forward(self, masks: Float[Tensor, "B H W"]) -> CodedMasks:
        """There and back, with the gradient that passes the rounding by."""
        features = self.encoder(masks)  # [B P D]
        indices = self.codebook.nearest(features)  # [B P]
        codewords = self.codebook.look_up(indices)  # [B P D]
        back = self.decoder(straight_through(features, codewords))  # [B H W]
        return CodedMasks(back, indices, features, codewords)


def preprocessing(config: MaskCodecConfig) -> None:
    """It sees masks and no pictures: `inputs.box_masks` cuts and pastes them."""
    return


def read_config(config: Mapping[str, Any]) -> MaskCodecConfig:
    """A config.json to ours.

    Raises:
        CheckpointError: sizes that do not divide, or more blocks than any codec has.
    """
    read = MaskCodecConfig(
        mask_size=field(config, "mask_size", 64),
        halvings=field(config, "num_halvings", 4),
        width=field(config, "hidden_size", 128),
        depth=field(config, "num_residual_blocks", 2),
        codewords=field(config, "codebook_size", 128),
        code_width=field(config, "codebook_width", 512),
    )
    check_config(read)
    return read


def check_config(config: MaskCodecConfig) -> None:
    """Refuse what is no codec.

    Raises:
        CheckpointError: sizes that do not divide, or more blocks than any codec has.
    """
    halvings = config.halvings
    if not 1 <= halvings <= MOST_BLOCKS or config.depth > MOST_BLOCKS:
        raise CheckpointError(
            f"a mask codec of {halvings} halvings and {config.depth} residual blocks: 1 to "
            f"{MOST_BLOCKS} halvings and at most {MOST_BLOCKS} blocks are expected"
        )
    if config.mask_size % 2**halvings or config.width % 2 ** (halvings - 1) or not config.grid:
        raise CheckpointError(
            f"a mask codec with masks of {config.mask_size} pixels and {config.width} channels: "
            f"{halvings} halvings need a multiple of {2**halvings} and of {2 ** (halvings - 1)}"
        )
    if min(config.width, config.codewords, config.code_width) < 1:
        raise CheckpointError(
            f"a mask codec with {config.codewords} codewords of {config.code_width} numbers and "
            f"{config.width} channels: each is at least 1"
        )


def write_config(config: MaskCodecConfig) -> dict[str, Any]:
    """The inverse of `read_config`."""
    return {
        "model_type": "mask_codec",
        "mask_size": config.mask_size,
        "num_halvings": config.halvings,
        "hidden_size": config.width,
        "num_residual_blocks": config.depth,
        "codebook_size": config.codewords,
        "codebook_width": config.code_width,
    }


def keys(config: MaskCodecConfig) -> KeyTable:
    """The names of AiT's tensors, numbered through each side's layers with their activations."""
    steps, depth = config.halvings, config.depth
    names = {"_vq_vae._embedding": "codebook.vectors"}
    for step in range(steps):
        names[f"encoder.{2 * step}.*"] = f"encoder.down.{step}.*"
        names[f"decoder.{2 + depth + 2 * step}.*"] = f"decoder.up.{step}.*"
    for block in range(depth):
        for place, layer in enumerate((0, 2, 4)):
            own = f"blocks.{block}.layers.{place}.*"
            names[f"encoder.{2 * steps + block}.net.{layer}.*"] = f"encoder.{own}"
            names[f"decoder.{2 + block}.net.{layer}.*"] = f"decoder.{own}"
    names["decoder.0.*"] = "decoder.enter.*"
    names[f"encoder.{2 * steps + depth}.*"] = "encoder.out.*"
    names[f"decoder.{2 + depth + 2 * steps}.*"] = "decoder.out.*"
    # What the running averages of the codebook need to go on learning.
    return KeyTable(names, ignored=("_vq_vae._ema_cluster_size", "_vq_vae._ema_w"))


def bound(config: MaskCodecConfig) -> System:
    """The system with the spelling of that many layers."""
    table = keys(config)
    return replace(SYSTEM, read_state=table.read, write_state=table.write)


SYSTEM = System(
    name="mask_codec",
    title="The mask codec of PaliGemma (All in Tokens, Ning et al. 2023)",
    role="mask codec",
    model_types=("mask_codec",),
    build=MaskCodec,
    read_config=read_config,
    write_config=write_config,
    read_state=keys(VARIANTS["oid"]).read,
    write_state=keys(VARIANTS["oid"]).write,
    preprocessing=preprocessing,
    text=None,
    variants=VARIANTS,
    tiny=TINY,
    bind=bound,
)
