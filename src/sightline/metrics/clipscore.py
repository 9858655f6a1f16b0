"""CLIPScore (Hessel et al. 2021, arXiv:2104.08718): captions judged by a dual encoder.

Two scales of one cosine are in use under the same name. `clip_score` is the paper's, 2.5 times the
positive part, for captions that were embedded behind "A photo depicts "; `clip_similarity` is 100
times the cosine, of captions as they are. Encoder and prompt belong beside the score.

Letters: N captions, M references, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import InputError
from sightline.metrics.per_sample import Scores, mean_of_scores

PROMPT = "A photo depicts "
"""What the paper writes in front of captions and references."""
SCALE = 2.5


def clip_score(images: Float[Tensor, "N D"], captions: Float[Tensor, "N D"]) -> Scores:
    """2.5 max(cos, 0) of each caption and its picture; what is not finite scores 0.

    Args:
        images: unit-length embeddings.
        captions: the same of the captions behind `PROMPT`.

    Raises:
        InputError: shapes that differ.
    """
    return mean_of_scores((SCALE * _positive(_cosines(images, captions))).numpy())


def clip_similarity(images: Float[Tensor, "N D"], captions: Float[Tensor, "N D"]) -> Scores:
    """100 cos of each caption and its picture; NaN where an embedding is not finite.

    Raises:
        InputError: shapes that differ.
    """
    return mean_of_scores((100 * _cosines(images, captions)).numpy())


def reference_clip_score(
    images: Float[Tensor, "N D"],
    captions: Float[Tensor, "N D"],
    references: Float[Tensor, "M D"],
    owners: Int[Tensor, " M"],
) -> Scores:
    """RefCLIPScore: harmonic mean of CLIPScore and the cosine to the nearest reference.

    Args:
        images, captions: as for `clip_score`.
        references: embeddings of the references behind `PROMPT`.
        owners: the caption that each reference belongs to.

    Raises:
        InputError: shapes that differ, or a caption without reference.
    """
    if references.ndim != 2 or len(references) != len(owners):
        raise InputError(f"{len(references)} references for {len(owners)} owners: give one each")
    if not torch.equal(owners.unique(), torch.arange(len(captions))):
        raise InputError(f"owners must name each of the {len(captions)} captions, counted from 0")
    seen = SCALE * _positive(_cosines(images, captions))  # [N]
    said = _positive(_cosines(captions[owners], references))  # [M]
    nearest = torch.zeros_like(seen).scatter_reduce(0, owners, said, "amax")  # [N]
    both = 2 * seen * nearest / (seen + nearest)
    return mean_of_scores(both.nan_to_num(0.0).numpy())  # 0/0 where neither is positive


def _cosines(first: Tensor, second: Tensor) -> Float[Tensor, " N"]:
    if first.ndim != 2 or first.shape != second.shape:
        raise InputError(
            f"embeddings are {list(first.shape)} and {list(second.shape)}: both must be "
            "[captions, width]"
        )
    return (first.double() * second.double()).sum(dim=1)


def _positive(cosines: Tensor) -> Tensor:
    return cosines.nan_to_num(0.0, posinf=0.0, neginf=0.0).clamp(min=0)
