"""The tree of arrays in big_vision's files: names, order of axes, and what the shapes say.

See `big_vision` for how it differs from a torch network's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING

from sightline.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

ACTIVATION, EPS = "gelu_pytorch_tanh", 1e-6
"""Of Flax: the tanh form of GELU, and the epsilon of its norms."""

_OLDER = {
    "MultiHeadDotProductAttention_1.": "MultiHeadDotProductAttention_0.",
    "LayerNorm_2.": "LayerNorm_1.",
    "MlpBlock_3.": "MlpBlock_0.",
    "Transformer.posembed_input.pos_embedding": "pos_embedding",
}
"""Names of the ViT paper's own code to those of big_vision."""


def block_keys(published: str, own: str) -> dict[str, str]:
    """The pairs of one transformer, as every tower but BERT spells it."""
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


def turned(name: str, array: Tensor) -> Tensor:
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


def named(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flax's kernels and scales are torch's weights."""
    return {re.sub(r"\.(kernel|scale)$", ".weight", name): array for name, array in own.items()}


def transformer_shape(tree: Mapping[str, Tensor], where: str) -> dict[str, int]:
    """Depth, heads and MLP width of the transformer at a place of the tree.

    Raises:
        CheckpointError: there is none.
    """
    prefix = f"{where}.encoderblock_"
    depth = len({name.removeprefix(prefix).split(".")[0] for name in tree if prefix in name})
    query = shape_of(tree, f"{prefix}0.MultiHeadDotProductAttention_0.query.kernel", 3)
    mlp = shape_of(tree, f"{prefix}0.MlpBlock_0.Dense_0.kernel", 2)
    return {"depth": depth, "num_heads": query[1], "mlp_width": mlp[1]}


def shape_of(tree: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape of one array.

    Raises:
        CheckpointError: it is not there, or has another number of axes.
    """
    if name not in tree:
        raise CheckpointError(
            f"no array {name.replace('.', '/')!r}: these are not the weights of a ViT, SigLIP or "
            "LiT of big_vision"
        )
    shape = tuple(tree[name].shape)
    if len(shape) != axes:
        raise CheckpointError(
            f"array {name.replace('.', '/')!r} has shape {list(shape)}, {axes} axes are expected"
        )
    return shape


def side_of(places: int) -> int:
    """Rows of a square grid of patches.

    Raises:
        CheckpointError: the places are no square.
    """
    side = isqrt(places)
    if side * side != places:
        raise CheckpointError(f"{places} positions are no square grid of patches")
    return side
