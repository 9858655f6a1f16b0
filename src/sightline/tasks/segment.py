"""Named masks, by a model that writes places and the codes of masks.

The codes are read by a mask codec (`models.mask_codec`), which a checkpoint has beside it in the
folder `mask_codec`, or which is named. Scores are those of `tasks.detect`; what has a box and no
mask is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from sightline.core.errors import CheckpointError, UnsupportedTaskError
from sightline.core.outputs import Segment
from sightline.inputs.location_tokens import MASK_CODES, MASK_TOKENS
from sightline.tasks.batching import Failed, OnError
from sightline.tasks.detect import Found, find_each
from sightline.tasks.mask_tokens import token_masks
from sightline.tasks.writing import BATCH

if TYPE_CHECKING:
    from sightline.core.interfaces import MaskCodec
    from sightline.core.outputs import Box
    from sightline.hub.load import Loaded
    from sightline.tasks.model import Model

FOLDER = "mask_codec"
"""Beside a checkpoint: the folder of the codec that its masks were written with."""


def segment_each(
    model: Model,
    images: Any,
    queries: Iterable[str] | None = None,
    options: Mapping[str, Any] | None = None,
    codec: str | os.PathLike[str] | None = None,
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[list[Segment] | Failed]:
    """The masks of each picture in order, of the original's size.

    Args:
        queries: what to look for, untrusted; None is everything that the model can name, where its
            card says how it is asked for that.
        options: `score`, and those of `generation.options`.
        codec: folder or name of a mask codec, instead of the checkpoint's own.

    Raises:
        UnsupportedTaskError: the model writes no masks, or there is no codec to read them.
        CheckpointError: a codec of other masks than those that models write.
        InputError: queries that cannot be used, or none where the model needs some.
        ConfigError: an option that does not exist or does not fit.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    found = find_each(model, "segment", images, queries, options, batch_size, on_error)
    network = mask_codec_of(model, codec)
    return (one if isinstance(one, Failed) else segments(one, network) for one in found)


def segments(found: Found, codec: MaskCodec) -> list[Segment]:
    """The masks of an answer in its picture; what covers no pixel is left out."""
    pairs = zip(found.places, found.scores, strict=True)
    kept = [
        (place, score, place.box)
        for place, score in pairs
        if place.codes and place.box is not None and _has_pixels(place.box)
    ]
    if not kept:
        return []
    codes = torch.tensor([place.codes for place, _, _ in kept])  # int64[N P]
    boxes = [box for _, _, box in kept]
    masks = token_masks(codec, codes, boxes, [found.size] * len(kept))
    return [
        Segment(place.label, score, box, mask)
        for (place, score, box), mask in zip(kept, masks, strict=True)
    ]


def mask_codec_of(model: Model, named: str | os.PathLike[str] | None = None) -> MaskCodec:
    """The network of the named codec, or of the checkpoint's own.

    Raises:
        UnsupportedTaskError: there is none, or what is named is none.
        CheckpointError: a codec of other masks than those that models write.
    """
    own = model.folder / FOLDER
    if named is None and model.mask_codec is not None:
        return model.mask_codec
    if named is None and not (own / "config.json").is_file():
        raise UnsupportedTaskError(
            f"{model.name} has no mask codec beside it (a folder {FOLDER!r}), so its masks cannot "
            "be read: name one (--codec NAME, or codec=...), or ask for boxes with detect"
        )
    network: Any = read_codec(own if named is None else named, str(model.device)).network
    if named is None:
        model.mask_codec = network
    return network


def read_codec(name: str | os.PathLike[str], device: str = "cpu") -> Loaded:
    """A mask codec, in float32.

    Raises:
        UnsupportedTaskError: a model of another kind.
        CheckpointError: a codec of other masks than those that models write.
    """
    from sightline.hub.load import load_checkpoint

    loaded = load_checkpoint(name, device, "float32")
    if loaded.system.role != "mask codec":
        raise UnsupportedTaskError(f"{loaded.name} ({loaded.system.role}) is no mask codec")
    tokens, codewords = loaded.config.tokens, loaded.config.codewords
    if tokens != MASK_TOKENS or codewords < MASK_CODES:
        raise CheckpointError(
            f"{loaded.name}: a mask codec of {tokens} tokens and {codewords} codewords; masks are "
            f"written in {MASK_TOKENS} of {MASK_CODES}"
        )
    return loaded


def _has_pixels(box: Box) -> bool:
    """Whether a box, rounded to pixels, covers any."""
    x1, y1, x2, y2 = map(round, box)
    return x1 < x2 and y1 < y2
