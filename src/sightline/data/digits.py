"""Real handwriting without a download: scikit-learn's 1,797 digits as pictures with captions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.core.errors import ConfigError, DataError
from sightline.core.files import atomic_folder
from sightline.core.lazy import require

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 1797
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a handwritten digit {}",
    "the number {} written by hand",
    "a {} written in white on black",
    "a picture of the handwritten number {}",
    "someone wrote the digit {}",
    "handwriting of the numeral {}",
    "this is the digit {}",
    "a small grey picture of a {}",
)
CREDITS = """Handwritten digits

1,797 pictures of the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, licence
CC BY 4.0, as distributed with scikit-learn (sklearn.datasets.load_digits).

Changes: each 8 x 8 picture with values 0 to 16 is scaled to grey values 0 to 255, every pixel is
repeated {factor} x {factor} times, and captions, class names and the split are added.
"""


def write_digits(
    folder: str | os.PathLike[str], test: int = 500, seed: int = 0, size: int = 32
) -> Path:
    """Write the digits as PNG files that `open_dataset` reads; returns the folder.

    `captions.jsonl` gives each picture five captions, its class ("three") and its split; the
    files lie in train/<class> and test/<class>, so that format="imagefolder" reads them too.
    White ink on black. The same arguments write the same bytes.

    Args:
        test: pictures kept for the test split, spread evenly over the classes.
        size: side in pixels, a multiple of 8; pixels are repeated, never interpolated.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        ConfigError: a size or a split that does not fit.
        DataError: the folder exists and is not empty.
    """
    if size < 8 or size % 8:
        raise ConfigError(f"size must be a multiple of 8, got {size}")
    if not 0 < test < COUNT:
        raise ConfigError(f"test must lie between 1 and {COUNT - 1}, got {test}")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target}: exists and is not empty: name a new folder")
    datasets = require("sklearn.datasets", "test", "writing the handwritten digits")
    pictures, targets = datasets.load_digits(return_X_y=True)
    with atomic_folder(target) as temporary:
        _write(temporary, np.asarray(pictures), np.asarray(targets), test, seed, size)
    return target


def _write(
    folder: Path, pictures: np.ndarray, targets: np.ndarray, test: int, seed: int, size: int
) -> None:
    from PIL import Image

    rows = list(_rows(targets, test, seed))
    for picture, row in zip(pictures, rows, strict=True):
        grey = np.round(picture.reshape(8, 8) * (255 / 16)).astype(np.uint8)  # [8 8]
        grey = grey.repeat(size // 8, axis=0).repeat(size // 8, axis=1)  # [size size]
        file = folder / row["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(file, format="PNG")
    lines = (json.dumps(row) + "\n" for row in rows)
    (folder / "captions.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "README.txt").write_text(CREDITS.format(factor=size // 8), encoding="utf-8")


def _rows(targets: np.ndarray, test: int, seed: int) -> Iterator[dict[str, Any]]:
    """One line of captions.jsonl for each picture."""
    generator = np.random.default_rng(seed)
    in_test = stratified(targets, test, generator)  # bool[N]
    for i, digit in enumerate(targets.tolist()):
        word, split = WORDS[digit], "test" if in_test[i] else "train"
        chosen = generator.permutation(len(TEMPLATES))[:5]
        captions = [TEMPLATES[k].format(word) for k in chosen]
        name = f"{split}/{word}/digit-{i:04d}.png"
        yield {"file_name": name, "caption": captions[0], "captions": captions, "label": word,
               "split": split}  # fmt: skip


def stratified(targets: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """bool[N] with exactly `count` true, each class in proportion (largest remainder)."""
    classes, sizes = np.unique(targets, return_counts=True)
    exact = sizes * (count / len(targets))
    share = np.floor(exact).astype(int)
    largest = np.argsort(share - exact, kind="stable")
    share[largest[: count - share.sum()]] += 1
    chosen = np.zeros(len(targets), dtype=bool)
    for value, number in zip(classes, share, strict=True):
        members = np.flatnonzero(targets == value)
        chosen[generator.permutation(members)[:number]] = True
    return chosen
