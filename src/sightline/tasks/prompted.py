"""Words put into prompts and embedded once: what classification and tagging compare with.

One class, several templates: each filled prompt is embedded to unit length, the class is their
mean, divided by its length again (prompt ensembling, Radford et al. 2021, section 3.1.4).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from sightline.core.errors import ConfigError, InputError
from sightline.tasks.batching import as_texts
from sightline.tasks.embed import embed_texts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sightline.tasks.model import Model

NEUTRAL_PROMPTS = ("a photo.", "a picture.", "an image.")
"""Prompts that claim nothing: a softmax system's logit is measured against them (`scores`)."""

_KEPT = 8


class PromptCache:
    """Class embeddings of the last few label lists, valid while the network's weights stay.

    Tagging one picture after another with 600 words would otherwise read the 600 words each time.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = OrderedDict()
        self._weights: object = None

    def embeddings(self, model: Model, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """float32[len(labels), D], unit length."""
        weights = _weights_state(model.network)
        if weights != self._weights:
            self._entries.clear()
            self._weights = weights
        key = (tuple(labels), tuple(templates))
        if key not in self._entries:
            self._entries[key] = class_embeddings(model, labels, templates)
            while len(self._entries) > _KEPT:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]


def class_embeddings(model: Model, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """float32[M, D]: per label the mean of its prompts' unit vectors, at unit length."""
    from sightline.inputs.prompts import fill

    prompts = [fill(template, label) for label in labels for template in templates]
    vectors = embed_texts(model, prompts)  # [M*K D]
    per_label = vectors.unflatten(0, (len(labels), len(templates)))  # [M K D]
    return normalize(per_label.mean(dim=1), dim=-1)  # [M D]


def checked_labels(labels: Iterable[str], what: str = "labels") -> list[str]:
    """The labels as a list.

    Raises:
        InputError: one string instead of a list, an empty list, an empty or a repeated label.
    """
    if isinstance(labels, str):
        parts = [part.strip() for part in labels.split(",")]
        raise InputError(f"{what} must be a list of words, one string arrived: use {parts!r}")
    listed = as_texts(labels, what)
    if not listed:
        raise InputError(f"no {what} arrived: give at least one")
    seen: set[str] = set()
    for label in listed:
        if not label.strip():
            raise InputError(f"{what} must not be empty: {label!r} arrived")
        if label in seen:
            raise InputError(f"{what} must differ: {label!r} arrived twice")
        seen.add(label)
    return listed


def checked_templates(model: Model, templates: str | Iterable[str] | None) -> list[str]:
    """The templates as a list; None is the one that the system was published with.

    Raises:
        ConfigError: no template, or one without a place for the label.
    """
    if templates is None:
        return [model.system.default_template or "a photo of a {}."]
    listed = as_texts(templates, "templates")
    if not listed:
        raise ConfigError("no templates arrived: leave them out or give at least one")
    for template in listed:
        if "{}" not in template:
            raise ConfigError(
                f"template {template!r} has no place for the label: write {{}} where it belongs"
            )
    return listed


def neutral_embedding(model: Model) -> Tensor:
    """float32[1, D]: the mean direction of prompts that claim nothing."""
    vectors = [model.prompts.embeddings(model, [text], ["{}"]) for text in NEUTRAL_PROMPTS]
    return normalize(torch.cat(vectors).mean(dim=0, keepdim=True), dim=-1)


def _weights_state(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """Changes whenever a parameter is replaced or written to in place."""
    return tuple(
        (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
        for parameter in network.parameters()
    )
