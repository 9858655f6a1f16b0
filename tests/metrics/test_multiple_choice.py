"""Options read from free text, options by likelihood, and rotations."""

import math

import numpy as np
import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.multiple_choice import (
    choice_accuracy,
    circular_accuracy,
    likelihood_choice,
    read_choice,
    rotations,
)

ANIMALS = ["a dog", "a cat", "a hot dog", "an ibex"]


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [
        ("B", 1),
        ("b", 1),
        ("(B)", 1),
        ("B.", 1),
        ("**B**", 1),
        ("E", None),  # there are four options
        ("B. a cat", 1),
        ("(C) a hot dog", 2),
        ("B) because it has whiskers", 1),
        ("The answer is B.", 1),
        ("Answer: (b)", 1),
        ("The correct option is D", 3),
        ("B is the correct answer", 1),
        ("I think it is (C).", 2),
        ("(A) or (B)", None),
        ("The answer is A. No, the answer is B.", None),
        ("a cat", 1),
        ("A cat.", 1),
        ("It is a cat on a mat", 1),
        ("It is a hot dog", 2),  # not the shorter option inside
        ("a dog and a cat", None),
        ("I would say B", 1),
        ("A man stands there", None),  # an article
        ("I would go with A", 0),
        ("The answer is a cat", 1),  # the article is no letter
        ("the answer is a", 0),
        ("B. Not (C).", None),
        ("C, D or B", None),
        ("The answer is A or B.", None),
        ("Answer: (A), (B)", None),
        ("I cannot tell", None),
        ("", None),
        ("...", None),
        ("Because B's fur", None),
        ("ABCD", None),
        ("Both A and B", None),
    ],
)
def test_replies_are_read_by_rules(reply: str, chosen: int | None) -> None:
    assert read_choice(reply, ANIMALS) == chosen


def test_nine_options_have_a_letter_i_that_may_be_a_word() -> None:
    numbers = [str(n) for n in range(9)]
    assert read_choice("I am not sure", numbers) is None
    assert read_choice("I", numbers) == 8
    assert read_choice("I guess that it is I", numbers) == 8
    assert read_choice("7", numbers) == 7  # an option, not a letter
    assert read_choice("-", ["+", "-"]) == 1  # an option without a word
    assert read_choice("+-", ["+", "-"]) is None


def test_what_cannot_be_read_is_wrong_and_counted() -> None:
    found = choice_accuracy(["B", "no idea", "A", "C"], [ANIMALS] * 4, [1, 0, 1, 2])
    assert found.scores.tolist() == [1, 0, 0, 1]
    assert (found.value, found.n_unparsed, found.chosen) == (0.5, 1, (1, None, 0, 2))
    more = choice_accuracy(["B", "no idea", "A", "C", "?"], [ANIMALS] * 5, [1, 0, 1, 2, 0])
    assert more.value < found.value and more.n_unparsed == 2
    assert choice_accuracy(["A", "B"], [ANIMALS] * 2, [0, 1]).value == 1
    assert math.isnan(choice_accuracy([], [], []).value)


def test_order_changes_nothing() -> None:
    replies, answers = ["B", "no idea", "A", "C"], [1, 0, 1, 2]
    found = choice_accuracy(replies, [ANIMALS] * 4, answers)
    backward = choice_accuracy(replies[::-1], [ANIMALS] * 4, answers[::-1])
    assert backward.scores.tolist() == found.scores[::-1].tolist()


def test_rotations_keep_the_right_option() -> None:
    found = rotations(["x", "y", "z"], 1)
    assert [own[answer] for own, answer in found] == ["y"] * 3
    assert sorted(tuple(own) for own, _ in found) == [
        ("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y"),
    ]  # fmt: skip


def test_a_letter_that_is_always_said_is_never_right_in_a_circle() -> None:
    rounds = [
        (number, own, answer)
        for number, right in enumerate((0, 1, 2, 3))
        for own, answer in rotations(ANIMALS, right)
    ]
    said = choice_accuracy(["A"] * 16, [own for _, own, _ in rounds], [a for *_, a in rounds])
    assert said.value == 0.25  # chance, one rotation at a time
    questions = [number for number, *_ in rounds]
    assert circular_accuracy(said.scores, questions, [4] * 16).value == 0
    known = choice_accuracy(
        ["ABCD"[a] for *_, a in rounds], [own for _, own, _ in rounds], [a for *_, a in rounds]
    )
    assert circular_accuracy(known.scores, questions, [4] * 16).value == 1


def test_a_rotation_that_is_missing_is_wrong() -> None:
    found = circular_accuracy(
        np.array([1.0, 1, 1, 1, 0]), ["x", "x", "y", "y", "y"], [3, 3, 2, 2, 2]
    )
    assert found.scores.tolist() == [0, 1]
    assert math.isnan(circular_accuracy(np.array([]), [], []).value)


def test_likelihoods_summed_and_by_length() -> None:
    values = torch.tensor([[-6.0, -4.0, -9.0], [-6.0, -4.0, -9.0]])
    lengths = torch.tensor([[3.0, 1.0, 3.0], [3.0, 1.0, 3.0]])
    assert likelihood_choice(values, torch.tensor([1, 0])).scores.tolist() == [1, 0]
    by_length = likelihood_choice(values, torch.tensor([1, 0]), lengths=lengths)
    assert by_length.scores.tolist() == [0, 1]


@pytest.mark.parametrize("number", [0.0, math.nan, math.inf, -math.inf])
def test_ties_and_broken_numbers_are_never_right(number: float) -> None:
    values = torch.full((3, 3), number)
    assert likelihood_choice(values, torch.tensor([0, 1, 2])).value == 0
    one_broken = torch.tensor([[-1.0, -2.0, math.nan]])
    assert likelihood_choice(one_broken, torch.tensor([0])).value == 0
    present = torch.tensor([[True, True, False]])
    assert likelihood_choice(one_broken, torch.tensor([0]), present).value == 1


def test_likelihoods_equal_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-5, 0, (200, 4), generator=generator).float()
    answers = torch.randint(0, 4, (200,), generator=generator)
    expected = [
        float(all(row[a] > other for i, other in enumerate(row) if i != a))
        for row, a in zip(values.tolist(), answers.tolist(), strict=True)
    ]
    assert likelihood_choice(values, answers).scores.tolist() == expected


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match="question 0 has 4 options: its answer is 4, which is not"):
        choice_accuracy(["A"], [ANIMALS], [4])
    with pytest.raises(InputError, match="27 options: there are letters for 26"):
        read_choice("A", ["x"] * 27)
    with pytest.raises(InputError, match="1 replies, 2 options, 1 answers"):
        choice_accuracy(["A"], [ANIMALS, ANIMALS], [0])
    values = torch.zeros(2, 3)
    with pytest.raises(InputError, match=r"log likelihoods are \[2, 3\] and answers \[1\]"):
        likelihood_choice(values, torch.tensor([0]))
    with pytest.raises(InputError, match="place of an option that is not there"):
        likelihood_choice(values, torch.tensor([0, 3]))
    alone = torch.tensor([[True, False, False], [True, True, True]])
    with pytest.raises(InputError, match="a question has one option"):
        likelihood_choice(values, torch.tensor([0, 0]), alone)
    with pytest.raises(InputError, match="a length is not positive"):
        likelihood_choice(values, torch.tensor([0, 0]), lengths=torch.zeros(2, 3))
