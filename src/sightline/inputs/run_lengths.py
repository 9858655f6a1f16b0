"""Masks as COCO's run lengths: lengths of alternating runs, column by column, unset pixels first.

A document holds `size` [H, W] and `counts`: either the lengths themselves, or the string that COCO
and its tools store, which has 5 bits a character, the lowest first, in characters from "0" on.
There a length from the fourth on is written as its difference to the length two before it, so that
the left and right edges of a blob cost one character a column (Lin et al. 2014, arXiv:1405.0312;
the format is defined by `maskApi.c` of the COCO tools).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import DataError
from sightline.core.outputs import Box
from sightline.inputs.limits import MAX_PIXELS

_FIRST, _BITS, _MORE = 48, 5, 0x20
"""Character of the value 0; payload bits of a character; the bit that says "another follows"."""
_LONGEST = 7
"""Characters of a number: 35 bits hold any difference between lengths of a picture."""


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """A mask as `{"size": [H, W], "counts": str}`, ready for JSON.

    Args:
        mask: bool[H, W], or whole numbers of which 0 is unset.

    Raises:
        DataError: no mask of whole pixels.
    """
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in ("b", "u", "i"):
        raise DataError(
            f"a mask is bool[H, W] with at least one pixel, {mask.dtype}{list(mask.shape)} arrived"
        )
    flat = (mask != 0).ravel(order="F")
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    counts = np.diff(ends, prepend=0)
    if flat[0]:
        counts = np.insert(counts, 0, 0)
    return {"size": [int(side) for side in mask.shape], "counts": compressed(counts)}


def decode(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask bool[H, W] of run lengths, compressed or not.

    Raises:
        DataError: no run lengths, a mask larger than a picture may be, or lengths whose sum is not
            its number of pixels.
    """
    height, width, counts = _read(rle)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape((height, width), order="F")


def area(rle: Mapping[str, Any]) -> int:
    """How many pixels are set. Errors as in `decode`."""
    return int(_read(rle)[2][1::2].sum())


def bounding_box(rle: Mapping[str, Any]) -> Box:
    """The smallest box (x1, y1, x2, y2) around the set pixels, all 0 where none is set.

    Errors as in `decode`.
    """
    height, _, counts = _read(rle)
    ends = counts.cumsum()[1::2]
    starts = ends - counts[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends] - 1  # the last pixel of each run
    if not len(starts):
        return 0.0, 0.0, 0.0, 0.0
    left, right = starts[0] // height, ends[-1] // height
    crosses = (starts // height != ends // height).any()  # into the next column: both edges are set
    top = 0 if crosses else (starts % height).min()
    bottom = height - 1 if crosses else (ends % height).max()
    return float(left), float(top), float(right + 1), float(bottom + 1)


def merge(rles: Sequence[Mapping[str, Any]], intersect: bool = False) -> dict[str, Any]:
    """The union of several masks of one size, or what all of them share.

    Raises:
        DataError: no mask, masks of different sizes, or as in `decode`.
    """
    if not rles:
        raise DataError("there is no mask to merge")
    merged = decode(rles[0])
    for rle in rles[1:]:
        mask = decode(rle)
        if mask.shape != merged.shape:
            raise DataError(
                f"masks of sizes {list(merged.shape)} and {list(mask.shape)} cannot be merged"
            )
        merged = merged & mask if intersect else merged | mask
    return encode(merged)


def compressed(counts: NDArray[np.int64]) -> str:
    """Lengths as the string that COCO stores."""
    rest = np.array(counts, np.int64)
    rest[3:] -= counts[1:-2]
    columns = []
    going = np.ones(len(rest), bool)
    while going.any():
        low = rest & (_MORE - 1)
        rest = rest >> _BITS
        # The sign is the highest payload bit of the last character.
        more = rest != np.where(low & (_MORE >> 1), -1, 0)
        columns.append(np.where(going, low + _MORE * more + _FIRST, 0))
        going = going & more
    characters = np.stack(columns, axis=1).astype(np.uint8).ravel()
    return characters[characters > 0].tobytes().decode("ascii")


def expanded(text: str | bytes) -> NDArray[np.int64]:
    """The lengths of a string that COCO stores.

    Raises:
        DataError: a character that the format does not have, a number that no picture needs, or an
            end in the middle of a number.
    """
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
    characters = np.frombuffer(raw, np.uint8).astype(np.int64) - _FIRST
    if not len(characters):
        return characters
    if characters.min() < 0 or characters.max() >= 2 * _MORE:
        wrong = raw[int(np.argmax((characters < 0) | (characters >= 2 * _MORE)))]
        raise DataError(f"compressed run lengths have no character {chr(wrong)!r}")
    last = characters < _MORE
    if not last[-1]:
        raise DataError("compressed run lengths end in the middle of a number")
    starts = np.append(0, np.flatnonzero(last)[:-1] + 1)
    lengths = np.diff(starts, append=len(characters))
    if lengths.max() > _LONGEST:
        raise DataError(f"compressed run lengths hold a number of {lengths.max()} characters")
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    values = np.add.reduceat((characters & (_MORE - 1)) << (_BITS * place), starts)
    negative = characters[last] & (_MORE >> 1) != 0
    values -= negative.astype(np.int64) << (_BITS * lengths)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def _read(rle: Mapping[str, Any]) -> tuple[int, int, NDArray[np.int64]]:
    """Height, width and lengths that fit each other."""
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= set(rle):
        raise DataError("run lengths are an object with 'size' [H, W] and 'counts'")
    height, width = _size(rle["size"])
    counts = rle["counts"]
    lengths = expanded(counts) if isinstance(counts, str | bytes) else _listed(counts)
    if len(lengths) and lengths.min() < 0:
        raise DataError(f"run lengths cannot be negative: {lengths.min()}")
    # Each is at most the whole before they are summed, so that no sum can overflow.
    if len(lengths) and (lengths.max() > height * width or lengths.sum() != height * width):
        raise DataError(
            f"run lengths of a {height} x {width} mask must sum to {height * width}, "
            f"not {sum(map(int, lengths))}"
        )
    if not len(lengths):
        raise DataError(f"run lengths of a {height} x {width} mask cannot be empty")
    return height, width, lengths


def _size(size: Any) -> tuple[int, int]:
    sides = list(size) if isinstance(size, Sequence | np.ndarray) else []
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise DataError(
            f"the size of run lengths must be two whole numbers [H, W]: {str(size)[:60]}"
        )
    height, width = map(int, sides)
    if height * width > MAX_PIXELS:
        raise DataError(
            f"a mask of {height:,} x {width:,} pixels is too large; at most {MAX_PIXELS:,} are read"
        )
    return height, width


def _listed(counts: Any) -> NDArray[np.int64]:
    if not isinstance(counts, Sequence | np.ndarray):
        raise DataError(f"counts are a string or a list of lengths, not {type(counts).__name__}")
    try:
        lengths = np.asarray(counts)
    except ValueError:  # lists of different lengths inside
        lengths = np.zeros((0, 0))
    if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
        raise DataError("uncompressed counts must be a list of whole numbers below 2^63")
    return lengths.astype(np.int64)
