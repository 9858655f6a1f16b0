"""From the attention of every layer to how much each token went into the answer.

Letters of this file: L, the tokens of the blocks, in front of which a class token may stand; what
the answer is read from (the class token, or the probe of an attention pool) is one row over them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def rollout(layers: Sequence[Float[Tensor, "B N L L"]]) -> Float[Tensor, "B L L"]:
    """Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928, section 3).

    Heads are averaged; the residual connection counts as half of each layer, 0.5 A + 0.5 I; layers
    multiply from bottom to top. Each row is a distribution over the tokens of the input. It knows
    what was looked at, and nothing of what it was looked at for.
    """
    total = _identity(layers[0])  # [B L L]
    for weights in layers:
        mean = weights.mean(dim=1)  # [B L L]
        total = 0.5 * mean @ total + 0.5 * total
    return total


def weighted_by_gradient(
    layers: Sequence[Float[Tensor, "B N L L"]], slopes: Sequence[Float[Tensor, "B N L L"]]
) -> Float[Tensor, "B L L"]:
    """Gradient-weighted attention (Chefer, Gur and Wolf 2021, arXiv:2103.15679, equations 5 and 6).

    R = I, then R + A R for each layer from bottom to top, where A is `spoke_for`.

    Args:
        layers: the weights of each layer.
        slopes: the gradient of what is explained with respect to them.
    """
    total = _identity(layers[0])  # [B L L]
    for weights, slope in zip(layers, slopes, strict=True):
        total = total + spoke_for(weights, slope) @ total
    return total


def spoke_for(
    weights: Float[Tensor, "B N L S"], slope: Float[Tensor, "B N L S"]
) -> Float[Tensor, "B L S"]:
    """The mean over heads of weight times gradient, what spoke against left out (equation 5)."""
    return (weights * slope).clamp_min(0).mean(dim=1)


def _identity(weights: Float[Tensor, "B N L L"]) -> Float[Tensor, "B L L"]:
    eye = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    return eye.expand(len(weights), -1, -1)
