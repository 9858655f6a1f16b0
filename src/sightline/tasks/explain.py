"""Which pixels spoke for a text: attention rollout, gradient-weighted attention, occlusion.

What is explained is one number, the score of the picture with the text: the logit of a pair, or
of one label of a classifier. Three ways to ask, from the cheapest claim to the dearest answer:

- "rollout" follows attention through the layers (Abnar and Zuidema 2020, arXiv:2005.00928). It
  shows what was looked at; the text changes nothing.
- "gradient" weighs attention by what it did to the score (Chefer, Gur and Wolf 2021,
  arXiv:2103.15679): one pass forward and one back.
- "occlusion" covers part after part and looks at what the score loses (`tasks.occlusion`). It
  needs no attention, and some eighty answers.

None says what is in the picture, and none says why: see docs/learn/explain.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sightline.core.errors import (
    ConfigError,
    InputError,
    SightlineError,
    UnsupportedTaskError,
    unknown_name,
)
from sightline.core.interfaces import PatchBatch
from sightline.core.outputs import Box
from sightline.inputs.naflex import as_patches, as_pixels
from sightline.nn import relevance
from sightline.nn.attention import Attention, recording
from sightline.nn.copies import float32_copy
from sightline.nn.pooling import AttentionPool
from sightline.tasks.abilities import EXPLAIN, EXPLAIN_METHODS, cannot, closed_labels
from sightline.tasks.batching import (
    Failed,
    OnError,
    Pixels,
    as_sources,
    as_texts,
    check_batching,
    read_named,
    source_name,
)
from sightline.tasks.classify import closed_names
from sightline.tasks.embed import embed_texts, evaluating, without_dropout
from sightline.tasks.heat import on_picture
from sightline.tasks.network_layers import image_part
from sightline.tasks.occlusion import Occlusion, lost_by_covering
from sightline.tasks.scores import pair_scale

if TYPE_CHECKING:
    from sightline.tasks.model import Model

WITHOUT_ATTENTION = ("occlusion",)
"""What every network can be asked."""

Score = Callable[[Any, Pixels], Tensor]
"""A network and prepared pictures to the number that is explained, float[B]."""
Explain = Callable[[Pixels, Box], tuple[Tensor, Box, float]]
"""One prepared picture, and the box of the original that it shows, to cells float[r, c], the box
that these cover, and the score."""


class Explanation(NamedTuple):
    """Where the score of one picture came from."""

    heat: NDArray[np.float32]
    """float32[H, W] in pixels of the original picture, 0..1; all 0 where nothing spoke for it."""
    score: float
    """What was explained: a logit, less the mean of those it was compared with."""
    method: str


def explain_each(
    model: Model,
    images: Any,
    text: str,
    method: str | None = None,
    against: Iterable[str] = (),
    occlusion: Occlusion | None = None,
    on_error: OnError = "raise",
) -> Iterator[Explanation | Failed]:
    """What spoke for a text, for each picture in order.

    Methods that follow attention compute in float32, on a copy where the network does not, and keep
    every weight of it (N L^2 numbers a layer, "gradient" twice as many); the model stays as it is.

    Args:
        text: taken as it is, no template; for a classifier one of its labels.
        method: one of `methods_of(model)`; None takes the first.
        against: other texts (or labels); the mean of their logits is taken off, so that what speaks
            for every text alike falls away.
        occlusion: how the method "occlusion" covers.

    Raises:
        UnsupportedTaskError: the model scores neither texts nor labels, or has not the attention
            that the method follows.
        ConfigError: an unknown method.
        InputError: something that is no text.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    check_batching(1, on_error)
    with torch.inference_mode(False):  # gradients will go through what is made here
        score = _score_of(model, text, against)
        chosen = checked_method(model, method)
        if chosen == "occlusion":
            explain = _by_occlusion(model, score, occlusion or Occlusion())
        else:
            explain = _by_attention(model, score, chosen)
    return _each(model, images, chosen, explain, on_error)


def methods_of(model: Model) -> tuple[str, ...]:
    """The methods that a model's network allows, its default first."""
    return EXPLAIN_METHODS if _attends(image_part(model.network)) else WITHOUT_ATTENTION


def checked_method(model: Model, method: str | None) -> str:
    """The method, or the model's default.

    Raises:
        ConfigError: an unknown one.
        UnsupportedTaskError: one that this network does not allow.
    """
    possible = methods_of(model)
    if method is None:
        return possible[0]
    if method not in EXPLAIN_METHODS:
        raise ConfigError(unknown_name("method", method, EXPLAIN_METHODS))
    if method not in possible:
        raise UnsupportedTaskError(
            f"method {method!r} follows attention between all places of a picture, which "
            f"{model.name} ({model.system.name}{', 8 bits' if model.quantize else ''}) cannot "
            f"show: use {', '.join(possible)}"
        )
    return method


def _attends(tower: Any) -> bool:
    """Whether blocks of attention over all places end in one row: a class token's or a pool's.

    Blocks in 8 bits have no attention that can be listened to or gone back through.
    """
    blocks = getattr(getattr(tower, "transformer", None), "blocks", ())
    heard = [isinstance(getattr(block, "attention", None), Attention) for block in blocks]
    return bool(heard) and all(heard) and (hasattr(tower, "class_token") or _pools(tower))


def _pools(tower: Any) -> bool:
    return isinstance(getattr(tower, "pool", None), AttentionPool)


# What is explained


def _score_of(model: Model, text: str, against: Iterable[str]) -> Score:
    others = as_texts(against, "against")
    if not isinstance(text, str):
        raise InputError(f"one text is explained at a time, {type(text).__name__} arrived")
    if closed_labels(model):
        return _label_score(model, [text, *others])
    if model.system.role != "dual encoder":
        raise cannot(model, EXPLAIN, "explain a score", "it scores neither texts nor labels")
    return _pair_score(model, [text, *others])


