"""LiT in big_vision's layout: a ViT with a class token, and flaxformer's BERT.

`img` is the locked tower, with a `head` in the first release alone; `txt` holds `BertEncoder_0` and
a `head` over its [CLS]; `t` is the logarithm of the scale, and `b`, where there is one, SigLIP's
bias. BERT's kernels have two axes, so that no shape tells the number of heads: 64 numbers for each,
as in every BERT that was released. Its norms have an epsilon of 1e-12, its GELU is Flax's.
Source: big_vision/models/proj/flaxformer/bert.py, and architectures/bert of
https://github.com/google/flaxformer; the older release in vit_jax/models_lit.py of
https://github.com/google-research/vision_transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sightline.core.errors import CheckpointError
from sightline.hub.layouts.big_vision_tree import ACTIVATION, named, shape_of
from sightline.hub.layouts.big_vision_vit import vit_config, vit_state
from sightline.models.keys import KeyTable

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.models.bert import BERTConfig
    from sightline.models.lit import LiTConfig

_HEAD_SIZE = 64
_BERT = "txt.BertEncoder_0"
_EMBEDDERS = f"{_BERT}.embedder.embedders"
_LAYER, _BLOCK = f"{_BERT}.encoder_block.layer_sequence.layers_*", "text.transformer.blocks.*"
_KEYS = KeyTable(
    {
        f"{_EMBEDDERS}_token_ids.embedding": "text.embedding.weight",
        f"{_EMBEDDERS}_position_ids.embedding": "text.positions",
        f"{_EMBEDDERS}_segment_ids.embedding": "text.segments.weight",
        f"{_BERT}.layer_norm.*": "text.norm_in.*",
        f"{_LAYER}.attention_block.attention_layer.query.*": f"{_BLOCK}.attention.q.*",
        f"{_LAYER}.attention_block.attention_layer.key.*": f"{_BLOCK}.attention.k.*",
        f"{_LAYER}.attention_block.attention_layer.value.*": f"{_BLOCK}.attention.v.*",
        f"{_LAYER}.attention_block.dense_layer.*": f"{_BLOCK}.attention.out.*",
        f"{_LAYER}.attention_block.layer_norm.*": f"{_BLOCK}.norm1.*",
        f"{_LAYER}.mlp_block.mlp.dense_layer.*": f"{_BLOCK}.mlp.fc1.*",
        f"{_LAYER}.mlp_block.dense_layer.*": f"{_BLOCK}.mlp.fc2.*",
        f"{_LAYER}.mlp_block.layer_norm.*": f"{_BLOCK}.norm2.*",
        "img.head.*": "image_head.*",
        "txt.head.*": "text_head.*",
        "t": "logit_scale",
        "b": "logit_bias",
    }
)


def is_lit(tree: Mapping[str, Tensor]) -> bool:
    """Whether these are the two towers of a LiT with BERT."""
    return any(name.startswith(f"{_BERT}.") for name in tree)


def lit_config(tree: Mapping[str, Tensor]) -> LiTConfig:
    """LiT's configuration, read off the shapes.

    Raises:
        CheckpointError: parts are missing, or towers that no system here has.
    """
    from sightline.models.lit import LiTConfig

    image, text = vit_config(_image(tree)), bert_config(tree)
    if image.pooler:
        raise CheckpointError(
            "a tanh layer over the class token ('img/pre_logits'): LiT's vector is the token as it "
            "is, and no system here has both"
        )
    return LiTConfig(
        "vit", image, "bert", text,
        image_head=shape_of(tree, "img.head.kernel", 2)[1] if "img.head.kernel" in tree else 0,
        score="sigmoid" if "b" in tree else "softmax",
        max_tokens=min(16, text.context_length),
    )  # fmt: skip


def bert_config(tree: Mapping[str, Tensor]) -> BERTConfig:
    """The text tower's configuration.

    Raises:
        CheckpointError: parts are missing, or a width that is not whole heads.
    """
    from sightline.models.bert import BERTConfig

    vocabulary, width = shape_of(tree, f"{_EMBEDDERS}_token_ids.embedding", 2)
    if width % _HEAD_SIZE:
        raise CheckpointError(
            f"a BERT of width {width}: its heads have {_HEAD_SIZE} numbers each, which do not "
            "divide it"
        )
    layers = _LAYER.partition("*")[0]
    numbers = {name.removeprefix(layers).split(".")[0] for name in tree if name.startswith(layers)}
    return BERTConfig(
        width=width,
        depth=len(numbers),
        num_heads=width // _HEAD_SIZE,
        mlp_width=shape_of(tree, f"{layers}0.mlp_block.mlp.dense_layer.kernel", 2)[1],
        vocab_size=vocabulary,
        context_length=shape_of(tree, f"{_EMBEDDERS}_position_ids.embedding", 2)[0],
        segments=shape_of(tree, f"{_EMBEDDERS}_segment_ids.embedding", 2)[0],
        activation=ACTIVATION,
        pooling="cls",
        pooler=False,
    )


def lit_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Arrays in torch's order of axes to the tensors of `models.lit.LiT`."""
    tower = {f"image.{name}": tensor for name, tensor in vit_state(_image(tensors)).items()}
    image = {f"img.{name}" for name in _image(tensors)}
    own = named(_KEYS.read({n: t for n, t in tensors.items() if n not in image}))
    for name in ("logit_scale", "logit_bias"):
        if name in own:
            own[name] = own[name].reshape(())
    return tower | own


def _image(tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The locked tower alone, without the linear layer over its vector."""
    below = {n.removeprefix("img."): a for n, a in tree.items() if n.startswith("img.")}
    return {name: array for name, array in below.items() if not name.startswith("head.")}
