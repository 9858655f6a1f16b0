"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Linear, product_type


class Attention(nn.Module):
    """Queries from `x`, keys and values from `x` itself or from `context`.

    Args:
        width: D of the queries and of the result.
        num_heads: N; must divide `width`.
        bias: whether the query, key and value projections have one (the output always has).
        dropout: probability of dropping an attention weight while training.
    """

    recorder: "Recorder | None" = None
    """Where the weights are kept while somebody is `recording`."""

    def __init__(
        self, width: int, num_heads: int, *, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"width {width} is not a multiple of the {num_heads} attention heads")
        self.num_heads = num_heads
        self.dropout = dropout
        self.q = Linear(width, width, bias=bias)
        self.k = Linear(width, width, bias=bias)
        self.v = Linear(width, width, bias=bias)
        self.out = Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        context: Float[Tensor, "B S D"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        offset: Float[Tensor, "#B N L S"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Attend.

        Args:
            mask: True where a query may attend to a key; broadcasts to [B N L S].
            offset: added to the scaled products before the softmax, such as a relative position
                bias; it may learn.
        """
        x = x.to(product_type(self.q.weight))  # once, where each projection would do it again
        context = x if context is None else context
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N L K]
        k = self.k(context).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N S K]
        v = self.v(context).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N S K]
        dropout = self.dropout if self.training else 0.0
        allowed: Tensor | None = mask
        if offset is not None:
            offset = offset.to(q.dtype)
            allowed = offset if mask is None else offset.masked_fill(~mask, -torch.inf)
        if self.recorder is None:
            mixed = attend(q, k, v, allowed, dropout)  # [B N L K]
        else:
            mixed = self.recorder.attend(q, k, v, allowed)  # [B N L K]
        return self.out(mixed.transpose(1, 2).flatten(2))  # [B L D]


MOST_SCORES = 256 * 256
"""Scores of one head (L times S) up to which writing them out was measured to be quicker."""


def attend(
    q: Float[Tensor, "B N L K"],
    k: Float[Tensor, "B N S K"],
    v: Float[Tensor, "B N S K"],
    allowed: Tensor | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B N L K"]:
    """softmax(q k^T / sqrt(K)) v (equation 1), by torch's kernel or as two products.

    Torch's kernel for the way back is up to four times slower than the products themselves for
    bfloat16 on a CPU; there, with gradients, the scores are written out. The softmax is float32.

    Args:
        allowed: bool, True where a query may attend to a key, or numbers added to the scores;
            broadcasts to [B N L S].
        dropout: probability of dropping a weight.
    """
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    short = q.shape[2] * k.shape[2] <= MOST_SCORES
    if dropout or not (learns and on_cpu and short):
        return F.scaled_dot_product_attention(q, k, v, allowed, dropout)
    return written_out(q, k, v, allowed)[0]


def written_out(
    q: Float[Tensor, "B N L K"],
    k: Float[Tensor, "B N S K"],
    v: Float[Tensor, "B N S K"],
    allowed: Tensor | None = None,
) -> tuple[Float[Tensor, "B N L K"], Float[Tensor, "B N L S"]]:
    """`attend` as two products, and the weights between them, float32 or wider."""
    heads = q.shape[:2]
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # [B*N L K]
    scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2)).unflatten(0, heads)
    if allowed is not None:
        scores = _restricted(scores, allowed)
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide)  # [B N L S]
    mixed = torch.bmm(weights.to(v.dtype).flatten(0, 1), v).unflatten(0, heads)  # [B N L K]
    return mixed, weights


class Recorder:
    """The weights of attention as they were used, one tensor a call, in the order of the calls."""

    def __init__(self) -> None:
        self.weights: list[Float[Tensor, "B N L S"]] = []
        """With their gradient's history, where gradients are on."""

    def attend(
        self,
        q: Float[Tensor, "B N L K"],
        k: Float[Tensor, "B N S K"],
        v: Float[Tensor, "B N S K"],
        allowed: Tensor | None = None,
    ) -> Float[Tensor, "B N L K"]:
        """The function `attend` without dropout, remembering the weights."""
        mixed, weights = written_out(q, k, v, allowed)
        self.weights.append(weights)
        return mixed


@contextmanager
def recording(network: nn.Module) -> Iterator[Recorder]:
    """Keep the weights of every attention that runs inside `network` (`Attention`,
    `pooling.AttentionPool`) until the block ends.

    Set on the modules, since blocks of all kinds would otherwise have to pass it on. It is seen by
    every thread that runs them: record a copy (`nn.copies`) of a network that others use.
    """
    record = Recorder()
    heard: list[Any] = [module for module in network.modules() if hasattr(module, "recorder")]
    before = [module.recorder for module in heard]
    for module in heard:
        module.recorder = record
    try:
        yield record
    finally:
        for module, recorder in zip(heard, before, strict=True):
            module.recorder = recorder


def _restricted(scores: Float[Tensor, "B N L S"], allowed: Tensor) -> Float[Tensor, "B N L S"]:
    if allowed.dtype == torch.bool:
        return scores.masked_fill(~allowed, -torch.inf)
    return scores + allowed
