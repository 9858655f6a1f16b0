"""The offline guess at a language."""

import json
from pathlib import Path

import pytest

from sightline.data import park
from sightline.data.curation.language import is_english, language_of

# Written for this test, after the lists of words.
SENTENCES = json.loads(Path(__file__).with_name("sentences.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("code", SENTENCES)
def test_sentences_are_english_or_not(code):
    for sentence in SENTENCES[code]:
        assert is_english(sentence) == (code == "en"), sentence


def test_most_languages_are_named():
    pairs = [(code, text) for code, texts in SENTENCES.items() for text in texts]
    right = sum(language_of(text) == code for code, text in pairs)
    assert right >= 0.9 * len(pairs)


def test_captions_of_parks_are_english():
    captions = [caption for seed in range(40) for caption in park.scene(seed).captions]
    assert all(map(is_english, captions))


@pytest.mark.parametrize("text", ["", "12345", "!!!", "🐈🐈"])
def test_without_letters_there_is_no_language(text):
    assert language_of(text) == "und"


def test_letters_of_no_language_known_are_not_english():
    assert language_of("żźć") == "pl"
    assert language_of("ŋʃθ") == "und"
    assert language_of("ა") == "und"
