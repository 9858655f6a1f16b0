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


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), times a weight (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).

    Never below float32.

    Args:
        width: D.
        eps: added to the mean square.
        offset: what the factor is beside its weight: 1 where files hold factor - 1 (Gemma).
    """

    def __init__(self, width: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        weight = self.weight + self.offset if self.offset else self.weight
        return F.rms_norm(at_least_float32(x), weight.shape, weight, self.eps)


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor itself, widened to float32 when it is narrower."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def unit_length(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Divide by the L2 norm of the last axis, in float32; a zero vector stays zero."""
    return F.normalize(at_least_float32(x), dim=-1)
