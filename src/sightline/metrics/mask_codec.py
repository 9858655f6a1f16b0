"""How far two masks agree, and how much of a codebook is used."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.errors import InputError


def mask_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Pixels in both over pixels in either (Jaccard 1901); 1 where both are empty.

    Raises:
        InputError: they differ in size, or are no masks.
    """
    if one.shape != other.shape or one.dtype != np.bool_ or other.dtype != np.bool_:
        raise InputError(
            f"two masks bool[H, W] of one size are compared: {one.dtype}{list(one.shape)} and "
            f"{other.dtype}{list(other.shape)} arrived"
        )
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


def codebook_use(indices: Int[Tensor, "..."], codewords: int) -> tuple[float, float]:
    """Share of the codewords that occur, and the perplexity of their distribution.

    The perplexity is exp of the entropy: V where all V are used alike, 1 where only one is.
    """
    counts = torch.bincount(indices.flatten(), minlength=codewords).double()
    shares = counts / counts.sum()
    entropy = -torch.xlogy(shares, shares).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())
