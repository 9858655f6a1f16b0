"""POPE against its script, and its strict form."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.hallucination import POPE_NUMBERS, POPE_VARIANTS, pope, pope_of_counts
from sightline.metrics.intervals import bootstrap_counts
from tests.fixtures.metrics import inputs
from tests.fixtures.metrics.read import peers

PRINTED = ("Accuracy", "Precision", "Recall", "F1 score", "Yes ratio")


def test_the_official_numbers_are_those_of_the_script() -> None:
    replies = inputs.POPE_REPLIES
    found = pope(replies * 2, [True] * len(replies) + [False] * len(replies))
    expected = [float(peers("answers")["pope"][name]) for name in PRINTED]
    assert found[:5] == pytest.approx(expected)
    assert found.n_unparsed == 0 and found.undefined == ()


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        ("Yes", True, True),
        ("yes.", True, True),
        ("No, there is not", False, False),
        ("NO", True, False),  # the script knows "No" and "no"
        ("**No**", True, False),
        ("There is no dog", False, None),
        ("I am sorry", True, None),
        ("", True, None),
        ("Well. No.", True, None),  # the first sentence only
        ("Nope", True, None),
        ("Yesterday", True, None),
    ],
)
def test_replies_are_read(reply: str, official: bool, strict: bool | None) -> None:
    for truth in (True, False):
        assert pope([reply], [truth]).accuracy == float(official is truth)
        found = pope([reply], [truth], "strict")
        assert found.accuracy == float(strict is truth)
        assert found.n_unparsed == (strict is None)
        assert found.yes_ratio == float(strict is True)


def test_a_rambling_reply_never_helps_when_strict() -> None:
    replies, truths = ["yes", "no", "no", "yes"], [True, False, True, False]
    before = pope(replies, truths, "strict")
    for truth in (True, False):
        after = pope([*replies, "I am sorry"], [*truths, truth], "strict")
        assert after.accuracy < before.accuracy
        assert after.f1 < before.f1
        assert after.precision <= before.precision and after.recall <= before.recall
    for place in range(4):
        changed = [*replies[:place], "I am sorry", *replies[place + 1 :]]
        after = pope(changed, truths, "strict")
        assert all(a <= b for a, b in zip(after[:4], before[:4], strict=True))


def test_truths_may_be_those_of_numpy() -> None:
    assert pope(["yes", "no"], np.array([True, False])).accuracy == 1  # type: ignore[arg-type]


def test_always_yes_has_a_recall_of_one_and_a_ratio_that_shows_it() -> None:
    found = pope(["yes"] * 10, [True] * 5 + [False] * 5)
    assert found[:5] == pytest.approx((0.5, 0.5, 1, 2 / 3, 1))


@pytest.mark.parametrize(
    ("replies", "truths", "undefined"),
    [
        (["no", "no"], [True, False], ("precision",)),
        (["yes", "no"], [False, False], ("recall",)),
        (["no"], [False], ("precision", "recall", "f1")),
        (["yes"], [True], ()),
    ],
)
def test_nothing_over_nothing_is_zero_and_flagged(
    replies: list[str], truths: list[bool], undefined: tuple[str, ...]
) -> None:
    found = pope(replies, truths)
    assert found.undefined == undefined
    assert all(getattr(found, name) == 0 for name in undefined)


@pytest.mark.parametrize("variant", POPE_VARIANTS)
def test_order_perfection_and_nothing(variant: Any) -> None:
    replies, truths = (
        list(inputs.POPE_REPLIES),
        [n % 3 == 0 for n in range(len(inputs.POPE_REPLIES))],
    )
    found = pope(replies, truths, variant)
    backward = pope(replies[::-1], truths[::-1], variant)
    assert backward[:5] == found[:5]
    assert pope(["yes" if t else "no" for t in truths], truths, variant)[:4] == (1, 1, 1, 1)
    empty = pope([], [], variant)
    assert all(math.isnan(number) for number in empty[:5]) and len(empty.counts) == 0


def test_counts_of_drawn_sets_give_their_numbers() -> None:
    replies = list(inputs.POPE_REPLIES)
    truths = [n % 2 == 0 for n in range(len(replies))]
    found = pope(replies, truths)
    assert POPE_NUMBERS == type(found)._fields[:5]
    times = np.zeros((1, len(replies)))
    times[0, [0, 3, 3, 5]] = [1, 2, 2, 1]
    rows = [0, 3, 3, 5]
    drawn = pope([replies[i] for i in rows], [truths[i] for i in rows])
    assert pope_of_counts(times @ found.counts)[0] == pytest.approx(drawn[:5])
    low, high = bootstrap_counts(
        lambda drawn: torch.from_numpy(pope_of_counts(drawn.numpy() @ found.counts)),
        len(replies), resamples=100,
    )  # fmt: skip
    assert (low.numpy() <= found[:5]).all() and (found[:5] <= high.numpy()).all()


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match=r"unknown variant of POPE 'stric'.*'strict'"):
        pope([], [], "stric")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 replies, 0 truths"):
        pope(["yes"], [])
