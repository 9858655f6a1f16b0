"""How much of a codebook is used."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def codebook_use(indices: Int[Tensor, "*B"], codewords: int) -> tuple[float, float]:
    """Share of the codewords that occur, and the perplexity of their distribution.

    The perplexity is exp of the entropy: V where all V are used alike, 1 where only one is.
    """
    counts = torch.bincount(indices.flatten(), minlength=codewords).double()
    shares = counts / counts.sum()
    entropy = -torch.xlogy(shares, shares).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())
