"""One of a closed set of classes: cross-entropy with label smoothing.

Smoothing is Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision"
(arXiv:1512.00567), section 7.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError
from sightline.nn.norms import at_least_float32
from sightline.nn.precision import without_autocast


def softmax_classification(
    logits: Float[Tensor, "B V"], targets: Int[Tensor, " B"], *, label_smoothing: float = 0.0
) -> Float[Tensor, " B"]:
    """The loss of each picture; their mean is what is trained on.

    With e for `label_smoothing` and V classes, the target distribution of a picture of class t is
    q_k = (1 - e) [k = t] + e / V, and its loss -sum_k q_k log softmax(logits)_k. At least float32.

    Args:
        targets: column of the true class, 0 to V - 1.
        label_smoothing: share of the target that is spread over all classes, 0 to below 1.

    Raises:
        ConfigError: label smoothing outside 0 to 1.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing is {label_smoothing}: it lies between 0 and 1")
    with without_autocast(logits.device):
        chances = F.log_softmax(at_least_float32(logits), dim=1)  # [B V]
        own = chances.gather(1, targets[:, None]).squeeze(1)  # [B]
        return -(1 - label_smoothing) * own - label_smoothing * chances.mean(dim=1)
