"""Test pictures that training has seen: the same matching as for duplicates, across two sets.

A score on leaked pictures measures memory. Only direct matches count, no chains. Every record that
has a match is named, on both sides; not every pair is, where many copies meet many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.data.curation.matching import Evidence, Thresholds, check_methods, matches

DOCUMENT_FORMAT = "sightline.leaks"
DOCUMENT_VERSION = 1
DEFAULT_METHODS = ("bytes", "pixels", "dhash", "mirror")


@dataclass(frozen=True)
class Leak:
    """A test record and a training record that are the same, by their numbers."""

    test: int
    train: int
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Leaks:
    """What `find_leaks` found."""

    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    pairs: tuple[Leak, ...]
    """In the order of the test set, then of the training set."""

    @property
    def test(self) -> tuple[int, ...]:
        """Numbers of the test records that training contains, in order."""
        return tuple(sorted({leak.test for leak in self.pairs}))

    @property
    def train(self) -> tuple[int, ...]:
        """Numbers of the training records that are named beside a test record, in order."""
        return tuple(sorted({leak.train for leak in self.pairs}))

    def to_json(self) -> dict[str, Any]:
        """The same as one JSON document with `format` and `version`; records by their ids."""
        return {
            "format": DOCUMENT_FORMAT,
            "version": DOCUMENT_VERSION,
            "train": len(self.train_ids),
            "test": len(self.test_ids),
            "leaked": len(self.test),
            "leaks": [
                {
                    "test": self.test_ids[leak.test],
                    "train": self.train_ids[leak.train],
                    "methods": list(leak.methods),
                }
                for leak in self.pairs
            ],
        }


def find_leaks(
    train: Evidence,
    test: Evidence,
    methods: Sequence[str] = DEFAULT_METHODS,
    thresholds: Thresholds | None = None,
) -> Leaks:
    """The records of a test set that a training set contains as well.

    Args:
        train: what is known of the training records.
        test: and of the test records.
        methods: names from `matching.METHODS`.
        thresholds: when two records match; the measured defaults when None.

    Raises:
        ConfigError: an unknown method, or a threshold out of range.
    """
    check_methods(methods, train.vectors is not None and test.vectors is not None)
    found: dict[tuple[int, int], list[str]] = {}
    for method in dict.fromkeys(methods):
        for pair in _witnesses(method, train, test, thresholds or Thresholds()):
            found.setdefault(pair, []).append(method)
    pairs = tuple(Leak(*pair, tuple(named)) for pair, named in sorted(found.items()))
    return Leaks(train.prints.ids, test.prints.ids, pairs)


def _witnesses(
    method: str, train: Evidence, test: Evidence, thresholds: Thresholds
) -> set[tuple[int, int]]:
    """Pairs (test, train) that match, until every record that has a match is in one."""
    asked, seen = np.zeros(len(test.prints), bool), np.zeros(len(train.prints), bool)

    def known(i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.bool_]:
        both: NDArray[np.bool_] = asked[i] & seen[j]
        return both

    found: set[tuple[int, int]] = set()
    for i, j in matches(method, test, train, thresholds, known):
        new = ~known(i, j)
        found.update(zip(i[new].tolist(), j[new].tolist(), strict=True))
        asked[i], seen[j] = True, True
    return found
