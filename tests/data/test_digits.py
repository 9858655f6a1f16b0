"""The handwritten digits on disk equal scikit-learn's, and open by themselves."""

import hashlib
import os
import re
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from sightline.core.errors import ConfigError, DataError, MissingDependencyError
from sightline.data.digits import WORDS, stratified, write_digits
from sightline.data.formats import open_dataset
from sightline.inputs.images import read_image


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """Thousands of small files are written safely, one by one; here only the bytes matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits") / "digits")


def test_every_digit_has_its_pixels_its_class_and_captions(folder):
    pixels, targets = load_digits(return_X_y=True)
    data = open_dataset(folder, strict=True)
    assert (data.format, len(data)) == ("jsonl", 1797)
    for i, record in enumerate(data):
        assert record.label == WORDS[targets[i]]
        assert len(set(record.captions)) == 5
        assert all(record.label in caption.split() for caption in record.captions)
        if i % 20 == 0:
            image = read_image(record.image)
            assert image.shape == (32, 32, 3)
            blocks = image[::4, ::4, 0] * (16 / 255)
            np.testing.assert_allclose(blocks, pixels[i].reshape(8, 8), atol=0.04)
            np.testing.assert_array_equal(image[3::4, 3::4], image[::4, ::4])


def test_the_split_is_stratified(folder):
    train, test = (open_dataset(folder, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1297, 500)
    shares = [test.report.labels[word] / (test.report.labels[word] + count)
              for word, count in train.report.labels.items()]  # fmt: skip
    assert len(shares) == 10
    assert np.ptp(shares) < 0.01
    assert not {r.id for r in train} & {r.id for r in test}


def test_the_first_captions_vary(folder):
    first = Counter(re.sub(rf"\b{r.label}\b", "{}", r.caption) for r in open_dataset(folder))
    assert len(first) == 8
    assert min(first.values()) > 150


def test_the_folders_alone_are_classes_too(folder):
    data = open_dataset(folder, format="imagefolder", split="test")
    listed = {r.image: r.label for r in open_dataset(folder, split="test")}
    assert {r.image: r.label for r in data} == listed


def test_the_credits_name_authors_and_licence(folder):
    text = (folder / "README.txt").read_text()
    assert "Alpaydin" in text and "CC BY 4.0" in text and "4 x 4" in text


def test_the_same_arguments_write_the_same_bytes(folder, tmp_path):
    def digest(root):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).digest()

    assert digest(write_digits(tmp_path / "again")) == digest(folder)
    other = write_digits(tmp_path / "other", test=100, seed=1, size=8)
    assert len(open_dataset(other, split="test")) == 100
    with Image.open(next(other.rglob("*.png"))) as image:
        assert image.size == (8, 8)


def test_largest_remainders_give_the_exact_count():
    targets = np.array([0] * 5 + [1] * 3 + [2] * 2)
    chosen = stratified(targets, 5, np.random.default_rng(0))
    assert [int(chosen[targets == k].sum()) for k in range(3)] in ([3, 1, 1], [2, 2, 1])
    assert chosen.sum() == 5


def test_refusals(folder, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="exists and is not empty: name a new folder"):
        write_digits(folder)
    with pytest.raises(ConfigError, match="size must be a multiple of 8, got 20"):
        write_digits(tmp_path / "x", size=20)
    with pytest.raises(ConfigError, match="test must lie between 1 and 1796, got 1797"):
        write_digits(tmp_path / "x", test=1797)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sightline\[test\]'"):
        write_digits(tmp_path / "x")
    assert not (tmp_path / "x").exists()
