"""Which of these labels: zero-shot classification (Radford et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sightline.core.outputs import Label
from sightline.tasks.batching import Failed, OnError, as_sources
from sightline.tasks.embed import embed_each
from sightline.tasks.prompted import checked_labels, checked_templates
from sightline.tasks.scores import among

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model


def classify_each(
    model: Model,
    images: Any,
    labels: Iterable[str],
    templates: str | Iterable[str] | None = None,
    batch_size: int = 32,
    on_error: OnError = "raise",
) -> Iterator[list[Label] | Failed]:
    """Every label with its score, best first, for each picture in order.

    Softmax systems share one between the labels; sigmoid systems score each label on its own, and
    the scores need not add up to one.

    Raises:
        UnsupportedTaskError: the model reads no text.
        InputError: labels or templates that cannot be used.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    model.require_role("dual encoder", "classify", "classify by words")
    names = checked_labels(labels)
    texts = model.prompts.embeddings(model, names, checked_templates(model, templates))
    return _answers(
        model, embed_each(model, as_sources(images), batch_size, on_error), names, texts
    )


def _answers(
    model: Model, rows: Iterable[Tensor | Failed], names: Sequence[str], texts: Tensor
) -> Iterator[list[Label] | Failed]:
    for row in rows:
        yield row if isinstance(row, Failed) else best_first(names, among(model, row, texts))


def best_first(names: Sequence[str], scores: Tensor) -> list[Label]:
    """Names with scores float32[M] as plain numbers, best first, equal ones as given."""
    labels = [Label(name, float(score)) for name, score in zip(names, scores, strict=True)]
    return sorted(labels, key=lambda label: -label.score)
