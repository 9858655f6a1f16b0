"""Exact match, ANLS and relaxed accuracy, case by case."""

import math
from typing import Any

import pytest

from sightline.core.errors import InputError
from sightline.metrics.answers import anls, exact_match, levenshtein, relaxed_accuracy
from tests.fixtures.metrics import inputs
from tests.fixtures.metrics.read import peers


def test_exact_match_raw_and_normalised() -> None:
    cases = [
        ("red", ["red"], 1, 1),
        ("Red", ["red"], 0, 1),
        (" red. ", ["red"], 0, 1),
        ("red..", ["red"], 0, 0),  # one dot only
        ("red", ["blue", "Red."], 0, 1),
        ("", [""], 1, 1),
        (".", [""], 0, 1),
        ("red", ["reddish"], 0, 0),
    ]
    found = exact_match([own for own, *_ in cases], [right for _, right, *_ in cases])
    assert found.raw.scores.tolist() == [raw for *_, raw, _ in cases]
    assert found.normalised.scores.tolist() == [loose for *_, loose in cases]
    assert found.raw.value == 2 / 8


def test_distances_equal_those_of_the_peer() -> None:
    found = [levenshtein(first, second) for first, second in inputs.text_pairs()]
    assert found == peers("answers")["levenshtein"]


@pytest.mark.parametrize(
    ("own", "right", "strict", "lmms"),
    [
        ("hello", ["hello"], 1, 1),
        ("HELLO", ["hello"], 1, 1),
        ("hell", ["hello"], 0.8, 0.8),
        ("ab", ["ac"], 0, 0.5),  # a distance of exactly one half
        ("abc", ["axx"], 0, 0),
        ("", [""], 1, 1),
        ("", ["a"], 0, 0),
        ("a  b", ["a b"], 1, 1),
        (" abcx ", ["abcd"], 0.75, 1 - 1 / 6),  # lmms divides by the length with its spaces
        ("hello", ["bye", "hallo"], 0.8, 0.8),
        ("café", ["cafe"], 0.75, 0.75),
        ("東京", ["東京都"], 2 / 3, 2 / 3),
    ],
)
def test_anls_of_both_variants(own: str, right: list[str], strict: float, lmms: float) -> None:
    assert anls([own], [right]).value == pytest.approx(strict)
    assert anls([own], [right], "lmms").value == pytest.approx(lmms)


@pytest.mark.parametrize(
    ("own", "right", "score"),
    [
        ("100", "100", 1),
        ("105", "100", 1),  # exactly 5 %
        ("105.01", "100", 0),
        ("95", "100", 1),
        ("100", "105", 1),  # of the truth
        ("94.9", "100", 0),
        ("5%", "0.05", 1),
        ("5%", "5", 0),
        ("12.", "12", 1),
        ("12%.", "12%", 1),
        ("0", "0", 1),
        ("0.0", "0", 1),
        ("0.01", "0", 0),
        ("-100", "100", 0),
        ("Yes", "yes", 1),
        ("yes.", "Yes", 1),
        ("yes..", "yes", 0),
        ("two", "2", 0),
        ("nan", "nan", 1),  # words, not numbers
        ("nan", "5", 0),
        ("inf", "5", 0),
        ("1_0", "10", 0),
        ("1e2", "100", 1),
        ("", "5", 0),
        (" 100 ", "100", 1),
        ("2010", "2009", 1),
    ],
)
def test_relaxed_accuracy(own: str, right: str, score: float) -> None:
    assert relaxed_accuracy([own], [right]).value == score


def test_the_error_is_relative_to_the_truth() -> None:
    """The mistake to plant: prediction and truth exchanged."""
    assert relaxed_accuracy(["95"], ["100"]).value == 1
    assert relaxed_accuracy(["100"], ["95"]).value == 0


def test_years_can_be_taken_strictly_and_dots_are_recorded() -> None:
    own, right = ["2010", "2009.", "1996", "205"], ["2009", "2009", "1996", "200"]
    assert relaxed_accuracy(own, right).scores.tolist() == [1, 1, 1, 1]
    found = relaxed_accuracy(own, right, strict_year=True)
    assert found.scores.tolist() == [0, 1, 1, 1]
    assert found.dotted == (False, True, False, False)


SCORERS: dict[str, Any] = {
    "exact": lambda own, right: exact_match(own, [[text] for text in right]).normalised,
    "anls": lambda own, right: anls(own, [[text] for text in right]),
    "lmms": lambda own, right: anls(own, [[text] for text in right], "lmms"),
    "chart": lambda own, right: relaxed_accuracy(own, right),
}


@pytest.mark.parametrize("name", SCORERS)
def test_order_perfection_nonsense_and_nothing(name: str) -> None:
    score = SCORERS[name]
    right = ["12", "a dog", "5%", "2009", "New York", "0"]
    own = ["12.3", "a dig", "5%", "2011", "York", "0"]
    found = score(own, right)
    assert score(own[::-1], right[::-1]).scores.tolist() == found.scores[::-1].tolist()
    assert score(right, right).value == 1
    for place in range(len(own)):
        assert score([*own[:place], "##", *own[place + 1 :]], right).value <= found.value
    assert score([*own, "##"], [*right, "a"]).value < found.value
    assert math.isnan(score([], []).value)


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match=r"unknown variant of ANLS 'strikt'.*'strict'"):
        anls([], [], "strikt")  # type: ignore[arg-type]
    for score in (exact_match, anls):
        with pytest.raises(InputError, match="question 0 has no list of right answers"):
            score(["a"], ["a"])
        with pytest.raises(InputError, match="1 predictions, 2 answers"):
            score(["a"], [["a"], ["b"]])
    with pytest.raises(InputError, match="1 predictions, 0 answers"):
        relaxed_accuracy(["a"], [])
