"""Samples for the tests of sharded formats: small pictures and archives, some of them damaged."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(value: int = 128, kind: str = "PNG") -> bytes:
    """A picture of 8 x 6 pixels whose first one has this value."""
    pixels = np.full((6, 8, 3), value % 256, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes | str | dict] | list, **options) -> Path:
    """An archive by the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(path, "w", **options) as tar:
        for name, content in pairs:
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def captioned(first: int, count: int) -> dict[str, bytes | str]:
    """Samples 0000.png with 0000.txt."""
    members: dict[str, bytes | str] = {}
    for number in range(first, first + count):
        members[f"{number:04d}.png"] = encoded(number)
        members[f"{number:04d}.txt"] = f"picture {number}"
    return members
