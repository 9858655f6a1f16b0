"""The rows of a prompt: whether a network can write behind them."""

from __future__ import annotations

import torch
from torch import Tensor

from sightline.core.errors import InputError
from sightline.core.interfaces import Prompt


def check_prompt(prompt: Prompt) -> Tensor:
    """The number of tokens of each row, int64[B].

    Raises:
        InputError: ids, mask and pictures that do not belong together, padding in front or within,
            or a row without anything.
    """
    ids, mask, pictures = prompt
    if ids.ndim != 2 or ids.shape != mask.shape or mask.dtype != torch.bool:
        raise InputError(
            f"a prompt's ids are {list(ids.shape)} and its mask {list(mask.shape)} of "
            f"{mask.dtype}: both must be [rows, tokens], the mask boolean"
        )
    if pictures and len(pictures) != len(ids):
        raise InputError(f"a prompt of {len(ids)} rows has pictures for {len(pictures)} rows")
    lengths = mask.sum(dim=1)
    ragged = (mask != (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])).any(dim=1)
    if ragged.any():
        raise InputError(
            f"row {int(ragged.nonzero()[0])} of the prompt has padding before its last token: "
            "pad on the right"
        )
    for row, length in enumerate(lengths.tolist()):
        if not length and not (pictures and pictures[row]):
            raise InputError(
                f"row {row} of the prompt is empty: it needs a token to write behind, such as the "
                "begin token, or a picture"
            )
    return lengths
