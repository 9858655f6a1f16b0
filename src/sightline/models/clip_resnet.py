"""CLIP with ResNet towers: Learning Transferable Visual Models From Natural Language Supervision.

Alec Radford, Jong Wook Kim, Chris Hallacy, Aditya Ramesh et al., ICML 2021,
https://arxiv.org/abs/2103.00020, section 2.4. Reads and writes the layout of OpenAI's own files
RN50, RN101, RN50x4, RN50x16 and RN50x64 (https://github.com/openai/CLIP), which open_clip shares;
transformers has no class for them. `hub.openai_files` turns such a file into a model folder.

The text tower is that of `clip`. The image tower is a ResNet with three changes: three small
convolutions and an average take the place of the 7x7 and the maximum; where a block shrinks the
map, it averages 2 x 2 places where a ResNet skips three of four (anti-aliasing); and at the end the
average of the last map asks all places, itself included, what is in the picture, by attention with
learned positions. x4, x16 and x64 widen, deepen and sharpen at once (EfficientNet's rule).

Differs from the paper: the scale is not clamped here; training keeps it at most 100 (section 2.5)
by clamping the parameter between steps. Differs from the released code: pictures of other sizes are
taken too, with positions resampled to their grid.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError
from sightline.core.interfaces import System
from sightline.core.outputs import EncodedImage
from sightline.inputs.preprocessing import ImageSpec
from sightline.inputs.tokenizers import TextSpec
from sightline.models.clip import (
    SoftmaxPairs,
    TextTower,
    TextTowerConfig,
    read_text_config,
    write_text_config,
)
from sightline.models.keys import KeyTable, with_batch_counters
from sightline.models.openai_layout import (
    BOOKKEEPING,
    HEAD_SIZE,
    TEXT_KEYS,
    count,
    read_layout,
    shape_of,
    text_config_of,
    write_layout,
)
from sightline.models.published import as_written, field, integers, pair, section
from sightline.nn.convolutions import Bottleneck, ConvNorm, raster
from sightline.nn.linear import Linear
from sightline.nn.positions import GridPositions

STRIDE = 32
"""Pixels from one place of the last map to the next."""
EXPANSION = 4
"""Channels that a block gives for each that its 3x3 convolution has."""
MOST_BLOCKS = 1000


@dataclass(frozen=True)
class ImageTowerConfig:
    """The ResNet."""

    width: int
    """Channels behind the stem; the last map has 32 times as many."""
    depths: tuple[int, int, int, int]
    """Blocks of each stage."""
    image_size: tuple[int, int] = (224, 224)

    @property
    def map_width(self) -> int:
        """D: channels of the last map."""
        return self.width * 8 * EXPANSION

    @property
    def num_heads(self) -> int:
        """Heads of the attention pool, of 64 channels each."""
        return self.map_width // HEAD_SIZE

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels from one token to the next."""
        return STRIDE, STRIDE


@dataclass(frozen=True)
class CLIPResNetConfig:
    """Both towers and the space they meet in."""

    image: ImageTowerConfig
    text: TextTowerConfig
    embedding_width: int = 1024


def _variant(
    width: int, depths: tuple[int, int, int, int], side: int, embedding: int, text: int
) -> CLIPResNetConfig:
    return CLIPResNetConfig(
        ImageTowerConfig(width, depths, (side, side)),
        TextTowerConfig(text, 12, text // HEAD_SIZE, 4 * text, pad_id=0),
        embedding,
    )


# Table 19 of the paper.
VARIANTS = {
    "RN50": _variant(64, (3, 4, 6, 3), 224, 1024, 512),
    "RN101": _variant(64, (3, 4, 23, 3), 224, 512, 512),
    "RN50x4": _variant(80, (4, 6, 10, 6), 288, 640, 640),
    "RN50x16": _variant(96, (6, 8, 18, 8), 384, 768, 768),
    "RN50x64": _variant(128, (3, 15, 36, 10), 448, 1024, 1024),
}

TINY = CLIPResNetConfig(
    ImageTowerConfig(width=4, depths=(2, 1, 2, 1), image_size=(64, 96)),
    TextTowerConfig(
        width=20, depth=3, num_heads=2, mlp_width=36, vocab_size=99, context_length=11,
        eos_id=98, bos_id=97, pad_id=0,
    ),
    embedding_width=16,
)  # fmt: skip


class MeanQueryPool(nn.Module):
    """The average of all places attends to them and to itself (section 2.4 of the paper).

    The rows of the table of positions are the average's and then each place's. What the projection
    behind it does is the network's image projection.
    """

    def __init__(self, width: int, num_heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.positions = GridPositions(grid, width, prefix=1)
        self.q = Linear(width, width)
        self.k = Linear(width, width)
        self.v = Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "B P D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B D"]:
        """`grid`: rows and columns that the tokens came from."""
        mean = tokens.mean(dim=1, keepdim=True)  # [B 1 D]
        x = torch.cat([mean, tokens], dim=1) + self.positions(grid)  # [B 1+P D]
        # A row cut out of `x` would be multiplied in an order that depends on where the weight
        # lies in memory.
        query = x[:, :1].contiguous()  # [B 1 D]
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N 1 K] or [B N 1+P K]
            for part in (self.q(query), self.k(x), self.v(x))
        )
        return F.scaled_dot_product_attention(q, k, v).flatten(1)  # [B D]


