"""The map against scikit-learn's PCA, and what the figures show."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from sightline.core.errors import InputError, MissingDependencyError
from sightline.evaluation.embedding_map import embedding_map
from sightline.evaluation.figures import (
    MAX_KINDS,
    embedding_figure,
    similarity_figure,
    write_png,
)


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(30, 6, generator=generator) * torch.tensor([5.0, 3, 1, 1, 0.5, 0.1])
    return images, images[:20] + 100 + 0.1 * torch.randn(20, 6, generator=generator)


def test_map_is_pca_after_centring_each_modality() -> None:
    images, texts = clouds()
    found = embedding_map(images, texts)
    centred = torch.cat([images - images.mean(0), texts - texts.mean(0)]).double()
    peer = PCA(2)
    places = torch.from_numpy(peer.fit_transform(centred.numpy()))
    ours = torch.cat([found.images, found.texts]).double()
    for axis in range(2):
        sign = torch.sign((ours[:, axis] * places[:, axis]).sum())
        torch.testing.assert_close(ours[:, axis], sign * places[:, axis], rtol=1e-5, atol=1e-5)
    assert found.explained == pytest.approx(tuple(peer.explained_variance_ratio_.tolist()))
    assert found.gap == pytest.approx((images.mean(0) - texts.mean(0)).norm().item())
    # The gap of a hundred would be the first axis without centring.
    assert (found.images[:20] - found.texts).abs().max() < 5


def test_map_of_reordered_embeddings_keeps_its_axes() -> None:
    images, texts = clouds()
    a, b = (
        embedding_map(images, texts),
        embedding_map(images[:, [1, 0, 2, 3, 4, 5]], texts[:, [1, 0, 2, 3, 4, 5]]),
    )
    torch.testing.assert_close(a.images, b.images, rtol=1e-4, atol=1e-4)


def test_map_of_almost_nothing() -> None:
    one = embedding_map(torch.ones(1, 3), torch.zeros(1, 3))
    assert one.images.tolist() == [[0, 0]]
    assert one.explained == (0, 0)
    assert embedding_map(torch.randn(4, 1), torch.randn(3, 1)).images.shape == (4, 2)


def test_map_messages() -> None:
    with pytest.raises(InputError, match="the same width"):
        embedding_map(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="at least one picture and one text"):
        embedding_map(torch.zeros(2, 3), torch.zeros(0, 3))
    with pytest.raises(InputError, match="leave that picture or text out"):
        embedding_map(torch.full((2, 3), math.nan), torch.zeros(2, 3))


def test_similarity_figure_writes_numbers_and_frames_the_best(tmp_path: Path) -> None:
    scores = torch.tensor([[0.31, 0.12, 0.1], [0.2, 0.2, 0.1], [math.nan, 0.05, 0.4]])
    thumbnails = [np.full((20, 30, 3), 80 * i, np.uint8) for i in range(3)]
    figure = similarity_figure(
        scores, ["a cat", "cost $5 or $6", "犬"], thumbnails, ["a", "b", "c"]
    )
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts][:3] == ["0.31", "0.12", "0.10"]
    assert axes.texts[6].get_text() == "?"
    assert [patch.get_xy() for patch in axes.patches] == [(-0.47, -0.47), (1.53, 1.53)]
    write_png(figure, tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(2**24)) > 50
    assert [p.name for p in tmp_path.iterdir()] == ["matrix.png"]


def test_map_figure_names_modalities_and_the_frequent_kinds(tmp_path: Path) -> None:
    images, texts = clouds()
    kinds = [f"kind {i % 12}" for i in range(30)]
    figure = embedding_figure(embedding_map(images, texts), kinds, kinds[:20], [(0, 0), (1, 1)])
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert entries[:2] == ["picture", "text"]
    assert entries[-1] == "other"
    assert len(entries) == 2 + MAX_KINDS + 1
    assert "centring" in figure.axes[0].get_title()
    write_png(figure, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_drawing_leaves_pyplot_and_backends_alone() -> None:
    similarity_figure(torch.eye(2), ["a", "b"])
    assert "matplotlib.pyplot" not in sys.modules


def test_figure_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="1 texts for scores of 2 x 2: give 2"):
        similarity_figure(torch.eye(2), ["a"])
    with pytest.raises(InputError, match="0 x 2: a figure needs a picture and a text"):
        similarity_figure(torch.zeros(0, 2), ["a", "b"])
    with pytest.raises(InputError, match="1 image_labels for 30 places"):
        embedding_figure(embedding_map(*clouds()), ["a"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sightline\[train\]'"):
        similarity_figure(torch.eye(2), ["a", "b"])
