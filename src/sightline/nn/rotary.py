"""Rotary positions (RoPE; Su et al. 2021, arXiv:2104.09864, section 3.2.2)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError


class Turns(NamedTuple):
    """By what angles the components of queries and keys are turned."""

    cos: Float[Tensor, "B 1 L R"]
    sin: Float[Tensor, "B 1 L R"]
    """R pairs of components, float32. The pair of component i is i + R ("rotate half")."""


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
    angles = positions[:, None, :, None].float() * (1.0 / base**exponents)  # [B 1 L R]
    return Turns(angles.cos(), angles.sin())


def rotate(x: Float[Tensor, "B N L K"], by: Turns) -> Float[Tensor, "B N L K"]:
    """Queries or keys, turned; components behind the turned ones stay. In float32 or wider."""
    pairs = by.cos.shape[-1]
    first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    turned = [first * by.cos - second * by.sin, second * by.cos + first * by.sin]
    return torch.cat([*(part.to(x.dtype) for part in turned), rest], dim=-1)
