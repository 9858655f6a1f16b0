"""The table of systems. A table can be read by people and by `--help` without importing torch."""

import importlib
from collections.abc import Mapping
from typing import Any

from sightline.core.errors import CheckpointError, ConfigError, unknown_name
from sightline.core.interfaces import System

SYSTEMS: Mapping[str, str] = {
    "vit": "sightline.models.vit",
    "resnet": "sightline.models.resnet",
    "swin": "sightline.models.swin",
    "clip": "sightline.models.clip",
    "clip_resnet": "sightline.models.clip_resnet",
    "unicl": "sightline.models.unicl",
    "siglip": "sightline.models.siglip",
    "bert": "sightline.models.bert",
    "vision_text": "sightline.models.vision_text",
    "lit": "sightline.models.lit",
    "siglip2-naflex": "sightline.models.siglip_naflex",
    "gemma": "sightline.models.gemma",
    "gemma2": "sightline.models.gemma2",
    "paligemma": "sightline.models.paligemma",
    "mask_codec": "sightline.models.mask_codec",
}
"""System name to the module whose `SYSTEM` describes it."""


def system(name: str) -> System:
    """The system of that name.

    Raises:
        ConfigError: no such system.
    """
    if name not in SYSTEMS:
        raise ConfigError(unknown_name("system", name, SYSTEMS))
    entry: System = importlib.import_module(SYSTEMS[name]).SYSTEM
    return entry


def system_for(config: Mapping[str, Any]) -> System:
    """The system that reads a published config.json.

    Raises:
        CheckpointError: no `model_type`, or one that no system here reads.
    """
    kind = config.get("model_type")
    known = {kind: name for name in SYSTEMS for kind in system(name).model_types}
    if not isinstance(kind, str):
        raise CheckpointError(
            f"config.json has no 'model_type'; readable here are {', '.join(sorted(known))}"
        )
    if kind not in known:
        raise CheckpointError(unknown_name("model_type", kind, known))
    return system(known[kind])
