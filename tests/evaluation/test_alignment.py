"""The cosine of pictures and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sightline.core.errors import DataError, ImageError
from sightline.data.records import Dataset, Record
from sightline.evaluation.alignment import alignment


class Model:
    """Pictures and texts are their own vectors; "broken" cannot be read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_images(self, images: Sequence[Any], batch_size: int = 32) -> torch.Tensor:
        if any(image is None for image in images):
            raise ImageError("broken", "image_undecodable")
        return torch.stack([torch.tensor(image, dtype=torch.float32) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        rows = {"right": [1.0, 0.0], "up": [0.0, 1.0], "left": [-1.0, 0.0]}
        return torch.tensor([rows[text] for text in texts])


def records(*rows: tuple[Any, tuple[str, ...]]) -> Dataset:
    listed = [Record(str(n), image, captions) for n, (image, captions) in enumerate(rows)]
    return Dataset(listed)


def test_the_caption_that_fits_best_counts() -> None:
    data = records(
        ([0.6, 0.8], ("right", "up")), ([0.6, 0.8], ("left",)), ([1.0, 0.0], ()),
        (None, ("up",)), ([0.0, 1.0], ("up", "left")),
    )  # fmt: skip
    model = Model()
    seen: list[tuple[int, int]] = []
    found = alignment(model, data, 2, lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(found.scores, [0.8, -0.6, np.nan, np.nan, 1.0], rtol=1e-6)
    assert found.missing == ("3: broken",)
    assert found.pictures.shape == (5, 2)
    assert seen[-1] == (5, 5)
    assert sorted(model.texts) == ["left", "right", "up"], "each sentence is embedded once"


def test_without_any_caption_there_is_no_score() -> None:
    with pytest.raises(DataError, match="a score needs pictures with captions"):
        alignment(Model(), records(([1.0, 0.0], ())))


def test_where_no_picture_can_be_read_no_score_is_made_up() -> None:
    found = alignment(Model(), records((None, ("up",)), (None, ("left",))))
    assert found.scores.isnan().all() and len(found.missing) == 2
