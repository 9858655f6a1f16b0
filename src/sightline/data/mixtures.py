"""Weighted mixtures of data sets: exact proportions in every epoch, seeded, resumable.

    Mixture({"coco": coco, "flickr": flickr}, {"coco": 3, "flickr": 1})

An epoch holds 3 records of coco to each of flickr, spread evenly; each source walks through epochs
of its own, so that a small one begins again, in another order, while a large one is still on its
first. Which record stands where is a function of (seed, epoch) alone: a `Loader` over a mixture
resumes as it does over anything else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, DataError
from sightline.data.records import Record

T = TypeVar("T")

_PLACES, _SOURCE = 3, 4  # spawn keys, apart from those of a loader and of windows
_SPELLING = re.compile(r"(?P<path>.+)=(?P<weight>\d+(?:\.\d+)?)")


class Mixture(Sequence[T]):
    """Records, or examples, of several sources in given proportions; a `Loader` shuffles it.

    Its length is that of an epoch. An index below the number of all records stands for a record of
    the sources, one behind the other; the same record a second time in one epoch has an index
    further on, so that it is augmented anew.

    Args:
        sources: name to records.
        weights: name to a number above 0; only their ratios count.
        length: records in an epoch; by default as many as the sources hold together.

    Raises:
        ConfigError: no sources, names that differ, a weight that is not above 0, or a length in
            which a source has no place.
        DataError: a source without records.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[T]],
        weights: Mapping[str, float],
        length: int | None = None,
    ) -> None:
        _check(sources, weights)
        self.sources = dict(sources)
        self.weights = {name: float(weights[name]) for name in self.sources}
        self.length = length if length is not None else sum(map(len, self.sources.values()))
        self.counts = apportion(self.length, self.weights)
        """Records of each source in an epoch; they sum to the length."""
        absent = [name for name, count in self.counts.items() if count == 0]
        if absent:
            raise ConfigError(
                f"an epoch of {self.length} records has no place for {absent[0]!r} with its weight "
                f"{self.weights[absent[0]]:g}: make the epoch longer or the weight larger"
            )
        sizes = [len(source) for source in self.sources.values()]
        self._starts = dict(zip(self.sources, np.cumsum([0, *sizes]).tolist(), strict=False))
        self._total = sum(sizes)

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name, place = self.source_of(index)
        return self.sources[name][place]

    def __iter__(self) -> Iterator[T]:
        """Every record of every source once, whatever the weights."""
        for source in self.sources.values():
            yield from source

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={self.counts[name]}" for name in self.sources)
        return f"Mixture({parts})"

    def source_of(self, index: int) -> tuple[str, int]:
        """The source that an index stands for, and the place in it."""
        if index < 0:
            raise IndexError(f"record {index} of a mixture")
        within = index % self._total
        name = next(n for n in reversed(self._starts) if within >= self._starts[n])
        return name, within - self._starts[name]

    @property
    def fingerprint(self) -> str:
        """Sixty-four hexadecimal digits that change with any source, weight or the length."""
        digest = hashlib.sha256()
        for name, source in self.sources.items():
            own = getattr(source, "fingerprint", None) or _ids(source)
            digest.update(f"{name!r} {self.counts[name]} {len(source)} {own}\n".encode())
        return digest.hexdigest()

    def note_broken(self, id: str, reason: str) -> None:
        """Remember in the sources that a picture could not be read."""
        for source in self.sources.values():
            note = getattr(source, "note_broken", None)
            if note is not None:
                note(id, reason)

    def epochs_of(self, name: str, epoch: int, position: int = 0) -> float:
        """How often a source has been gone through, at a place of the mixture's epochs."""
        done = epoch * self.counts[name] + position * self.counts[name] / self.length
        return done / len(self.sources[name])

    def epoch_order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """int64[length]: indices, in an order in which every stretch has nearly the proportions."""
        places, indices = [], []
        for number, (name, source) in enumerate(self.sources.items()):
            count = self.counts[name]
            key = np.random.SeedSequence(seed, spawn_key=(_PLACES, epoch, number))
            jitter = np.random.default_rng(key).random(count)
            places.append((np.arange(count) + jitter) / count)
            drawn, turn = self._drawn(source, number, seed, epoch * count, count)
            indices.append(self._starts[name] + drawn + turn * self._total)
        order = np.argsort(np.concatenate(places), kind="stable")
        return np.concatenate(indices)[order]

    def _drawn(
        self, source: Sequence[T], number: int, seed: int, first: int, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The next `count` records of a source, and its turn in which each is drawn, from 0."""
        size = len(source)
        own = getattr(source, "epoch_order", None)
        begin, end = first // size, (first + count - 1) // size
        orders = []
        for turn in range(begin, end + 1):
            if own is not None:
                orders.append(own(seed + number, turn))
            else:
                key = np.random.SeedSequence(seed, spawn_key=(_SOURCE, number, turn))
                orders.append(np.random.default_rng(key).permutation(size))
        drawn = np.concatenate(orders)[first - begin * size :][:count]
        turns = np.arange(first, first + count) // size - begin
        return drawn, turns

    def having(self, wanted: Callable[[T], bool]) -> Mixture[T]:
        """The same proportions of the records that are wanted.

        Raises:
            DataError: a source has none.
        """
        kept: dict[str, list[T]] = {}
        for name, source in self.sources.items():
            kept[name] = [record for record in source if wanted(record)]
            if not kept[name]:
                raise DataError(f"the source {name!r} of the mixture has no usable record")
        return Mixture(kept, self.weights)


def having(records: Sequence[Record], wanted: Callable[[Record], bool]) -> Sequence[Record]:
    """The records that are wanted; a mixture stays one, in the same proportions.

    Raises:
        DataError: a source of a mixture has none.
    """
    if isinstance(records, Mixture):
        return records.having(wanted)
    return [record for record in records if wanted(record)]


def apportion(length: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to the weights that sum to `length` (largest remainders)."""
    total = sum(weights.values())
    exact = {name: length * weight / total for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: length - sum(counts.values())]:
        counts[name] += 1
    return counts


def parse_mixture(text: str) -> dict[str, float] | None:
    """`coco=3,flickr=1` as paths and weights; None where the text is one plain path.

    Every part needs a weight: a comma or an equals sign alone may belong to a path.

    Raises:
        ConfigError: some parts have a weight and others none, a path twice, or a weight of 0.
    """
    parts = [part.strip() for part in text.split(",")]
    found = [_SPELLING.fullmatch(part) for part in parts]
    if not any(found):
        return None
    if not all(found):
        plain = next(part for part, match in zip(parts, found, strict=True) if not match)
        raise ConfigError(
            f"data {text!r}: {plain!r} has no weight; a mixture is written PATH=WEIGHT,PATH=WEIGHT"
        )
    weights = {match["path"].strip(): float(match["weight"]) for match in found if match}
    if len(weights) < len(parts):
        raise ConfigError(f"data {text!r}: the same path twice")
    if min(weights.values()) <= 0:
        raise ConfigError(f"data {text!r}: weights must be above 0")
    return weights


def _check(sources: Mapping[str, Sequence[Any]], weights: Mapping[str, float]) -> None:
    if not sources or set(sources) != set(weights):
        raise ConfigError(
            f"a mixture needs a weight for each source: sources {sorted(sources)}, weights for "
            f"{sorted(weights)}"
        )
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise ConfigError(f"the weight of {name!r} must be above 0, got {weight!r}")
        if not len(sources[name]):
            raise DataError(f"the source {name!r} of the mixture has no records")


def _ids(source: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for record in source:
        digest.update(f"{record.id!r}\0{record.captions!r}\n".encode("utf-8", "replace"))
    return digest.hexdigest()
