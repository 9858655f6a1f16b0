"""What the scores of captions have in common: words, runs of words, and which caption is which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sightline.core.errors import InputError
from sightline.metrics.per_sample import same_length

Words = Sequence[str]
"""One caption as a tokenizer left it (`metrics.ptb.tokenize`)."""
Ngram = tuple[str, ...]


def ngram_counts(words: Words, longest: int = 4) -> Counter[Ngram]:
    """How often each run of 1 to `longest` words occurs.

    A token with a white space inside, such as a number before a fraction, is several words here.
    """
    parts = " ".join(words).split()
    return Counter(
        tuple(parts[i : i + n]) for n in range(1, longest + 1) for i in range(len(parts) - n + 1)
    )


def check_captions(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Check that each caption has references and that all are cut into words.

    Raises:
        InputError: lengths that differ, a caption without reference, or a plain string.
    """
    same_length(hypotheses=hypotheses, references=references)
    for number, (hypothesis, own) in enumerate(zip(hypotheses, references, strict=True)):
        if not own or isinstance(own, str):
            raise InputError(f"caption {number} has no list of references to be compared with")
        if any(isinstance(words, str) for words in (hypothesis, *own)):
            raise InputError(
                f"caption {number} or a reference of it is a string: give lists of words, as "
                "sightline.metrics.ptb.tokenize makes them"
            )
