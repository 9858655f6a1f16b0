"""How well captions fit pictures, by whichever score a model can give.

- `cosine`: of the two embeddings (dual encoders).
- `match`: the probability that the text describes the picture (models with a matching head).
- `logprob`: the log-likelihood of the text after the picture (models that write).
- `logprob-blank`: the same less its log-likelihood after a grey picture, so that a sentence is not
  preferred for being likely anyway (Lin et al. 2023, arXiv:2306.01879, with their alpha = 1).

Which one was used decides the score, so it stands in the signature.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.core.errors import ConfigError, UnsupportedTaskError, unknown_name
from sightline.data.contrasts import Contrast
from sightline.data.records import Record
from sightline.evaluation.interfaces import EmbeddingModel, LikelihoodModel, MatchingModel
from sightline.evaluation.records import UNREADABLE, Progress, embed_captions, embed_pictures

METHODS = ("cosine", "match", "logprob", "logprob-blank")
CaptionModel = EmbeddingModel | MatchingModel | LikelihoodModel
_BLANK = np.full((224, 224, 3), 127, dtype=np.uint8)


class CaptionScores(NamedTuple):
    """A matrix for each contrast."""

    scores: list[Float[Tensor, "C I"]]
    """Of each caption with each picture; NaN where the picture could not be read."""
    blank: list[Float[Tensor, " C"]] | None
    """Of each caption with a grey picture, the same for all; None where it was not asked for."""
    read: Bool[Tensor, " N"]
    """Whether all pictures of a contrast could be read."""
    pictures: list[Record]
    """The different pictures."""
    shown: list[tuple[int, ...]]
    """Which of them each contrast shows."""
    missing: tuple[str, ...]
    """The id and the reason of each picture that could not be read."""


def choose_method(model: CaptionModel, method: str | None, caption: str) -> str:
    """The name of the score; for None the first of cosine, match, logprob that the model has.

    It is asked for the score of one caption to know.

    Raises:
        ConfigError: an unknown name.
        UnsupportedTaskError: the model has none of them.
    """
    if method is not None:
        if method not in METHODS:
            raise ConfigError(unknown_name("score", method, METHODS))
        return method
    some = [caption]
    tries: Sequence[tuple[str, str, tuple[object, ...]]] = (
        ("cosine", "embed_texts", (some,)),
        ("match", "match", (_BLANK, some)),
        ("logprob", "logprob", (_BLANK, "", some)),
    )
    refusals = []
    for name, deed, arguments in tries:
        if not hasattr(model, deed):
            continue
        try:
            getattr(model, deed)(*arguments)
        except UnsupportedTaskError as error:  # its message names models which can
            refusals.append(error)
        else:
            return name
    if refusals:
        raise refusals[0]
    raise UnsupportedTaskError("the model has no embed_texts, match or logprob to score texts with")


def score_captions(
    model: CaptionModel,
    contrasts: Sequence[Contrast],
    method: str,
    prompt: str = "",
    batch_size: int = 32,
    progress: Progress | None = None,
) -> CaptionScores:
    """Score every caption of a contrast with every picture of it.

    Each different picture and each different caption goes through the network once.

    Args:
        model: what `sightline.load` returns.
        contrasts: pictures with their captions.
        method: one of `METHODS`.
        prompt: what a likelihood comes after, beside the picture.
        batch_size: pictures embedded at a time.
        progress: called with pictures done and their total.
    """
    pictures, shown = _different_pictures(contrasts)
    if method == "cosine":
        embedder = cast(EmbeddingModel, model)
        return _cosines(embedder, contrasts, pictures, shown, batch_size, progress)
    ask = _asker(model, method, prompt)
    by_picture: list[dict[str, float] | None] = []
    missing = []
    for place, (record, texts) in enumerate(
        zip(pictures, _texts_of(contrasts, shown), strict=True)
    ):
        try:
            by_picture.append(dict(zip(texts, ask(record.image, texts), strict=True)))
        except UNREADABLE as error:
            by_picture.append(None)
            missing.append(f"{record.id}: {error}")
        if progress is not None:
            progress(place + 1, len(pictures))

    def score(caption: str, picture: int) -> float:
        found = by_picture[picture]
        return torch.nan if found is None else found[caption]

    scores = [
        torch.tensor([[score(text, i) for i in own] for text in contrast.captions])
        for contrast, own in zip(contrasts, shown, strict=True)
    ]
    read = torch.tensor([all(by_picture[i] is not None for i in own) for own in shown])
    return CaptionScores(scores, None, read.bool(), pictures, shown, tuple(missing))


def _asker(
    model: CaptionModel, method: str, prompt: str
) -> Callable[[Any, list[str]], Iterable[float]]:
    """Picture and texts to a score each."""
    if method == "match":
        return lambda image, texts: cast(MatchingModel, model).match(image, texts).tolist()
    writer = cast(LikelihoodModel, model)
    if method == "logprob":
        return lambda image, texts: writer.logprob(image, prompt, texts).tolist()
    prior: dict[str, float] = {}

    def beyond_prior(image: Any, texts: list[str]) -> list[float]:
        new = [text for text in texts if text not in prior]
        if new:
            prior.update(zip(new, writer.logprob(_BLANK, prompt, new).tolist(), strict=True))
        seen = writer.logprob(image, prompt, texts).tolist()
        return [value - prior[text] for value, text in zip(seen, texts, strict=True)]

    return beyond_prior


def _cosines(
    model: EmbeddingModel,
    contrasts: Sequence[Contrast],
    pictures: list[Record],
    shown: list[tuple[int, ...]],
    batch_size: int,
    progress: Progress | None,
) -> CaptionScores:
    texts = list(dict.fromkeys(text for contrast in contrasts for text in contrast.captions))
    place = {text: number for number, text in enumerate(texts)}
    # float64, then rounded: equal embeddings tie however the products are summed
    embedded = embed_captions(model, texts).double()
    found = embed_pictures(model, pictures, batch_size, progress)
    vectors = found.embeddings.double()
    if not found.read.any():
        vectors = vectors.new_full((len(pictures), embedded.shape[1]), torch.nan)
    grey = model.embed_images([_BLANK], batch_size=1)[0].double()  # [D]
    scores, blank = [], []
    for contrast, own in zip(contrasts, shown, strict=True):
        rows = embedded[[place[text] for text in contrast.captions]]  # [C D]
        scores.append((rows @ vectors[list(own)].T).float())
        blank.append((rows @ grey).float())
    read = torch.tensor([bool(found.read[list(own)].all()) for own in shown], dtype=torch.bool)
    return CaptionScores(scores, blank, read, pictures, shown, found.missing)


def _different_pictures(
    contrasts: Sequence[Contrast],
) -> tuple[list[Record], list[tuple[int, ...]]]:
    """The different pictures as records, each named for the first contrast that shows it."""
    places: dict[Hashable, int] = {}
    pictures: list[Record] = []
    shown = []
    for contrast in contrasts:
        own = []
        for number, image in enumerate(contrast.images):
            key = image if isinstance(image, Hashable) else id(image)
            if key not in places:
                places[key] = len(pictures)
                suffix = f"#{number}" if len(contrast.images) > 1 else ""
                pictures.append(Record(contrast.id + suffix, image))
            own.append(places[key])
        shown.append(tuple(own))
    return pictures, shown


def _texts_of(contrasts: Sequence[Contrast], shown: Sequence[tuple[int, ...]]) -> list[list[str]]:
    """The captions that each picture is scored with."""
    count = 1 + max((i for own in shown for i in own), default=-1)
    texts: list[dict[str, None]] = [{} for _ in range(count)]
    for contrast, own in zip(contrasts, shown, strict=True):
        for picture in own:
            texts[picture].update(dict.fromkeys(contrast.captions))
    return [list(own) for own in texts]
