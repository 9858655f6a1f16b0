"""Captions that say the same."""

import numpy as np
import pytest

from sightline.data.curation.captions_alike import (
    caption_keys,
    collect,
    jaccard_index,
    normalised,
    similar_texts,
)


def runs(text):
    width = min(5, len(text))
    return {text[i : i + width] for i in range(len(text) - width + 1)}


def brute_force(texts, jaccard):
    sets = [runs(text) for text in texts]
    return {
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= jaccard
    }


def collected(pairs):
    return {pair for i, j in pairs for pair in zip(i.tolist(), j.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("  A Red   bench, beside the LAKE! ", "a red bench beside the lake"),
        ("Straße", "strasse"),
        ("\ufb01ne \uff37\uff49\uff44\uff45 ²", "fine wide 2"),
        ("red_car-2", "red car 2"),
        ("猫", "猫"),
        ("!!!", "!!!"),
        ("🐈 ", "🐈"),
        ("", ""),
    ],
)
def test_normalised(text, plain):
    assert normalised(text) == plain


def test_keys_are_equal_for_what_is_said_alike():
    keys, owners = caption_keys([("A cat.",), (), ("a dog", "a CAT")])
    assert owners.tolist() == [0, 2, 2]
    assert (keys[0] == keys[2]).all() and (keys[0] != keys[1]).any()
    assert caption_keys([])[0].shape == (0, 16)


def test_texts_are_collected_once():
    found = collect([("A cat.", "a dog"), ("a cat",)])
    assert found.texts == ("a cat", "a dog")
    assert found.text_of.tolist() == [0, 1, 0] and found.owners.tolist() == [0, 0, 1]


def variants(count):
    """Sentences and copies of them with a letter or a word changed."""
    random = np.random.default_rng(0)
    words = "bench tree car house ball star cat fish boat umbrella flower person lake".split()
    texts = [" ".join(random.choice(words, 9)) for _ in range(count)]
    for text in texts[: count // 2]:
        place = int(random.integers(len(text)))
        texts.append(text[:place] + "x" + text[place + 1 :])
        texts.append(text + " " + str(random.choice(words)))
    return list(dict.fromkeys(texts))


def test_near_captions_are_those_that_brute_force_finds():
    texts = variants(120)
    expected = brute_force(texts, 0.8)
    found = collected(similar_texts(texts, 0.8))
    assert len(expected) > 50
    assert found <= expected, "every pair is measured exactly"
    assert len(found) >= 0.97 * len(expected)


def test_unicode_and_short_texts():
    texts = ["猫が木の下にいる", "猫が木の下にいるよ", "cat", "cats", "ca", "", "🐈"]
    assert collected(similar_texts(texts, 0.75)) == brute_force(texts, 0.75) == {(0, 1)}
    assert collected(similar_texts([], 0.5)) == set()


def test_a_gallery_of_numbered_captions_is_one_chain():
    texts = [f"photo {number} of the same long gallery by one and the same person" for number in
             range(400)]  # fmt: skip
    pairs = list(similar_texts(texts, 0.8, chained=True))
    members = {number for i, j in pairs for number in (*i.tolist(), *j.tolist())}
    assert members == set(range(400))
    assert sum(len(i) for i, _ in pairs) < 400 * 30


def test_jaccard_index():
    left, right = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4, 5], np.uint64)
    assert jaccard_index(left, right) == 2 / 5
