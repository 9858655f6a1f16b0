"""ViT: An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale.

Alexey Dosovitskiy, Lucas Beyer, Alexander Kolesnikov, Dirk Weissenborn, Xiaohua Zhai et al.,
ICLR 2021, https://arxiv.org/abs/2010.11929. Reads and writes the layout of the published
`google/vit-*` checkpoints (transformers' ViTModel and ViTForImageClassification).

A picture is cut into patches of P x P pixels, each projected to a vector by one linear map; a
learned class token goes in front, a learned position is added to every token, and a pre-norm
transformer mixes them. The class token behind the last norm is the picture's vector.

Differs from the paper: nothing in the network. The tanh "pooler" over the class token belongs to
the classification head of pre-training; it is kept where a checkpoint has one, so that saving
loses nothing, and `pooled` is the class token in front of it, which linear probes use. The single
linear layer of fine-tuning (section 3.2) is kept where a checkpoint has one, with its labels, and
reads `pooled` too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.interfaces import System
from sightline.core.outputs import EncodedImage
from sightline.inputs.preprocessing import ImageSpec
from sightline.models.keys import KeyTable
from sightline.models.published import (
    as_written,
    field,
    match_labels,
    pair,
    read_labels,
    read_transformer,
    write_labels,
    write_transformer,
)
from sightline.nn.blocks import Block, Transformer
from sightline.nn.linear import Linear
from sightline.nn.norms import LayerNorm
from sightline.nn.patch_dropout import PatchDropout
from sightline.nn.patches import PatchEmbedding
from sightline.nn.positions import GridPositions

_CLASSIFIER = "ViTForImageClassification"
"""The published class with a classification layer; built without a pooler."""


@dataclass(frozen=True)
class ViTConfig:
    """Everything that shapes the network."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    channels: int = 3
    activation: str = "gelu"
    norm_eps: float = 1e-12
    qkv_bias: bool = True
    dropout: float = 0.0
    pooler: bool = True
    """Whether the checkpoint carries the tanh layer over the class token."""
    labels: tuple[str, ...] = ()
    """What the classification layer tells apart; empty where there is none."""


# Table 1 of the paper; Ti and S from Touvron et al. 2021 (arXiv:2012.12877), table 1.
_SIZES = {
    "Ti": ViTConfig(width=192, depth=12, num_heads=3, mlp_width=768),
    "S": ViTConfig(width=384, depth=12, num_heads=6, mlp_width=1536),
    "B": ViTConfig(width=768, depth=12, num_heads=12, mlp_width=3072),
    "L": ViTConfig(width=1024, depth=24, num_heads=16, mlp_width=4096),
    "H": ViTConfig(width=1280, depth=32, num_heads=16, mlp_width=5120),
}
VARIANTS = {
    f"{size}/{patch}": replace(_SIZES[size], patch_size=(patch, patch))
    for size, patch in [
        ("Ti", 16),
        ("S", 16),
        ("B", 16),
        ("B", 32),
        ("L", 16),
        ("L", 32),
        ("H", 14),
    ]
}

TINY = ViTConfig(
    width=24, depth=3, num_heads=3, mlp_width=40, image_size=(24, 36), patch_size=(12, 12)
)


