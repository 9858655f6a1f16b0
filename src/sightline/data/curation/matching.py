"""Which pictures are the same: one rule a method, within a data set or across two.

- bytes: their files are equal byte for byte (SHA-256).
- pixels: they decode to the same pixels (SHA-256), as after another lossless compression.
- dhash: their 64-bit difference hashes differ in at most 11 bits and their thumbnails agree in
  light and colour, as after JPEG, resizing, brightening, or cropping a twentieth.
- dhash256: the same with 256 bits of which 31 may differ; stricter, it finds hardly any crop.
- mirror: one is like the other flipped left to right, by the rule of dhash.
- embedding: the cosine of their vectors is at least 0.95: the same motif, as a model sees it.
- captions: some caption of both is equal after normalisation.
- similar-captions: the five-letter runs of some caption of both have a Jaccard index of 0.8.

A hash sees light and no colour, and little of small things: candidates are checked on 8 x 8
thumbnails, whose light must correlate, and where no cell may be brighter, darker or of another
colour than all cells around its place in the other (a picture without any colour passes the last
test, so that grey copies are found). Pictures of one colour have no hash worth comparing; they
match when that colour does.

Measured on 20,000 drawn parks, 200 million pairs of different pictures: dhash matches 9 of them.
On 500 copies each it finds all after JPEG of quality 50, halving, enlarging by half, and brightness
times 0.8 or 1.1, 97 % of those cropped by 1 pixel of 64 on each side, 76 % of those by 2. A small
thing of another colour can pass: of scenes whose largest object was recoloured a quarter matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, unknown_name
from sightline.data.curation.captions_alike import caption_keys, collect, similar_texts
from sightline.data.curation.clusters import similar_pairs
from sightline.data.curation.fingerprints import FLAT_CONTRAST, THUMB_SIDE, Fingerprints
from sightline.data.curation.groups import equal_across, equal_rows, smallest_owner
from sightline.data.curation.hamming import Known, Pairs, near_pairs

PICTURE_METHODS = ("bytes", "pixels", "dhash", "dhash256", "mirror")
METHODS = (*PICTURE_METHODS, "embedding", "captions", "similar-captions")

_LIGHT = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_PLAIN = 1.0  # levels; a thumbnail that deviates less has no pattern to correlate
_PLAIN_DIFFERENCE = 3.0
_COLOURLESS = 4.0
_FLAT_STEP = 4
_PAIRS_AT_ONCE = 1 << 11


@dataclass(frozen=True)
class Thresholds:
    """When two records count as the same. The defaults were measured on drawn parks."""

    dhash: int = 11
    """Bits of 64 that may differ, 0 to 11."""
    dhash256: int = 31
    """Bits of 256 that may differ, 0 to 47."""
    light: float = 0.9
    """Least correlation of the brightness of the thumbnails' 64 cells."""
    light_levels: float = 20.0
    """Levels of 255 by which no cell's brightness may lie outside those around it in the other."""
    colour_levels: float = 24.0
    """The same for its colour, red and blue less brightness."""
    cosine: float = 0.95
    """Least cosine of two embeddings. Depends on the model: look at the groups."""
    jaccard: float = 0.8
    """Least share of common five-letter runs of two captions."""


class Evidence(NamedTuple):
    """What is known of the records of one data set."""

    prints: Fingerprints
    captions: Sequence[Sequence[str]] = ()
    vectors: NDArray[np.float32] | None = None
    """float32[N, D], unit length; rows of NaN where a record has none."""


def check_methods(methods: Sequence[str], vectors: bool) -> None:
    """Refuse methods that do not exist, and "embedding" without vectors.

    Raises:
        ConfigError: says which.
    """
    for method in methods:
        if method not in METHODS:
            raise ConfigError(unknown_name("method", method, METHODS))
    if not methods:
        raise ConfigError(f"no method named: take some of {', '.join(METHODS)}")
    if "embedding" in methods and not vectors:
        raise ConfigError(
            "method 'embedding' needs vectors: embed the pictures first, or name a model"
        )


