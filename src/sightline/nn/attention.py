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
from sightline.nn.memory import Memory
from sightline.nn.rotary import Turns, rotate


class Attention(nn.Module):
    """Queries from `x`, keys and values from `x` itself or from `context`.

    Args:
        width: D of the queries and of the result.
        num_heads: N; must divide `width` where no `head_size` is given.
        bias: whether the query, key and value projections have one.
        out_bias: whether the output projection has one.
        dropout: probability of dropping an attention weight while training.
        kv_heads: heads of keys and values, which groups of query heads share (GQA, Ainslie et al.
            2023, arXiv:2305.13245; one: MQA, Shazeer 2019, arXiv:1911.02150); None for N.
        head_size: K; None for D / N.
        scale: factor on the products of queries and keys; None for 1 / sqrt(K).
        cap: bound of the scaled products, cap * tanh(product / cap) (Gemma 2, arXiv:2408.00118,
            section 2); None for no bound.

    Raises:
        ConfigError: heads that do not divide.
    """

    recorder: "Recorder | None" = None
    """Where the weights are kept while somebody is `recording`."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        bias: bool = True,
        out_bias: bool = True,
        dropout: float = 0.0,
        kv_heads: int | None = None,
        head_size: int | None = None,
        scale: float | None = None,
        cap: float | None = None,
    ) -> None:
        super().__init__()
        if head_size is None and width % num_heads:
            raise ConfigError(f"width {width} is not a multiple of the {num_heads} attention heads")
        kv_heads = num_heads if kv_heads is None else kv_heads
        if not 1 <= kv_heads <= num_heads or num_heads % kv_heads:
            raise ConfigError(
                f"{num_heads} attention heads cannot share {kv_heads} heads of keys and values"
            )
        size = width // num_heads if head_size is None else head_size
        self.num_heads, self.kv_heads = num_heads, kv_heads
        self.dropout, self.scale, self.cap = dropout, scale, cap
        self.q = Linear(width, num_heads * size, bias=bias)
        self.k = Linear(width, kv_heads * size, bias=bias)
        self.v = Linear(width, kv_heads * size, bias=bias)
        self.out = Linear(num_heads * size, width, bias=out_bias)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        context: Float[Tensor, "B S D"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        offset: Float[Tensor, "#B N L S"] | None = None,
        turns: Turns | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Attend.

        Args:
            mask: True where a query may attend to a key; broadcasts to [B N L S].
            offset: added to the scaled products before the softmax, such as a relative position
                bias; it may learn.
            turns: rotary positions of `x`, for queries and keys.
            memory: keys and values of earlier calls, to which those of this one are added.
        """
        x = x.to(product_type(self.q.weight))  # once, where each projection would do it again
        context = x if context is None else context
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N L K]
        k = self.k(context).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)  # [B G S K]
        v = self.v(context).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)  # [B G S K]
        if turns is not None:
            q, k = rotate(q, turns), rotate(k, turns)
        if memory is not None:
            k, v = memory.append(k, v)  # [B G S K]
        dropout = self.dropout if self.training else 0.0
        allowed: Tensor | None = mask
        if offset is not None:
            offset = offset.to(q.dtype)
            allowed = offset if mask is None else offset.masked_fill(~mask, -torch.inf)
        if self.recorder is None:
            mixed = attend(q, k, v, allowed, dropout, self.scale, self.cap)  # [B N L K]
        else:
            mixed = self.recorder.attend(q, k, v, allowed, self.scale, self.cap)  # [B N L K]
        return self.out(mixed.transpose(1, 2).flatten(2))  # [B L D]


MOST_SCORES = 256 * 256
"""Scores of one head (L times S) up to which writing them out was measured to be quicker."""


def attend(
    q: Float[Tensor, "B N L K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    allowed: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Tensor, "B N L K"]:
    """softmax(q k^T / sqrt(K)) v (equation 1), by torch's kernel or as two products.

    Torch's kernel for the way back is up to four times slower than the products themselves for
    bfloat16 on a CPU; there, with gradients, the scores are written out, as they are where they are
    capped, which no kernel does. The softmax is float32.

    Args:
        allowed: bool, True where a query may attend to a key, or numbers added to the scores;
            broadcasts to [B N L S].
        dropout: probability of dropping a weight.
        scale, cap: as in `Attention`.
    """
    if cap is not None:
        return written_out(q, k, v, allowed, scale, cap, dropout)[0]
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    short = q.shape[2] * k.shape[2] <= MOST_SCORES
    if learns and on_cpu and short and not dropout:
        return written_out(q, k, v, allowed, scale)[0]
    shared = q.shape[1] != k.shape[1]
    # A product of two queries took 1.4 to 1.7 times as long as two vector products; with more
    # queries, or in float32, it is the other way around.
    pairs = q.shape[1] == 2 * k.shape[1] and on_cpu
    if shared and q.shape[2] == 1 and not pairs:
        # one query of each head: those of a group stand in for a longer query of one head
        grouped = q.unflatten(1, (k.shape[1], -1))[..., 0, :]  # [B G N/G K]
        rows = None if allowed is None else _by_group(allowed, k.shape[1])
        mixed = F.scaled_dot_product_attention(grouped, k, v, rows, dropout, scale=scale)
        return mixed.flatten(1, 2)[..., None, :]  # [B N 1 K]
    return F.scaled_dot_product_attention(q, k, v, allowed, dropout, scale=scale, enable_gqa=shared)


def _by_group(allowed: Tensor, groups: int) -> Tensor:
    """What a single query may see [B N 1 S], for heads [B G N/G S]; most often alike for all."""
    if allowed.dim() < 3 or allowed.shape[-3] == 1:
        return allowed
    return allowed[..., 0, :].unflatten(-2, (groups, -1))


def written_out(
    q: Float[Tensor, "B N L K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    allowed: Tensor | None = None,
    scale: float | None = None,
    cap: float | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "B N L K"], Float[Tensor, "B N L S"]]:
    """`attend` as two products, and the weights between them, float32 or wider."""
    heads = q.shape[:2]
    if q.shape[1] != k.shape[1]:
        k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # [B*N L K]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.bmm(q * scale, k.transpose(1, 2)).unflatten(0, heads)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if allowed is not None:
        scores = _restricted(scores, allowed)
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide)  # [B N L S]
    used = F.dropout(weights, dropout).to(v.dtype)
    mixed = torch.bmm(used.flatten(0, 1), v).unflatten(0, heads)  # [B N L K]
    return mixed, weights


class Recorder:
    """The weights of attention as they were used, one tensor a call, in the order of the calls."""

    def __init__(self) -> None:
        self.weights: list[Float[Tensor, "B N L S"]] = []
        """With their gradient's history, where gradients are on."""

    def attend(
        self,
        q: Float[Tensor, "B N L K"],
        k: Float[Tensor, "B G S K"],
        v: Float[Tensor, "B G S K"],
        allowed: Tensor | None = None,
        scale: float | None = None,
        cap: float | None = None,
    ) -> Float[Tensor, "B N L K"]:
        """The function `attend` without dropout, remembering the weights."""
        mixed, weights = written_out(q, k, v, allowed, scale, cap)
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
