"""A mask through a codebook and back: reconstruction and commitment.

Equation 3 of van den Oord et al. 2017 (arXiv:1711.00937), with squared differences as in Ning et
al. 2023 (arXiv:2301.02229).
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sightline.core.errors import ConfigError
from sightline.nn.norms import at_least_float32
from sightline.nn.precision import without_autocast

COMMITMENT = 0.25
"""The paper's beta."""


def mask_codec_loss(
    masks: Float[Tensor, "B H W"],
    decoded: Float[Tensor, "B H W"],
    features: Float[Tensor, "B P D"],
    codewords: Float[Tensor, "B P D"],
    *,
    commitment: float = COMMITMENT,
    codebook: float = 1.0,
) -> Float[Tensor, " B"]:
    """The loss of each mask; their mean is what is trained on.

    mean (decoded - mask)^2 + codebook * mean (sg features - codeword)^2
    + commitment * mean (feature - sg codeword)^2, where sg has no gradient.

    Args:
        masks: -1 outside to 1 inside.
        decoded: what came back.
        features: before rounding.
        codewords: what they were rounded to.
        commitment: weight of the features' way to their codewords.
        codebook: weight of the codewords' way to their features; 0 where these are running averages
            (`nn.codebooks.CodebookAverage`).

    Raises:
        ConfigError: a weight below 0.
    """
    if commitment < 0 or codebook < 0:
        raise ConfigError(f"commitment {commitment} and codebook {codebook} are weights from 0 on")
    with without_autocast(decoded.device):
        loss = _distance(at_least_float32(decoded), masks)  # [B]
        loss = loss + commitment * _distance(at_least_float32(features), codewords.detach())
        if codebook:
            loss = loss + codebook * _distance(at_least_float32(codewords), features.detach())
        return loss


def _distance(a: Tensor, b: Tensor) -> Float[Tensor, " B"]:
    return F.mse_loss(a, b, reduction="none").flatten(1).mean(dim=1)  # [B]