def matches(
    method: str,
    left: Evidence,
    right: Evidence | None,
    thresholds: Thresholds,
    known: Known | None = None,
) -> Iterator[Pairs]:
    """Pairs (i, j) of records that match, in chunks; across two sets, or i < j within one.

    Equal ones are connected by pairs with their first (across two sets: with the first of the
    other side), not by all pairs; a pair may recur.

    Args:
        known: True for pairs that need no comparison any more.
    """
    if method in ("bytes", "pixels"):
        yield _equal_hashes(method, left.prints, right and right.prints)
    elif method in ("dhash", "dhash256", "mirror"):
        yield from _near(method, left.prints, right and right.prints, thresholds, known)
    elif method == "embedding":
        yield from _similar_vectors(left, right, thresholds.cosine)
    elif method == "captions":
        yield _equal_captions(left, right)
    else:
        yield from _similar_captions(left, right, thresholds.jaccard)


def alike(
    left: NDArray[np.uint8], right: NDArray[np.uint8], thresholds: Thresholds
) -> NDArray[np.bool_]:
    """bool[N]: whether thumbnails uint8[N, 8, 8, 3] agree in light and colour, row by row."""
    light, hue = _light_and_hue(left)
    other_light, other_hue = _light_and_hue(right)
    spread, other_spread = light.std((1, 2, 3)), other_light.std((1, 2, 3))
    plain = np.minimum(spread, other_spread) < _PLAIN
    # both to one contrast: a picture may be brighter or darker than its copy
    gain = np.sqrt(np.where(plain, 1, other_spread) / np.where(plain, 1, spread))
    gain = gain.astype(np.float32)[:, None, None, None]
    scale = np.where(plain, 1, spread * other_spread)
    centred = light - light.mean((1, 2, 3), keepdims=True)
    other_centred = other_light - other_light.mean((1, 2, 3), keepdims=True)
    correlation = (centred * other_centred).mean((1, 2, 3)) / scale
    same_light = np.where(
        plain,
        np.abs(light - other_light).max((1, 2, 3)) <= _PLAIN_DIFFERENCE,
        (correlation >= thresholds.light)
        & (_misplaced(centred * gain, other_centred / gain) <= thresholds.light_levels),
    )
    colourless = np.minimum(np.abs(hue).max((1, 2, 3)), np.abs(other_hue).max((1, 2, 3)))
    limit = np.where(plain, _PLAIN_DIFFERENCE, thresholds.colour_levels)
    same_hue = _misplaced(hue * gain, other_hue / gain) <= limit
    result: NDArray[np.bool_] = same_light & (same_hue | ((colourless <= _COLOURLESS) & ~plain))
    return result


