"""The page about a data set: complete, escaped, whatever the data says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sightline.data.curation.duplicates import find_duplicates
from sightline.data.curation.fingerprints import fingerprint
from sightline.data.curation.matching import Evidence
from sightline.data.curation.quality import examine
from sightline.data.records import Dataset, Record
from sightline.evaluation.quality_page import quality_page
from tests.data.curation.copies import COPIES, scenes

HOSTILE = "<script>alert(1)</script>"


def page(data: Dataset, vectors: np.ndarray | None = None) -> str:
    prints = fingerprint(data)
    found = examine(data, prints, find_duplicates(Evidence(prints)), vectors)
    return quality_page(found, data).html()


@pytest.fixture(scope="module")
def data() -> Dataset:
    images = scenes(9)
    images += [images[0].filter(ImageFilter.GaussianBlur(3)), Image.new("RGB", (64, 64), "navy")]
    images += [images[1]] * 8 + [COPIES["jpeg 50"](images[2])]
    listed = [
        Record(f"{n}{HOSTILE}", np.asarray(image), (HOSTILE, "a park"), HOSTILE, "train",
               {"license": HOSTILE if n else None})
        for n, image in enumerate(images)
    ]  # fmt: skip
    return Dataset([*listed, Record("bad", b"nothing")], HOSTILE)


def test_everything_is_said_and_nothing_runs(data: Dataset) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(data), 4)).astype(np.float32)
    html = page(data, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert "<script" not in html
    for words in ("The least sharp", "Of one colour", "Unreadable", "Copies", "Captions",
                  "Labels", "Splits", "Embeddings", "Licences", "From the column"):  # fmt: skip
        assert words in html, words
    assert "9 times: equal pixels, near by a hash of 64 bits" in html
    assert "And 4 more." in html  # of nine copies five are shown
    assert html.count('class="card right"') == 3  # one frame a group
    assert html.count("data:image/") >= 10
    assert "<b>20</b>" in html and ".000</b>" not in html  # counts are whole numbers


def test_a_plain_set_says_what_it_lacks() -> None:
    html = page(
        Dataset([Record(str(n), np.asarray(im)) for n, im in enumerate(scenes(3))], "plain")
    )
    assert "No picture is there twice." in html
    assert "None of the pictures has a caption." in html
    assert "No column names a licence: all are unknown." in html
    assert "Embeddings" not in html and "Labels" not in html and "Of one colour" not in html


def test_a_set_without_a_readable_picture_has_a_page() -> None:
    assert "Unreadable" in page(Dataset([Record("bad", b"nothing", ("words",))], "broken"))
