"""Where the public hub is and where its files are kept, as the environment says at each call."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(explicit).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME") or default).expanduser() / "hub"


def converted_folder() -> Path:
    """Where safetensors copies of pickled weights are kept, beside the hub's cache."""
    return cache_folder().parent / "sightline-converted"


def offline() -> bool:
    """Whether the user asked to stay offline."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def endpoint() -> str:
    """The hub's address."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
