"""Masks in a picture to the tokens of a mask codec, and tokens to masks in a picture.

What a language model of pictures writes behind the four tokens of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.core.interfaces import MaskCodec
from sightline.core.outputs import Box
from sightline.inputs.box_masks import crop_mask, paste_mask
from sightline.tasks.embed import evaluating

BATCH = 256
"""Masks through the network at once."""


def mask_tokens(
    codec: MaskCodec, masks: Sequence[NDArray[np.bool_]], boxes: Sequence[Box]
) -> Int[Tensor, "N P"]:
    """The tokens int64[N, P] of what is inside each box, on the CPU.

    Args:
        codec: the network of a mask codec.
        masks: bool[H, W] each, of the whole picture.
        boxes: one for each mask, in its pixels.

    Raises:
        InputError: a mask of another kind, or a box that is no part of it.
    """
    network = cast(nn.Module, codec)
    squares = np.empty((len(masks), codec.mask_size, codec.mask_size), np.float32)
    for square, mask, box in zip(squares, masks, boxes, strict=True):
        square[...] = crop_mask(mask, box, codec.mask_size)
    batches = torch.from_numpy(squares).to(_device(network)).split(BATCH)
    with evaluating(network):
        return torch.cat([codec.encode(batch) for batch in batches]).cpu()


def token_masks(
    codec: MaskCodec,
    indices: Int[Tensor, "N P"],
    boxes: Sequence[Box],
    sizes: Sequence[tuple[int, int]],
) -> list[NDArray[np.bool_]]:
    """The mask bool[H, W] of each row of tokens, inside its box in a picture of its size.

    Args:
        codec: the network of a mask codec.
        indices: tokens from 0 to the number of codewords - 1.
        boxes: one for each row, in pixels of its picture.
        sizes: (height, width) of the picture of each row.

    Raises:
        InputError: a box that is no part of its picture.
    """
    network = cast(nn.Module, codec)
    with evaluating(network):
        parts = [codec.decode(batch) for batch in indices.to(_device(network)).split(BATCH)]
    values = [row.numpy() for part in parts for row in part.float().cpu()]
    rows = zip(values, boxes, sizes, strict=True)
    return [paste_mask(value, box, height, width) for value, box, (height, width) in rows]


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
