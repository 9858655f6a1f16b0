"""What the tests of published layouts write."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, value: int = 128) -> Path:
    """A small grey picture, 8 wide and 6 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)
    return path


def document(path: Path, value: object) -> Path:
    """One JSON document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def lines(path: Path, *values: object) -> Path:
    """One JSON value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path