class ImageTower(nn.Module):
    """Pixels to one vector for every 32 x 32 of them and one a picture."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        height, width = config.image_size
        if height % STRIDE or width % STRIDE:
            raise ConfigError(
                f"an image size of {height}x{width}: both sides must be multiples of {STRIDE}"
            )
        half = config.width // 2
        self.stem = nn.Sequential(
            ConvNorm(3, half, 3, stride=2, activation="relu"),
            ConvNorm(half, half, 3, activation="relu"),
            ConvNorm(half, config.width, 3, activation="relu"),
        )
        inner = [config.width * 2**stage for stage in range(4)]
        ends = pairwise((config.width, *(EXPANSION * channels for channels in inner)))
        self.stacks = nn.ModuleList(
            _stack(before, channels, depth, stride=1 + (channels > config.width))
            for (before, _), channels, depth in zip(ends, inner, config.depths, strict=True)
        )
        grid = (height // STRIDE, width // STRIDE)
        self.pool = MeanQueryPool(config.map_width, config.num_heads, grid)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> EncodedImage:
        """Tokens are the last map row by row; `pooled` is what the attention pool found in it.

        Raises:
            ConfigError: pictures with a side below 32 pixels.
        """
        last = self.stages(pixels)[-1]  # [B D H/32 W/32]
        rows, columns = last.shape[-2:]
        tokens = raster(last)  # [B P D]
        return EncodedImage(tokens=tokens, pooled=self.pool(tokens, (rows, columns)))

    def stages(self, pixels: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The map behind each stage, float[B, D, H, W] at 1/4, 1/8, 1/16 and 1/32 of the size.

        Raises:
            ConfigError: pictures with a side below 32 pixels.
        """
        height, width = pixels.shape[-2:]
        if min(height, width) < STRIDE:
            raise ConfigError(
                f"a picture of {height}x{width} pixels is smaller than {STRIDE}x{STRIDE}: resize "
                "it first"
            )
        maps = [F.avg_pool2d(self.stem(pixels), 2)]  # [B D H/4 W/4]
        for stack in self.stacks:
            maps.append(stack(maps[-1]))
        return maps[1:]


def _stack(channels: int, inner: int, depth: int, *, stride: int) -> nn.Sequential:
    """The blocks of one stage; the first changes size and channels."""
    width = EXPANSION * inner
    first = Bottleneck(channels, inner, width, stride=stride, downsampling="pooled")
    return nn.Sequential(first, *(Bottleneck(width, inner, width) for _ in range(depth - 1)))


class CLIPResNet(SoftmaxPairs):
    """Pictures and sentences in one space."""

    image: ImageTower
    text: TextTower

    def __init__(self, config: CLIPResNetConfig) -> None:
        super().__init__(
            ImageTower(config.image),
            TextTower(config.text),
            # the pool's last layer, which has a bias, unlike the projection of the ViT models
            Linear(config.image.map_width, config.embedding_width),
            Linear(config.text.width, config.embedding_width, bias=False),
        )
        self._initialise()

    def _initialise(self) -> None:
        """As the released code does: each block starts as its shortcut alone."""
        width = self.image_projection.in_features
        for name, parameter in self.image.named_parameters():
            if name.endswith("layers.2.norm.weight"):
                nn.init.zeros_(parameter)
        for layer in (self.image.pool.q, self.image.pool.k, self.image.pool.v):
            nn.init.normal_(layer.weight, std=width**-0.5)
        nn.init.normal_(self.image.pool.positions.table, std=width**-0.5)
        nn.init.normal_(self.image_projection.weight, std=width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=self.text.norm.weight.numel() ** -0.5)


def preprocessing(config: CLIPResNetConfig) -> ImageSpec:
    """Shortest side to the size, bicubic, then the centre; CLIP's mean and deviation."""
    height, width = config.image.image_size
    return ImageSpec(
        height=height,
        width=width,
        fit="shortest_then_crop",
        filter="bicubic",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )


def text(config: CLIPResNetConfig) -> TextSpec:
    """At most `context_length` ids, start and end of text included; the files lower-case."""
    return TextSpec(max_length=config.text.context_length, padding="longest")


