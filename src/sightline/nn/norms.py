"""Normalisation, always in float32 (or float64 where the input is)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450) that never computes below float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(
            at_least_float32(x), self.normalized_shape, self.weight, self.bias, self.eps
        )


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor itself, widened to float32 when it is narrower."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def unit_length(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Divide by the L2 norm of the last axis, in float32; a zero vector stays zero."""
    return F.normalize(at_least_float32(x), dim=-1)
