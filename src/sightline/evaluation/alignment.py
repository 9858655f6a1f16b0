"""How well captions fit their pictures, record by record, as a model sees it.

The number is the plain cosine of the two embeddings, which data sets are filtered by (Schuhmann et
al., LAION-400M, arXiv 2111.02114; DataComp's `clip_*_similarity_score`). CLIPScore (Hessel et al.
2021) is 2.5 times its positive part, with a prompt. It orders records by one model; thresholds of
another model mean nothing to it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.core.errors import DataError
from sightline.evaluation.interfaces import DatasetLike, EmbeddingModel
from sightline.evaluation.records import Progress, embed_captions, embed_pictures


class Alignment(NamedTuple):
    """Cosines in the order of the records."""

    scores: Float[Tensor, " N"]
    """Of the caption that fits best; NaN without a caption or a readable picture."""
    pictures: Float[Tensor, "N D"]
    """Embeddings of the pictures, unit length; NaN where one could not be read."""
    missing: tuple[str, ...]
    """The id and the reason of each picture that could not be read."""


def alignment(
    model: EmbeddingModel,
    dataset: DatasetLike,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Alignment:
    """The cosine between each picture and the caption of its own that fits best.

    Args:
        model: what `sightline.load` returns.
        dataset: records with captions.
        batch_size: pictures embedded at a time.
        progress: called with pictures done and their total.

    Raises:
        DataError: no record has a caption.
    """
    records = [dataset[number] for number in range(len(dataset))]
    owners = [number for number, record in enumerate(records) for _ in record.captions]
    if not owners:
        raise DataError(
            f"no record of {dataset.name!r} has a caption: a score needs pictures with captions"
        )
    pictures = embed_pictures(model, records, batch_size, progress)
    # the same sentence is said of many pictures: each is embedded once
    texts = list(dict.fromkeys(caption for record in records for caption in record.captions))
    place = {text: number for number, text in enumerate(texts)}
    places = torch.tensor([place[caption] for record in records for caption in record.captions])
    embedded = embed_captions(model, texts)
    best = torch.full((len(records),), -torch.inf)
    if pictures.embeddings.size(1):
        owner = torch.tensor(owners)
        cosines = (pictures.embeddings[owner] * embedded[places]).sum(dim=1)  # [captions]
        best = best.scatter_reduce(0, owner, cosines, "amax")
    scores = torch.where(best.isfinite(), best, torch.nan)
    return Alignment(scores, pictures.embeddings, pictures.missing)
