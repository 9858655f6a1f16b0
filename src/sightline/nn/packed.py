"""Weights laid out once for oneDNN, and blocks that touch memory as seldom as they can.

For answers on a CPU with bfloat16 products of its own. A plain product brings its weight into
oneDNN's blocked order at every call, and an activation behind it reads and writes the widest tensor
of the block again; here both happen once, each half of a block is added to the residual stream in
place, and a long batch walks through all blocks in pieces that stay in the cache. The numbers stay
what `nn.precision.lower` makes of them: `state_dict` gives the weights back bit for bit under their
own names. There is no backward pass: `unpack` first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.core.streams import side_by_side, streams
from sightline.nn.attention import Attention
from sightline.nn.blocks import Block, DecoderBlock, Transformer
from sightline.nn.linear import Linear, TokenTable
from sightline.nn.mlp import ACTIVATIONS, MLP, QUICK, GatedMLP, quick_gelu
from sightline.nn.norms import RMSNorm, at_least_float32
from sightline.nn.packed_decoder import (
    PackedAttention,
    PackedDecoderBlock,
    PackedGatedMLP,
    PackedRMSNorm,
    PackedTable,
)
from sightline.nn.packed_linear import FUSED
from sightline.nn.packed_linear import PackedLinear as PackedLinear
from sightline.nn.packed_linear import product as product

PACKABLE = frozenset({torch.bfloat16, torch.float32})
"""Number types that can be packed."""
ROWS_A_CORE = 512
"""Vectors that one core walks through the blocks at a time, for 2 MB of second-level cache."""


class PackedMLP(nn.Module):
    """`MLP` with its activation inside the first product."""

    def __init__(self, fc1: PackedLinear, fc2: PackedLinear, plain: Callable[..., Tensor]) -> None:
        super().__init__()
        assert fc1.bias is not None and fc2.bias is not None, "those of an MLP"
        self.fc1, self.fc2, self.activation = fc1, fc2, plain
        self.slope = QUICK if plain is quick_gelu else 1.0
        """Quick GELU is silu of the sloped input by the slope: it goes to what comes in and off
        what goes out, where it costs no rounding."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        fc2 = self.fc2
        if self.slope == 1.0:
            return fc2(self._hidden(x))
        answer = product(self._hidden(self.slope * x.float()), fc2.weight, None)
        assert fc2.bias is not None
        return torch.add(fc2.bias.float(), answer, alpha=1 / self.slope)

    def add_to(self, total: Float[Tensor, "*B D"], x: Float[Tensor, "*B D"]) -> None:
        """Add the answer to `total`, in place; `x` comes with the slope already in it."""
        bias = self.fc2.bias
        assert bias is not None
        answer = product(self._hidden(x), self.fc2.weight, self.slope * bias)
        total.add_(answer, alpha=1 / self.slope)

    def _hidden(self, sloped: Float[Tensor, "*B D"]) -> Float[Tensor, "*B H"]:
        kind, algorithm = ("swish", "") if self.slope != 1.0 else FUSED[self.activation]
        bias = self.fc1.bias
        assert bias is not None
        return product(sloped, self.fc1.weight, self.slope * bias, kind, algorithm)

    def plain(self) -> MLP:
        """The layers that this was made of."""
        name = next(name for name, known in ACTIVATIONS.items() if known is self.activation)
        with torch.device("meta"):
            mlp = MLP(self.fc1.in_features, self.fc1.out_features, name)
        mlp.fc1, mlp.fc2 = self.fc1.plain(), self.fc2.plain()
        return mlp


class PackedBlock(nn.Module):
    """`Block` with norms in front, which adds both halves to `x` in place. Nothing is dropped."""

    mlp: PackedMLP

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attention = block.norm1, block.attention
        self.norm2, self.mlp = block.norm2, block.mlp
        self.dropout = block.dropout

    def forward(
        self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, ...] | None = None
    ) -> Float[Tensor, "B L D"]:
        """The same tensor, changed."""
        x.add_(self.attention(self.norm1(x), mask=mask))
        norm, slope = self.norm2, self.mlp.slope
        sloped = F.layer_norm(
            x, norm.normalized_shape, slope * norm.weight, slope * norm.bias, norm.eps
        )
        self.mlp.add_to(x, sloped)
        return x

    def plain(self) -> Block:
        """The block that this was made of, with its parts as they are."""
        first = self.attention.q
        with torch.device("meta"):
            block = Block(
                self.norm1.normalized_shape[0],
                self.attention.num_heads,
                1,
                activation="relu",
                norm_eps=self.norm1.eps,
                qkv_bias=first.bias is not None,
                dropout=self.dropout,
            )
        for name in ("norm1", "attention", "norm2", "mlp"):
            setattr(block, name, getattr(self, name))
        return block


