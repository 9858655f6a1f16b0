"""Groups of records that are the same picture, and the one of each that stays.

What matches is said in `sightline.data.curation.matching`. Matches chain: where A is like B and B
like C, all three are one group, also if A and C alone would not match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sightline.core.errors import ConfigError, unknown_name
from sightline.data.curation.groups import DisjointSets
from sightline.data.curation.matching import Evidence, Thresholds, check_methods, matches

DOCUMENT_FORMAT = "sightline.duplicates"
DOCUMENT_VERSION = 1
DEFAULT_METHODS = ("bytes", "pixels", "dhash")
KEEP_RULES = ("largest", "first")

Keep = Literal["largest", "first"]


@dataclass(frozen=True)
class DuplicateGroup:
    """Records that are the same picture, by their numbers in the data set."""

    members: tuple[int, ...]
    kept: int
    methods: tuple[str, ...]
    """The methods that connect some of them."""


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found."""

    ids: tuple[str, ...]
    groups: tuple[DuplicateGroup, ...]
    by_method: Mapping[str, int]
    """How many records each method alone would remove."""
    broken: Mapping[int, str]
    """Number of a record whose picture could not be read, to the reason. It is in no group that
    a picture decides."""

    @property
    def removed(self) -> tuple[int, ...]:
        """Numbers of the records that are another one again, in order."""
        return tuple(sorted(m for group in self.groups for m in group.members if m != group.kept))

    @property
    def kept(self) -> tuple[int, ...]:
        """Numbers of the readable records that stay, in order."""
        gone = {*self.removed, *self.broken}
        return tuple(number for number in range(len(self.ids)) if number not in gone)

    def to_json(self) -> dict[str, Any]:
        """The same as one JSON document with `format` and `version`; records by their ids."""
        return {
            "format": DOCUMENT_FORMAT,
            "version": DOCUMENT_VERSION,
            "records": len(self.ids),
            "removed": len(self.removed),
            "by_method": dict(self.by_method),
            "groups": [
                {
                    "kept": self.ids[group.kept],
                    "removed": [self.ids[m] for m in group.members if m != group.kept],
                    "methods": list(group.methods),
                }
                for group in self.groups
            ],
            "broken": {self.ids[number]: reason for number, reason in self.broken.items()},
        }


def find_duplicates(
    evidence: Evidence,
    methods: Sequence[str] = DEFAULT_METHODS,
    thresholds: Thresholds | None = None,
    keep: Keep = "largest",
) -> Duplicates:
    """Group the records that match by any of the methods, and choose one of each group.

    Args:
        evidence: fingerprints of the pictures, and captions and vectors where a method asks.
        methods: names from `matching.METHODS`.
        thresholds: when two records match; the measured defaults when None.
        keep: "largest" keeps the picture with most pixels, the first of equals; "first" the first.

    Raises:
        ConfigError: an unknown method or rule, or a threshold out of range.
    """
    check_methods(methods, evidence.vectors is not None)
    if keep not in KEEP_RULES:
        raise ConfigError(unknown_name("rule to keep by", keep, KEEP_RULES))
    limits = thresholds or Thresholds()
    count = len(evidence.prints)
    together = DisjointSets(count)
    found: dict[str, DisjointSets] = {}
    for method in dict.fromkeys(methods):
        sets = found[method] = DisjointSets(count)
        for pairs in matches(method, evidence, None, limits, sets.together):
            sets.join(*pairs)
        together.join(np.arange(count), sets.roots)
    return Duplicates(
        ids=evidence.prints.ids,
        groups=tuple(
            DuplicateGroup(members, _kept(members, evidence, keep), _methods(members, found))
            for members in together.groups()
        ),
        by_method={
            method: int((sets.roots != np.arange(count)).sum()) for method, sets in found.items()
        },
        broken=evidence.prints.broken,
    )


def _kept(members: Sequence[int], evidence: Evidence, keep: Keep) -> int:
    if keep == "first":
        return members[0]
    areas = evidence.prints.areas
    return max(members, key=lambda member: (areas[member], -member))


def _methods(members: Sequence[int], found: Mapping[str, DisjointSets]) -> tuple[str, ...]:
    return tuple(
        method
        for method, sets in found.items()
        if len(set(sets.roots[list(members)].tolist())) < len(members)
    )
