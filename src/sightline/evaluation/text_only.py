"""How well a caption alone gives the answer away: a small language model that sees no picture.

False captions are often longer, odder or made of rarer words than true ones, and a model that
reads nothing but words can then choose well: SugarCrepe was built because earlier sets could be
solved so (Hsieh et al. 2023, section 3). The score of this model beside every result says how much
of it needs no picture.

The model mixes unigrams and bigrams with add-k smoothing, and is fitted on the true captions of
the *other* folds, so that it has never read a caption of the picture that it judges. Its score is
the log-likelihood of the whole caption with its end, so that length counts as it does for any
language model.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

FOLDS = 5
ADDED = 0.1
"""Added to every count."""
BIGRAM_WEIGHT = 0.5
START, END = "<s>", "</s>"
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[^\w\s]")


def words_of(caption: str) -> list[str]:
    """Lower-case words and punctuation marks."""
    return _WORD.findall(caption.lower())


class BigramModel:
    """Counts of words and of pairs of words.

    p(w | v) = 1/2 (c(v, w) + k) / (c(v) + k V) + 1/2 (c(w) + k) / (n + k V), V being the words
    seen and one for all others.
    """

    def __init__(self, captions: Iterable[str]) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        for caption in captions:
            words = [START, *words_of(caption), END]
            self._pairs.update(itertools.pairwise(words))
        self._before: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        for (first, second), number in self._pairs.items():
            self._before[first] += number
            self._words[second] += number
        self._total = sum(self._words.values())

    def probability(self, before: str, word: str) -> float:
        """Of a word after another; over all words seen and one that was not they sum to 1."""
        mass = ADDED * (len(self._words) + 1)
        pair = (self._pairs[before, word] + ADDED) / (self._before[before] + mass)
        single = (self._words[word] + ADDED) / (self._total + mass)
        return BIGRAM_WEIGHT * pair + (1 - BIGRAM_WEIGHT) * single

    def log_likelihood(self, caption: str) -> float:
        """Natural logarithm of the caption's probability, its end included."""
        words = [START, *words_of(caption), END]
        return sum(math.log(self.probability(*pair)) for pair in itertools.pairwise(words))


def text_only_scores(
    captions: Sequence[Sequence[str]], true: Sequence[int], pictures: Sequence[str], seed: int = 0
) -> list[list[float]]:
    """A score for every caption of every sample, without a picture.

    Args:
        captions: of each sample, the true ones first.
        true: how many of them are true.
        pictures: the picture of each sample; those of one picture are in one fold.
        seed: of the folds.
    """
    folds = [_fold(picture, seed) for picture in pictures]
    found: list[list[float]] = [[] for _ in captions]
    for fold in range(FOLDS):
        rows = [row for row, own in enumerate(folds) if own == fold]
        if not rows:
            continue
        model = BigramModel(
            text
            for texts, known, own in zip(captions, true, folds, strict=True)
            if own != fold
            for text in texts[:known]
        )
        for row in rows:
            found[row] = [model.log_likelihood(text) for text in captions[row]]
    return found


def _fold(picture: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed} {picture}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "little") % FOLDS