class ViT(nn.Module):
    """Pixels to one vector a patch and one a picture."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patches = PatchEmbedding(config.patch_size, config.channels, config.width, bias=True)
        self.class_token = nn.Parameter(torch.zeros(config.width))
        grid = self.patches.grid(*config.image_size)
        self.positions = GridPositions(grid, config.width, prefix=1)
        self.patch_dropout = PatchDropout(prefix=1)
        self.transformer = Transformer(
            Block(
                config.width,
                config.num_heads,
                config.mlp_width,
                activation=config.activation,
                norm_eps=config.norm_eps,
                qkv_bias=config.qkv_bias,
                dropout=config.dropout,
            )
            for _ in range(config.depth)
        )
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        self.pooler = Linear(config.width, config.width) if config.pooler else None
        self.classifier = Linear(config.width, len(config.labels)) if config.labels else None
        self._initialise()

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> EncodedImage:
        """Pictures of any size that divides into patches; positions are resampled to the grid.

        Returns:
            tokens float[B, 1+P, D] with the class token first, pooled float[B, D] its copy.
        """
        patches = self.patches(pixels)  # [B P D]
        class_token = self.class_token.expand(len(patches), 1, -1)  # [B 1 D]
        grid = self.patches.grid(*pixels.shape[-2:])
        x = torch.cat([class_token, patches], dim=1) + self.positions(grid)  # [B 1+P D]
        tokens = self.norm(self.transformer(self.patch_dropout(x)))  # [B 1+P D]
        return EncodedImage(tokens=tokens, pooled=tokens[:, 0])

    def pre_logits(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The tanh layer of pre-training over the class token (section 3.1 of the paper)."""
        assert self.pooler is not None, "this checkpoint has no pooler"
        return torch.tanh(self.pooler(pooled))

    def class_logits(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        """The classification layer over the class token, one logit for each of the labels."""
        assert self.classifier is not None, "this checkpoint has no classification layer"
        return self.classifier(pooled)

    def _initialise(self) -> None:
        nn.init.normal_(self.positions.table, std=0.02)
        for module in self.modules():
            if isinstance(module, Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def preprocessing(config: ViTConfig) -> ImageSpec:
    """Squeezed to the exact size, bilinear, to -1..1 (no crop)."""
    height, width = config.image_size
    return ImageSpec(
        height=height,
        width=width,
        fit="square",
        filter="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def read_config(config: Mapping[str, Any]) -> ViTConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    Raises:
        CheckpointError: labels that are not numbered.
    """
    return ViTConfig(
        **read_transformer(config, 768, 12, 12, 3072, "gelu", 1e-12),
        image_size=pair(config, "image_size", 224),
        patch_size=pair(config, "patch_size", 16),
        channels=field(config, "num_channels", 3),
        qkv_bias=field(config, "qkv_bias", True),
        dropout=field(config, "hidden_dropout_prob", 0.0),
        pooler=_CLASSIFIER not in (config.get("architectures") or ()),
        labels=read_labels(config, _CLASSIFIER),
    )


def match_config(config: ViTConfig, state: Mapping[str, Tensor]) -> ViTConfig:
    """The config with exactly the heads that the published tensors have.

    Trunks are published under the name of either class, with and without the tanh layer.
    """
    return replace(
        config,
        pooler=any(key.endswith("pooler.dense.weight") for key in state),
        labels=match_labels(config.labels, state, "classifier.weight"),
    )


def write_config(config: ViTConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    return {
        "architectures": [_CLASSIFIER if config.labels else "ViTModel"],
        "model_type": "vit",
        **write_transformer(config),
        "image_size": as_written(config.image_size),
        "patch_size": as_written(config.patch_size),
        "num_channels": config.channels,
        "qkv_bias": config.qkv_bias,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        **write_labels(config.labels),
    }


_LAYER, _BLOCK = "encoder.layer.*", "transformer.blocks.*"
KEYS = KeyTable(
    {
        "embeddings.cls_token": "class_token",
        "embeddings.position_embeddings": "positions.table",
        "embeddings.patch_embeddings.projection.*": "patches.projection.*",
        f"{_LAYER}.layernorm_before.*": f"{_BLOCK}.norm1.*",
        f"{_LAYER}.attention.attention.query.*": f"{_BLOCK}.attention.q.*",
        f"{_LAYER}.attention.attention.key.*": f"{_BLOCK}.attention.k.*",
        f"{_LAYER}.attention.attention.value.*": f"{_BLOCK}.attention.v.*",
        f"{_LAYER}.attention.output.dense.*": f"{_BLOCK}.attention.out.*",
        f"{_LAYER}.layernorm_after.*": f"{_BLOCK}.norm2.*",
        f"{_LAYER}.intermediate.dense.*": f"{_BLOCK}.mlp.fc1.*",
        f"{_LAYER}.output.dense.*": f"{_BLOCK}.mlp.fc2.*",
        "layernorm.*": "norm.*",
        "pooler.dense.*": "pooler.*",
        "classifier.*": "classifier.*",
    }
)


_CLASS_LAYER = "layers.*"
_CLASS_KEYS = KeyTable(
    {
        f"{_LAYER}.attention.attention.query.*": f"{_CLASS_LAYER}.attention.q_proj.*",
        f"{_LAYER}.attention.attention.key.*": f"{_CLASS_LAYER}.attention.k_proj.*",
        f"{_LAYER}.attention.attention.value.*": f"{_CLASS_LAYER}.attention.v_proj.*",
        f"{_LAYER}.attention.output.dense.*": f"{_CLASS_LAYER}.attention.o_proj.*",
        f"{_LAYER}.intermediate.dense.*": f"{_CLASS_LAYER}.mlp.fc1.*",
        f"{_LAYER}.output.dense.*": f"{_CLASS_LAYER}.mlp.fc2.*",
        f"{_LAYER}.layernorm_before.*": f"{_CLASS_LAYER}.layernorm_before.*",
        f"{_LAYER}.layernorm_after.*": f"{_CLASS_LAYER}.layernorm_after.*",
    }
)
"""Version 5 of transformers renamed its class and kept the names of its files."""


def class_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors by the names that transformers' class has in memory."""
    level = "vit." if any(key.startswith("vit.") for key in state) else ""
    inner = _CLASS_KEYS.read({key.removeprefix("vit."): tensor for key, tensor in state.items()})
    return {n if n.startswith("classifier.") else level + n: tensor for n, tensor in inner.items()}


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors to ours; the classification class writes a `vit.` level, the trunk none."""
    bare = {key.removeprefix("vit."): tensor for key, tensor in state.items()}
    own = KEYS.read(_CLASS_KEYS.write(bare))
    for name in ("class_token", "positions.table"):
        if name in own:
            own[name] = own[name].squeeze(0)  # published with a batch axis
    if "class_token" in own:
        own["class_token"] = own["class_token"].squeeze(0)
    return own


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the published tensors."""
    own = dict(state)
    own["class_token"] = own["class_token"][None, None]
    own["positions.table"] = own["positions.table"][None]
    prefix = "vit." if "classifier.weight" in own else ""
    return {
        key if key.startswith("classifier.") else prefix + key: tensor
        for key, tensor in KEYS.write(own).items()
    }


SYSTEM = System(
    name="vit",
    title="ViT (Dosovitskiy et al. 2021)",
    role="image encoder",
    model_types=("vit",),
    build=ViT,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=preprocessing,
    text=None,
    match_config=match_config,
    class_names=class_names,
    variants=VARIANTS,
    tiny=TINY,
    known_names={
        "ViT-B/16-in21k": "google/vit-base-patch16-224-in21k",
        "ViT-L/16-in21k": "google/vit-large-patch16-224-in21k",
        "ViT-H/14-in21k": "google/vit-huge-patch14-224-in21k",
    },
)
