"""Which of these labels: by words (Radford et al. 2021, section 3.1), or by a trained layer.

A dual encoder compares the picture with a sentence for each label and takes any labels. A model
that writes takes any labels too: each is as good as it is likely as the answer to "what is this?"
(`tasks.likelihood`, `Instructions.classify`). A classifier has one output for each label of its
training and can name nothing else: adding a label means training it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sightline.core.errors import ConfigError, InputError
from sightline.core.outputs import Label
from sightline.tasks.abilities import CLASSIFY, WRITES, cannot, closed_labels
from sightline.tasks.batching import Failed, OnError, Pixels, as_sources
from sightline.tasks.embed import embed_each, encode_each, evaluating
from sightline.tasks.likelihood import class_shares
from sightline.tasks.prompted import checked_labels, checked_templates
from sightline.tasks.scores import among, best_first

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model

ANY_WORDS = "similarity"
"""The task of the models that classify by any words."""


def classify_each(
    model: Model,
    images: Any,
    labels: Iterable[str] | None = None,
    templates: str | Iterable[str] | None = None,
    batch_size: int = 32,
    on_error: OnError = "raise",
) -> Iterator[list[Label] | Failed]:
    """Every label with its score, best first, for each picture in order.

    Softmax systems share one between the labels; sigmoid systems score each label on its own, and
    the scores need not add up to one. A classifier shares one between its own labels, or between
    those of them that are given. A model that writes shares one between the labels, by softmax over
    log p(label, end | picture, question).

    Raises:
        UnsupportedTaskError: the model reads no text, or is a classifier of other labels.
        InputError: labels that cannot be used, or none where the model has none of its own.
        ConfigError: templates that cannot be used.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    if closed_labels(model):
        names = closed_names(model, labels)
        if templates is not None:
            raise ConfigError(
                f"{model.name} classifies without words: templates would change nothing, leave "
                "them out"
            )
        rows = closed_scores(model, as_sources(images), names, batch_size, on_error)
        return _ranked(rows, names)
    if labels is None:
        if model.system.role != WRITES:
            model.require_role("dual encoder", CLASSIFY, "classify")
        raise InputError(
            f"{model.name} reads words and has no labels of its own: give it some (--labels "
            'cat,dog, or labels=["cat", "dog"])'
        )
    if model.system.role == WRITES:
        if templates is not None:
            raise ConfigError(f"{model.name} asks in its own words: leave the templates out")
        return class_shares(model, images, checked_labels(labels), batch_size, on_error)
    model.require_role("dual encoder", ANY_WORDS, "classify by words")
    names = checked_labels(labels)
    texts = model.prompts.embeddings(model, names, checked_templates(model, templates))
    rows = embed_each(model, as_sources(images), batch_size, on_error)
    return _ranked((r if isinstance(r, Failed) else among(model, r, texts) for r in rows), names)


def closed_names(model: Model, labels: Iterable[str] | None = None) -> list[str]:
    """Those of a classifier's labels that are asked for; None means all, each name once.

    Raises:
        UnsupportedTaskError: a label that the model was not trained on.
        InputError: labels that cannot be used.
    """
    known = list(dict.fromkeys(closed_labels(model)))
    if labels is None:
        return known
    names = checked_labels(labels)
    strange = [name for name in names if name not in set(known)]
    if strange:
        own = ", ".join(known[:4]) + (f" and {len(known) - 4} more" if len(known) > 4 else "")
        raise cannot(
            model, ANY_WORDS, f"name {strange[0]!r}",
            f"it was trained on a closed set of {len(known)} labels ({own}) and a new one needs "
            "training again",
        )  # fmt: skip
    return names


def closed_scores(
    model: Model,
    sources: Iterable[Any],
    names: Sequence[str],
    batch_size: int = 32,
    on_error: OnError = "raise",
) -> Iterator[Tensor | Failed]:
    """Softmax float32[V] over some of a classifier's labels, for each picture in order.

    A name that stands for several classes (ImageNet has two cranes) has their shares together.

    Args:
        names: from `closed_names`.
    """
    places = {name: place for place, name in enumerate(names)}
    chosen = [(column, places[label]) for column, label in enumerate(closed_labels(model))
              if label in places]  # fmt: skip
    columns, owners = torch.tensor(chosen).unbind(dim=1)  # int64[C] each

    def encode(pixels: Pixels) -> Tensor:
        with evaluating(model.network):
            logits = model.network.class_logits(model.network(pixels.to(model.device)).pooled)
            shares = logits.float().cpu()[:, columns].softmax(dim=-1)  # [B C]
        return torch.zeros(len(shares), len(names)).index_add(1, owners, shares)  # [B V]

    return encode_each(model, sources, encode, batch_size, on_error)


def _ranked(
    rows: Iterable[Tensor | Failed], names: Sequence[str]
) -> Iterator[list[Label] | Failed]:
    for row in rows:
        yield row if isinstance(row, Failed) else best_first(names, row)
