"""The config.json of a model folder: somebody else's file, or our own of some version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.core.errors import CheckpointError
from sightline.inputs.published import read_object

CHECKPOINT_FORMAT = "sightline-checkpoint"
CHECKPOINT_VERSION = 1

_DEEPEST = 1000
"""Layers; a config.json that asks for more is broken, and building it would not end."""
_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "patch_size", "image_size",
          "vocab_size", "num_channels", "projection_dim", "max_position_embeddings")  # fmt: skip


def read_config_json(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder.

    Raises:
        CheckpointError: absent, broken, hostile, or written by a newer version than this one.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder} has no config.json: it is not a model folder")
    config = read_object(file)
    _refuse_newer(file, config)
    _refuse_impossible(file, config)
    return config


def _refuse_newer(file: Path, config: Mapping[str, Any]) -> None:
    ours = config.get("sightline")
    if not isinstance(ours, Mapping):
        return
    form, version = ours.get("format"), ours.get("version")
    if form != CHECKPOINT_FORMAT or version != CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{file}: written as {form!r} version {version!r}, this Sightline reads "
            f"{CHECKPOINT_FORMAT!r} version {CHECKPOINT_VERSION}: upgrade sightline"
        )


def _refuse_impossible(file: Path, config: Mapping[str, Any]) -> None:
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        depth = part.get("num_hidden_layers")
        if isinstance(depth, (int, float)) and depth > _DEEPEST:
            raise CheckpointError(f"{file}: 'num_hidden_layers' is {depth}, at most {_DEEPEST}")
        for name in _SIZES:
            size = part.get(name)
            if isinstance(size, (int, float)) and size < 1:
                raise CheckpointError(f"{file}: {name!r} is {size}, at least 1")
