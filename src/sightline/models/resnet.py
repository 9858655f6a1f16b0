"""ResNet: Deep Residual Learning for Image Recognition.

Kaiming He, Xiangyu Zhang, Shaoqing Ren and Jian Sun, CVPR 2016, https://arxiv.org/abs/1512.03385.
Reads and writes the layout of the `microsoft/resnet-*` checkpoints (transformers' ResNetModel and
ResNetForImageClassification).

A 7x7 convolution and a maximum shrink the picture four times; then four stages of blocks, each of
which adds what its two or three convolutions found to what came in, so that a hundred layers train
like ten. Each stage but the first halves the map and doubles the channels. The last map, row by
row, is one vector for every 32 x 32 pixels, and its average is the picture's vector.

Differs from the paper: a bottleneck takes its stride on the 3x3 convolution and not on the first
1x1 ("v1.5", after the release of Gross and Wilber, 2016,
https://github.com/facebookarchive/fb.resnet.torch), because the published weights do; a checkpoint
that says `downsample_in_bottleneck` gets the paper's. The classification layer is kept where a
checkpoint has one, with its labels; `pooled` is its input.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import CheckpointError
from sightline.core.interfaces import System
from sightline.core.outputs import EncodedImage
from sightline.inputs.preprocessing import ImageSpec
from sightline.models.keys import KeyTable, with_batch_counters
from sightline.models.published import (
    as_written,
    field,
    integers,
    match_labels,
    pair,
    read_labels,
    write_labels,
)
from sightline.nn.convolutions import BasicBlock, Bottleneck, ConvNorm, raster
from sightline.nn.linear import Conv2d, Linear

MOST_BLOCKS = 1000
"""Blocks; the deepest network of the paper (section 4.2) has 400."""

CROP = 0.875
"""Side of the crop as a fraction of the shorter side before it: 224 of 256 (section 3.4)."""


@dataclass(frozen=True)
class ResNetConfig:
    """Everything that shapes the network."""

    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    """Channels of each stage's result."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each stage."""
    block: str = "bottleneck"
    """"bottleneck" or "basic"."""
    stem_width: int = 64
    channels: int = 3
    activation: str = "relu"
    stride_in_first_stage: bool = False
    """Whether the first stage halves the map too."""
    stride_on_1x1: bool = False
    """Whether a bottleneck takes its stride on its first convolution, as the paper has it."""
    labels: tuple[str, ...] = ()
    """What the classification layer tells apart; empty where there is none."""
    image_size: tuple[int, int] = (224, 224)
    """What pictures are prepared to where a folder does not say; the network takes any size."""

    @property
    def width(self) -> int:
        """D of the tokens and of `pooled`."""
        return self.widths[-1]

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels from one token to the next; each sees far more than that."""
        side = 2 ** (len(self.widths) + 1 + self.stride_in_first_stage)
        return side, side


# Table 1 of the paper.
_BASIC = ResNetConfig(widths=(64, 128, 256, 512), block="basic")
VARIANTS = {
    "18": replace(_BASIC, depths=(2, 2, 2, 2)),
    "34": replace(_BASIC, depths=(3, 4, 6, 3)),
    "50": ResNetConfig(depths=(3, 4, 6, 3)),
    "101": ResNetConfig(depths=(3, 4, 23, 3)),
    "152": ResNetConfig(depths=(3, 8, 36, 3)),
}

TINY = ResNetConfig(
    widths=(16, 24, 40), depths=(2, 1, 3), stem_width=6, image_size=(40, 56)
)  # fmt: skip


class ResNet(nn.Module):
    """Pixels to one vector for every 32 x 32 of them and one a picture."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = ConvNorm(
            config.channels, config.stem_width, 7, stride=2, activation=config.activation
        )
        ends = pairwise((config.stem_width, *config.widths))
        self.stacks = nn.ModuleList(
            _stack(config, channels, width, depth, 1 + (number > 0 or config.stride_in_first_stage))
            for number, ((channels, width), depth) in enumerate(
                zip(ends, config.depths, strict=True)
            )
        )
        self.classifier = Linear(config.width, len(config.labels)) if config.labels else None
        self._initialise()

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> EncodedImage:
        """Pictures of any size.

        Returns:
            tokens float[B, P, D], the last map row by row; pooled float[B, D], its average.
        """
        tokens = raster(self.stages(pixels)[-1])  # [B P D]
        return EncodedImage(tokens=tokens, pooled=tokens.mean(dim=1))

    def stages(self, pixels: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The map behind each stage, float[B, D, H, W] at 1/4, 1/8, 1/16 and 1/32 of the size."""
        maps = [F.max_pool2d(self.stem(pixels), 3, stride=2, padding=1)]  # [B D H/4 W/4]
        for stack in self.stacks:
            maps.append(stack(maps[-1]))
        return maps[1:]

    def class_logits(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        """The classification layer over the average, one logit for each of the labels."""
        assert self.classifier is not None, "this checkpoint has no classification layer"
        return self.classifier(pooled)

    def _initialise(self) -> None:
        """He et al. 2015 (arXiv:1502.01852), equation 10, as section 3.4 of the paper asks."""
        for module in self.modules():
            if isinstance(module, Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stack(
    config: ResNetConfig, channels: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    """The blocks of one stage; the first changes size and channels."""
    blocks = []
    for number in range(depth):
        before, step = (width, 1) if number else (channels, stride)
        blocks.append(
            BasicBlock(before, width, stride=step, activation=config.activation)
            if config.block == "basic"
            else Bottleneck(
                before,
                width // 4,
                width,
                stride=step,
                downsampling="first" if config.stride_on_1x1 else "middle",
                activation=config.activation,
            )
        )
    return nn.Sequential(*blocks)


def preprocessing(config: ResNetConfig) -> ImageSpec:
    """Shortest side to 8/7 of the size, bicubic, then the centre; ImageNet's mean and deviation."""
    height, width = config.image_size
    return ImageSpec(
        height=height,
        width=width,
        fit="shortest_then_crop",
        shortest=int(min(height, width) / CROP),
        filter="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def read_config(config: Mapping[str, Any]) -> ResNetConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    Raises:
        CheckpointError: stages that do not add up, or labels that are not numbered.
    """
    read = ResNetConfig(
        widths=integers(config, "hidden_sizes", (256, 512, 1024, 2048)),
        depths=integers(config, "depths", (3, 4, 6, 3)),
        block=field(config, "layer_type", "bottleneck"),
        stem_width=field(config, "embedding_size", 64),
        channels=field(config, "num_channels", 3),
        activation=field(config, "hidden_act", "relu"),
        stride_in_first_stage=field(config, "downsample_in_first_stage", False),
        stride_on_1x1=field(config, "downsample_in_bottleneck", False),
        labels=read_labels(config, "ResNetForImageClassification"),
        image_size=pair(config, "image_size", 224),
    )
    if read.block not in ("basic", "bottleneck"):
        raise CheckpointError(
            f"config.json: 'layer_type' is {read.block!r}, where 'basic' or 'bottleneck' is "
            "expected"
        )
    if len(read.widths) != len(read.depths) or not 1 <= sum(read.depths) <= MOST_BLOCKS:
        raise CheckpointError(
            f"config.json: 'hidden_sizes' has {len(read.widths)} stages and 'depths' is "
            f"{list(read.depths)[:8]}: a depth for each stage is expected, at most {MOST_BLOCKS} "
            "in all"
        )
    return read


def match_config(config: ResNetConfig, state: Mapping[str, Tensor]) -> ResNetConfig:
    """The config with a classification layer exactly where the published tensors have one."""
    return replace(config, labels=match_labels(config.labels, state, "classifier.1.weight"))


def write_config(config: ResNetConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    return {
        "architectures": ["ResNetForImageClassification" if config.labels else "ResNetModel"],
        "model_type": "resnet",
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "layer_type": config.block,
        "embedding_size": config.stem_width,
        "num_channels": config.channels,
        "hidden_act": config.activation,
        "downsample_in_first_stage": config.stride_in_first_stage,
        "downsample_in_bottleneck": config.stride_on_1x1,
        "image_size": as_written(config.image_size),
        **write_labels(config.labels),
    }


_BLOCK, _OWN = "encoder.stages.*.layers.*", "stacks.*.*"
KEYS = KeyTable(
    {
        "embedder.embedder.convolution.weight": "stem.conv.weight",
        "embedder.embedder.normalization.*": "stem.norm.*",
        f"{_BLOCK}.layer.*.convolution.weight": f"{_OWN}.layers.*.conv.weight",
        f"{_BLOCK}.layer.*.normalization.*": f"{_OWN}.layers.*.norm.*",
        f"{_BLOCK}.shortcut.convolution.weight": f"{_OWN}.shortcut.conv.weight",
        f"{_BLOCK}.shortcut.normalization.*": f"{_OWN}.shortcut.norm.*",
        "classifier.1.*": "classifier.*",
    }
)


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors to ours; the classification class writes a `resnet.` level, the trunk none.

    Statistics that were counted before PyTorch 0.4.1 come without their counter, which is 0 then.
    """
    trunk = {key.removeprefix("resnet."): tensor for key, tensor in state.items()}
    return with_batch_counters(KEYS.read(trunk))


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the published tensors."""
    prefix = "resnet." if "classifier.weight" in state else ""
    return {
        key if key.startswith("classifier.") else prefix + key: tensor
        for key, tensor in KEYS.write(state).items()
    }


SYSTEM = System(
    name="resnet",
    title="ResNet (He et al. 2016)",
    role="image encoder",
    model_types=("resnet",),
    build=ResNet,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=preprocessing,
    text=None,
    match_config=match_config,
    variants=VARIANTS,
    tiny=TINY,
    known_names={
        "resnet-18": "microsoft/resnet-18",
        "resnet-34": "microsoft/resnet-34",
        "resnet-50": "microsoft/resnet-50",
        "resnet-101": "microsoft/resnet-101",
        "resnet-152": "microsoft/resnet-152",
    },
)
