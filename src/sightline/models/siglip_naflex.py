"""SigLIP 2 NaFlex: one encoder for pictures of every aspect ratio and of several sizes.

Michael Tschannen, Alexey Gritsenko, Xiao Wang et al. 2025, https://arxiv.org/abs/2502.14786; the
two ideas behind it are NaViT (Dehghani et al. 2023, https://arxiv.org/abs/2307.06304) and FlexiViT
(Beyer et al. 2023, https://arxiv.org/abs/2212.08013). Reads and writes the layout of the
`google/siglip2-*-naflex` checkpoints (transformers' Siglip2Model).

A picture is resized, its aspect kept as well as whole patches allow, to at most a given number of
patches, and its patches arrive cut out and flattened. The learned positions of a square grid are
resampled to each picture's own grid. Attention and pooling leave the padding of a batch out, so a
picture's vector does not depend on its neighbours. The text tower and the loss are SigLIP's.

Two layouts give the same vectors: `PatchBatch` has one picture a row and padding behind it;
`PackedPatches` puts several pictures into one row, each seeing only itself, which wastes less of
a training step when sizes differ. The number of patches is free at every call: more of them read
small print and small things, fewer are fast.

Differs from the paper: nothing in the network; `PackedPatches` is an addition of this library.
Differs from transformers: a batch is padded to its longest picture and not to the largest number
allowed; where the pooling head is left out of a configuration, the checkpoint is refused, since
pictures and sentences then have no common space.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError
from sightline.core.interfaces import PackedPatches, PatchBatch, System
from sightline.core.outputs import EncodedImage
from sightline.inputs.naflex import NaFlexSpec
from sightline.inputs.tokenizers import TextSpec
from sightline.models.published import field, pair, read_transformer, section, write_transformer
from sightline.models.siglip import (
    SigmoidPairs,
    TextTower,
    TextTowerConfig,
    read_state,
    read_text_config,
    write_state,
    write_text_config,
)
from sightline.nn.blocks import Block, Transformer
from sightline.nn.masks import present_keys, same_owner
from sightline.nn.norms import LayerNorm, at_least_float32
from sightline.nn.patches import FlatPatchEmbedding
from sightline.nn.pooling import AttentionPool
from sightline.nn.positions import GridPositions
from sightline.nn.ragged import add_at, gather_rows, places_of, spread

Pictures = PatchBatch | PackedPatches


@dataclass(frozen=True)
class ImageTowerConfig:
    """The vision transformer over patches that arrive cut out."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    patch_size: int = 16
    num_patches: int = 256
    """Patches of the square grid that the table of positions is made for."""
    channels: int = 3
    activation: str = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the table of positions."""
        side = math.isqrt(self.num_patches)
        return side, side


@dataclass(frozen=True)
class SigLIPNaFlexConfig:
    """Both towers; the text is projected to `embedding_width`, the image tower's own width."""

    image: ImageTowerConfig
    text: TextTowerConfig

    @property
    def embedding_width(self) -> int:
        return self.image.width


# The two published NaFlex checkpoints have the towers of SigLIP 2's B/16 and So400m/16.
_SHAPES: dict[str, dict[str, Any]] = {
    "B/16": {"width": 768, "depth": 12, "num_heads": 12, "mlp_width": 3072},
    "So400m/16": {"width": 1152, "depth": 27, "num_heads": 16, "mlp_width": 4304},
}
VARIANTS = {
    name: SigLIPNaFlexConfig(
        ImageTowerConfig(**shape), TextTowerConfig(**shape, vocab_size=256000, context_length=64)
    )
    for name, shape in _SHAPES.items()
}

TINY = SigLIPNaFlexConfig(
    ImageTowerConfig(
        width=24, depth=3, num_heads=3, mlp_width=40, patch_size=4, num_patches=9, channels=3
    ),
    TextTowerConfig(width=20, depth=3, num_heads=2, mlp_width=36, vocab_size=99, context_length=9),
)


