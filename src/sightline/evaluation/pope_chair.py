"""POPE and CHAIR sample by sample, where what was not answered never helps.

The published scripts count an empty answer as yes, and an empty caption as free of hallucination. A
model that fails would gain by it, so an answer without a character is neither yes nor no (wrong
whatever was asked), and a caption without one counts as one mention of a thing that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from sightline.data.published.questions import YES_NO
from sightline.evaluation.columns import Column
from sightline.metrics.chair import CHAIR_NUMBERS, ObjectList, chair, chair_of_counts
from sightline.metrics.hallucination import POPE_NUMBERS, PopeVariant, pope, pope_of_counts


def pope_counts(
    said: Sequence[str], truths: Sequence[Sequence[str]], variant: PopeVariant = "official"
) -> Float[ndarray, "N 5"]:
    """The counts of `metrics.hallucination`, one row a question.

    Args:
        said: what was answered; nothing, or blanks, where there is no answer.
        truths: "yes" or "no", once or more.
    """
    right = [own[0].strip().lower() == YES_NO[0] for own in truths]
    strict = pope(said, right, "strict").counts  # takes what it cannot read as neither
    if variant == "strict":
        return strict
    return np.where(_answered(said)[:, None], pope(said, right, variant).counts, strict)


def pope_scores(
    variant: PopeVariant, said: Sequence[str], truths: Sequence[Sequence[str]]
) -> Column:
    """Whether each answer is right."""
    counts = pope_counts(said, truths, variant)
    return Column(counts[:, 0] + counts[:, 2])


def pope_number(name: str, said: Sequence[str], truths: Sequence[Sequence[str]]) -> Column:
    """One of `POPE_NUMBERS` of the whole set, by the official reading."""
    place = POPE_NUMBERS.index(name)
    return Column(pope_counts(said, truths), lambda sums: pope_of_counts(sums)[..., place])


def pope_unparsed(said: Sequence[str], truths: Sequence[Sequence[str]]) -> Column:
    """Which answers begin with neither yes nor no."""
    return Column(np.array([read_strict(text) is None for text in said], dtype=np.float64))


def read_official(text: str) -> str:
    """Yes or no, as the published parser reads an answer."""
    return YES_NO[0] if pope([text], [True]).counts[0, 4] else YES_NO[1]


def read_strict(text: str) -> str | None:
    """Yes or no where the answer begins with it."""
    read = pope([text], [True], "strict")
    return None if read.n_unparsed else YES_NO[0] if read.counts[0, 4] else YES_NO[1]


def chair_counts(
    objects: ObjectList, said: Sequence[str], truths: Sequence[Sequence[str]]
) -> Float[ndarray, "N 6"]:
    """The counts of `metrics.chair`, one row a caption.

    Args:
        said: what was written; nothing, or blanks, where there is no caption.
        truths: captions by people and names of what is marked in the picture.
    """
    counts = chair(said, [()] * len(said), truths, objects).counts
    nothing = np.concatenate([np.ones((len(said), 4)), np.zeros((len(said), 1)), counts[:, 5:]], 1)
    return np.where(_answered(said)[:, None], counts, nothing)


def chair_scores(
    objects: ObjectList, said: Sequence[str], truths: Sequence[Sequence[str]]
) -> Column:
    """Which captions name a thing that is not there."""
    return Column(chair_counts(objects, said, truths)[:, 2])


def chair_number(
    name: str, objects: ObjectList, said: Sequence[str], truths: Sequence[Sequence[str]]
) -> Column:
    """One of `CHAIR_NUMBERS` of the whole set."""
    place = CHAIR_NUMBERS.index(name)
    counts = chair_counts(objects, said, truths)
    return Column(counts, lambda sums: chair_of_counts(sums)[..., place])


def _answered(said: Sequence[str]) -> Bool[ndarray, " N"]:
    return np.array([bool(text.strip()) for text in said], dtype=bool)
