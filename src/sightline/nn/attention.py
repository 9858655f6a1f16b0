"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.nn.linear import Linear


class Attention(nn.Module):
    """Queries from `x`, keys and values from `x` itself or from `context`.

    Args:
        width: D of the queries and of the result.
        num_heads: N; must divide `width`.
        bias: whether the query, key and value projections have one (the output always has).
        dropout: probability of dropping an attention weight while training.
    """

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
        x = x.to(self.q.weight.dtype)  # once, where each projection would do it again
        context = x if context is None else context
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N L K]
        k = self.k(context).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N S K]
        v = self.v(context).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N S K]
        dropout = self.dropout if self.training else 0.0
        allowed: Tensor | None = mask
        if offset is not None:
            offset = offset.to(q.dtype)
            allowed = offset if mask is None else offset.masked_fill(~mask, -torch.inf)
        mixed = F.scaled_dot_product_attention(q, k, v, allowed, dropout)  # [B N L K]
        return self.out(mixed.transpose(1, 2).flatten(2))  # [B L D]