class PackedTransformer(nn.Module):
    """`Transformer` that takes pieces of a batch through all blocks, one on each core at a time.

    A piece is small enough to stay in the cache.
    """

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(
        self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, ...] | None = None
    ) -> Float[Tensor, "B L D"]:
        x = at_least_float32(x).clone()  # the blocks change it

        def walk(piece: slice) -> None:
            own = mask[piece] if mask is not None and by_picture(mask) else mask
            part = x[piece]
            for block in self.blocks:
                block(part, own)

        side_by_side(walk, pieces_of(x.shape[0], x.shape[1]))
        return x

    def plain(self) -> Transformer:
        """The stack that this was made of, with its blocks as they are."""
        return Transformer(self.blocks)


def pieces_of(batch: int, length: int) -> list[slice]:
    """Slices of a batch of so many vectors each: as equal as can be, a multiple of the streams."""
    cores = streams()
    rounds = max(1, math.ceil(batch * length / (ROWS_A_CORE * cores)))
    count = min(batch, rounds * cores)
    edges = [batch * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


def by_picture(mask: Bool[Tensor, ...]) -> bool:
    """Whether a mask that broadcasts to [B N L S] has rows of its own for each of the batch."""
    return mask.dim() == 4 and mask.shape[0] > 1


def pack(network: nn.Module) -> nn.Module:
    """Pack every linear layer, and what is made of nothing else, in place; returns the network.

    Layers of other classes (convolutions, those that carry an adapter) stay as they are, and so do
    weights that are neither bfloat16 nor float32.
    """
    for name, module in list(network.named_children()):
        if type(module) is DecoderBlock:
            _join(module)
        pack(module)
        packed = _packed(module)
        if packed is not module:
            setattr(network, name, packed.train(module.training))
    return network


def _join(block: DecoderBlock) -> None:
    """Make one product of the queries, keys and values of a decoder's block."""
    attention = block.attention
    if type(attention) is Attention and _plain(attention.q, attention.k, attention.v):
        block.attention = PackedAttention(attention, attention.out)


def _plain(*layers: nn.Module) -> bool:
    """Whether all are linear layers of one kind, without an addition."""
    kinds = {type(layer) for layer in layers}
    types = {layer.weight.dtype for layer in layers}
    return kinds == {Linear} and len(types) == 1 and types <= PACKABLE


def _packed(module: nn.Module) -> nn.Module:
    """The packed form of a module whose own parts are packed already, where there is one."""
    if type(module) is Linear and module.weight.dtype in PACKABLE:
        return PackedLinear(module.weight, module.bias)
    if type(module) is TokenTable and module.weight.dtype in PACKABLE:
        return PackedTable(module)
    if type(module) is DecoderBlock:
        return PackedDecoderBlock(module)
    if type(module) is RMSNorm:
        return PackedRMSNorm(module)
    if type(module) is MLP:
        fusable = module.activation in FUSED or module.activation is quick_gelu
        fc1, fc2 = module.fc1, module.fc2
        if fusable and isinstance(fc1, PackedLinear) and isinstance(fc2, PackedLinear):
            return PackedMLP(fc1, fc2, module.activation)
    if type(module) is GatedMLP and module.activation in FUSED:
        if isinstance(module.gate, PackedLinear) and isinstance(module.up, PackedLinear):
            return PackedGatedMLP(module)
    if type(module) is Transformer and all(_foldable(block) for block in module.blocks):
        return PackedTransformer(nn.ModuleList(PackedBlock(b) for b in module.blocks))
    return module


def _foldable(block: nn.Module) -> bool:
    return type(block) is Block and not block.post_norm and isinstance(block.mlp, PackedMLP)


PACKED = (
    PackedLinear, PackedMLP, PackedBlock, PackedTransformer, PackedAttention, PackedGatedMLP,
    PackedRMSNorm, PackedTable, PackedDecoderBlock,
)  # fmt: skip
"""What `unpack` makes plain again."""


def unpack(network: nn.Module) -> nn.Module:
    """Undo `pack`, in place; returns the network."""
    for name, module in list(network.named_children()):
        if isinstance(module, PACKED):
            module = module.plain().train(module.training)
            setattr(network, name, module)
        unpack(module)
    return network
