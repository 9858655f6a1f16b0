"""CIDEr of captions (Vedantam et al. 2015, arXiv:1411.5726): agreement in telling words.

What the field calls CIDEr is the code of pycocoevalcap, and this is that: CIDEr-D's clipping and
penalty for lengths (sigma 6), but the number of word pairs as length, and no stemming. Times 10.

The weight of a word run falls with the number of pictures whose references use it, so a score
depends on the set it was computed in: a subset has other weights, and a single picture scores 0. A
fixed document frequency makes scores of small sets comparable.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sightline.core.errors import InputError
from sightline.metrics.ngrams import Ngram, Words, check_captions, ngram_counts
from sightline.metrics.per_sample import Scores, mean_of_scores

LONGEST = 4
SIGMA = 6.0
SINGLE_PICTURE = (
    "CIDEr of one picture is 0 for every caption, because all words of its references occur in all "
    "pictures: give at least 2 pictures, or the document frequency of a larger set"
)
FORMAT = "sightline.document_frequency"
VERSION = 1


class DocumentFrequency(NamedTuple):
    """In how many pictures each n-gram of the references occurs."""

    counts: Mapping[Ngram, int]
    documents: int
    """Pictures counted."""

    def to_json(self) -> str:
        """The text of a file that `read_document_frequency` understands."""
        counts = {" ".join(ngram): count for ngram, count in sorted(self.counts.items())}
        head = {"format": FORMAT, "version": VERSION, "documents": self.documents}
        return json.dumps({**head, "counts": counts}, ensure_ascii=False)


class _Vector(NamedTuple):
    weights: list[dict[Ngram, float]]
    """Of the runs of 1 to `LONGEST` words."""
    norms: list[float]
    pairs: int
    """How many runs of two words there are."""


def document_frequency(references: Sequence[Sequence[Words]]) -> DocumentFrequency:
    """Count the n-grams of the references, each once a picture."""
    counts: Counter[Ngram] = Counter()
    for own in references:
        counts.update({ngram for words in own for ngram in ngram_counts(words, LONGEST)})
    return DocumentFrequency(counts, len(references))


def read_document_frequency(text: str) -> DocumentFrequency:
    """The frequencies in the text of a file that `DocumentFrequency.to_json` wrote.

    Raises:
        InputError: the text is something else.
    """
    try:
        document = json.loads(text)
        known = (document["format"], document["version"])
        counts = {tuple(words.split(" ")): int(n) for words, n in document["counts"].items()}
        documents = int(document["documents"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f'this is no document frequency: it must be JSON with "format": "{FORMAT}", "version", '
            '"documents" and "counts"'
        ) from None
    if known != (FORMAT, VERSION):
        raise InputError(
            f"the document frequency has format {known[0]!r}, version {known[1]!r}; "
            f"this Sightline reads {FORMAT!r}, version {VERSION}"
        )
    if documents < 1:
        raise InputError(
            f"the document frequency counts {documents} pictures: it must be 1 or more"
        )
    return DocumentFrequency(counts, documents)


def cider(
    hypotheses: Sequence[Words],
    references: Sequence[Sequence[Words]],
    frequency: DocumentFrequency | None = None,
) -> Scores:
    """CIDEr of each caption, and the mean: 0 to 10.

    Args:
        hypotheses: one caption a picture, in words.
        references: one or more captions a picture, in words.
        frequency: fixed weights; by default those of `references` themselves.

    Raises:
        InputError: a single picture without fixed weights, lengths that differ, a picture without
            reference, or strings instead of words.
    """
    check_captions(hypotheses, references)
    if frequency is None and len(references) == 1:
        raise InputError(SINGLE_PICTURE)
    frequency = document_frequency(references) if frequency is None else frequency
    return mean_of_scores(
        [
            _caption_score(words, own, frequency)
            for words, own in zip(hypotheses, references, strict=True)
        ]
    )


def _caption_score(
    words: Words, references: Sequence[Words], frequency: DocumentFrequency
) -> float:
    own = _vector(words, frequency)
    total = sum(_similarity(own, _vector(other, frequency)) for other in references)
    return 10 * total / LONGEST / len(references)


def _vector(words: Words, frequency: DocumentFrequency) -> _Vector:
    largest = math.log(frequency.documents)
    weights: list[dict[Ngram, float]] = [{} for _ in range(LONGEST)]
    pairs = 0
    for ngram, count in ngram_counts(words, LONGEST).items():
        rarity = largest - math.log(max(1, frequency.counts.get(ngram, 0)))
        weights[len(ngram) - 1][ngram] = count * rarity
        pairs += count if len(ngram) == 2 else 0
    norms = [math.sqrt(sum(w * w for w in own.values())) for own in weights]
    return _Vector(weights, norms, pairs)


def _similarity(own: _Vector, other: _Vector) -> float:
    """Summed over the lengths of n-grams."""
    total = 0.0
    for n in range(LONGEST):
        both = other.weights[n]
        shared = sum(min(w, both[g]) * both[g] for g, w in own.weights[n].items() if g in both)
        norm = own.norms[n] * other.norms[n]
        total += shared / norm if norm else shared
    return total * math.exp(-((own.pairs - other.pairs) ** 2) / (2 * SIGMA**2))
