"""BLEU-1 to BLEU-4 of a set of captions (Papineni et al. 2002), as the COCO evaluation has it.

One score for the whole set: matches are summed over all captions before precisions are taken. There
is no smoothing, and no score of a single caption, on which implementations differ. What each
caption contributes is kept as counts, so that a set drawn with replacement is one product.

Letters: N captions, K longest n-gram, R drawn sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sightline.metrics.ngrams import Ngram, Words, check_captions, ngram_counts

LONGEST = 4
_TINY, _SMALL = 1e-15, 1e-9
"""The published code adds these to numerators and denominators instead of asking for 0."""


class Bleu(NamedTuple):
    """BLEU of a set."""

    values: Float[ndarray, " K"]
    """BLEU-1 to BLEU-4; NaN for no caption."""
    counts: Float[ndarray, "N 2*K+2"]
    """What each caption adds: K numbers of matches, K of n-grams, its length, and that of the
    closest reference."""


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Bleu:
    """BLEU with clipped matches, the closest reference length and the brevity penalty.

    Of two references equally close in length the shorter one counts.

    Args:
        hypotheses: one caption a sample, in words.
        references: one or more captions a sample, in words.

    Raises:
        InputError: lengths that differ, a sample without reference, or strings instead of words.
    """
    check_captions(hypotheses, references)
    rows = [_row(words, own) for words, own in zip(hypotheses, references, strict=True)]
    counts = np.array(rows, dtype=np.float64).reshape(-1, 2 * LONGEST + 2)
    values = bleu_of_counts(counts.sum(axis=0)) if len(counts) else np.full(LONGEST, math.nan)
    return Bleu(values, counts)


def bleu_of_counts(totals: Float[ndarray, "*R 2*K+2"]) -> Float[ndarray, "*R K"]:
    """BLEU-1 to BLEU-K of summed counts, of one set or of many at once.

    For `metrics.intervals.bootstrap_counts`: `bleu_of_counts(times @ counts)` with times[R, N].
    """
    longest = (totals.shape[-1] - 2) // 2
    matches, found = totals[..., :longest], totals[..., longest : 2 * longest]
    precision = (matches + _TINY) / (found + _SMALL)
    values = precision.cumprod(axis=-1) ** (1 / np.arange(1, longest + 1))
    ratio = (totals[..., -2:-1] + _TINY) / (totals[..., -1:] + _SMALL)
    penalty: Float[ndarray, "*R 1"] = np.exp(1 - 1 / np.minimum(ratio, 1))
    return values * penalty


def _row(words: Words, references: Sequence[Words]) -> list[int]:
    own = ngram_counts(words, LONGEST)
    allowed: dict[Ngram, int] = {}
    lengths = []
    for reference in references:
        counts = ngram_counts(reference, LONGEST)
        lengths.append(_length(counts))
        for ngram, count in counts.items():
            allowed[ngram] = max(allowed.get(ngram, 0), count)
    matches = [0] * LONGEST
    for ngram, count in own.items():
        matches[len(ngram) - 1] += min(count, allowed.get(ngram, 0))
    length = _length(own)
    possible = [max(0, length - n) for n in range(LONGEST)]
    closest = min(lengths, key=lambda other: (abs(other - length), other))
    return [*matches, *possible, length, closest]


def _length(counts: dict[Ngram, int]) -> int:
    return sum(count for ngram, count in counts.items() if len(ngram) == 1)