def _light_and_hue(
    thumbs: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Brightness float32[N, 8, 8, 1]; red and blue less brightness float32[N, 8, 8, 2]."""
    colours = thumbs.astype(np.float32)
    light = (colours @ _LIGHT)[..., None]
    return light, colours[..., [0, 2]] - light


def _misplaced(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[N]: the furthest that a cell lies outside the values around its place in the other.

    A crop moves edges by up to a cell, which plain differences would take for another content; an
    object that is missing is nowhere around.
    """
    furthest = np.zeros(len(left), np.float32)
    for one, other in ((left, right), (right, left)):
        lowest, highest = _around(other, np.minimum), _around(other, np.maximum)
        outside = np.maximum(lowest - one, one - highest)
        furthest = np.maximum(furthest, outside.max((1, 2, 3)))
    return furthest


def _around(cells: NDArray[np.float32], choose: np.ufunc) -> NDArray[np.float32]:
    """The least or the greatest of the 3 x 3 cells around each of float32[N, 8, 8, C]."""
    padded = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = choose(choose(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    chosen: NDArray[np.float32] = choose(choose(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
    return chosen


def _equal_hashes(method: str, left: Fingerprints, right: Fingerprints | None) -> Pairs:
    def own(prints: Fingerprints) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        usable = prints.read if method == "pixels" else prints.in_file & prints.read
        numbers = np.flatnonzero(usable)
        return (prints.pixels if method == "pixels" else prints.files)[numbers], numbers

    return equal_rows(*own(left)) if right is None else equal_across(*own(left), *own(right))


def _near(
    method: str,
    left: Fingerprints,
    right: Fingerprints | None,
    thresholds: Thresholds,
    known: Known | None,
) -> Iterator[Pairs]:
    if method != "mirror":  # what has one colour is its own mirror picture
        flats = [_flat_colours(prints) for prints in (left, right) if prints is not None]
        yield equal_rows(*flats[0]) if right is None else equal_across(*flats[0], *flats[1])
    mine = np.flatnonzero(left.read & (left.contrast >= FLAT_CONTRAST))
    other = left if right is None else right
    theirs = np.flatnonzero(other.read & (other.contrast >= FLAT_CONTRAST))
    column = "dhash256" if method == "dhash256" else "dhash"
    distance = thresholds.dhash256 if method == "dhash256" else thresholds.dhash
    hashes = (left.mirrored if method == "mirror" else getattr(left, column))[mine]
    # a picture and its mirror have different hashes, so mirrored pairs are always "across"
    within = right is None and method != "mirror"
    partners = None if within else getattr(other, column)[theirs]
    asked = known and (lambda i, j: known(mine[i], theirs[j]))
    for i, j in near_pairs(hashes, partners, distance, asked):
        for start in range(0, len(i), _PAIRS_AT_ONCE):
            a = mine[i[start : start + _PAIRS_AT_ONCE]]
            b = theirs[j[start : start + _PAIRS_AT_ONCE]]
            if known is not None:  # asked again: the last chunk may have connected these
                new = ~known(a, b)
                a, b = a[new], b[new]
            thumbs = left.thumbs[a][:, :, ::-1] if method == "mirror" else left.thumbs[a]
            same = alike(thumbs, other.thumbs[b], thresholds)
            if same.any():
                yield a[same], b[same]


def _flat_colours(prints: Fingerprints) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The colours of the pictures that have only one, in steps of four levels."""
    numbers = np.flatnonzero(prints.read & (prints.contrast < FLAT_CONTRAST))
    colours = prints.thumbs[numbers].reshape(len(numbers), THUMB_SIDE**2, 3).mean(axis=1)
    return np.round(colours / _FLAT_STEP).astype(np.uint8), numbers


def _similar_vectors(left: Evidence, right: Evidence | None, cosine: float) -> Iterator[Pairs]:
    mine, own = _present(left)
    theirs, their_own = (mine, own) if right is None else _present(right)
    for i, j in similar_pairs(own, None if right is None else their_own, cosine):
        yield mine[i], theirs[j]


def _present(evidence: Evidence) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    assert evidence.vectors is not None, "check_methods comes first"
    numbers = np.flatnonzero(np.isfinite(evidence.vectors).all(axis=1))
    return numbers, evidence.vectors[numbers]


def _equal_captions(left: Evidence, right: Evidence | None) -> Pairs:
    own = caption_keys(left.captions)
    return equal_rows(*own) if right is None else equal_across(*own, *caption_keys(right.captions))


def _similar_captions(left: Evidence, right: Evidence | None, jaccard: float) -> Iterator[Pairs]:
    """Records joined through similar texts: each text stands for its first record of a set."""
    count = len(left.captions)
    texts = collect([*left.captions, *(right.captions if right is not None else ())])
    total = len(texts.texts)
    if right is None:
        first = smallest_owner(texts.text_of, texts.owners, total)
        yield first[texts.text_of], texts.owners  # those that say the same
        for i, j in similar_texts(texts.texts, jaccard, chained=True):
            yield first[i], first[j]
        return
    ours = texts.owners < count
    mine = texts.text_of[ours], texts.owners[ours]
    theirs = texts.text_of[~ours], texts.owners[~ours] - count
    first_mine, first_theirs = (smallest_owner(*side, total) for side in (mine, theirs))
    said = np.arange(total)
    for i, j in [(said, said), *similar_texts(texts.texts, jaccard)]:
        for a, b in ((i, j), (j, i)):
            yield _said_by(*mine, a, first_theirs[b])
            yield _said_by(*theirs, b, first_mine[a])[::-1]


def _said_by(
    text_of: NDArray[np.int64],
    owners: NDArray[np.int64],
    text: NDArray[np.int64],
    partner: NDArray[np.int64],
) -> Pairs:
    """(owner, partner[k]) for every owner of text[k], where partner[k] is not -1."""
    text, partner = text[partner >= 0], partner[partner >= 0]
    order = np.argsort(text_of, kind="stable")
    first = np.searchsorted(text_of[order], text, "left")
    counts = np.searchsorted(text_of[order], text, "right") - first
    shift = first - (np.cumsum(counts) - counts)
    places = np.repeat(shift, counts) + np.arange(counts.sum())
    return owners[order[places]], np.repeat(partner, counts)
