"""Rules, at their borders, against the definitions written out."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sightline.core.errors import ConfigError, DataError
from sightline.data.curation import filters
from sightline.data.curation.filters import (
    datacomp_basic,
    fasttext_tokens,
    filter_records,
    image_based_captions,
    language,
    max_aspect,
    max_characters,
    min_characters,
    min_side,
    min_words,
    near_targets,
    score_at_least,
    score_fraction,
)
from sightline.data.curation.picture_size import original_size
from sightline.data.records import Dataset, Record
from sightline.inputs.picture_size import Size, picture_size
from tests.data.curation.copies import png

BLANK = np.zeros((300, 300, 3), np.uint8)


def english(text):
    return "en"


def one(*captions, size=(300, 300), id="r"):
    return Dataset([Record(id, np.zeros((size[1], size[0], 3), np.uint8), captions)])


def passes(rules, *captions, size=(300, 300)):
    return bool(filter_records(one(*captions, size=size), rules).records)


@pytest.mark.parametrize(
    ("caption", "size", "stays"),
    [
        ("one two three", (200, 200), True),
        ("a b cd", (200, 200), True),  # three words, six characters: more than 2, more than 5
        ("one two", (200, 200), False),
        ("a b c", (200, 200), False),  # five characters
        ("one two three", (199, 300), False),
        ("one two three", (300, 199), False),
        ("one two three", (600, 200), True),  # 3.0 is inside
        ("one two three", (601, 200), False),
        ("one two three", (200, 600), True),
        ("one two three", (233, 699), True),
    ],
)
def test_datacomp_basic_at_its_borders(caption, size, stays):
    assert passes(datacomp_basic(english), caption, size=size) == stays


@given(
    st.lists(st.sampled_from(["a", "bc", "def"]), max_size=4).map(" ".join),
    st.integers(150, 800),
    st.integers(150, 800),
    st.sampled_from(["en", "de"]),
)
def test_datacomp_basic_is_the_published_mask(text, width, height, code):
    small, large = min(width, height), max(width, height)
    mask = (
        code == "en" and len(text.split()) > 2 and len(text) > 5
        and small >= 200 and large / small <= 3.0
    )  # fmt: skip
    data = Dataset([Record("r", BLANK, (text,) if text else ())])
    rules = datacomp_basic(lambda _: code)
    found = filter_records(data, rules, size_of=lambda record: Size(width, height))
    assert bool(found.records) == mask


@pytest.mark.parametrize(
    ("caption", "stays"),
    [
        ("two words", True),
        ("word", False),
        ("a bcd", False),  # five characters
        ("a bcde", True),
        ("onlyone\n", True),  # a line end is a token of its own
        ("non\N{NO-BREAK SPACE}breaking", False),  # no blank to fastText, one to str.split
    ],
)
def test_the_caption_filter_of_the_image_based_baseline(caption, stays):
    assert passes(image_based_captions(english), caption, size=(10, 900)) == stays


def test_the_two_presets_count_words_differently():
    assert fasttext_tokens("a\tb\vc\0d\ne") == 6 and len("a\tb\vc\ne".split()) == 4
    assert fasttext_tokens("") == 0
    assert not passes(datacomp_basic(english), "two words")
    assert passes(image_based_captions(english), "two words")


def test_a_language_hook_gets_one_line_and_decides():
    seen = []

    def detect(text):
        seen.append(text)
        return "de" if "und" in text else "en"

    assert passes([language("de", detect)], "Hund\nund Katze")
    assert not passes([language("en", detect)], "Hund und Katze")
    assert seen == ["Hund und Katze", "Hund und Katze"]


@pytest.mark.parametrize(
    ("rule", "text", "stays"),
    [
        (min_words(2), "one two", True),
        (min_words(3), "one two", False),
        (min_characters(3), "äöü", True),
        (min_characters(4), "äöü", False),
        (max_characters(3), "äöü", True),
        (max_characters(2), "äöü", False),
    ],
)
def test_rules_about_captions(rule, text, stays):
    assert passes([rule], text) == stays


def test_failing_captions_go_and_a_record_falls_with_its_last():
    data = Dataset(
        [
            Record("both", BLANK, ("one two three", "one")),
            Record("none", BLANK, ("one", "two two")),
            Record("silent", BLANK),
            Record("small", BLANK[:10], ("one two three",)),
        ]
    )
    found = filter_records(data, [min_words(2), min_words(3), min_side(20)])
    assert [(record.id, record.captions) for record in found.records] == [
        ("both", ("one two three",))
    ]
    assert found.fell == {
        "at least 2 words": 1,
        "at least 3 words": 1,
        "shorter side at least 20": 1,
    }
    assert found.captions_removed == {"at least 2 words": 2, "at least 3 words": 1}
    assert found.numbers == (0,) and found.total == 4
    assert sum(found.fell.values()) + len(found.records) == 4
    document = json.loads(json.dumps(found.to_json()))
    assert (document["format"], document["version"], document["kept"]) == (
        "sightline.filtered",
        1,
        1,
    )
    assert len(found.dataset) == 1


def test_sizes_are_read_only_when_they_matter(tmp_path, caplog):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    data = Dataset(
        [Record("short", tmp_path / "gone.png", ("one",)),
         Record("bad", tmp_path / "bad.png", ("one two",)),
         Record("gone", tmp_path / "gone.png", ("one two",))]
    )  # fmt: skip
    found = filter_records(data, [min_words(2), min_side(1), max_aspect(2)])
    assert list(found.broken) == ["bad", "gone"] and "no such file" in found.broken["gone"]
    assert found.fell["unreadable picture"] == 2 and found.fell["at least 2 words"] == 1
    assert list(data.report.broken) == ["bad", "gone"]


def test_a_size_comes_from_the_header_alone(tmp_path):
    whole = png(Image.new("RGB", (30, 20)))
    (tmp_path / "cut.png").write_bytes(whole[:60])
    assert picture_size(tmp_path / "cut.png") == (30, 20)
    assert picture_size(whole) == picture_size(Image.new("L", (30, 20))) == (30, 20)
    assert picture_size(np.zeros((20, 30, 3), np.uint8)) == (30, 20)


def test_a_format_that_only_our_reader_knows_has_a_size(monkeypatch):
    monkeypatch.setattr("sightline.inputs.picture_size._FORMATS", ("JPEG",))
    assert picture_size(png(Image.new("RGB", (30, 20)))) == (30, 20)


def test_the_original_size_comes_from_its_columns():
    assert original_size("r", {"original_width": 640, "original_height": "480"}) == (640, 480)
    for columns in ({}, {"original_width": 0, "original_height": 3}, {"original_width": None}):
        with pytest.raises(DataError, match="record 'r': no size in its columns original_width"):
            original_size("r", columns)


SCORES = np.array([0.3, 0.1, np.nan, 0.3, 0.25, 0.2])


def test_a_threshold_is_inclusive_and_nan_falls():
    assert score_at_least(SCORES, 0.25).keeps.tolist() == [True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("fraction", "kept"),
    [
        (0.1, [0, 3]),  # int(0.6) = 0: the largest value, and its tie
        (0.2, [0, 3]),  # int(1.2) = 1: the tie itself
        (0.34, [0, 3, 4]),  # int(2.04) = 2
        (0.5, [0, 3, 4, 5]),  # int(3.0) = 3: one more than 3 of 6
        (1.0, [0, 1, 3, 4, 5]),  # everything but NaN
    ],
)
def test_a_fraction_keeps_down_to_the_value_at_its_place(fraction, kept):
    assert np.flatnonzero(score_fraction(SCORES, fraction).keeps).tolist() == kept


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_a_fraction_is_the_published_rule(values, fraction):
    scores = np.array(values, float)
    threshold = -np.sort(-scores)[int(len(scores) * fraction)]
    np.testing.assert_array_equal(score_fraction(scores, fraction).keeps, scores >= threshold)


def test_wrong_fractions_and_lengths_are_refused():
    for fraction in (0.0, 1.1, -1.0):
        with pytest.raises(ConfigError, match="give a number above 0 and up to 1"):
            score_fraction(SCORES, fraction)
    with pytest.raises(ConfigError, match="decides 6 records, 1 arrived"):
        filter_records(one("x"), [score_at_least(SCORES, 0.1)])
    with pytest.raises(ConfigError, match="rule 'at least 2 words' is there twice"):
        filter_records(one("x"), [min_words(2), min_words(2)])


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_image_based_filtering_keeps_the_clusters_that_targets_hit():
    random = np.random.default_rng(0)
    centres = np.eye(4, 8)
    owner = np.arange(200) % 4
    vectors = unit(centres[owner] + 0.05 * random.normal(size=(200, 8)))
    vectors[8] = np.nan
    targets = unit(centres[[1, 3]] + 0.05 * random.normal(size=(2, 8)))
    rule = near_targets(vectors, targets, clusters=4)
    expected = np.isin(owner, [1, 3])
    expected[8] = False
    np.testing.assert_array_equal(rule.keeps, expected)
    assert rule.name == "in one of 2 target clusters of 4"
    with pytest.raises(DataError, match="vectors of 8 numbers, targets of 5"):
        near_targets(vectors, unit(random.normal(size=(2, 5))))
    with pytest.raises(DataError, match="needs vectors of the records and of some targets"):
        near_targets(vectors, targets[:0])


def test_control_a_border_that_is_exclusive_would_be_seen(monkeypatch):
    monkeypatch.setattr(
        filters,
        "max_aspect",
        lambda ratio: filters.SizeRule("a", lambda s: max(s) / min(s) < ratio),
    )
    assert not passes(datacomp_basic(english), "one two three", size=(600, 200))
