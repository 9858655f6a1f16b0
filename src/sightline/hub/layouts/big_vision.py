"""big_vision's layout (https://github.com/google-research/big_vision): one .npz of a tree.

Names are paths ("params/img/Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"). Against ours:

- a dense kernel is (in, out) and is transposed; a convolution is (height, width, in, out);
- query, key and value kernels are (in, heads, head size), the output kernel (heads, head size,
  out), so that the number of heads is in the shapes;
- a network trained with `scan` has one `encoderblock` whose arrays have a first axis of blocks;
- the class token has no position of its own unless there is one row more than patches.

Only read: SigLIP with both towers (`img`, `txt`, `t`, `b`), LiT (`big_vision_lit`) and ViT with a
class token (`big_vision_vit`), also in the older spelling of its authors (`posembed_input`,
`MultiHeadDotProductAttention_1`). Norms have Flax's epsilon 1e-6, GELU is Flax's, the tanh form.
The tokenizer is the one beside the file, or BERT's words in a .txt of the file's own name.
Source: big_vision/models/vit.py and models/proj/image_text/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError
from sightline.hub.layouts.big_vision_lit import is_lit, lit_config, lit_state
from sightline.hub.layouts.big_vision_tree import (
    ACTIVATION,
    EPS,
    block_keys,
    named,
    shape_of,
    side_of,
    transformer_shape,
    turned,
    unrolled,
)
from sightline.hub.layouts.big_vision_vit import vit_config, vit_state
from sightline.hub.layouts.detect import weight_file
from sightline.hub.layouts.table import Layout
from sightline.models.keys import KeyTable

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents
    from sightline.models.siglip import SigLIPConfig

_POOL = "img.MAPHead_0"
_SIGLIP = KeyTable(
    {
        "img.embedding.*": "image.patches.projection.*",
        "img.pos_embedding": "image.positions.table",
        **block_keys("img.Transformer", "image.transformer"),
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
        **block_keys("txt.Encoder_0", "text.transformer"),
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
    name, describe, read_state = _reading(tree)
    try:
        config = describe(tree)
        own = read_state({name: turned(name, array) for name, array in tree.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: arrays of unexpected shapes ({reason})") from None
    entry, words = system(name).for_config(config), None
    if entry.text is not None:
        listed = file.with_suffix(".txt") if name == "lit" else None
        words = tokenizer_beside(file.parent, entry.text(config), config.text.vocab_size, listed)
    processor = Processor(image_processor(entry.preprocessing(config)), words, str(file))
    return assembled("big_vision", entry, config, own, processor, file)


def _reading(tree: Mapping[str, Tensor]) -> tuple[str, Callable[..., Any], Callable[..., Any]]:
    """The system that has this tree, and how its config and its tensors are read."""
    if is_lit(tree):
        return "lit", lit_config, lit_state
    if "img.embedding.kernel" in tree:
        return "siglip", siglip_config, _siglip_state
    return "vit", vit_config, vit_state


def _siglip_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    own = named(_SIGLIP.read(tensors))
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


def siglip_config(tree: Mapping[str, Tensor]) -> SigLIPConfig:
    """SigLIP's configuration, read off the shapes.

    Raises:
        CheckpointError: parts are missing, or a tower that is no SigLIP's.
    """
    from sightline.models.siglip import SigLIPConfig, TextTowerConfig

    if "img.MAPHead_0.probe" not in tree or "txt.Embed_0.embedding" not in tree:
        raise CheckpointError(
            "two towers, but no SigLIP: its image tower pools by attention (MAPHead_0) and its "
            "text tower embeds words (txt/Embed_0); others are not read here, but for LiT with "
            "BERT (txt/BertEncoder_0)"
        )
    vocabulary, width = shape_of(tree, "txt.Embed_0.embedding", 2)
    text = TextTowerConfig(
        width=width,
        **transformer_shape(tree, "txt.Encoder_0"),
        vocab_size=vocabulary,
        context_length=shape_of(tree, "txt.pos_embedding", 3)[1],
        activation=ACTIVATION,
        norm_eps=EPS,
    )
    return SigLIPConfig(_image_tower(tree), text)


def _image_tower(tree: Mapping[str, Tensor]) -> Any:
    from sightline.models.siglip import VARIANTS, ImageTowerConfig

    tall, wide, channels, width = shape_of(tree, "img.embedding.kernel", 4)
    places = shape_of(tree, "img.pos_embedding", 3)[1]
    side = side_of(places)
    tower = ImageTowerConfig(
        width=width,
        **transformer_shape(tree, "img.Transformer"),
        patch_size=(tall, wide),
        image_size=(side * tall, side * wide),
        channels=channels,
        activation=ACTIVATION,
        norm_eps=EPS,
    )
    # So400m/14 was trained at 384 pixels, of which 27 patches of 14 leave 6 over: a published size
    # with this grid is the one that was meant.
    for known in (variant.image for variant in VARIANTS.values()):
        grid = tuple(n // p for n, p in zip(known.image_size, known.patch_size, strict=True))
        if grid == (side, side) and replace(tower, image_size=known.image_size) == known:
            return known
    return tower


LAYOUT = Layout("big_vision", "big_vision (https://github.com/google-research/big_vision)", read)
