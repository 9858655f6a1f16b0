"""ViT in big_vision's layout: a network of its own, or the image tower of LiT."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING

from sightline.core.errors import CheckpointError
from sightline.hub.layouts.big_vision_tree import (
    ACTIVATION,
    EPS,
    block_keys,
    named,
    shape_of,
    side_of,
    transformer_shape,
)
from sightline.models.keys import KeyTable

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.models.vit import ViTConfig

_VIT = KeyTable(
    {
        "embedding.*": "patches.projection.*",
        "cls": "class_token",
        "pos_embedding": "positions.table",
        **block_keys("Transformer", "transformer"),
        "Transformer.encoder_norm.*": "norm.*",
        "pre_logits.*": "pooler.*",
        "head.*": "classifier.*",
    }
)


def vit_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Arrays in torch's order of axes to the tensors of `models.vit.ViT`."""
    import torch

    own = named(_VIT.read(tensors))
    if "class_token" in own:
        own["class_token"] = own["class_token"].flatten()
    if "positions.table" in own:
        table = own["positions.table"].squeeze(0)
        side = isqrt(len(table))
        if side * side == len(table):  # added to the patches only
            table = torch.cat([torch.zeros_like(table[:1]), table])
        own["positions.table"] = table
    return own


def vit_config(tree: Mapping[str, Tensor]) -> ViTConfig:
    """ViT's configuration, read off the shapes.

    Raises:
        CheckpointError: no class token, or a head behind the tanh layer, which no system here has.
    """
    from sightline.models.vit import ViTConfig

    if "cls" not in tree:
        raise CheckpointError(
            "no class token ('cls'): vision transformers that average or pool by attention are "
            "not read here on their own"
        )
    if "pre_logits.kernel" in tree and "head.kernel" in tree:
        raise CheckpointError(
            "a classification layer behind the tanh layer ('pre_logits'): no system here has both"
        )
    tall, wide, channels, width = shape_of(tree, "embedding.kernel", 4)
    places = shape_of(tree, "pos_embedding", 3)[1]
    side = side_of(places if isqrt(places) ** 2 == places else places - 1)
    shape = transformer_shape(tree, "Transformer")
    classes = shape_of(tree, "head.kernel", 2)[1] if "head.kernel" in tree else 0
    return ViTConfig(
        width=width,
        depth=shape["depth"],
        num_heads=shape["num_heads"],
        mlp_width=shape["mlp_width"],
        image_size=(side * tall, side * wide),
        patch_size=(tall, wide),
        channels=channels,
        activation=ACTIVATION,
        norm_eps=EPS,
        pooler="pre_logits.kernel" in tree,
        labels=tuple(f"LABEL_{number}" for number in range(classes)),
    )
