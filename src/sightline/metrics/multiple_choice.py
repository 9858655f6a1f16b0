"""Answers to questions with options: read from free text, or chosen by likelihood.

A reply is read by rules, without a judge: what cannot be read is wrong and counted, since
harnesses differ by points in how willingly they find a letter. Likelihoods need no reading, and are
to be preferred; a tie or a number that is not finite is wrong.

Letters: N questions, C options.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from string import ascii_uppercase
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from sightline.core.errors import InputError
from sightline.metrics.compositionality import choices
from sightline.metrics.per_sample import Scores, mean_of_scores, same_length

Option = TypeVar("Option")
LETTERS = ascii_uppercase


class Replies(NamedTuple):
    """What replies in free text come to."""

    value: float
    """Accuracy; NaN for no question."""
    scores: Float[ndarray, " N"]
    """float64, 1 for each reply that names the right option."""
    chosen: tuple[int | None, ...]
    """The option that each reply names; None where it names none, or several."""
    n_unparsed: int


def choice_accuracy(
    replies: Sequence[str], options: Sequence[Sequence[str]], answers: Sequence[int]
) -> Replies:
    """Share of replies that name the right option; one that cannot be read is wrong.

    Args:
        replies: what the model wrote.
        options: of each question, in the order of their letters.
        answers: place of the right option, from 0.

    Raises:
        InputError: lengths that differ, more than 26 options, or an answer that is none of them.
    """
    same_length(replies=replies, options=options, answers=answers)
    for number, (own, answer) in enumerate(zip(options, answers, strict=True)):
        if not 0 <= answer < len(own):
            raise InputError(
                f"question {number} has {len(own)} options: its answer is {answer}, which is not "
                f"in 0 .. {len(own) - 1}"
            )
    chosen = tuple(read_choice(text, own) for text, own in zip(replies, options, strict=True))
    right = [float(own == answer) for own, answer in zip(chosen, answers, strict=True)]
    return Replies(*mean_of_scores(right), chosen, sum(own is None for own in chosen))


def read_choice(reply: str, options: Sequence[str]) -> int | None:
    """The one option that a reply names, or None.

    The first rule that finds something decides, and decides for None if it finds two options: the
    reply is a letter ("B", "(b).") or an option; it says what the answer is ("the answer is B");
    letters in brackets or, at the beginning, with a mark ("B: a dog"); an option in its words;
    a capital letter alone, unless it is an A or I in front of a small word.

    Raises:
        InputError: more than 26 options.
    """
    if len(options) > len(LETTERS):
        raise InputError(f"{len(options)} options: there are letters for {len(LETTERS)}")
    letters = LETTERS[: len(options)]
    if not letters:
        return None
    text = reply.strip()
    bare = text.strip("()[]{}.:*\"' ")
    if len(bare) == 1 and bare.upper() in letters:
        return letters.index(bare.upper())
    same = {i for i, option in enumerate(options) if _plain(option) == _plain(text)}
    found = (
        same
        or _declared(text, letters)
        or _marked(text, letters)
        or _contained(text, options)
        or _alone(text, letters)
    )
    return found.pop() if len(found) == 1 else None


def rotations(options: Sequence[Option], answer: int) -> list[tuple[list[Option], int]]:
    """All rotations of the options with the new place of the right one (MMBench's CircularEval)."""
    count = len(options)
    return [
        ([*options[shift:], *options[:shift]], (answer - shift) % count) for shift in range(count)
    ]


def circular_accuracy(
    scores: Float[ndarray, " N"], questions: Sequence[Hashable], rounds: Sequence[int]
) -> Scores:
    """Share of questions that are right in every rotation (Liu et al. 2023, arXiv:2307.06281).

    Args:
        scores: 1 where a rotation was answered right.
        questions: which question each is a rotation of.
        rounds: how many rotations that question has; one that is missing counts as wrong.

    Returns:
        A score for each question, in the order of appearance.

    Raises:
        InputError: lengths that differ.
    """
    same_length(scores=scores, questions=questions, rounds=rounds)
    won: dict[Hashable, int] = {}
    needed: dict[Hashable, int] = {}
    for score, question, count in zip(scores.tolist(), questions, rounds, strict=True):
        won[question] = won.get(question, 0) + (score == 1)
        needed[question] = count
    return mean_of_scores([float(won[question] == needed[question]) for question in needed])


def likelihood_choice(
    log_likelihoods: Float[Tensor, "N C"],
    answers: Int[Tensor, " N"],
    present: Bool[Tensor, "N C"] | None = None,
    lengths: Float[Tensor, "N C"] | None = None,
) -> Scores:
    """Where the right option is likelier than every other one.

    Args:
        log_likelihoods: summed over the tokens of each option.
        answers: place of the right option.
        present: which options there are, where questions have different numbers; by default all.
        lengths: divide by these, tokens or letters, so that long options are not at a loss. Both
            ways are in use; say in the table which one was taken.

    Raises:
        InputError: shapes that do not fit, an answer that is no option, a length that is not
            positive, or a question of one option.
    """
    present = torch.ones_like(log_likelihoods, dtype=torch.bool) if present is None else present
    _check_likelihoods(log_likelihoods, answers, present, lengths)
    values = log_likelihoods.double()
    if lengths is not None:
        values = values / torch.where(present, lengths.double(), 1.0)
    place = answers[:, None]
    others = present.scatter(1, place, False)
    right = choices(values.gather(1, place)[:, 0], values, others)
    return mean_of_scores(right.double().numpy())


def _check_likelihoods(
    values: Tensor, answers: Tensor, present: Tensor, lengths: Tensor | None
) -> None:
    shapes = {tuple(own.shape) for own in (values, present, lengths) if own is not None}
    if values.ndim != 2 or len(shapes) > 1 or tuple(answers.shape) != tuple(values.shape[:1]):
        raise InputError(
            f"log likelihoods are {list(values.shape)} and answers {list(answers.shape)}: they "
            "must be [questions, options] and [questions], lengths and present like the first"
        )
    inside = (answers >= 0) & (answers < values.shape[1])
    if not inside.all() or not present.gather(1, answers[:, None]).all():
        raise InputError("an answer is the place of an option that is not there")
    if not (present.sum(dim=1) > 1).all():
        raise InputError("a question has one option: leave it out, there is nothing to choose")
    if lengths is not None and not (lengths[present] > 0).all():
        raise InputError("a length is not positive: every option has at least one token or letter")


def _plain(text: str) -> str:
    """Lower-case words; the text itself where it has none, such as "+"."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split()) or text.strip()


def _places(found: list[str], letters: str) -> set[int]:
    return {letters.index(letter.upper()) for letter in found if letter.upper() in letters}


def _declared(text: str, letters: str) -> set[int]:
    """The letter in "the answer is (B)", "Answer: b." or "B is correct"; "is a cat" has none."""
    letter = rf"([{letters}]|[{letters.lower()}](?=[)\].,*\"']|\s*$))(?![\w'])"
    another = rf"(?:\s*(?:,|/|&|and|or)\s*[(\[]*([{letters}])(?![\w']))?"
    said = rf"(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*[(\[*\"']*{letter}[)\]]*{another}"
    meant = rf"\b([{letters}])[)\].\"'*]*\s+is\s+(?:the\s+)?(?:correct|right|answer)"
    named = [letter for pair in re.findall(said, text) for letter in pair if letter]
    return _places(named + re.findall(meant, text), letters)


def _marked(text: str, letters: str) -> set[int]:
    """Letters in brackets, and one with a mark that the text begins with."""
    first = re.findall(rf"\A\**([{letters}])\s*[).\]:*]", text)
    return _places(first + re.findall(rf"[(\[]([{letters}])[)\]]", text), letters)


def _contained(text: str, options: Sequence[str]) -> set[int]:
    """Options whose words stand in the text and in no longer option that does too."""
    words = f" {_plain(text)} "
    inside = {i for i, own in enumerate(map(_plain, options)) if own and f" {own} " in words}
    return {
        i
        for i in inside
        if not any(f" {_plain(options[i])} " in f" {_plain(options[j])} " for j in inside - {i})
    }


def _alone(text: str, letters: str) -> set[int]:
    word = r"[AI]\s+(?!and\b|or\b)[a-z]"
    return _places(re.findall(rf"(?<![\w'])(?!{word})([{letters}])(?![\w'])", text), letters)
