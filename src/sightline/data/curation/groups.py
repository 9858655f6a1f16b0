"""Records that belong together, because a chain of pairs connects them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class DisjointSets:
    """Sets of the numbers 0 to N - 1 that grow together; each is known by its smallest number."""

    def __init__(self, count: int) -> None:
        self.roots: NDArray[np.int64] = np.arange(count)
        """int64[N]: the smallest number of the set that each one is in."""

    def join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Put left[k] and right[k] into one set, for every k."""
        roots = self.roots
        while True:
            one, other = roots[left], roots[right]
            differ = one != other
            if not differ.any():
                return
            left, right = left[differ], right[differ]
            low = np.minimum(one[differ], other[differ])
            high = np.maximum(one[differ], other[differ])
            np.minimum.at(roots, high, low)
            while not np.array_equal(shorter := roots[roots], roots):
                roots[:] = shorter

    def join_all(self, groups: Iterable[Sequence[int]]) -> None:
        """Put the members of each group into one set."""
        listed = list(groups)
        sizes = [len(members) for members in listed]
        first = np.repeat(
            [members[0] for members in listed if len(members)], [n for n in sizes if n]
        )
        everyone = [member for members in listed for member in members]
        self.join(first.astype(np.int64), np.asarray(everyone, np.int64))

    def together(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[K]: whether left[k] and right[k] are in one set already."""
        same: NDArray[np.bool_] = self.roots[left] == self.roots[right]
        return same

    def groups(self) -> list[tuple[int, ...]]:
        """The sets of two or more, each sorted, in the order of their smallest members."""
        order = np.argsort(self.roots, kind="stable")
        _, starts, counts = np.unique(self.roots[order], return_index=True, return_counts=True)
        return [
            tuple(order[start : start + count].tolist())
            for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
            if count > 1
        ]


def equal_rows(
    rows: NDArray[np.uint8], owners: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (smallest owner, other owner) that connect all owners of equal rows uint8[M, bytes]."""
    if not len(rows):
        return owners, owners
    kinds = row_kinds(rows)
    leaders = smallest_owner(kinds, owners, kinds.max() + 1)[kinds]
    others = leaders != owners
    return leaders[others], owners[others]


def equal_across(
    left: NDArray[np.uint8],
    left_owners: NDArray[np.int64],
    right: NDArray[np.uint8],
    right_owners: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (left owner, right owner) of equal rows: each with the smallest on the other side."""
    if not len(left) or not len(right):
        return left_owners[:0], right_owners[:0]
    kinds = row_kinds(np.concatenate([left, right]))
    mine, theirs = kinds[: len(left)], kinds[len(left) :]
    first_left = smallest_owner(mine, left_owners, kinds.max() + 1)[theirs]
    first_right = smallest_owner(theirs, right_owners, kinds.max() + 1)[mine]
    found_left, found_right = first_right >= 0, first_left >= 0
    return (
        np.concatenate([left_owners[found_left], first_left[found_right]]),
        np.concatenate([first_right[found_left], right_owners[found_right]]),
    )


def smallest_owner(
    kinds: NDArray[np.int64], owners: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """The smallest owner int64[count] of each kind; -1 where it has none."""
    nobody = np.iinfo(np.int64).max
    smallest = np.full(count, nobody)
    np.minimum.at(smallest, kinds, owners)
    return np.where(smallest == nobody, -1, smallest)


def row_kinds(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A number int64[M] for each row uint8[M, bytes]; equal rows have equal numbers."""
    keys = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
    kinds: NDArray[np.int64] = np.unique(keys, return_inverse=True)[1].ravel()
    return kinds
