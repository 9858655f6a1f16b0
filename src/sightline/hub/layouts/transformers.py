"""transformers' own layout as a target: config.json, model.safetensors, the processor's files.

Reading it is `hub.contents`' first case; this entry exists so that it can be named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sightline.hub.layouts.table import Layout

if TYPE_CHECKING:
    from sightline.hub.contents import Contents

_NO_CLASS = ("clip_resnet", "unicl", "lit", "mask_codec")
"""Systems that transformers has no class for."""


def read(path: Path, allow_pickle: bool) -> Contents:
    """A folder with a config.json."""
    from sightline.hub.contents import read_contents

    return read_contents(path, allow_pickle=allow_pickle)


def refusal(contents: Contents) -> str | None:
    """Why transformers cannot read this model."""
    if contents.system.name in _NO_CLASS:
        return f"transformers has no class for {contents.system.title}"
    return None


def write(contents: Contents, folder: Path) -> None:
    """What `Model.save` writes, with the tensors as they are stored."""
    from sightline.hub.save import save_checkpoint

    contents.network.load_state_dict(contents.state, assign=True)
    save_checkpoint(
        contents.network,
        contents.processor,
        contents.config,
        contents.system,
        folder,
        end_ids=contents.end_ids,
    )


LAYOUT = Layout(
    "transformers",
    "Hugging Face transformers (https://github.com/huggingface/transformers)",
    read,
    write,
    refusal,
)