class ImageTower(nn.Module):
    """Flattened patches to one vector a patch and one a picture."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.patches = FlatPatchEmbedding(config.patch_size, config.channels, config.width)
        self.positions = GridPositions(config.grid, config.width, filter="bilinear", antialias=True)
        self.transformer = Transformer(
            Block(
                config.width,
                config.num_heads,
                config.mlp_width,
                activation=config.activation,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.depth)
        )
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self.pool = AttentionPool(
            config.width,
            config.num_heads,
            config.mlp_width,
            activation=config.activation,
            norm_eps=config.norm_eps,
        )

    def forward(self, pictures: Pictures) -> EncodedImage:
        """One vector a patch and one a picture, the same for both layouts.

        The patches of a picture lie at the head of its row of `tokens`; what stands behind them
        in a batch of mixed sizes has no meaning.

        Raises:
            ConfigError: patches of another size, or grids that do not fit the patches.
        """
        grids: list[tuple[int, int]] = [(int(r), int(c)) for r, c in pictures.grids.tolist()]
        if isinstance(pictures, PackedPatches):
            return self._packed(*pictures, grids)
        return self._one_a_row(*pictures, grids)

    def _one_a_row(
        self,
        patches: Float[Tensor, "B P values"],
        present: Bool[Tensor, "B P"],
        shapes: Int[Tensor, "B 2"],
        grids: list[tuple[int, int]],
    ) -> EncodedImage:
        _check_counts(present.sum(dim=1), shapes)
        x = self._embed(patches, present.flatten().nonzero()[:, 0], grids)  # [B P D]
        tokens = self.norm(self.transformer(x, present_keys(present)))  # [B P D]
        return EncodedImage(tokens=tokens, pooled=self.pool(tokens, present))

    def _packed(
        self,
        patches: Float[Tensor, "R L values"],
        owners: Int[Tensor, "R L"],
        shapes: Int[Tensor, "B 2"],
        grids: list[tuple[int, int]],
    ) -> EncodedImage:
        found = torch.bincount(owners.flatten() + 1, minlength=len(shapes) + 1)[1:]  # [B]
        _check_counts(found, shapes)
        lengths = shapes.prod(dim=1)  # [B]
        places = places_of(owners, int(lengths.sum()))  # [S]
        x = self._embed(patches, places, grids)  # [R L D]
        x = self.transformer(x, same_owner(owners))  # [R L D]
        rows, present = spread(gather_rows(x, places), lengths)  # [B P D], [B P]
        tokens = self.norm(rows)  # [B P D]
        return EncodedImage(tokens=tokens, pooled=self.pool(tokens, present))

    def _embed(
        self,
        patches: Float[Tensor, "R L values"],
        places: Int[Tensor, " S"],
        grids: list[tuple[int, int]],
    ) -> Float[Tensor, "R L D"]:
        """Each patch projected, plus its position on the grid of its own picture."""
        x = at_least_float32(self.patches(patches))  # [R L D]
        return add_at(x, places, self.positions.each(grids))  # [R L D]


class SigLIPNaFlex(SigmoidPairs):
    """Pictures of any shape and sentences; both layouts of a batch give the same vectors."""

    def __init__(self, config: SigLIPNaFlexConfig) -> None:
        super().__init__(ImageTower(config.image), TextTower(config.text, config.embedding_width))


def _check_counts(found: Int[Tensor, " B"], shapes: Int[Tensor, "B 2"]) -> None:
    """A mask or an owner that contradicts the grids would be answered wrongly, not noticed."""
    if (shapes < 1).any() or found.tolist() != shapes.prod(dim=1).tolist():
        raise ConfigError(
            f"grids {shapes.tolist()[:4]} do not fit rows of {found.tolist()[:4]} patches: the "
            "mask must mark rows x columns patches of each picture"
        )


def preprocessing(config: SigLIPNaFlexConfig) -> NaFlexSpec:
    """As many patches as the table of positions has, unless the checkpoint says otherwise."""
    return NaFlexSpec(patch_size=config.image.patch_size, max_num_patches=config.image.num_patches)


def text(config: SigLIPNaFlexConfig) -> TextSpec:
    """Always padded to the full context, as in training."""
    return TextSpec(max_length=config.text.context_length, padding="max_length")


def read_config(config: Mapping[str, Any]) -> SigLIPNaFlexConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    Raises:
        CheckpointError: a tower without its pooling head, or sizes that no grid has.
    """
    vision, words = section(config, "vision_config"), section(config, "text_config")
    if not field(vision, "vision_use_head", True):
        raise CheckpointError(
            "config.json: 'vision_use_head' is false, and without the pooling head pictures have "
            "no vector to compare with sentences: use a checkpoint that has it"
        )
    patch, other = pair(vision, "patch_size", 16)
    num_patches = field(vision, "num_patches", 256)
    if patch != other or patch < 1:
        raise CheckpointError(f"config.json: 'patch_size' is {patch} x {other}; allowed: a square")
    if num_patches < 1 or math.isqrt(num_patches) ** 2 != num_patches:
        raise CheckpointError(
            f"config.json: 'num_patches' is {num_patches}; allowed: a square number such as 256, "
            "the size of the table of positions"
        )
    return SigLIPNaFlexConfig(
        image=ImageTowerConfig(
            **read_transformer(vision, 768, 12, 12, 3072, "gelu_pytorch_tanh", 1e-6),
            patch_size=patch,
            num_patches=num_patches,
            channels=field(vision, "num_channels", 3),
        ),
        text=read_text_config(words),
    )


def write_config(config: SigLIPNaFlexConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    image = config.image
    return {
        "architectures": ["Siglip2Model"],
        "model_type": "siglip2",
        "vision_config": {
            "model_type": "siglip2_vision_model",
            **write_transformer(image),
            "patch_size": image.patch_size,
            "num_patches": image.num_patches,
            "num_channels": image.channels,
        },
        "text_config": write_text_config(config.text, config.embedding_width, "siglip2_text_model"),
    }


SYSTEM = System(
    name="siglip2-naflex",
    title="SigLIP 2 NaFlex (Tschannen et al. 2025): every aspect ratio, several resolutions",
    role="dual encoder",
    model_types=("siglip2",),
    build=SigLIPNaFlex,
    read_config=read_config,
    write_config=write_config,
    # The published names are SigLIP's; only the shape of the patch projection differs.
    read_state=read_state,
    write_state=write_state,
    preprocessing=preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    default_template="This is a photo of {}.",
    score="sigmoid",
    known_names={
        "SigLIP2-B/16-NaFlex": "google/siglip2-base-patch16-naflex",
        "SigLIP2-So400m/16-NaFlex": "google/siglip2-so400m-patch16-naflex",
    },
)
