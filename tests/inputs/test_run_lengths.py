"""Run lengths against the COCO tools, and documents that lie."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from sightline.core.errors import DataError
from sightline.inputs import run_lengths

# The tools' arrays predate NumPy 2's `copy` keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=24))


def theirs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def blobs(seed: int, height: int = 300, width: int = 400) -> NDArray[np.bool_]:
    """A mask with long and short runs, so that numbers of every length are written."""
    dice = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(6):
        top, left = dice.integers(0, height), dice.integers(0, width)
        mask[top : top + dice.integers(1, 200), left : left + dice.integers(1, 200)] ^= True
    return mask ^ (dice.random((height, width)) < 0.002)


@settings(deadline=None)
@given(MASKS)
@example(np.ones((1, 1), bool))
@example(np.zeros((3, 2), bool))
def test_the_string_is_that_of_the_coco_tools(mask: NDArray[np.bool_]) -> None:
    rle = run_lengths.encode(mask)
    assert rle == theirs(mask)
    assert json.loads(json.dumps(rle)) == rle
    assert np.array_equal(run_lengths.decode(rle), mask)
    assert run_lengths.area(rle) == mask.sum() == coco.area(rle)
    x, y, w, h = coco.toBbox(rle)
    assert run_lengths.bounding_box(rle) == ((x, y, x + w, y + h) if mask.any() else (0, 0, 0, 0))


@pytest.mark.parametrize("seed", range(20))
def test_large_masks_agree_too(seed: int) -> None:
    mask = blobs(seed)
    rle = run_lengths.encode(mask)
    assert rle == theirs(mask)
    assert np.array_equal(run_lengths.decode(rle), mask)
    assert np.array_equal(run_lengths.decode(rle), coco.decode(rle).astype(bool))
    x, y, w, h = coco.toBbox(rle)
    assert run_lengths.bounding_box(rle) == (x, y, x + w, y + h)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(sum))
def test_uncompressed_counts_mean_what_the_tools_take_them_for(counts: list[int]) -> None:
    """Runs of no pixels inside, which other programs write, included."""
    height = next(n for n in (4, 3, 2, 1) if sum(counts) % n == 0)
    document = {"size": [height, sum(counts) // height], "counts": counts}
    packed = coco.frPyObjects(document, *document["size"])
    mask = coco.decode(packed).astype(bool)
    assert np.array_equal(run_lengths.decode(document), mask)
    assert run_lengths.compressed(np.array(counts)) == packed["counts"].decode()
    assert run_lengths.expanded(packed["counts"]).tolist() == counts
    x, y, w, h = coco.toBbox(packed)
    if mask.any():
        assert run_lengths.bounding_box(document) == (x, y, x + w, y + h)


@pytest.mark.parametrize("intersect", [False, True])
def test_merging_is_that_of_the_tools(intersect: bool) -> None:
    parts = [run_lengths.encode(blobs(seed)) for seed in range(4)]
    merged = run_lengths.merge(parts, intersect)
    packed = coco.merge(parts, intersect)
    assert np.array_equal(run_lengths.decode(merged), coco.decode(packed).astype(bool))
    assert merged["counts"] == packed["counts"].decode()


def test_numbers_of_a_mask_are_taken_and_shares_are_not() -> None:
    assert run_lengths.encode(np.array([[0, 2], [255, 0]], np.uint8)) == run_lengths.encode(
        np.array([[False, True], [True, False]])
    )
    for wrong in (np.ones((2, 2)), np.zeros((0, 3), bool), np.ones((1, 2, 2), bool)):
        with pytest.raises(DataError, match="a mask is bool"):
            run_lengths.encode(wrong)


LONG = "size of run lengths must be two whole numbers"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, r"2 x 2 mask must sum to 4, not 3"),
        ({"size": [2, 2], "counts": [1, 2, 3]}, "must sum to 4, not 6"),
        ({"size": [2, 2], "counts": [2**62, 2**62, 2**62, 2**62, 4]}, "must sum to 4"),
        ({"size": [2, 2], "counts": [5, -1]}, "cannot be negative: -1"),
        ({"size": [2, 2], "counts": []}, "cannot be empty"),
        ({"size": [2, 2], "counts": ""}, "cannot be empty"),
        ({"size": [2, 2], "counts": [1.0, 3.0]}, "list of whole numbers"),
        ({"size": [2, 2], "counts": [True, True]}, "list of whole numbers"),
        ({"size": [2, 2], "counts": ["4"]}, "list of whole numbers"),
        ({"size": [2, 2], "counts": [[4]]}, "list of whole numbers"),
        ({"size": [2, 2], "counts": [[4], 1]}, "list of whole numbers"),
        ({"size": [2, 2], "counts": [10**30]}, "list of whole numbers"),
        ({"size": [2, 2], "counts": None}, "string or a list of lengths, not NoneType"),
        ({"size": [2, 2], "counts": 4}, "not int"),
        ({"size": [2, 2], "counts": "4 "}, "no character ' '"),
        ({"size": [2, 2], "counts": "4\U0001f600"}, "no character"),
        ({"size": [2, 2], "counts": "q"}, "no character 'q'"),
        ({"size": [2, 2], "counts": "To"}, "end in the middle of a number"),
        ({"size": [2, 2], "counts": "o" * 40 + "0"}, "number of 41 characters"),
        ({"size": [2, 2], "counts": "oooooo0"}, "must sum to 4"),
        ({"size": [2, 2], "counts": "N"}, "cannot be negative"),
        ({"size": [100_000, 100_000], "counts": [10**10]}, "100,000 x 100,000 pixels is too large"),
        ({"size": [0, 2], "counts": [0]}, LONG),
        ({"size": [-2, -2], "counts": [4]}, LONG),
        ({"size": [2.0, 2], "counts": [4]}, LONG),
        ({"size": [True, 4], "counts": [4]}, LONG),
        ({"size": [2], "counts": [4]}, LONG),
        ({"size": "22", "counts": [4]}, LONG),
        ({"size": None, "counts": [4]}, LONG),
        ({"counts": [4]}, "object with 'size'"),
        ([4], "object with 'size'"),
    ],
)  # fmt: skip
def test_a_document_that_lies_is_one_clear_error(document: Any, words: str) -> None:
    for function in (run_lengths.decode, run_lengths.area, run_lengths.bounding_box):
        with pytest.raises(DataError, match=words):
            function(document)


def test_masks_of_different_sizes_do_not_merge() -> None:
    small, large = (run_lengths.encode(np.ones((n, 3), bool)) for n in (2, 3))
    with pytest.raises(DataError, match=r"sizes \[2, 3\] and \[3, 3\]"):
        run_lengths.merge([small, large])
    with pytest.raises(DataError, match="no mask to merge"):
        run_lengths.merge([])


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40) | st.text(st.characters(min_codepoint=47, max_codepoint=113)))
def test_any_text_is_a_mask_or_a_data_error(text: str) -> None:
    try:
        mask = run_lengths.decode({"size": [3, 4], "counts": text})
    except DataError:
        return
    assert mask.shape == (3, 4)


def test_a_megabyte_of_nonsense_is_refused_at_once() -> None:
    begun = time.perf_counter()
    for text in ("o" * 1_000_000, "1" * 1_000_000, "P1" * 500_000):
        with pytest.raises(DataError):
            run_lengths.decode({"size": [640, 480], "counts": text})
    assert time.perf_counter() - begun < 5
