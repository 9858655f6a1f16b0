"""Pictures and sentences to unit vectors.

What a vector is, by the role of the network: a dual encoder gives its projected embedding; an image
encoder gives what its checkpoint pools (for ViT the class token after the final norm), a text
encoder likewise (for BERT as its config says), divided by its length. Vectors of different models
are not comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from sightline.core.errors import ConfigError, unknown_name
from sightline.inputs.limits import DEFAULT_OPTIONS, DecodeOptions
from sightline.tasks.abilities import cannot
from sightline.tasks.batching import (
    Failed,
    OnError,
    Pixels,
    as_sources,
    as_texts,
    check_batching,
    chunks,
    in_batches,
    joined,
    prepared,
    read_named,
    split_failures,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sightline.tasks.model import Model

TEXTS_AT_ONCE = 64


class Embedded(NamedTuple):
    """Vectors of the sources that could be read."""

    vectors: Tensor
    """float32[N, D], unit length."""
    places: list[int]
    """Where each row stood among the sources."""
    failed: list[Failed]


def embed_images(model: Model, images: Any, batch_size: int = 32) -> Tensor:
    """Unit vectors float32[N, D] of one picture or many; the first that cannot be read raises.

    Raises:
        ImageError: a picture that cannot be read, named.
        ConfigError: a batch size below one.
    """
    rows = list(embed_each(model, as_sources(images), batch_size, "raise"))
    return _stacked(model, [row for row in rows if not isinstance(row, Failed)])


def embed_readable(model: Model, images: Iterable[Any], batch_size: int = 32) -> Embedded:
    """Unit vectors of every picture that can be read, and the names of the others."""
    rows, places, failed = split_failures(
        embed_each(model, as_sources(images), batch_size, "collect")
    )
    return Embedded(_stacked(model, rows), places, failed)


def embed_each(
    model: Model, sources: Iterable[Any], batch_size: int = 32, on_error: OnError = "raise"
) -> Iterator[Tensor | Failed]:
    """One float32[D] (or `Failed`) per source, in order, while later ones are being decoded.

    Raises:
        UnsupportedTaskError: the model sees no pictures.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    if model.processor.image is None:
        raise cannot(model, "embed", "look at pictures")
    return encode_each(
        model, sources, lambda pixels: _encode_pixels(model, pixels), batch_size, on_error
    )


def encode_each(
    model: Model,
    sources: Iterable[Any],
    encode: Callable[[Pixels], Tensor],
    batch_size: int = 32,
    on_error: OnError = "raise",
) -> Iterator[Tensor | Failed]:
    """One row (or `Failed`) per source, in order, while later ones are being decoded.

    Args:
        encode: prepared pictures to one row each, on the CPU.

    Raises:
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    check_batching(batch_size, on_error)
    options = decode_options(model)  # a mistake here is none of a picture
    rows = prepared(
        sources,
        lambda source, place: model.processor.images([read_named(source, place, options)]),
        ahead=2 * batch_size,
    )
    return in_batches(rows, lambda pixels: encode(joined(pixels)), batch_size, on_error)


def embed_texts(model: Model, texts: Any) -> Tensor:
    """Unit vectors float32[N, D] of one sentence or many.

    Raises:
        UnsupportedTaskError: the model reads no text.
        InputError: something that is not a string.
    """
    if model.system.role not in ("dual encoder", "text encoder"):
        raise cannot(model, "similarity", "read text")
    listed = as_texts(texts)
    if not listed:
        return torch.empty(0, embedding_width(model))
    return torch.cat([_encode_texts(model, part) for part in chunks(listed, TEXTS_AT_ONCE)])


def embedding_width(model: Model) -> int:
    """D, found by embedding one blank picture, or one sentence where there are no pictures."""
    if model.system.role == "text encoder":
        return int(_encode_texts(model, ["a"]).size(1))
    blank = model.processor.images([np.zeros((8, 8, 3), np.uint8)])
    return int(_encode_pixels(model, blank).size(1))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; afterwards every module is in the mode it was in."""
    with without_dropout(network), torch.inference_mode():
        yield


@contextmanager
def without_dropout(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def decode_options(model: Model) -> DecodeOptions:
    """How the model's pictures are read, by its `decode`.

    Raises:
        ConfigError: an unknown way, or "reduced" where the size that a picture needs is not known.
    """
    if model.decode == "exact":
        return DEFAULT_OPTIONS
    if model.decode != "reduced":
        raise ConfigError(unknown_name("decode", model.decode, ("exact", "reduced")))
    side = getattr(getattr(model.processor.image, "spec", None), "least_side", None)
    if side is None:
        raise ConfigError(
            f"decode='reduced' is for models that resize every picture to one size, and "
            f"{model.name} does not: use decode='exact'"
        )
    return replace(DEFAULT_OPTIONS, jpeg_side=side)


def _encode_pixels(model: Model, pixels: Pixels) -> Tensor:
    """The processor's batch to unit float32[B, D] on the CPU, free of inference mode."""
    with evaluating(model.network):
        pixels = pixels.to(model.device)
        if model.system.role == "dual encoder":
            vectors = model.network.encode_images(pixels)
        else:
            vectors = model.network(pixels).pooled
        unit = normalize(vectors.float(), dim=-1)
    return _plain(unit)


def _encode_texts(model: Model, texts: Sequence[str]) -> Tensor:
    batch = model.processor.texts(list(texts))
    with evaluating(model.network):
        ids, mask = batch.ids.to(model.device), batch.mask.to(model.device)
        if model.system.role == "dual encoder":
            vectors = model.network.encode_texts(ids, mask)
        else:
            vectors = model.network(ids, mask).pooled
        unit = normalize(vectors.float(), dim=-1)
    return _plain(unit)


def _plain(vectors: Tensor) -> Tensor:
    # Tensors of inference mode cannot be saved for a backward pass: a head trained on
    # embeddings would fail. A copy made outside of it can.
    return vectors.clone().cpu()


def _stacked(model: Model, rows: list[Tensor]) -> Tensor:
    return torch.stack(rows) if rows else torch.empty(0, embedding_width(model))
