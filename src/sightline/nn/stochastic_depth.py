"""Leaving out whole branches of residual blocks while training."""

import torch
from jaxtyping import Float
from torch import Tensor


def drop_branch(
    branch: Float[Tensor, "B ..."], rate: float, training: bool
) -> Float[Tensor, "B ..."]:
    """Each example loses the branch with probability `rate`; what stays is scaled up to keep the
    mean (Huang et al. 2016, arXiv:1603.09382, the scaling moved from testing to training)."""
    if rate == 0 or not training:
        return branch
    shape = (len(branch),) + (1,) * (branch.ndim - 1)
    kept = torch.rand(shape, device=branch.device) >= rate
    return torch.where(kept, branch / (1 - rate), 0)


def linear_rates(largest: float, depth: int) -> list[float]:
    """From 0 at the first block to `largest` at the last one (section 3.2 of the paper)."""
    return [largest * index / max(1, depth - 1) for index in range(depth)]
