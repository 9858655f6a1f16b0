"""Words as the Penn Treebank cuts them, against the Java program that published scores rest on."""

# ruff: noqa: RUF001 - marks that look alike are meant
import hashlib
import json
import re

import pytest

from sightline.metrics import ptb
from sightline.metrics.ptb import tokenize
from tests.fixtures.metrics import inputs
from tests.fixtures.metrics.read import peers


def test_five_thousand_captions_have_the_same_tokens() -> None:
    captions = inputs.grammar_captions()
    expected = peers("ptb")["grammar"]
    size = len(captions) // len(expected)
    blocks = [[tokenize(text) for text in captions[i : i + size]] for i in range(0, 5000, size)]
    found = [hashlib.sha256(json.dumps(block).encode()).hexdigest() for block in blocks]
    assert found == expected


@pytest.mark.parametrize(("text", "tokens"), peers("ptb")["edges"])
def test_every_rule_has_the_same_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


KNOWN_TO_DIFFER = {
    ") T`can't* 50%€A&B",  # a backquote inside a word
    "no. % 's c'mon2-year-old ’no.",  # an apostrophe in front of an abbreviation
    ")½ < ’mr.",  # the same: 'm and r.
}


def test_marks_in_no_order_differ_only_where_it_is_known() -> None:
    lines = inputs.punctuation_fuzz()
    differing = {
        line for line, tokens in zip(lines, peers("ptb")["fuzz"], strict=True)
        if tokenize(line) != tokens
    }  # fmt: skip
    assert differing == KNOWN_TO_DIFFER
    assert len(differing) <= 0.005 * len(lines)


def test_simpler_tokenizers_would_be_seen() -> None:
    """The mistake to plant: white space, or words and marks, instead of the rules."""
    expected = [tokens for _, tokens in peers("ptb")["edges"]]
    for simple in (str.split, lambda text: re.findall(r"\w+|[^\w\s]", text)):
        found = [simple(text.lower()) for text, _ in peers("ptb")["edges"]]
        assert sum(a == b for a, b in zip(found, expected, strict=True)) < len(expected) / 5


@pytest.mark.parametrize("text", ["", "   ", "...", "!\n", "“ ”", "\t", "😀"])
def test_a_caption_without_words_has_no_tokens(text: str) -> None:
    assert tokenize(text) == []


def test_a_line_break_is_a_space_and_case_goes() -> None:
    assert tokenize("A\nDOG\r\nruns") == ["a", "dog", "runs"] == tokenize("a dog runs")


def test_abbreviations_are_each_listed_once() -> None:
    words = ptb._ABBREVIATIONS.split()
    assert len(words) == len(set(words))
