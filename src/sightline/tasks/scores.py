"""From cosines to logits, and from logits to a probability for each text on its own.

Systems trained with the sigmoid loss (SigLIP) say yes or no to each pair: sigmoid(logit).
Systems trained with a softmax over a batch (CLIP) only say which text fits better than another,
so their logit means nothing alone. Here it is measured against prompts that claim nothing ("a
photo."): sigmoid(logit - neutral logit), the softmax between the text and the neutral prompt. It
depends on no other text either. 0.5 means: as good as saying nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sightline.core.outputs import Label
from sightline.tasks.prompted import neutral_embedding

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model


def logits(model: Model, images: Tensor, texts: Tensor) -> Tensor:
    """scale * cosine + bias of unit vectors float32[..., D] and float32[M, D]: float32[..., M]."""
    scale, bias = pair_scale(model)
    return scale * (images @ texts.T) + bias  # [... M]


def pair_scale(model: Model) -> tuple[Tensor, Tensor]:
    """The network's scale (already exponentiated) and bias, float32[] on the CPU."""
    scale, bias = model.network.pair_scale()
    return scale.detach().float().cpu(), bias.detach().float().cpu()


def independent(model: Model, images: Tensor, texts: Tensor) -> Tensor:
    """Probability float32[..., M] of each text on its own; other texts do not move it."""
    values = logits(model, images, texts)  # [... M]
    if model.system.score != "sigmoid":
        values = values - logits(model, images, neutral_embedding(model))  # [... M] - [... 1]
    return values.sigmoid()


def among(model: Model, images: Tensor, texts: Tensor) -> Tensor:
    """Score float32[..., M] of each label as the system was trained: softmax or sigmoid."""
    values = logits(model, images, texts)
    return values.sigmoid() if model.system.score == "sigmoid" else values.softmax(dim=-1)


def best_first(names: Sequence[str], scores: Tensor) -> list[Label]:
    """Names with scores float32[M] as plain numbers, best first, equal ones as given."""
    labels = [Label(name, float(score)) for name, score in zip(names, scores, strict=True)]
    return sorted(labels, key=lambda label: -label.score)
