"""VQA accuracy (Antol et al. 2015, arXiv:1505.00468): agreement with ten people.

The official script has habits that decide points: answers are brought to a common form only where
the ten people did not all write the same, and that form has oddities of its own ("$1,000-2" is
"$10002"). They are kept here on purpose. Harnesses deviate, so the variant belongs beside a score:

- `official`: the script of the data set's authors; both sides normalised unless all people agree.
- `always`: both sides normalised in every question; some points higher.
- `lavis`: the model's answer always, people's only where they differ, and of those only the marks.
- `textvqa`: the processor of TextVQA and M4C (Singh et al. 2019); one more step, both, always.

Scores are in 0 .. 1. For a table by answer type or question type: `per_sample.group_means`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, get_args

from sightline.core.errors import InputError, unknown_name
from sightline.metrics.per_sample import Scores, mean_of_scores, same_length

Variant = Literal["official", "always", "lavis", "textvqa"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
ENOUGH = 3
"""So many other people with the same answer make it right."""

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_DOT = re.compile(r"\.(?!\d)")
_DOTS_REMOVED = 32
"""The script passes a flag of this value where the number of replacements belongs."""
_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}


def _contractions() -> dict[str, str]:
    """Words without their apostrophe to words with it.

    The script's table, made from the words it lists. Keys with a capital I never match, since
    answers are in lower case by then, and "somebody'd" loses its apostrophe: both as published.
    """
    table = {"somebody'd": "somebodyd"}
    endings = {
        "n't": "ai are ca could did does do had has have is might must need ought sha should was "
        "were wo would",
        "'ve": "could might must not should would they we what where who you I",
        "'d": "he how it someone something there they where who you",
        "'ll": "how it somebody someone something they what who why you y'all",
        "'s": "he how somebody someone that there what when where who why",
        "'re": "there they what why you",
        "'m": "I",
    }
    for ending, stems in endings.items():
        for stem in stems.split():
            whole = stem + ending
            table[whole.replace("'", "", 1)] = whole
    table["yall'll"], table["y'allll"] = "y'all'll", "y'all'll"
    doubles = {
        "n't've": "could had might should would",
        "'d've": "he I it she somebody someone something there they we who you y'all",
        "'s'at": "'ow",
    }
    for ending, stems in doubles.items():
        for stem in stems.split():
            whole = stem + ending
            for place in (i for i, letter in enumerate(whole) if letter == "'"):
                table[whole[:place] + whole[place + 1 :]] = whole
    for word in ("ma'am", "o'clock", "'twas", "y'all"):
        table[word.replace("'", "")] = word
    return table | {"let's": "let's", "she's": "she's"}


CONTRACTIONS = _contractions()
_remembered = lru_cache(maxsize=2**16)
"""Ten people write much the same, and so do the next ten."""


@_remembered
def normalise_answer(text: str) -> str:
    """The common form of an answer: no marks, no articles, digits for number words, apostrophes."""
    return _normalise_words(_without_marks(text))


@_remembered
def normalise_textvqa_answer(text: str) -> str:
    """The same behind the first step of TextVQA: lower case, no comma, no question mark."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise_answer(_one_line(text))


def vqa_accuracy(
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    variant: Variant = "official",
) -> Scores:
    """The accuracy of each answer, and the mean.

    An answer is compared with all sets of people that leave one of them out: min(1, matches / 3),
    averaged. With ten people 0, 1, 2, 3 and 4 or more matches are 0, 0.3, 0.6, 0.9 and 1.

    Args:
        predictions: one answer a question.
        answers: what people answered, usually ten a question; people are told apart by their place.
        variant: which texts are normalised.

    Raises:
        InputError: an unknown variant, lengths that differ, or a question without an answer.
    """
    if variant not in VARIANTS:
        raise InputError(unknown_name("variant of VQA accuracy", variant, VARIANTS))
    same_length(predictions=predictions, answers=answers)
    prepare = _PREPARE[variant]
    scores = []
    for number, (prediction, own) in enumerate(zip(predictions, answers, strict=True)):
        if not own or isinstance(own, str):
            raise InputError(f"question {number} has no list of people's answers")
        scores.append(_agreement(*prepare(prediction, own)))
    return mean_of_scores(scores)


def _agreement(prediction: str, answers: Sequence[str]) -> float:
    matches = [answer == prediction for answer in answers]
    total = sum(matches)
    return sum(min(1.0, (total - own) / ENOUGH) for own in matches) / len(matches)


Prepared = tuple[str, list[str]]


def _official(prediction: str, answers: Sequence[str]) -> Prepared:
    prediction, people = _one_line(prediction), [_one_line(answer) for answer in answers]
    if len(set(people)) > 1:
        return normalise_answer(prediction), [normalise_answer(answer) for answer in people]
    return prediction, people


def _always(prediction: str, answers: Sequence[str]) -> Prepared:
    people = [normalise_answer(_one_line(answer)) for answer in answers]
    return normalise_answer(_one_line(prediction)), people


def _lavis(prediction: str, answers: Sequence[str]) -> Prepared:
    differ = len(set(answers)) > 1
    people = [_without_marks(answer) for answer in answers] if differ else list(answers)
    return normalise_answer(_one_line(prediction)), people


def _textvqa(prediction: str, answers: Sequence[str]) -> Prepared:
    people = [normalise_textvqa_answer(answer) for answer in answers]
    return normalise_textvqa_answer(prediction), people


_PREPARE: dict[Variant, Callable[[str, Sequence[str]], Prepared]] = {
    "official": _official, "always": _always, "lavis": _lavis, "textvqa": _textvqa,
}  # fmt: skip


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@_remembered
def _without_marks(text: str) -> str:
    """Marks beside a space vanish, others become one; a number such as 1,000 makes all vanish."""
    number = _DIGIT_COMMA_DIGIT.search(text) is not None
    changed = text
    for mark in _MARKS:
        vanishes = number or mark + " " in text or " " + mark in text
        changed = changed.replace(mark, "" if vanishes else " ")
    return _DOT.sub("", changed, count=_DOTS_REMOVED)


def _normalise_words(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