def read_config(config: Mapping[str, Any]) -> CLIPResNetConfig:
    """A config.json of ours; no other writer makes one. Absent fields are those of RN50.

    Raises:
        CheckpointError: something else than four stages, or more blocks than any model has.
    """
    vision = section(config, "vision_config")
    depths = integers(vision, "depths", (3, 4, 6, 3))
    if len(depths) != 4 or sum(depths) > MOST_BLOCKS:
        raise CheckpointError(
            f"config.json: 'depths' is {list(depths)[:8]}, where four numbers are expected, at "
            f"most {MOST_BLOCKS} in all"
        )
    one, two, three, four = depths
    # OpenAI's sentences are filled up with id 0, where transformers' CLIP names 1; no vector tells
    # them apart, since both stand behind the end of text and below its id.
    words = {"pad_token_id": 0, **section(config, "text_config")}
    return CLIPResNetConfig(
        image=ImageTowerConfig(
            width=field(vision, "hidden_size", 64),
            depths=(one, two, three, four),
            image_size=pair(vision, "image_size", 224),
        ),
        text=read_text_config(words),
        embedding_width=field(config, "projection_dim", 1024),
    )


def write_config(config: CLIPResNetConfig) -> dict[str, Any]:
    """Ours to config.json, with CLIP's names where CLIP has the field."""
    return {
        "architectures": ["CLIPResNet"],
        "model_type": "clip_resnet",
        "projection_dim": config.embedding_width,
        "vision_config": {
            "hidden_size": config.image.width,
            "depths": list(config.image.depths),
            "image_size": as_written(config.image.image_size),
        },
        "text_config": write_text_config(config.text),
    }


def config_of(state: Mapping[str, Tensor], activation: str = "quick_gelu") -> CLIPResNetConfig:
    """The configuration read off the shapes of the tensors in OpenAI's layout.

    Args:
        state: tensors by OpenAI's names; the meta device will do.
        activation: of the text tower; OpenAI trained with "quick_gelu".

    Raises:
        CheckpointError: a tensor is missing, or heads of 64 channels or a square picture do not
            explain its shape.
    """
    width = shape_of(state, "visual.layer1.0.conv1.weight", 4)[0]
    places = shape_of(state, "visual.attnpool.positional_embedding", 2)[0]
    side = math.isqrt(places - 1)
    if side * side != places - 1:
        raise CheckpointError(
            f"'visual.attnpool.positional_embedding' has {places} rows: one for the average and a "
            "square grid are expected"
        )
    one, two, three, four = (count(state, f"visual.layer{n}.", 2) for n in range(1, 5))
    return CLIPResNetConfig(
        ImageTowerConfig(width, (one, two, three, four), (STRIDE * side, STRIDE * side)),
        text_config_of(state, activation),
        shape_of(state, "text_projection", 2)[1],
    )


def _stage_keys(stage: int) -> dict[str, str]:
    """OpenAI counts stages, convolutions and norms from 1."""
    published, own = f"visual.layer{stage + 1}.*", f"image.stacks.{stage}.*"
    pairs = {
        f"{published}.downsample.0.weight": f"{own}.shortcut.conv.weight",
        f"{published}.downsample.1.*": f"{own}.shortcut.norm.*",
    }
    for layer in range(3):
        pairs[f"{published}.conv{layer + 1}.weight"] = f"{own}.layers.{layer}.conv.weight"
        pairs[f"{published}.bn{layer + 1}.*"] = f"{own}.layers.{layer}.norm.*"
    return pairs


KEYS = KeyTable(
    {
        **{f"visual.conv{n + 1}.weight": f"image.stem.{n}.conv.weight" for n in range(3)},
        **{f"visual.bn{n + 1}.*": f"image.stem.{n}.norm.*" for n in range(3)},
        **{key: own for stage in range(4) for key, own in _stage_keys(stage).items()},
        "visual.attnpool.positional_embedding": "image.pool.positions.table",
        **{f"visual.attnpool.{part}_proj.*": f"image.pool.{part}.*" for part in "qkv"},
        "visual.attnpool.c_proj.*": "image_projection.*",
        **TEXT_KEYS,
    },
    ignored=BOOKKEEPING,
)


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's tensors to ours."""
    return with_batch_counters(read_layout(state, KEYS))


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to OpenAI's."""
    return write_layout(state, KEYS)


SYSTEM = System(
    name="clip_resnet",
    title="CLIP with ResNet towers (Radford et al. 2021)",
    role="dual encoder",
    model_types=("clip_resnet",),
    build=CLIPResNet,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    default_template="a photo of a {}.",
    score="softmax",
)
