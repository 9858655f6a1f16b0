"""Masks through a codec and back: the best that a model which writes its tokens can reach.

The box is given exactly, so that only the tokens lose anything. Objects are grouped by the longer
side of their box: a small one has few pixels to be wrong about, and each of them counts more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.errors import DataError
from sightline.data.boxed_masks import BoxedMask
from sightline.evaluation.results import Metric
from sightline.metrics.codebooks import codebook_use
from sightline.metrics.intervals import RESAMPLES, bootstrap_counts, mean_of
from sightline.metrics.masks import overlap
from sightline.tasks.mask_tokens import mask_tokens, token_masks

if TYPE_CHECKING:
    import numpy as np

    from sightline.tasks.model import Model

SIDES = ((0, 8), (8, 12), (12, 16), (16, 24), (24, 32), (32, 64), (64, None))
"""Groups of objects: pixels of the longer side, from the first to below the second."""


@dataclass(frozen=True)
class RoundTrip:
    """What came back of each object."""

    objects: Sequence[BoxedMask]
    masks: Sequence[NDArray[np.bool_]]
    """bool[H, W] each, of the picture's size."""
    ious: Float[Tensor, " N"]
    indices: Int[Tensor, "N P"]
    codewords: int

    def metrics(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Metric]:
        """Mean IoU, that of each group of sides with objects in it, and the use of the codebook.

        Args:
            resamples: draws of the intervals; 0 leaves these out.
            seed: of the draws.
        """
        found = {"iou": self._mean(torch.ones(len(self.ious), dtype=torch.bool), resamples, seed)}
        sides = torch.tensor([item.side for item in self.objects])
        for low, high in SIDES:
            within = (sides >= low) & (sides < (high or torch.inf))
            if within.any():
                name = f"iou, {low} to {high - 1} pixels" if high else f"iou, {low} pixels and more"
                found[name] = self._mean(within, resamples, seed)
        share, perplexity = codebook_use(self.indices, self.codewords)
        return {
            **found,
            "codewords used": Metric(share, n=self.indices.numel()),
            "perplexity": Metric(perplexity, n=self.indices.numel()),
        }

    def _mean(self, chosen: Tensor, resamples: int, seed: int) -> Metric:
        values = self.ious[chosen]
        mean, ends = float(values.mean()), None
        if resamples:
            low, high = bootstrap_counts(
                mean_of(values), len(values), resamples=resamples, seed=seed
            )
            ends = float(low), float(high)
        return Metric(mean, ends, len(values))


def round_trip(model: Model, objects: Sequence[BoxedMask]) -> RoundTrip:
    """Each mask to tokens and back into its picture.

    Args:
        model: what `sightline.load` returns of a mask codec.

    Raises:
        UnsupportedTaskError: another model.
        DataError: no objects.
    """
    model.require_role("mask codec", "segment", "turn masks into tokens")
    if not objects:
        raise DataError("no mask arrived: a round trip needs at least one object")
    boxes = [item.box for item in objects]
    indices = mask_tokens(model.network, [item.mask for item in objects], boxes)
    sizes = [(len(item.mask), item.mask.shape[1]) for item in objects]
    masks = token_masks(model.network, indices, boxes, sizes)
    ious = [overlap(mask, item.mask).iou for mask, item in zip(masks, objects, strict=True)]
    return RoundTrip(objects, masks, torch.tensor(ious), indices, model.config.codewords)
