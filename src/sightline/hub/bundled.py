"""Models that travel inside the package, so that the first minute needs no connection.

They were trained on generated parks, say so in their card, and are not for photographs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from sightline.core.errors import CheckpointError, HubNotFoundError, unknown_name
from sightline.inputs.published import read_object

CARD_FORMAT = "sightline-model-card"
CARD_VERSION = 1
DRAWN_PARKS = "drawn parks"

BUNDLED: Mapping[str, str] = {
    "park-siglip": "bundled_models/park-siglip",
    "park-paligemma": "bundled_models/park-paligemma",
}
"""Name to folder inside this package; a name is offered only where its folder was installed."""


def bundled_names() -> list[str]:
    """The bundled models that this installation really has."""
    return [name for name in BUNDLED if (_folder(name) / "config.json").is_file()]


def bundled_path(name: str) -> Path:
    """The folder of a bundled model, in a wheel as in a checkout.

    Raises:
        HubNotFoundError: no such model, or an installation without it.
    """
    if name not in BUNDLED:
        raise HubNotFoundError(unknown_name("bundled model", name, BUNDLED))
    folder = _folder(name)
    if not (folder / "config.json").is_file():
        raise HubNotFoundError(
            f"bundled model {name!r} is not part of this installation: reinstall sightline, or "
            "name a model of the hub ('sightline models' lists them)"
        )
    return folder


def read_card(folder: Path) -> dict[str, Any]:
    """The `card.json` of a model folder: command, seed, data, time, scores, domain; {} without one.

    Raises:
        CheckpointError: broken JSON, or written by a newer version than this one.
    """
    file = folder / "card.json"
    if not file.is_file():
        return {}
    card = read_object(file)
    version = card.get("version", CARD_VERSION)
    if card.get("format") == CARD_FORMAT and version != CARD_VERSION:
        raise CheckpointError(
            f"{file}: model card version {version!r}, this Sightline reads {CARD_VERSION}: "
            "upgrade sightline"
        )
    return card


def _folder(name: str) -> Path:
    # Wheels are installed unpacked, so that a resource is a file; zip imports are not supported
    # by torch either.
    return Path(str(resources.files("sightline.hub"))) / BUNDLED[name]
