"""big_vision's layout (https://github.com/google-research/big_vision): one .npz of a tree.

Names are paths ("params/img/Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"). Against ours:

- a dense kernel is (in, out) and is transposed; a convolution is (height, width, in, out);
- query, key and value kernels are (in, heads, head size), the output kernel (heads, head size,
  out), so that the number of heads is in the shapes;
- a network trained with `scan` has one `encoderblock` whose arrays have a first axis of blocks;
- the class token has no position of its own unless there is one row more than patches.

Only read: SigLIP with both towers (`img`, `txt`, `t`, `b`) and ViT with a class token, also in the
older spelling of its authors (`posembed_input`, `MultiHeadDotProductAttention_1`). Norms have
Flax's epsilon 1e-6, GELU is Flax's, the tanh form. The tokenizer is the one beside the file.
Source: big_vision/models/vit.py and models/proj/image_text/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError
from sightline.hub.layouts.detect import weight_file
from sightline.hub.layouts.table import Layout
from sightline.models.keys import KeyTable

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents
    from sightline.models.siglip import SigLIPConfig
    from sightline.models.vit import ViTConfig

_ACTIVATION, _EPS = "gelu_pytorch_tanh", 1e-6
_OLDER = {
    "MultiHeadDotProductAttention_1.": "MultiHeadDotProductAttention_0.",
    "LayerNorm_2.": "LayerNorm_1.",
    "MlpBlock_3.": "MlpBlock_0.",
    "Transformer.posembed_input.pos_embedding": "pos_embedding",
}
"""Names of the ViT paper's own code to those of big_vision."""


def _block_keys(published: str, own: str) -> dict[str, str]:
    layer, block, attention = f"{published}.encoderblock_*", f"{own}.blocks.*", "attention"
    parts = {"query": "q", "key": "k", "value": "v", "out": "out"}
    return {
        f"{layer}.LayerNorm_0.*": f"{block}.norm1.*",
        **{
            f"{layer}.MultiHeadDotProductAttention_0.{part}.*": f"{block}.{attention}.{mine}.*"
            for part, mine in parts.items()
        },
        f"{layer}.LayerNorm_1.*": f"{block}.norm2.*",
        f"{layer}.MlpBlock_0.Dense_0.*": f"{block}.mlp.fc1.*",
        f"{layer}.MlpBlock_0.Dense_1.*": f"{block}.mlp.fc2.*",
    }


_VIT = KeyTable(
    {
        "embedding.*": "patches.projection.*",
        "cls": "class_token",
        "pos_embedding": "positions.table",
        **_block_keys("Transformer", "transformer"),
        "Transformer.encoder_norm.*": "norm.*",
        "pre_logits.*": "pooler.*",
        "head.*": "classifier.*",
    }
)
_POOL = "img.MAPHead_0"
_SIGLIP = KeyTable(
    {
        "img.embedding.*": "image.patches.projection.*",
        "img.pos_embedding": "image.positions.table",
        **_block_keys("img.Transformer", "image.transformer"),
        "img.Transformer.encoder_norm.*": "image.norm.*",
        f"{_POOL}.probe": "image.pool.probe",
        f"{_POOL}.MultiHeadDotProductAttention_0.query.*": "image.pool.q.*",
        f"{_POOL}.MultiHeadDotProductAttention_0.key.*": "image.pool.k.*",
        f"{_POOL}.MultiHeadDotProductAttention_0.value.*": "image.pool.v.*",
        f"{_POOL}.MultiHeadDotProductAttention_0.out.*": "image.pool.out.*",
        f"{_POOL}.LayerNorm_0.*": "image.pool.norm.*",
        f"{_POOL}.MlpBlock_0.Dense_0.*": "image.pool.mlp.fc1.*",
        f"{_POOL}.MlpBlock_0.Dense_1.*": "image.pool.mlp.fc2.*",
        "txt.Embed_0.embedding": "text.embedding.weight",
        "txt.pos_embedding": "text.positions",
        **_block_keys("txt.Encoder_0", "text.transformer"),
        "txt.Encoder_0.encoder_norm.*": "text.norm.*",
        "txt.head.*": "text.head.*",
        "t": "logit_scale",
        "b": "logit_bias",
    }
)


