"""Decoders with weights laid out once for oneDNN: what `nn.packed.pack` makes of their parts.

A further token reads every weight once and computes next to nothing, so that what counts is how
fast weights come from memory and how seldom an operation begins. Queries, keys and values are one
product here, a gated MLP is three products and nothing beside them, and the table of tokens keeps
its plain form, to look tokens up, beside the packed one that scores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.nn.attention import Attention, attend
from sightline.nn.blocks import DecoderBlock
from sightline.nn.linear import Linear, TokenTable
from sightline.nn.memory import Memory
from sightline.nn.mlp import GatedMLP
from sightline.nn.norms import RMSNorm, at_least_float32
from sightline.nn.packed_linear import FUSED, Packed, gated_product, product, reordered
from sightline.nn.rotary import Turns, rotate


class PackedJoint(Packed):
    """Linear layers with one input as one product; their weights keep their own names in files."""

    bias: Tensor | None

    def __init__(self, layers: Mapping[str, Linear]) -> None:
        super().__init__()
        self.rows = {name: layer.out_features for name, layer in layers.items()}
        self.in_features = next(iter(layers.values())).in_features
        self.weight = reordered(torch.cat(tuple(layer.weight for layer in layers.values())))
        biases = tuple(layer.bias for layer in layers.values() if layer.bias is not None)
        self.register_buffer("bias", torch.cat(biases).detach() if biases else None, False)

    def joint(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        """What all layers make of `x`, side by side."""
        return product(x, self.weight, self._buffers["bias"])

    def plain_layers(self) -> dict[str, Linear]:
        """The layers that this was made of, by name."""
        dense = self.weight.to_dense().split(list(self.rows.values()))
        biases: Any = [None] * len(dense)
        if self.bias is not None:
            biases = self.bias.split(list(self.rows.values()))
        return {
            name: _layer(weight.clone(), bias)
            for name, weight, bias in zip(self.rows, dense, biases, strict=True)
        }

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, layer in self.plain_layers().items():
            destination[f"{prefix}{name}.weight"] = layer.weight.detach()
            if layer.bias is not None:
                destination[f"{prefix}{name}.bias"] = layer.bias.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for kind in ("weight", "bias"):
            old = getattr(self, kind)
            names = [f"{prefix}{name}.{kind}" for name in self.rows]
            given = [state_dict.pop(name, None) for name in names]
            if old is None:
                continue
            rest[2].extend(n for n, part in zip(names, given, strict=True) if part is None)
            if all(part is not None for part in given):
                joint = torch.cat(given).to(old.dtype)
                setattr(self, kind, reordered(joint) if kind == "weight" else joint)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class PackedAttention(PackedJoint):
    """`Attention` of a decoder's block: queries, keys and values of one input in one product."""

    def __init__(self, attention: Attention, out: nn.Module) -> None:
        super().__init__({name: getattr(attention, name) for name in ("q", "k", "v")})
        self.num_heads, self.kv_heads = attention.num_heads, attention.kv_heads
        self.scale, self.cap, self.dropout = attention.scale, attention.cap, attention.dropout
        self.out = out

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        mask: Bool[Tensor, ...] | None = None,
        turns: Turns | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:
        heads, shared = self.num_heads, self.kv_heads
        joint = self.joint(x)
        joint = joint.view(*x.shape[:2], heads + 2 * shared, -1).transpose(1, 2)  # [B heads L K]
        turned, v = joint.split_with_sizes((heads + shared, shared), 1)
        if turns is not None:
            turned = rotate(turned, turns)
        q, k = turned.split_with_sizes((heads, shared), 1)
        if memory is not None:
            k, v = memory.append(k, v)
        mixed = attend(q, k, v, mask, 0.0, self.scale, self.cap)  # [B N L K]
        out: Any = self._modules["out"]
        result: Tensor = out.forward(mixed.transpose(1, 2).flatten(2))  # [B L D]
        return result

    def plain(self) -> Attention:
        """The layer that this was made of, its output as it is."""
        with torch.device("meta"):
            attention = Attention(
                self.in_features,
                self.num_heads,
                kv_heads=self.kv_heads,
                head_size=self.rows["q"] // self.num_heads,
                scale=self.scale,
                cap=self.cap,
                dropout=self.dropout,
            )
        for name, layer in {**self.plain_layers(), "out": self.out}.items():
            setattr(attention, name, layer)
        return attention


