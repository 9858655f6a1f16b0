"""Which layout a folder or file has, told from names and headers alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from sightline.core.errors import CheckpointError
from sightline.hub.weights import check_header

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPENAI_MARK = "openai_layout.json"
"""Written beside OpenAI's tensors, which come without any description of their own."""

ONNX_DESCRIPTION = "onnx.json"
"""What stands beside exported graphs."""

AIT_CODEBOOK = "_vq_vae._embedding"
"""The array that every mask codec of All in Tokens has."""

_OPENAI_NAMES = ("visual.conv1.weight", "visual.proj", "transformer.resblocks.0.ln_1.weight")
_RESNET_NAMES = ("visual.layer1.0.conv1.weight", "transformer.resblocks.0.ln_1.weight")
_LARGEST_CONFIG = 64 << 20


def layout_of(path: Path) -> str | None:
    """The name of the foreign layout; None for transformers' own and for what is unknown."""
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        return None
    config = path / "config.json"
    if config.is_file():
        keys = _top_keys(config)
        if "model_type" in keys:
            return None
        if "architecture" in keys:
            return "timm"
    if (path / OPEN_CLIP_CONFIG).is_file():
        return "open_clip"
    if config.is_file():
        return None
    if (path / ONNX_DESCRIPTION).is_file():
        return "onnx"
    found = weight_file(path)
    return None if found is None else _of_file(found)


def weight_file(path: Path) -> Path | None:
    """The file itself, or the only weight file of a folder without a configuration."""
    if path.is_file():
        return path
    found = [f for f in sorted(path.iterdir()) if f.suffix in (".safetensors", ".npz", ".pt")]
    return found[0] if len(found) == 1 else None


def _of_file(file: Path) -> str | None:
    if file.suffix == ".npz":
        return "ait" if _holds_array(file, AIT_CODEBOOK) else "big_vision"
    if file.suffix == ".pt":
        return "openai" if zipfile.is_zipfile(file) else None
    if file.suffix != ".safetensors" or (file.parent / "config.json").is_file():
        return None
    if (file.parent / OPEN_CLIP_CONFIG).is_file():
        return "open_clip"
    try:
        names = check_header(file)
    except CheckpointError:
        return None
    known = (_OPENAI_NAMES, _RESNET_NAMES)
    return "openai" if any(all(name in names for name in group) for group in known) else None


def _holds_array(file: Path, name: str) -> bool:
    """Whether an .npz lists an array of that name; not for a file that is no such thing."""
    try:
        with zipfile.ZipFile(file) as archive:
            return f"{name}.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return False


def _top_keys(config: Path) -> set[str]:
    """The names in a JSON object; nothing for a file that is no such thing."""
    try:
        if config.stat().st_size > _LARGEST_CONFIG:
            return set()
        value = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()
