"""From one vector a token to one vector a sequence."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.nn.attention import Recorder
from sightline.nn.linear import Linear
from sightline.nn.masks import present_keys
from sightline.nn.mlp import MLP
from sightline.nn.norms import LayerNorm


class AttentionPool(nn.Module):
    """A learned probe attends to all tokens (MAP; Zhai et al. 2022, arXiv:2106.04560, appendix).

    No residual goes around the attention (the probe is a question, not an answer to refine); one
    does go around the feed-forward layer behind it.
    """

    recorder: Recorder | None = None
    """Where the weights are kept while somebody is `attention.recording`."""

    def __init__(
        self, width: int, num_heads: int, mlp_width: int, *, activation: str, norm_eps: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.probe = nn.Parameter(torch.zeros(width))
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.out = Linear(width, width)
        self.norm = LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(
        self, tokens: Float[Tensor, "B P D"], present: Bool[Tensor, "B P"] | None = None
    ) -> Float[Tensor, "B D"]:
        """`present` is False for padding, which the probe does not see; None sees everything."""
        pooled = self.attend(tokens, present)  # [B 1 D]
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]  # [B D]

    def attend(
        self, tokens: Float[Tensor, "B P D"], present: Bool[Tensor, "B P"] | None = None
    ) -> Float[Tensor, "B 1 D"]:
        """What the probe finds in the tokens."""
        q = self.q(self.probe).unflatten(0, (1, self.num_heads, 1, -1))  # [1 N 1 K]
        k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B N P K]
            for part in self.kv(tokens).chunk(2, dim=-1)
        )
        mask = None if present is None else present_keys(present)  # [B 1 1 P]
        q = q.expand(len(tokens), -1, -1, -1)  # [B N 1 K]
        if self.recorder is None:
            mixed = F.scaled_dot_product_attention(q, k, v, mask)
        else:
            mixed = self.recorder.attend(q, k, v, mask)
        return self.out(mixed.flatten(1)[:, None])  # [B 1 D]


def at_index(tokens: Float[Tensor, "B T D"], index: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
    """The token of each sequence at its own index."""
    return tokens[torch.arange(len(tokens), device=tokens.device), index]  # [B D]