class PackedGatedMLP(nn.Module):
    """`GatedMLP` whose activation and multiplication happen inside its first two products."""

    def __init__(self, mlp: GatedMLP) -> None:
        super().__init__()
        self.gate, self.up, self.down = mlp.gate, mlp.up, mlp.down
        self.activation = mlp.activation

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        parts: Any = self._modules
        gate, up = parts["gate"].weight, parts["up"].weight
        x = x.to(gate.dtype)  # once for both
        hidden = product(x, gate, None, *FUSED[self.activation])
        result: Tensor = parts["down"].forward(gated_product(x, up, hidden))
        return result

    def plain(self) -> GatedMLP:
        """The layers that this was made of, as they are."""
        with torch.device("meta"):
            mlp = GatedMLP(1, 1, "relu")
        mlp.activation = self.activation
        mlp.gate, mlp.up, mlp.down = self.gate, self.up, self.down
        return mlp


class PackedDecoderBlock(DecoderBlock):
    """`DecoderBlock` that goes straight to its parts.

    Behind each product the processor's caches hold weights, and what a module's call and its search
    for a part look at comes from memory again: 1.7 of the 11.7 ms that a token of 16 blocks took
    beside products and attention (one busy core).
    """

    def __init__(self, block: DecoderBlock) -> None:
        super().__init__(
            block.norm1, block.attention, block.norm2, block.mlp, block.after1, block.after2
        )

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        mask: Bool[Tensor, ...] | None = None,
        turns: Turns | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:
        parts: Any = self._modules
        after1, after2 = parts.get("after1"), parts.get("after2")
        mixed = parts["attention"].forward(
            parts["norm1"].forward(x), mask=mask, turns=turns, memory=memory
        )
        x = x + (mixed if after1 is None else after1.forward(mixed))
        hidden = parts["mlp"].forward(parts["norm2"].forward(x))
        return x + (hidden if after2 is None else after2.forward(hidden))

    def plain(self) -> DecoderBlock:
        """The block that this was made of, with its parts as they are."""
        return DecoderBlock(
            self.norm1, self.attention, self.norm2, self.mlp, self.after1, self.after2
        )


class PackedRMSNorm(RMSNorm):
    """`RMSNorm` with its factor made beforehand: x / sqrt(|x|^2 + D eps), times sqrt(D) factor.

    Each of its operations is short and waits for the one before, so that their number is its time.
    """

    def __init__(self, norm: RMSNorm) -> None:
        with torch.device("meta"):
            super().__init__(len(norm.weight), norm.eps, norm.offset)
        self.weight = norm.weight
        self._prepare()

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        x = at_least_float32(x)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / length.hypot_(self.floor)).mul_(self.factor)

    def plain(self) -> RMSNorm:
        """The norm that this was made of."""
        with torch.device("meta"):
            norm = RMSNorm(len(self.weight), self.eps, self.offset)
        norm.weight = self.weight
        return norm

    def _prepare(self) -> None:
        root = len(self.weight) ** 0.5
        self.factor = (self.weight.detach() + self.offset) * root
        self.floor = self.factor.new_tensor(self.eps**0.5 * root)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._prepare()


class PackedTable(TokenTable):
    """`TokenTable` that scores tokens with a packed copy of itself."""

    def __init__(self, table: TokenTable) -> None:
        with torch.device("meta"):
            super().__init__(table.out_features, table.in_features, table.scale)
        self.weight = table.weight
        self.packed = reordered(table.weight)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return product(x, self.packed, None)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.packed = reordered(self.weight)

    def plain(self) -> TokenTable:
        """The table that this was made of."""
        with torch.device("meta"):
            table = TokenTable(self.out_features, self.in_features, self.scale)
        table.weight = self.weight
        return table

    # oneDNN's tensors cannot be copied or pickled
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.packed = reordered(self.weight)


def _layer(weight: Float[Tensor, "O D"], bias: Float[Tensor, " O"] | None) -> Linear:
    with torch.device("meta"):
        layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
