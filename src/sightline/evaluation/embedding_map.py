"""A map in two dimensions of where a model puts pictures and texts.

Pictures and texts of a contrastive model lie in two separate cones (Liang et al. 2022, "Mind the
Gap", arXiv:2203.02053): a common projection would show that gap and nothing else. So each
modality is centred on its own mean first, the two are projected by one principal component
analysis, and the gap is given as a number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.core.errors import InputError


class EmbeddingMap(NamedTuple):
    """Places on the map."""

    images: Float[Tensor, "N 2"]
    texts: Float[Tensor, "M 2"]
    explained: tuple[float, float]
    """Share of the variance, after centring, that each axis shows."""
    gap: float
    """Distance between the mean picture and the mean text before centring."""


def embedding_map(
    image_embeddings: Float[Tensor, "N D"], text_embeddings: Float[Tensor, "M D"]
) -> EmbeddingMap:
    """Principal components of both modalities together, each centred on its own mean.

    Signs are fixed so that the largest weight of each axis is positive: the same embeddings give
    the same map.

    Raises:
        InputError: no picture and no text, widths that differ, or values that are not finite.
    """
    images, texts = image_embeddings.double(), text_embeddings.double()
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise InputError(
            f"picture embeddings are {list(images.shape)} and text embeddings "
            f"{list(texts.shape)}: both must be [count, width] with the same width"
        )
    if not len(images) or not len(texts):
        raise InputError("a map needs at least one picture and one text")
    if not (torch.isfinite(images).all() and torch.isfinite(texts).all()):
        raise InputError("an embedding is not finite: leave that picture or text out of the map")
    gap = (images.mean(dim=0) - texts.mean(dim=0)).norm().item()
    centred = torch.cat([images - images.mean(dim=0), texts - texts.mean(dim=0)])  # [N+M D]
    _, strengths, directions = torch.linalg.svd(centred, full_matrices=False)
    axes = _two_axes(directions)  # [2 D]
    places = (centred @ axes.T).float()  # [N+M 2]
    variance = strengths.square()
    total = variance.sum().clamp(min=torch.finfo(variance.dtype).tiny)
    shares = [*(variance / total).tolist(), 0.0, 0.0]
    return EmbeddingMap(places[: len(images)], places[len(images) :], (shares[0], shares[1]), gap)


def _two_axes(directions: Float[Tensor, "R D"]) -> Float[Tensor, "2 D"]:
    axes = directions.new_zeros(2, directions.shape[1])
    axes[: len(directions)] = directions[:2]  # fewer where there is only one dimension
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))  # [2 1]
    return axes * torch.where(largest < 0, -1.0, 1.0)
