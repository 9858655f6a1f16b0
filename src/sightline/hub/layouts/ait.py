"""The layout of All in Tokens (https://github.com/SwinTransformer/AiT): an .npz of its tensors.

PaliGemma's `vae-oid.npz` is one: PyTorch's names and shapes, written by numpy
(`encoder.8.net.0.weight`, `_vq_vae._embedding`). Nothing in it says how large its masks are: 16
tokens, 4 x 4, as everybody's. How many layers there are, and how wide, is read off the tensors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import CheckpointError
from sightline.hub.layouts.detect import AIT_CODEBOOK, weight_file
from sightline.hub.layouts.table import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents
    from sightline.models.mask_codec import MaskCodecConfig

ARRAYS = "vae.npz"
GRID = 4
"""Tokens in a row."""

_LAYER = re.compile(r"encoder\.\d+\.weight")
_BLOCK = re.compile(r"encoder\.\d+\.net\.0\.weight")


def read(path: Path, allow_pickle: bool) -> Contents:
    """An .npz file, or the folder that holds it and nothing else of weights.

    Raises:
        CheckpointError: a broken or hostile file, or tensors that are no mask codec's.
        UnsafeCheckpointError: an array of objects.
    """
    from sightline.hub.contents import assembled
    from sightline.hub.layouts.npz import read_npz
    from sightline.inputs.processors import Processor
    from sightline.models.mask_codec import SYSTEM

    file = weight_file(path)
    assert file is not None, "found by its weight file"
    published = read_npz(file)
    try:
        config = config_of(published)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    state = SYSTEM.for_config(config).read_state(published)
    return assembled("ait", SYSTEM, config, state, Processor(None, None, str(file)), file)


def config_of(published: Mapping[str, Tensor]) -> MaskCodecConfig:
    """The configuration, read off names and shapes.

    Raises:
        CheckpointError: tensors that are not there, or that are no mask codec's.
    """
    from sightline.models.mask_codec import MaskCodecConfig, check_config

    sizes = {name: tuple(tensor.shape) for name, tensor in published.items()}
    halvings = sum(
        len(shape) == 4 and shape[-1] == 4
        for name, shape in sizes.items()
        if _LAYER.fullmatch(name)
    )
    for name, axes in ((AIT_CODEBOOK, 2), ("decoder.0.weight", 4)):
        if len(sizes.get(name, ())) != axes:
            raise CheckpointError(
                f"no mask codec: an array {name!r} of {axes} axes is expected, "
                f"{list(sizes[name]) if name in sizes else 'none'} arrived"
            )
    codewords, code_width = sizes[AIT_CODEBOOK]
    config = MaskCodecConfig(
        mask_size=GRID << min(halvings, 32),
        halvings=halvings,
        width=sizes["decoder.0.weight"][0],
        depth=sum(_BLOCK.fullmatch(name) is not None for name in sizes),
        codewords=codewords,
        code_width=code_width,
    )
    check_config(config)
    return config


def refusal(contents: Contents) -> str | None:
    """Why such a file cannot hold this model."""
    if contents.system.name != "mask_codec":
        return f"it holds mask codecs and no {contents.system.name}"
    if contents.config.grid != GRID:
        return (
            f"its masks have {GRID} x {GRID} tokens, and this codec {contents.config.grid} x "
            f"{contents.config.grid}"
        )
    return None


def write(contents: Contents, folder: Path) -> None:
    """Every tensor under its name in AiT's code; bfloat16, which numpy lacks, as float32."""
    import numpy as np
    import torch

    from sightline.core.files import atomic_file

    own = contents.system.for_config(contents.config).write_state(contents.state)
    arrays = {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
        for name, tensor in own.items()
    }
    with atomic_file(folder / ARRAYS) as temporary, open(os.fspath(temporary), "wb") as opened:
        np.savez(opened, allow_pickle=False, **arrays)


LAYOUT = Layout(
    "ait",
    "All in Tokens (https://github.com/SwinTransformer/AiT) and PaliGemma's vae-oid.npz",
    read,
    write,
    refusal,
    dtypes=("float32", "float16"),
)
