"""Rotary positions (RoPE; Su et al. 2021, arXiv:2104.09864, section 3.2.2)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError
from sightline.nn.norms import at_least_float32


class Turns(NamedTuple):
    """By what angles the components of queries and keys are turned."""

    cos: Float[Tensor, "B 1 L R"]
    sin: Float[Tensor, "B 1 L R"]
    """Of the R components that are turned, float32. The pair of component i is i + R / 2 ("rotate
    half"), and the sines of the first half carry the minus of equation 13."""


def turns(
    positions: Int[Tensor, "B L"], head_size: int, base: float = 10000.0, share: float = 1.0
) -> Turns:
    """The angles position * base^(-2 i / d) of equation 15, for every pair i.

    Args:
        positions: of each token; only differences matter, up to rounding.
        head_size: K.
        base: longest wavelength by 2 pi.
        share: part d / K of the components that is turned, from the front (partial rotary).

    Raises:
        ConfigError: components that do not go into pairs.
    """
    turned = round(head_size * share)
    if turned % 2 or not 0 < turned <= head_size:
        raise ConfigError(f"{turned} of {head_size} components cannot be turned in pairs")
    exponents = torch.arange(0, turned, 2, dtype=torch.float32, device=positions.device) / turned
    angles = positions[:, None, :, None].float() * (1.0 / base**exponents)  # [B 1 L R/2]
    cos, sin = angles.cos(), angles.sin()
    return Turns(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))


def rotate(x: Float[Tensor, "B N L K"], by: Turns) -> Float[Tensor, "B N L K"]:
    """Queries or keys, turned; components behind the turned ones stay. In float32 or wider."""
    size = by.cos.shape[-1]
    whole = size == x.shape[-1]
    part = at_least_float32(x if whole else x[..., :size])
    turned = (part * by.cos + part.roll(size // 2, -1) * by.sin).to(x.dtype)
    return turned if whole else torch.cat([turned, x[..., size:]], dim=-1)
