"""timm's layout of vision transformers (https://github.com/huggingface/pytorch-image-models).

A folder with config.json (`architecture`, `pretrained_cfg`, sometimes `model_args`) and
model.safetensors or pytorch_model.bin. Only read: ViT and DeiT towers with a class token. Heads and
epsilon are in no file of it; they belong to the name of the architecture.
Source: timm/models/vision_transformer.py, timm/models/_hub.py, timm/data/transforms_factory.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, ConfigError
from sightline.hub.layouts.table import Layout
from sightline.hub.layouts.timm_keys import block_keys
from sightline.models.keys import KeyTable, split_thirds

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents
    from sightline.inputs.preprocessing import ImageSpec
    from sightline.models.vit import ViTConfig

_NAME = re.compile(
    r"(vit|deit)_(?P<size>tiny|small|base|large|huge)_patch(?P<patch>\d+)_(?P<side>\d+)"
)
_SHAPES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
"""Width, depth and heads of timm's plain vision transformers."""
_ARGUMENTS = {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias",
              "num_classes", "in_chans", "global_pool"}  # fmt: skip
_EPS = 1e-6

_KEYS = KeyTable(
    {
        "cls_token": "class_token",
        "pos_embed": "positions.table",
        "patch_embed.proj.*": "patches.projection.*",
        **block_keys("blocks", "transformer.blocks"),
        "norm.*": "norm.*",
        "head.*": "classifier.*",
    }
)
_FUSED = {
    f".attn.qkv.{kind}": (f".attn.q.{kind}", f".attn.k.{kind}", f".attn.v.{kind}")
    for kind in ("weight", "bias")
}


def read(path: Path, allow_pickle: bool) -> Contents:
    """A folder whose config.json names an architecture of timm.

    Raises:
        CheckpointError: a broken file, or an architecture that no system here is.
        UnsafeCheckpointError: weights that exist only as a pickle, where none was allowed.
    """
    from sightline.hub.contents import assembled
    from sightline.hub.environment import converted_folder
    from sightline.hub.keys import own_state
    from sightline.hub.weights import read_weights
    from sightline.inputs.processors import Processor, image_processor
    from sightline.inputs.published import read_object
    from sightline.models.table import system

    published = read_object(path / "config.json")
    state = read_weights(path, allow_pickle=allow_pickle, cache=converted_folder())
    try:
        config = read_config(published, state)
        spec = image_spec(published, config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    own = own_state(read_state, state, str(path))
    processor = Processor(image_processor(spec), None, str(path))
    return assembled("timm", system("vit"), config, own, processor, path)


def read_config(published: Mapping[str, Any], state: Mapping[str, Tensor]) -> ViTConfig:
    """A config.json of timm, with the labels where the tensors have a layer for them.

    Raises:
        CheckpointError: another architecture, or an argument that changes the network otherwise.
    """
    from sightline.models.published import field, pair, section
    from sightline.models.vit import ViTConfig

    name = field(published, "architecture", "")
    match = _NAME.fullmatch(name.partition(".")[0])
    if match is None:
        raise CheckpointError(
            f"config.json: architecture {name!r} of timm is not read here; readable are "
            "vit_{tiny,small,base,large,huge}_patchN_SIZE and deit_..., with a class token"
        )
    changed = section(published, "model_args")
    pool = published.get("global_pool") or changed.get("global_pool") or "token"
    strange = sorted(set(changed) - _ARGUMENTS)
    if strange or pool != "token":
        what = f"model_args has {strange[0]!r}" if strange else f"global_pool is {pool!r}"
        raise CheckpointError(f"config.json: {what}, a network that no system here is")
    width, depth, heads = _SHAPES[match["size"]]
    width = field(changed, "embed_dim", width)
    return ViTConfig(
        width=width,
        depth=field(changed, "depth", depth),
        num_heads=field(changed, "num_heads", heads),
        mlp_width=int(width * field(changed, "mlp_ratio", 4.0)),
        image_size=pair(changed, "img_size", int(match["side"])),
        patch_size=pair(changed, "patch_size", int(match["patch"])),
        channels=field(changed, "in_chans", 3),
        norm_eps=_EPS,
        qkv_bias=field(changed, "qkv_bias", True),
        pooler=False,
        labels=_labels(published, state),
    )


def _labels(published: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    from sightline.models.published import section

    layer = state.get("head.weight")
    if layer is None or layer.ndim != 2:
        return ()
    names = published.get("label_names")
    if names is None:
        names = section(published, "pretrained_cfg").get("label_names")
    if isinstance(names, list) and len(names) == len(layer):
        return tuple(str(name) for name in names)
    return tuple(f"LABEL_{number}" for number in range(len(layer)))


def image_spec(published: Mapping[str, Any], config: ViTConfig) -> ImageSpec:
    """timm's preparation for testing: the shorter side to size / crop_pct, then the centre.

    Raises:
        CheckpointError: a preparation that is not available here.
    """
    from sightline.inputs.preprocessing import ImageSpec
    from sightline.models.published import field, section

    cfg = section(published, "pretrained_cfg")
    height, width = config.image_size
    mode = field(cfg, "crop_mode", "center")
    part = field(cfg, "crop_pct", 0.9)
    squashed = mode == "squash" and part == 1
    if not (mode == "center" or squashed) or not 0.1 <= part <= 1:
        raise CheckpointError(
            f"config.json: crop_mode {mode!r} with crop_pct {part:g} is not available; readable "
            "are 'center', and 'squash' with 1"
        )
    try:
        return ImageSpec(
            height=height,
            width=width,
            fit="square" if squashed else "shortest_then_crop",
            shortest=None if squashed else floor(min(height, width) / part),
            filter=field(cfg, "interpolation", "bicubic"),
            mean=_triple(cfg, "mean"),
            std=_triple(cfg, "std"),
        )
    except ConfigError as error:
        raise CheckpointError(f"config.json: {error}") from None


def _triple(cfg: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    value = cfg.get(name)
    if not isinstance(value, list) or len(value) != 3:
        raise CheckpointError(f"config.json: pretrained_cfg has no {name!r} of three numbers")
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise CheckpointError(f"config.json: pretrained_cfg has no {name!r} of three numbers")
    return float(value[0]), float(value[1]), float(value[2])


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors to those of `models.vit.ViT`."""
    own = _KEYS.read(split_thirds(state, _FUSED))
    for name, axes in (("class_token", 2), ("positions.table", 1)):
        if name in own:
            own[name] = own[name].flatten(0, axes)
    return own


LAYOUT = Layout("timm", "timm (https://github.com/huggingface/pytorch-image-models)", read)
