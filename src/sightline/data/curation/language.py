"""A guess at the language of a caption, offline and without a model.

Small words that each language repeats, letters that only some have, and the scripts. It is a
stand-in for a trained identifier (fastText, CLD3), for captions of a few words, and lenient: what
speaks for no language and is written in plain letters, such as "Nikon D750 24-120mm", counts as
English. `filters.language` takes any function with this signature instead.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

UNKNOWN = "und"
"""ISO 639-2 for undetermined."""

_SCRIPTS: Mapping[str, str] = {
    "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh", "HANGUL": "ko", "CYRILLIC": "ru",
    "GREEK": "el", "ARABIC": "ar", "HEBREW": "he", "DEVANAGARI": "hi", "THAI": "th",
}  # fmt: skip
_LETTER_WEIGHT = 0.5


def language_of(text: str) -> str:
    """The likeliest language as an ISO 639-1 code ("en"), or "und" for text without letters."""
    letters = [letter for letter in text.casefold() if letter.isalpha()]
    if not letters:
        return UNKNOWN
    foreign = [_script(letter) for letter in letters]
    if sum(script != "LATIN" for script in foreign) * 2 > len(letters):
        return _of_script(foreign)
    words = _owners("words")
    own_letters = _owners("letters")
    scores = dict.fromkeys(_lists()["words"], 0.0)
    for word in re.findall(r"[^\W\d_]+", text.casefold()):
        for language in words.get(word, ()):
            scores[language] += 1 / len(words[word])
    for letter in letters:
        for language in own_letters.get(letter, ()):
            scores[language] += _LETTER_WEIGHT
    best = max(scores, key=lambda language: scores[language])  # English stands first in a tie
    plain = sum(letter.isascii() for letter in letters)
    if scores[best] == 0 and plain < len(letters):
        return UNKNOWN
    return best


def is_english(text: str) -> bool:
    """Whether `language_of` takes a text for English."""
    return language_of(text) == "en"


@cache
def _lists() -> Mapping[str, Mapping[str, str]]:
    """ "words" and "letters", to language, to those that speak for it."""
    text = files("sightline.data.curation").joinpath("small_words.json").read_text(encoding="utf-8")
    lists: Mapping[str, Mapping[str, str]] = json.loads(text)
    return lists


@cache
def _owners(kind: str) -> Mapping[str, tuple[str, ...]]:
    """Word or letter to the languages that have it."""
    owners: dict[str, tuple[str, ...]] = {}
    for language, text in _lists()[kind].items():
        for item in sorted(set(text.split() if kind == "words" else text)):
            owners[item] = (*owners.get(item, ()), language)
    return owners


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "NONE").split()[0].removesuffix("-UNIFIED")


def _of_script(scripts: list[str]) -> str:
    # one kana tells Japanese from Chinese
    kana = [script for script in scripts if script in ("HIRAGANA", "KATAKANA")]
    known = kana or [script for script in scripts if script in _SCRIPTS]
    return _SCRIPTS[max(set(known), key=known.count)] if known else UNKNOWN
