"""VQA accuracy against the official script, LAVIS and M4C, quirk by quirk."""

import math
from functools import cache
from typing import Any

import pytest

from sightline.core.errors import InputError
from sightline.metrics import vqa
from sightline.metrics.per_sample import group_means
from sightline.metrics.vqa import (
    CONTRACTIONS,
    VARIANTS,
    normalise_answer,
    normalise_textvqa_answer,
    vqa_accuracy,
)
from tests.fixtures.metrics import inputs
from tests.fixtures.metrics.read import peers

QUESTIONS = inputs.vqa_questions()
SCORES = {"0": 0.0, "3": 0.3, "6": 0.6, "9": 0.9, "1": 1.0}


@cache
def scores(variant: Any) -> list[float]:
    own, people = zip(*QUESTIONS, strict=True)
    return [round(score, 9) for score in vqa_accuracy(own, people, variant).scores.tolist()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_answer_against_every_answer_scores_as_the_script(variant: str) -> None:
    assert scores(variant) == [SCORES[digit] for digit in peers("vqa")[variant]]


def test_normalised_answers_are_those_of_the_scripts() -> None:
    one_line = [vqa._one_line(text) for text in inputs.ANSWERS]
    assert [normalise_answer(text) for text in one_line] == peers("vqa")["normalised"]
    found = [normalise_textvqa_answer(text) for text in inputs.ANSWERS]
    assert found == peers("vqa")["textvqa_normalised"]


def test_the_table_of_contractions_is_the_published_one() -> None:
    assert peers("vqa")["contractions"] == CONTRACTIONS


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("1,000", "1000"),
        ("3.", "3"),
        ("t-shirt", "t shirt"),
        ("a/c", "c"),  # becomes "a c", and "a" is an article
        ("U.S.", "us"),
        ("$1,000-2", "$10002"),  # a number with a comma makes all marks vanish
        ("-5", "5"),
        ("10:30", "10:30"),
        ("none", "0"),
        ("Two", "2"),
        ("the dogs", "dogs"),
        ("red -blue", "red blue"),  # beside a space a mark vanishes
        ("dont", "don't"),
        ("somebody'd", "somebodyd"),  # the other way round in the published table
        ("I'dve", "i'dve"),  # keys with a capital are never met
        ("1.5", "1.5"),
        ("." * 40 + "x", "." * 8 + "x"),  # at most 32 dots go
    ],
)
def test_quirks_are_kept(text: str, normalised: str) -> None:
    assert normalise_answer(text) == normalised


def test_leaving_one_out_gives_the_five_known_scores() -> None:
    people = [["cat"] * right + ["dog"] * (10 - right) for right in range(11)]
    found = vqa_accuracy(["cat"] * 11, people).scores
    assert found.tolist() == pytest.approx([0, 0.3, 0.6, 0.9] + [1] * 7)


def test_normalising_always_is_seen() -> None:
    """The mistake to plant: normalisation also where all people wrote the same."""
    unanimous = [["Dog."] * 10]
    assert vqa_accuracy(["dog"], unanimous).value == 0
    assert vqa_accuracy(["dog"], unanimous, "always").value == 1
    assert vqa_accuracy(["the dog"], [["dog"] * 10]).value == 0
    official = [SCORES[digit] for digit in peers("vqa")["official"]]
    assert scores("always") != official
    assert sum(scores("always")) > sum(official)


def test_lavis_leaves_words_of_people_as_they_are() -> None:
    people = [["Two"] * 9 + ["3"]]
    assert vqa_accuracy(["two"], people).value == 1
    assert vqa_accuracy(["two"], people, "lavis").value == 0  # "2" against "Two"


def test_groups_have_their_own_means() -> None:
    people = [["yes"] * 10, ["no"] * 10, ["red"] * 10]
    found = vqa_accuracy(["yes", "yes", "red"], people)
    by_type = group_means(found.scores, ["yes/no", "yes/no", "other"])
    assert by_type == {"yes/no": (0.5, 2), "other": (1.0, 1)}
    assert found.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_an_empty_set_and_an_unreadable_answer(variant: Any) -> None:
    own, people = (list(column) for column in zip(*QUESTIONS[:200], strict=True))
    found = vqa_accuracy(own, people, variant)
    backward = vqa_accuracy(own[::-1], people[::-1], variant)
    assert backward.scores.tolist() == found.scores[::-1].tolist()
    assert math.isnan(vqa_accuracy([], [], variant).value)
    with_nonsense = vqa_accuracy([*own, "#%!"], [*people, ["yes"] * 10], variant)
    assert with_nonsense.value <= found.value
    perfect = vqa_accuracy([own[0] for own in people], [[own[0]] * 10 for own in people])
    assert perfect.value == 1


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match=r"unknown variant of VQA accuracy 'officiel'.*'official'"):
        vqa_accuracy([], [], "officiel")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 predictions, 0 answers: there must be one of each"):
        vqa_accuracy(["a"], [])
    for none in ([], "yes"):
        with pytest.raises(InputError, match="question 0 has no list of people's answers"):
            vqa_accuracy(["a"], [none])
