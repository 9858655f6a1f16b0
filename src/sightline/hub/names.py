"""What the name of a model means, before anything is fetched or read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sightline.core.errors import ConfigError, HubNotFoundError, nearest
from sightline.hub.bundled import BUNDLED, bundled_path
from sightline.hub.catalogue import catalogue_names, find
from sightline.hub.layouts.detect import layout_of
from sightline.hub.openai_files import SHA256, only_as_a_file
from sightline.models.table import SYSTEMS, system

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Place:
    """Where a name leads: a local folder or file, or a hub id still to be fetched (folder None)."""

    name: str
    folder: Path | None
    bundled: bool = False


def resolve(name: str) -> Place:
    """What a name means, without fetching anything.

    Raises:
        HubNotFoundError: nothing of that name, with the nearest names.
    """
    path = Path(name).expanduser()
    if name and _is_folder(path) and ((path / "config.json").is_file() or not _known(name)):
        return Place(name, path)
    if name and os.path.isfile(path) and layout_of(path) is not None:
        return Place(name, path)
    if name and os.path.isfile(path) and path.suffix == ".pt":
        raise ConfigError(
            f"{name} is a file: turn a file of OpenAI's CLIP into a folder with "
            f"sightline.hub.openai_files.convert_openai({name!r}, FOLDER), and give the folder"
        )
    if name and os.path.isfile(path):
        raise ConfigError(f"{name} is a file: give the folder that holds it and its config.json")
    if name in BUNDLED:
        return Place(name, bundled_path(name), bundled=True)
    if hub_id := _known(name):
        return Place(hub_id, None)
    if advice := only_as_a_file(name):
        raise HubNotFoundError(advice)
    if is_hub_id(name):
        return Place(name, None)
    close = nearest(name, _known_names())
    hint = f"did you mean {' or '.join(close)}?" if close else "a hub id is 'organisation/model'"
    raise HubNotFoundError(
        f"no folder, bundled model or known model is called {name!r}: {hint} "
        "('sightline models' lists the known ones)"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name is spelled as the hub's are: "organisation/model"."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # unlike Path.is_dir, never an error, whatever the name


def _known(name: str) -> str | None:
    """The hub id of a known name or alias, capitals apart."""
    entry = find(name)
    if entry is not None and not entry.bundled:
        return entry.name
    for system_name in SYSTEMS:
        for known, hub_id in system(system_name).known_names.items():
            if name.lower() == known.lower():
                return hub_id
    return None


def _known_names() -> list[str]:
    names = {known for name in SYSTEMS for known in system(name).known_names}
    return sorted(names.union(catalogue_names(), SHA256))
