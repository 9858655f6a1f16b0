"""Models that travel inside the package, so that the first minute needs no connection.

They were trained on generated parks, say so in their card, and are not for photographs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, HubNotFoundError, unknown_name
from sightline.inputs.published import read_object

if TYPE_CHECKING:
    from sightline.hub.load import Loaded

CARD_FORMAT = "sightline-model-card"
CARD_VERSION = 1
DRAWN_PARKS = "drawn parks"
LASTING = ("domain", "everything", "tuned_from")
"""What of a card outlives its weights: what the pictures were, how the model is asked for all that
it can name, and what it was tuned from. Scores and times were those of the old weights."""

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


def lasting_card(folder: Path) -> dict[str, Any]:
    """What of a model's card goes along wherever the model is saved again; {} where there is none.

    Raises:
        CheckpointError: as `read_card`.
    """
    card = read_card(folder)
    return {name: card[name] for name in LASTING if name in card}


def tuned_card(loaded: Loaded) -> dict[str, Any]:
    """The card of what is tuned from a model that has one; {} without one.

    It names the bundled model that it comes from, also when tuned again; a folder between is the
    trainer's own.

    Raises:
        CheckpointError: as `read_card`.
    """
    kept = lasting_card(loaded.folder)
    if loaded.domain is not None:
        kept["domain"] = loaded.domain
    if loaded.bundled:
        kept["tuned_from"] = loaded.name
    return kept


def _folder(name: str) -> Path:
    # Wheels are installed unpacked, so that a resource is a file; zip imports are not supported
    # by torch either.
    return Path(str(resources.files("sightline.hub"))) / BUNDLED[name]