def _pair_score(model: Model, texts: list[str]) -> Score:
    """The logit with the first text, less the mean of those with the others."""
    words = embed_texts(model, texts).to(model.device)  # [M D]
    scale, bias = (number.to(model.device) for number in pair_scale(model))
    others = len(texts) > 1
    direction = words[0] - words[1:].mean(dim=0) if others else words[0]  # [D]

    def score(network: Any, pixels: Pixels) -> Tensor:
        value = scale * (network.encode_images(pixels).float() @ direction)  # [B]
        return value if others else value + bias

    return score


def _label_score(model: Model, labels: list[str]) -> Score:
    """The logit of a classifier's label, less the mean of the others'.

    Several classes of one name count as their sum, whose logit is the log of summed exponentials.
    """
    known = closed_labels(model)
    names = closed_names(model, labels)
    columns = [[c for c, label in enumerate(known) if label == name] for name in names]

    def score(network: Any, pixels: Pixels) -> Tensor:
        every = network.class_logits(network(pixels).pooled).float()  # [B V]
        logits = torch.stack([every[:, own].logsumexp(dim=1) for own in columns], dim=1)  # [B M]
        return logits[:, 0] - logits[:, 1:].mean(dim=1) if len(names) > 1 else logits[:, 0]

    return score


# The methods


def _by_occlusion(model: Model, score: Score, options: Occlusion) -> Explain:
    def explain(prepared: Pixels, view: Box) -> tuple[Tensor, Box, float]:
        cut = isinstance(prepared, PatchBatch)
        side = _spec(model).patch_size if cut else 1
        picture = as_pixels(prepared, side) if isinstance(prepared, PatchBatch) else prepared

        def score_of(pictures: Tensor) -> Tensor:
            pixels = as_patches(pictures, side) if cut else pictures
            return score(model.network, pixels.to(model.device)).float().cpu()

        with evaluating(model.network):
            lost, whole = lost_by_covering(score_of, picture[0], options)
        stride = options.sizes(*lost.shape)[1]
        rows, columns = (-(-length // stride) for length in lost.shape)
        # One cell a step of the window: nothing finer was asked.
        return adaptive_avg_pool2d(lost[None], (rows, columns))[0], view, whole

    return explain


def _by_attention(model: Model, score: Score, method: str) -> Explain:
    network = float32_copy(model.network, [n for n in ("text",) if hasattr(model.network, n)])
    tower = image_part(network)

    by_gradient = method == "gradient"

    def explain(prepared: Pixels, view: Box) -> tuple[Tensor, Box, float]:
        with (
            torch.inference_mode(False), torch.set_grad_enabled(by_gradient),
            without_dropout(network), recording(tower) as record,
        ):  # fmt: skip
            value = score(network, _followed(prepared.to(model.device)))  # [1]
            slopes = torch.autograd.grad(value.sum(), record.weights) if by_gradient else ()
        row = _row(record.weights, slopes, _pools(tower))[0]  # [P]
        grid, box = _grid(tower, prepared, view)
        return row.detach().unflatten(0, grid), box, value.item()

    return explain


def _followed(prepared: Pixels) -> Pixels:
    """A copy whose way through the network is remembered, also where no weight learns."""
    if isinstance(prepared, PatchBatch):
        return prepared._replace(patches=prepared.patches.clone().requires_grad_())
    return prepared.clone().requires_grad_()


def _row(weights: Sequence[Tensor], slopes: Sequence[Tensor], pooled: bool) -> Tensor:
    """What the answer was read from, over the patches: float[B, P].

    Args:
        weights: of each attention from bottom to top, the pool's last where there is one.
        slopes: of the score with respect to them; none for rollout.
        pooled: whether an attention pool reads the answer, and not a class token in front.
    """
    blocks = slice(None, -1) if pooled else slice(None)
    if slopes:
        total = relevance.weighted_by_gradient(weights[blocks], slopes[blocks])  # [B L L]
        reading = relevance.spoke_for(weights[-1], slopes[-1])  # [B 1 P] of a pool
    else:
        total = relevance.rollout(weights[blocks])
        reading = weights[-1].mean(dim=1)
    return (reading @ total)[:, 0] if pooled else total[:, 0, 1:]


# Places


def _grid(tower: Any, prepared: Pixels, view: Box) -> tuple[tuple[int, int], Box]:
    """Rows and columns of patches, and the box of the picture that they cover.

    A picture that patches do not divide has a rest that no patch sees.
    """
    if isinstance(prepared, PatchBatch):
        rows, columns = prepared.grids[0].tolist()
        return (rows, columns), view
    height, width = prepared.shape[-2:]
    rows, columns = tower.patches.grid(height, width)
    tall, wide = tower.patches.patch_size
    x1, y1, x2, y2 = view
    x2 = x1 + (x2 - x1) * columns * wide / width
    y2 = y1 + (y2 - y1) * rows * tall / height
    return (rows, columns), (x1, y1, x2, y2)


def _spec(model: Model) -> Any:
    assert model.processor.image is not None, "a model that scores pictures takes some"
    return model.processor.image.spec


def _each(
    model: Model, images: Any, method: str, explain: Explain, on_error: OnError
) -> Iterator[Explanation | Failed]:
    for place, source in enumerate(as_sources(images)):
        try:
            pixels = read_named(source, place)
            prepared = model.processor.images([pixels])
        except SightlineError as error:
            if on_error == "raise":
                raise
            yield Failed(source_name(source, place), error)
            continue
        height, width = pixels.shape[:2]
        cells, box, score = explain(prepared, _spec(model).view(height, width))
        yield Explanation(on_picture(cells, box, (height, width)), score, method)
