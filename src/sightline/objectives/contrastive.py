"""Contrastive losses over pairs of a picture and a sentence.

Both take unit vectors and what turns a cosine into a logit. Across devices, `gather` brings the
other devices' rows behind and before one's own, with gradient, and `first_row` says where one's
own begin; averaged over the devices, the gradient is that of one process with the whole batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""float[B, D] of this device to float[all B, D] of all devices in their order."""


def alone(rows: Tensor) -> Tensor:
    """The gather of a single process: what is here is all there is."""
    return rows


def softmax_contrastive(
    image_embeddings: Float[Tensor, "B D"],
    text_embeddings: Float[Tensor, "B D"],
    scale: Float[Tensor, ""],
    *,
    gather: Gather = alone,
    first_row: int = 0,
) -> Float[Tensor, ""]:
    """CLIP's loss: each picture picks its sentence among all, each sentence its picture.

    The mean of the two cross-entropies (Radford et al. 2021, arXiv:2103.00020, figure 3).
    Identical embeddings everywhere give ln B.
    """
    targets = torch.arange(len(image_embeddings), device=image_embeddings.device) + first_row  # [B]
    image_logits = scale * image_embeddings @ gather(text_embeddings).T  # [B all]
    text_logits = scale * text_embeddings @ gather(image_embeddings).T  # [B all]
    return (F.cross_entropy(image_logits, targets) + F.cross_entropy(text_logits, targets)) / 2


def sigmoid_contrastive(
    image_embeddings: Float[Tensor, "B D"],
    text_embeddings: Float[Tensor, "B D"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    matches: Bool[Tensor, "B all"] | None = None,
    gather: Gather = alone,
    first_row: int = 0,
) -> Float[Tensor, ""]:
    """SigLIP's loss: every pair of the batch is a yes-or-no question of its own.

    -1/B sum_i sum_j log sigmoid(z_ij (scale x_i.y_j + bias)), z = 1 for a true pair, else -1
    (Zhai et al. 2023, arXiv:2303.15343, section 3.2): summed over sentences, then the mean over
    pictures. The sign stands inside the sigmoid, once. A commonly printed form repeats it outside
    with the opposite sense, pushes every logit up and does not learn.

    Args:
        matches: which sentence is true of which picture, where that is known; by default each
            picture's own alone, as in the paper.
    """
    logits = scale * image_embeddings @ gather(text_embeddings).T + bias  # [B all]
    if matches is None:
        rows = torch.arange(len(logits), device=logits.device)
        matches = torch.zeros_like(logits, dtype=torch.bool)  # [B all]
        matches[rows, rows + first_row] = True
    return -F.logsigmoid(torch.where(matches, logits, -logits)).sum(dim=1).mean()