def read(path: Path, allow_pickle: bool) -> Contents:
    """An .npz file, or the folder that holds it and nothing else of weights.

    Raises:
        CheckpointError: a broken or hostile file, or a network that no system here is.
    """
    from sightline.hub.contents import assembled
    from sightline.hub.layouts.files import tokenizer_beside
    from sightline.hub.layouts.npz import read_npz
    from sightline.inputs.processors import Processor, image_processor
    from sightline.models.table import system

    file = weight_file(path)
    assert file is not None, "found by its weight file"
    tree = unrolled(read_npz(file))
    two = "img.embedding.kernel" in tree
    entry = system("siglip" if two else "vit")
    try:
        tensors = {name: _turned(name, array) for name, array in tree.items()}
        config: Any = siglip_config(tree) if two else vit_config(tree)
        own = _siglip_state(tensors) if two else _vit_state(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: arrays of unexpected shapes ({reason})") from None
    words = None
    if entry.text is not None:
        words = tokenizer_beside(file.parent, entry.text(config), config.text.vocab_size)
    processor = Processor(image_processor(entry.preprocessing(config)), words, str(file))
    return assembled("big_vision", entry, config, own, processor, file)


def unrolled(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tree with dots for slashes, without the levels in front, one block at a time.

    Names of the older spelling become the newer ones.
    """
    names = {name.replace("/", "."): array for name, array in arrays.items()}
    for level in ("opt.target.", "params."):
        if any(name.startswith(level) for name in names):
            names = {n.removeprefix(level): a for n, a in names.items() if n.startswith(level)}
    tree: dict[str, Tensor] = {}
    for name, array in names.items():
        for older, newer in _OLDER.items():
            name = name.replace(older, newer)
        if ".encoderblock." in name:
            for number, part in enumerate(array):
                tree[name.replace(".encoderblock.", f".encoderblock_{number}.")] = part
        else:
            tree[name] = array
    return tree


def _turned(name: str, array: Tensor) -> Tensor:
    """One array in torch's order of axes; biases of heads joined."""
    if name.endswith(("query.kernel", "key.kernel", "value.kernel")):
        array = array.flatten(1).T
    elif name.endswith("out.kernel") and array.ndim == 3:
        array = array.flatten(0, 1).T
    elif name.endswith("kernel"):
        array = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.T
    elif name.endswith(("query.bias", "key.bias", "value.bias")):
        array = array.flatten()
    return array.contiguous()


def _named(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flax's kernels and scales are torch's weights."""
    return {re.sub(r"\.(kernel|scale)$", ".weight", name): array for name, array in own.items()}


def _siglip_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    own = _named(_SIGLIP.read(tensors))
    for kind in ("weight", "bias"):
        if f"image.pool.k.{kind}" in own and f"image.pool.v.{kind}" in own:
            parts = [own.pop(f"image.pool.{part}.{kind}") for part in "kv"]
            own[f"image.pool.kv.{kind}"] = torch.cat(parts)
    for name in ("image.positions.table", "text.positions"):
        if name in own:
            own[name] = own[name].squeeze(0)
    if "image.pool.probe" in own:
        own["image.pool.probe"] = own["image.pool.probe"].flatten()
    for name in ("logit_scale", "logit_bias"):
        if name in own:
            own[name] = own[name].reshape(1)
    return own


def _vit_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    own = _named(_VIT.read(tensors))
    if "class_token" in own:
        own["class_token"] = own["class_token"].flatten()
    if "positions.table" in own:
        table = own["positions.table"].squeeze(0)
        side = isqrt(len(table))
        if side * side == len(table):  # added to the patches only
            table = torch.cat([torch.zeros_like(table[:1]), table])
        own["positions.table"] = table
    return own


def siglip_config(tree: Mapping[str, Tensor]) -> SigLIPConfig:
    """SigLIP's configuration, read off the shapes.

    Raises:
        CheckpointError: parts are missing, or a tower that is no SigLIP's.
    """
    from sightline.models.siglip import SigLIPConfig, TextTowerConfig

    if "img.MAPHead_0.probe" not in tree or "txt.Embed_0.embedding" not in tree:
        raise CheckpointError(
            "two towers, but no SigLIP: its image tower pools by attention (MAPHead_0) and its "
            "text tower embeds words (txt/Embed_0); others are not read here"
        )
    vocabulary, width = _shape(tree, "txt.Embed_0.embedding", 2)
    text = TextTowerConfig(
        width=width,
        **_blocks(tree, "txt.Encoder_0"),
        vocab_size=vocabulary,
        context_length=_shape(tree, "txt.pos_embedding", 3)[1],
        activation=_ACTIVATION,
        norm_eps=_EPS,
    )
    return SigLIPConfig(_image_tower(tree), text)


def _image_tower(tree: Mapping[str, Tensor]) -> Any:
    from sightline.models.siglip import VARIANTS, ImageTowerConfig

    tall, wide, channels, width = _shape(tree, "img.embedding.kernel", 4)
    places = _shape(tree, "img.pos_embedding", 3)[1]
    side = _side(places)
    tower = ImageTowerConfig(
        width=width,
        **_blocks(tree, "img.Transformer"),
        patch_size=(tall, wide),
        image_size=(side * tall, side * wide),
        channels=channels,
        activation=_ACTIVATION,
        norm_eps=_EPS,
    )
    # So400m/14 was trained at 384 pixels, of which 27 patches of 14 leave 6 over: a published size
    # with this grid is the one that was meant.
    for known in (variant.image for variant in VARIANTS.values()):
        grid = tuple(n // p for n, p in zip(known.image_size, known.patch_size, strict=True))
        if grid == (side, side) and replace(tower, image_size=known.image_size) == known:
            return known
    return tower


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
    tall, wide, channels, width = _shape(tree, "embedding.kernel", 4)
    places = _shape(tree, "pos_embedding", 3)[1]
    side = _side(places if isqrt(places) ** 2 == places else places - 1)
    blocks = _blocks(tree, "Transformer")
    classes = _shape(tree, "head.kernel", 2)[1] if "head.kernel" in tree else 0
    return ViTConfig(
        width=width,
        depth=blocks["depth"],
        num_heads=blocks["num_heads"],
        mlp_width=blocks["mlp_width"],
        image_size=(side * tall, side * wide),
        patch_size=(tall, wide),
        channels=channels,
        activation=_ACTIVATION,
        norm_eps=_EPS,
        pooler="pre_logits.kernel" in tree,
        labels=tuple(f"LABEL_{number}" for number in range(classes)),
    )


def _blocks(tree: Mapping[str, Tensor], where: str) -> dict[str, int]:
    prefix = f"{where}.encoderblock_"
    depth = len({name.removeprefix(prefix).split(".")[0] for name in tree if prefix in name})
    query = _shape(tree, f"{prefix}0.MultiHeadDotProductAttention_0.query.kernel", 3)
    mlp = _shape(tree, f"{prefix}0.MlpBlock_0.Dense_0.kernel", 2)
    return {"depth": depth, "num_heads": query[1], "mlp_width": mlp[1]}


def _shape(tree: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in tree:
        raise CheckpointError(
            f"no array {name.replace('.', '/')!r}: these are not the weights of a ViT or SigLIP of "
            "big_vision"
        )
    shape = tuple(tree[name].shape)
    if len(shape) != axes:
        raise CheckpointError(
            f"array {name.replace('.', '/')!r} has shape {list(shape)}, {axes} axes are expected"
        )
    return shape


def _side(places: int) -> int:
    side = isqrt(places)
    if side * side != places:
        raise CheckpointError(f"{places} positions are no square grid of patches")
    return side


LAYOUT = Layout("big_vision", "big_vision (https://github.com/google-research/big_vision)", read)
