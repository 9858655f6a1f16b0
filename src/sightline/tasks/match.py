"""How well texts and pictures fit: logits for all pairs, or a probability for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sightline.core.errors import InputError
from sightline.tasks.abilities import WRITES
from sightline.tasks.batching import Failed, OnError, as_sources, as_texts
from sightline.tasks.embed import embed_each, embed_images, embed_texts
from sightline.tasks.likelihood import claim_probabilities
from sightline.tasks.scores import independent, logits

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model


def similarity(model: Model, images: Any, texts: str | Iterable[str]) -> Tensor:
    """Logits float32[N, M]: scale * cosine + bias of each picture with each text.

    Raises:
        UnsupportedTaskError: the model reads no text.
        ImageError: a picture that cannot be read.
    """
    model.require_role("dual encoder", "similarity", "compare pictures with text")
    words = embed_texts(model, texts)  # first: a wrong text should not cost a folder of pictures
    return logits(model, embed_images(model, images), words)


def match_each(
    model: Model,
    images: Any,
    texts: str | Iterable[str],
    batch_size: int = 32,
    on_error: OnError = "raise",
) -> Iterator[Tensor | Failed]:
    """Probability float32[N] that each text describes the picture, for each picture in order.

    The texts are taken as they are (no template) and each is judged on its own; what the number
    means for a softmax system is written in `scores`. A model that writes is asked whether the text
    describes the picture (`Instructions.match`): the share of "yes" against "no".

    Raises:
        UnsupportedTaskError: the model reads no text.
        InputError: no text.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    if model.system.role != WRITES:
        model.require_role("dual encoder", "match", "match pictures with text")
    listed = as_texts(texts)
    if not listed:
        raise InputError("no texts arrived: give at least one to match the picture with")
    if model.system.role == WRITES:
        return claim_probabilities(model, images, listed, batch_size, on_error)
    words = embed_texts(model, listed)
    return (
        row if isinstance(row, Failed) else independent(model, row, words)
        for row in embed_each(model, as_sources(images), batch_size, on_error)
    )
