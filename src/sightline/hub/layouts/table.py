"""The table of layouts: who reads and who writes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from sightline.hub.contents import Contents


@dataclass(frozen=True)
class Layout:
    """One project's way to lay out a model on disk."""

    name: str
    title: str
    """The project and its repository."""
    read: Callable[[Path, bool], Contents]
    """Folder or file, and whether a pickle may be opened, to the contents."""
    write: Callable[[Contents, Path], None] | None = None
    """Contents into an empty folder; None for a layout that is only read."""
    refusal: Callable[[Contents], str | None] | None = None
    """Why the layout cannot hold this model, after "because"; None where it can."""


LAYOUTS: Mapping[str, str] = {
    "transformers": "sightline.hub.layouts.transformers",
    "openai": "sightline.hub.layouts.openai",
    "open_clip": "sightline.hub.layouts.open_clip",
    "timm": "sightline.hub.layouts.timm",
    "big_vision": "sightline.hub.layouts.big_vision",
}
"""Name to the module whose `LAYOUT` describes it."""

WRITTEN = ("transformers", "openai", "open_clip")
"""Those that can be written."""


def layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        ConfigError: no such layout.
    """
    if name not in LAYOUTS:
        raise ConfigError(unknown_name("layout", name, LAYOUTS))
    entry: Layout = importlib.import_module(LAYOUTS[name]).LAYOUT
    return entry
