"""What a data set is worth, on sets whose worth is known."""

import json
import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sightline.data.curation.duplicates import find_duplicates
from sightline.data.curation.fingerprints import fingerprint
from sightline.data.curation.matching import Evidence
from sightline.data.curation.quality import (
    caption_diversity,
    embedding_spread,
    examine,
    label_balance,
    licence_counts,
)
from sightline.data.records import Dataset, Record
from tests.data.curation.copies import jpeg, scenes


def said(*captions, label=None, **extra):
    return Record("r", b"", captions, label, extra=extra)


def test_captions_are_counted_after_normalisation():
    found = caption_diversity([said("A cat.", "a dog"), said("a CAT"), said()])
    assert (found.captions, found.different) == (3, 2)
    assert (found.words, found.vocabulary, found.once) == (6, 3, 1)
    assert found.length["max"] == 2
    assert found.commonest_words[:2] == (("a", 3), ("cat", 2))
    assert found.commonest_captions == (("a cat", 2),)
    assert caption_diversity([said()]) is None


def test_evenness_of_labels():
    even = label_balance([said(label=label) for label in "aabb"] + [said()])
    assert even.counts == {"a": 2, "b": 2} and even.unlabelled == 1
    assert even.evenness == pytest.approx(1.0)
    skewed = label_balance([said(label=label) for label in "aaab"])
    assert skewed.evenness == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert label_balance([said(label="a")]).evenness == 1.0
    assert label_balance([said()]) is None


def test_spread_of_embeddings_against_all_pairs():
    vectors = np.random.default_rng(0).normal(size=(50, 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = embedding_spread(np.concatenate([vectors, np.full((1, 6), np.nan, np.float32)]))
    products = vectors @ vectors.T
    others = products[~np.eye(50, dtype=bool)]
    assert found.pictures == 50
    assert found.mean_cosine == pytest.approx(others.mean(), abs=1e-5)
    nearest = (products - 2 * np.eye(50)).max(axis=1)
    assert found.nearest_cosine["50%"] == pytest.approx(np.median(nearest), abs=1e-5)
    assert 4.5 < found.effective_dimensions <= 6
    assert embedding_spread(vectors[:1]) is None


def test_effective_dimensions_count_the_directions_used():
    two = np.zeros((40, 10), np.float32)
    two[:10, 0] = two[20:30, 1] = 1
    two[10:20, 0] = two[30:, 1] = -1
    assert embedding_spread(two).effective_dimensions == pytest.approx(2)
    assert embedding_spread(np.repeat(two[:1], 3, axis=0)).mean_cosine == pytest.approx(1)


def test_licences_are_counted_and_unknown_is_said():
    listed = [
        said(License="cc-by"), said(License="cc-by "), said(License=""), said(),
        said(License=4), said(License=["cc0", "mit"]), said(License={"name": "odbl"}),
    ]  # fmt: skip
    column, counts = licence_counts(listed)
    assert column == "License"
    assert counts == {"cc-by": 2, "unknown": 2, "4": 1, "cc0 and mit": 1, "odbl": 1}
    assert licence_counts([said(), said(weight=1)]) == (None, {"unknown": 2})


def test_what_was_planted_stands_out(caplog):
    images = scenes(12)
    images += [images[0].filter(ImageFilter.GaussianBlur(3)), Image.new("RGB", (64, 64), "navy"),
               images[1].resize((200, 64)), jpeg(images[2], 60)]  # fmt: skip
    records = [Record(str(i), np.asarray(image), ("a park",)) for i, image in enumerate(images)]
    records.append(Record("bad", b"nothing", ("a park",)))
    data = Dataset(records, "planted")
    prints = fingerprint(data)
    found = examine(data, prints, find_duplicates(Evidence(prints)))
    assert found.blurred == 1 and found.least_sharp[0].id == "12"
    assert [item.id for item in found.flat] == ["13"]
    assert found.wide == 1 and found.aspects["max"] == pytest.approx(3.125)
    assert list(found.report.broken) == ["bad"]
    assert (2, 15) in [group.members for group in found.duplicates.groups]
    assert found.spread is None and found.labels is None
    document = json.loads(json.dumps(found.to_json()))
    assert (document["format"], document["version"]) == ("sightline.quality", 1)
    assert document["flat"][0]["id"] == "13"
    assert document["duplicates"]["format"] == "sightline.duplicates"


def test_drawn_parks_are_sharp_and_their_blurred_copies_are_not():
    sharp = scenes(20)
    smeared = [image.filter(ImageFilter.GaussianBlur(2.5)) for image in sharp]
    data = Dataset([Record(str(i), np.asarray(image)) for i, image in enumerate(sharp + smeared)])
    values = fingerprint(data).sharpness
    assert values[:20].min() > 5 * values[20:].max()
