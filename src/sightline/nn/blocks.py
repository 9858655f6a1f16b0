"""The transformer block, norms before or behind its halves, and a stack of them."""

from collections.abc import Iterable

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.nn.attention import Attention
from sightline.nn.memory import Memory
from sightline.nn.mlp import MLP
from sightline.nn.norms import LayerNorm
from sightline.nn.rotary import Turns


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)).

    With `post_norm` as in the first transformers (Vaswani et al. 2017, section 3.1): norm1(x +
    attention(x)), then norm2(x + mlp(x)). The residual stream `x` stays float32 when the linear
    weights are lowered.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        *,
        activation: str,
        norm_eps: float,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        post_norm: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, num_heads, bias=qkv_bias, dropout=attention_dropout)
        self.norm2 = LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp_width, activation)
        self.dropout = dropout
        self.post_norm = post_norm

    def forward(
        self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "B L D"]:
        if self.post_norm:
            x = self.norm1(x + self._dropped(self.attention(x, mask=mask)))
            return self.norm2(x + self._dropped(self.mlp(x)))
        x = x + self._dropped(self.attention(self.norm1(x), mask=mask))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return F.dropout(x, self.dropout, self.training)


class DecoderBlock(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)), under rotary positions and with a memory.

    Its parts are given, since decoders differ in each of them. With `after1` and `after2` what each
    half adds is normalised as well (Gemma 2). The residual stream `x` stays float32.
    """

    def __init__(
        self,
        norm1: nn.Module,
        attention: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        after1: nn.Module | None = None,
        after2: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1, self.attention, self.after1 = norm1, attention, after1
        self.norm2, self.mlp, self.after2 = norm2, mlp, after2

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "..."] | None = None,
        turns: Turns | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:
        mixed = self.attention(self.norm1(x), mask=mask, turns=turns, memory=memory)
        x = x + (mixed if self.after1 is None else self.after1(mixed))
        hidden = self.mlp(self.norm2(x))
        return x + (hidden if self.after2 is None else self.after2(hidden))


class Transformer(nn.Module):
    """Blocks one after the other, given built; no norm at either end."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "B L D"]:
        for block in self.blocks:
            x = block(x, mask)
        return x
