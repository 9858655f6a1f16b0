"""ROUGE-L of captions (Lin 2004): how much of a caption and its references is a common subsequence.

The COCO form: the best precision and the best recall are taken over the references each for itself,
so that they may come from different ones, and the balance is 1.2. It is not the score of Google's
rouge-score, which stems words and takes the best F1; the name in a table should say `rouge_l:coco`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sightline.metrics.ngrams import Words, check_captions
from sightline.metrics.per_sample import Scores, mean_of_scores

BETA = 1.2
"""Recall counts so many times as much as precision."""


def rouge_l(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """ROUGE-L of each caption, and the mean.

    Args:
        hypotheses: one caption a sample, in words.
        references: one or more captions a sample, in words.

    Raises:
        InputError: lengths that differ, a sample without reference, or strings instead of words.
    """
    check_captions(hypotheses, references)
    pairs = zip(hypotheses, references, strict=True)
    return mean_of_scores([_caption_score(words, own) for words, own in pairs])


def _caption_score(words: Words, references: Sequence[Words]) -> float:
    # A caption of no words is one empty word in the published code, equal to another such caption.
    own = words or [""]
    common = [common_subsequence(own, other or [""]) for other in references]
    precision = max(common) / len(own)
    recall = max(n / max(1, len(r)) for n, r in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence of words found in both in the same order."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[-1]))
        above = row
    return above[-1]
