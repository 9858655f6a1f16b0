"""Swin: Hierarchical Vision Transformer using Shifted Windows.

Ze Liu, Yutong Lin, Yue Cao, Han Hu, Yixuan Wei, Zheng Zhang, Stephen Lin and Baining Guo, ICCV
2021, https://arxiv.org/abs/2103.14030. Reads and writes the layout of the `microsoft/swin-*`
checkpoints (transformers' SwinModel; the trunk of SwinForImageClassification).

Attention over all patches of a fine grid is too much to compute, so each patch of 4 x 4 pixels
attends to the 7 x 7 patches of its own window only. Every second block moves the windows by half
their side, so that what was parted meets; what the move brings together from opposite borders is
masked. Where patches stand in a window is told by a learned number for each step between two of
them, which is added to their product. After each stage four neighbours become one vector of twice
the width: the grid shrinks as in a convolutional network, the cost grows with the picture's area
and not with its square, and every stage gives a feature map. The mean of the last map is the
picture's vector.

Differs from the paper: nothing in the network. Pictures of any size are taken: patches, windows
and merging fill up with zeros at the right and the bottom, as the published classes do; a grid
smaller than a window shrinks the window, which then reads the shorter steps of the same table. The
classification layer belongs to a closed set of labels and is left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import CheckpointError
from sightline.core.interfaces import System
from sightline.core.outputs import EncodedImage
from sightline.inputs.preprocessing import ImageSpec
from sightline.models.keys import KeyTable, join_thirds, split_thirds
from sightline.models.published import as_written, field, integers, pair
from sightline.nn.linear import Conv2d, Linear
from sightline.nn.norms import LayerNorm
from sightline.nn.patches import PatchEmbedding
from sightline.nn.positions import GridPositions
from sightline.nn.stochastic_depth import linear_rates
from sightline.nn.windows import PatchMerging, RelativePositionBias, WindowBlock

MOST_BLOCKS = 1000
"""Blocks; the deepest network of the paper (table 7) has 24."""


@dataclass(frozen=True)
class SwinConfig:
    """Everything that shapes the network."""

    first_width: int
    """C of the paper: D of the first stage; each further one doubles it."""
    depths: tuple[int, ...]
    """Blocks of each stage."""
    num_heads: tuple[int, ...]
    """Of each stage."""
    window: int = 7
    """Side of a window in patches."""
    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (4, 4)
    channels: int = 3
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-5
    qkv_bias: bool = True
    dropout: float = 0.0
    branch_drop: float = 0.1
    """Probability that an example skips the last block's branches while training; it grows from 0
    at the first block (section 4.1)."""
    absolute_positions: bool = False
    """Whether patches also carry a learned position (table 4; no published checkpoint does)."""

    @property
    def width(self) -> int:
        """D of the tokens and of `pooled`."""
        return self.first_width * 2 ** (len(self.depths) - 1)

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)


# Section 3.3 of the paper; table 1 has them at 384 pixels with windows of 12 patches, too.
_B = SwinConfig(first_width=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))
_L = SwinConfig(first_width=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48))
_LARGER: dict[str, Any] = {"window": 12, "image_size": (384, 384)}
VARIANTS = {
    "T": SwinConfig(first_width=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "S": SwinConfig(first_width=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "B": _B,
    "B/384": replace(_B, **_LARGER),
    "L": _L,
    "L/384": replace(_L, **_LARGER),
}

TINY = SwinConfig(
    first_width=12, depths=(2, 3, 2), num_heads=(2, 3, 4), window=3, image_size=(44, 58),
    mlp_ratio=2.5,
)  # fmt: skip


class Swin(nn.Module):
    """Pixels to a map for each stage, one vector a place of the last one, and one a picture."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        first = config.first_width
        self.patches = PatchEmbedding(config.patch_size, config.channels, first, bias=True)
        self.norm_in = LayerNorm(first, eps=1e-5)
        self.positions = None
        if config.absolute_positions:
            self.positions = GridPositions(self.patches.grid(*config.image_size), first)
        self.dropout = config.dropout
        rates = iter(linear_rates(config.branch_drop, config.depth))
        stages = range(len(config.depths))
        self.stacks = nn.ModuleList(_stack(config, stage, rates) for stage in stages)
        self.mergings = nn.ModuleList(PatchMerging(first * 2**stage) for stage in stages[:-1])
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self._initialise()

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> EncodedImage:
        """Pictures of any size.

        Returns:
            tokens float[B, P, D], the last map row by row behind the last norm; pooled
            float[B, D], their mean.
        """
        last = self.stages(pixels)[-1].permute(0, 2, 3, 1)  # [B H/32 W/32 D]
        tokens = self.norm(last).flatten(1, 2)  # [B P D]
        return EncodedImage(tokens=tokens, pooled=tokens.mean(dim=1))

    def stages(self, pixels: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The map behind each stage, float[B, D, H, W] at 1/4, 1/8, 1/16 and 1/32 of the size."""
        maps = [self.stacks[0](self._patched(pixels))]  # [B H/4 W/4 D]
        for merging, stack in zip(self.mergings, self.stacks[1:], strict=True):
            maps.append(stack(merging(maps[-1])))
        return [x.permute(0, 3, 1, 2) for x in maps]

    def _patched(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ D"]:
        (high, wide), (height, width) = self.patches.patch_size, pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % wide, 0, -height % high))
        grid = self.patches.grid(*pixels.shape[-2:])
        x = self.norm_in(self.patches(pixels))  # [B P D]
        if self.positions is not None:
            x = x + self.positions(grid)
        return F.dropout(x, self.dropout, self.training).unflatten(1, grid)  # [B H/4 W/4 D]

    def _initialise(self) -> None:
        """As the released code: deviation 0.02, cut at 2."""
        for module in self.modules():
            if isinstance(module, (Linear, Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, RelativePositionBias):
                nn.init.trunc_normal_(module.table, std=0.02)
        if self.positions is not None:
            nn.init.trunc_normal_(self.positions.table, std=0.02)


def _stack(config: SwinConfig, stage: int, rates: Iterator[float]) -> nn.Sequential:
    """The blocks of one stage; every second one has its windows moved."""
    width = config.first_width * 2**stage
    return nn.Sequential(
        *(
            WindowBlock(
                width,
                config.num_heads[stage],
                int(config.mlp_ratio * width),
                side=config.window,
                shifted=index % 2 == 1,
                activation=config.activation,
                norm_eps=config.norm_eps,
                qkv_bias=config.qkv_bias,
                dropout=config.dropout,
                branch_drop=next(rates),
            )
            for index in range(config.depths[stage])
        )
    )


def preprocessing(config: SwinConfig) -> ImageSpec:
    """Squeezed to the exact size, bicubic; ImageNet's mean and deviation."""
    height, width = config.image_size
    return ImageSpec(
        height=height,
        width=width,
        fit="square",
        filter="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def read_config(config: Mapping[str, Any]) -> SwinConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    Raises:
        CheckpointError: stages that do not add up, or a window without places.
    """
    read = SwinConfig(
        first_width=field(config, "embed_dim", 96),
        depths=integers(config, "depths", (2, 2, 6, 2)),
        num_heads=integers(config, "num_heads", (3, 6, 12, 24)),
        window=field(config, "window_size", 7),
        image_size=pair(config, "image_size", 224),
        patch_size=pair(config, "patch_size", 4),
        channels=field(config, "num_channels", 3),
        mlp_ratio=field(config, "mlp_ratio", 4.0),
        activation=field(config, "hidden_act", "gelu"),
        norm_eps=field(config, "layer_norm_eps", 1e-5),
        qkv_bias=field(config, "qkv_bias", True),
        dropout=field(config, "hidden_dropout_prob", 0.0),
        branch_drop=field(config, "drop_path_rate", 0.1),
        absolute_positions=field(config, "use_absolute_embeddings", False),
    )
    if len(read.depths) != len(read.num_heads) or not 1 <= read.depth <= MOST_BLOCKS:
        raise CheckpointError(
            f"config.json: 'num_heads' has {len(read.num_heads)} stages and 'depths' is "
            f"{list(read.depths)[:8]}: a depth for each stage is expected, at most {MOST_BLOCKS} "
            "in all"
        )
    if not 1 <= read.window <= 64:
        raise CheckpointError(
            f"config.json: 'window_size' is {read.window}, where 1 to 64 patches are expected"
        )
    return read


def write_config(config: SwinConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    return {
        "architectures": ["SwinModel"],
        "model_type": "swin",
        "embed_dim": config.first_width,
        "hidden_size": config.width,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "num_layers": len(config.depths),
        "window_size": config.window,
        "image_size": as_written(config.image_size),
        "patch_size": as_written(config.patch_size),
        "num_channels": config.channels,
        "mlp_ratio": config.mlp_ratio,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "qkv_bias": config.qkv_bias,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": config.branch_drop,
        "use_absolute_embeddings": config.absolute_positions,
    }


_LAYER, _BLOCK = "encoder.layers.*.blocks.*", "stacks.*.*"
KEYS = KeyTable(
    {
        "embeddings.patch_embeddings.projection.*": "patches.projection.*",
        "embeddings.norm.*": "norm_in.*",
        "embeddings.position_embeddings": "positions.table",
        f"{_LAYER}.layernorm_before.*": f"{_BLOCK}.norm1.*",
        f"{_LAYER}.attention.self.query.*": f"{_BLOCK}.attention.q.*",
        f"{_LAYER}.attention.self.key.*": f"{_BLOCK}.attention.k.*",
        f"{_LAYER}.attention.self.value.*": f"{_BLOCK}.attention.v.*",
        f"{_LAYER}.attention.self.relative_position_bias_table": f"{_BLOCK}.position_bias.table",
        f"{_LAYER}.attention.output.dense.*": f"{_BLOCK}.attention.out.*",
        f"{_LAYER}.layernorm_after.*": f"{_BLOCK}.norm2.*",
        f"{_LAYER}.intermediate.dense.*": f"{_BLOCK}.mlp.fc1.*",
        f"{_LAYER}.output.dense.*": f"{_BLOCK}.mlp.fc2.*",
        "encoder.layers.*.downsample.*.*": "mergings.*.*.*",
        "layernorm.*": "norm.*",
    },
    ignored=(
        "classifier.*",  # answers about a closed set of labels
        "decoder.*.*",  # of masked image modelling, as the mask token
        "embeddings.mask_token",
        # Writers before version 5 stored these ranges as buffers.
        f"{_LAYER}.attention.self.relative_position_index",
    ),
)

_CLASS_KEYS = KeyTable(
    {
        f"{_LAYER}.attention.self.query.*": f"{_LAYER}.attention.q_proj.*",
        f"{_LAYER}.attention.self.key.*": f"{_LAYER}.attention.k_proj.*",
        f"{_LAYER}.attention.self.value.*": f"{_LAYER}.attention.v_proj.*",
        f"{_LAYER}.attention.output.dense.*": f"{_LAYER}.attention.o_proj.*",
        f"{_LAYER}.intermediate.dense.*": f"{_LAYER}.mlp.fc1.*",
        f"{_LAYER}.output.dense.*": f"{_LAYER}.mlp.fc2.*",
    }
)
"""Version 5 of transformers renamed its class's layers and kept the names of its files."""

_THIRDS = {
    f".attn.qkv.{kind}": (f".attn.q.{kind}", f".attn.k.{kind}", f".attn.v.{kind}")
    for kind in ("weight", "bias")
}
_RELEASED = "layers.*.blocks.*"
_RELEASED_KEYS = KeyTable(
    {
        "patch_embed.proj.*": "patches.projection.*",
        "patch_embed.norm.*": "norm_in.*",
        "absolute_pos_embed": "positions.table",
        f"{_RELEASED}.norm1.*": f"{_BLOCK}.norm1.*",
        f"{_RELEASED}.attn.q.*": f"{_BLOCK}.attention.q.*",
        f"{_RELEASED}.attn.k.*": f"{_BLOCK}.attention.k.*",
        f"{_RELEASED}.attn.v.*": f"{_BLOCK}.attention.v.*",
        f"{_RELEASED}.attn.relative_position_bias_table": f"{_BLOCK}.position_bias.table",
        f"{_RELEASED}.attn.proj.*": f"{_BLOCK}.attention.out.*",
        f"{_RELEASED}.norm2.*": f"{_BLOCK}.norm2.*",
        f"{_RELEASED}.mlp.fc1.*": f"{_BLOCK}.mlp.fc1.*",
        f"{_RELEASED}.mlp.fc2.*": f"{_BLOCK}.mlp.fc2.*",
        "layers.*.downsample.*.*": "mergings.*.*.*",
        "norm.*": "norm.*",
    },
    ignored=(
        "head.*",
        f"{_RELEASED}.attn.relative_position_index",
        f"{_RELEASED}.attn_mask",
    ),
)


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors to ours; classes with heads write a `swin.` level, the trunk none."""
    bare = {key.removeprefix("swin."): tensor for key, tensor in state.items()}
    own = KEYS.read(_CLASS_KEYS.write(bare))
    return _positions(own, written=False)


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the published tensors."""
    return KEYS.write(_positions(state, written=True))


def read_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the authors' own code (one matrix for queries, keys and values) to ours."""
    return _positions(_RELEASED_KEYS.read(split_thirds(state, _THIRDS)), written=False)


def write_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `read_released`, without the buffers that its constructor computes."""
    return join_thirds(_RELEASED_KEYS.write(_positions(state, written=True)), _THIRDS)


def _positions(state: Mapping[str, Tensor], *, written: bool) -> dict[str, Tensor]:
    """Absolute positions, where there are any, are published with a batch axis."""
    own = dict(state)
    table = own.get("positions.table")
    if table is not None:
        own["positions.table"] = table[None] if written else table.squeeze(0)
    return own


SYSTEM = System(
    name="swin",
    title="Swin (Liu et al. 2021)",
    role="image encoder",
    model_types=("swin",),
    class_names=_CLASS_KEYS.read,
    build=Swin,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=preprocessing,
    text=None,
    variants=VARIANTS,
    tiny=TINY,
    known_names={
        "Swin-T": "microsoft/swin-tiny-patch4-window7-224",
        "Swin-S": "microsoft/swin-small-patch4-window7-224",
        "Swin-B": "microsoft/swin-base-patch4-window7-224",
        "Swin-L": "microsoft/swin-large-patch4-window7-224",
    },
)
