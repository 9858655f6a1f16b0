"""The table of layouts: who reads and who writes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents
    from sightline.hub.proof import Proof


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
    prove: Callable[[Contents, Mapping[str, Tensor], Path], Proof] | None = None
    """What was written, the answers of the source and the folder, to the proof; None where reading
    the folder back is the proof."""
    dtypes: tuple[str, ...] | None = None
    """Number types that it stores; None for all."""


LAYOUTS: Mapping[str, str] = {
    "transformers": "sightline.hub.layouts.transformers",
    "openai": "sightline.hub.layouts.openai",
    "open_clip": "sightline.hub.layouts.open_clip",
    "timm": "sightline.hub.layouts.timm",
    "big_vision": "sightline.hub.layouts.big_vision",
    "ait": "sightline.hub.layouts.ait",
    "onnx": "sightline.hub.layouts.onnx",
}
"""Name to the module whose `LAYOUT` describes it."""

WRITTEN = ("transformers", "openai", "open_clip", "ait", "onnx")
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
