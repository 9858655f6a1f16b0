"""One scene and all that is true of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.outputs import Box
from sightline.data.park import backgrounds, captions, questions
from sightline.data.park.dice import Dice
from sightline.data.park.layout import (
    LARGE,
    MAX_OBJECTS,
    Layout,
    Placement,
    arrange,
    capacity,
    sprite_of,
)
from sightline.data.park.sprites import ink_colours, paint
from sightline.data.park.vocabulary import SPLITS, VERSION

MIN_SIZE, MIN_OBJECT_PIXELS = 32, 6
SHAPES = ((64, 64), (48, 96), (96, 48), (40, 120))
"""Heights and widths for scenes of several aspect ratios: 1:1, 1:2, 2:1 and 1:3."""
_RELATION_MARGIN = 0.1
_DRAWING, _CAPTIONS, _QUESTIONS = 0, 1, 2
"""Purposes: each has a stream of choices of its own, so that none depends on another being read."""


@dataclass(frozen=True, eq=False)
class ParkObject:
    """One object as it is visible in the picture."""

    kind: str
    colour: str
    size: str
    """"small" or "large": whether the longer side reaches 0.235 of the picture's shorter side."""
    box: Box
    """Extents of the visible pixels, x2 and y2 exclusive."""
    mask: NDArray[np.bool_]
    """bool[H, W]: the visible pixels, those that it covers at least half and nothing hides."""

    @property
    def name(self) -> str:
        """Colour and kind: "red bench"."""
        return f"{self.colour} {self.kind}"


class Relation(NamedTuple):
    """`subject` stands `name` `object`; both are indices into the scene's objects."""

    subject: int
    name: str
    object: int


class Question(NamedTuple):
    """A question with its one right answer."""

    question: str
    answer: str
    """A lower-case word or a digit."""
    kind: str
    """"count", "colour", "exists", "relation", "compare" or "chain"."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn park. Everything is decided by seed, split, size and the two settings of objects;
    parts are computed when they are first read."""

    seed: int
    split: str
    height: int
    width: int
    layout: Layout
    entropy: tuple[int, ...]

    @property
    def background(self) -> str:
        """Name of the place: a key of `vocabulary.PLACES`."""
        return self.layout.background

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8[H, W, 3], RGB."""
        layout = self.layout
        canvas = backgrounds.background(
            layout.background, self.height, self.width, layout.horizon, layout.tint, layout.grain
        )
        for thing, x, y in layout.placements:
            paint(canvas, sprite_of(thing), x, y, ink_colours(thing.colour, thing.tint))
        return canvas.astype(np.uint8)

    @cached_property
    def image(self) -> Image.Image:
        """The picture, RGB."""
        return Image.fromarray(self.pixels)

    @cached_property
    def objects(self) -> tuple[ParkObject, ...]:
        """The objects in painting order: those further up the picture first."""
        covered = np.zeros((self.height, self.width), dtype=np.bool_)
        shorter = min(self.height, self.width)
        found = []
        for placement in reversed(self.layout.placements):
            mask, box = _visible(placement, covered)
            size = "large" if placement.thing.side >= LARGE * shorter else "small"
            found.append(ParkObject(placement.thing.kind, placement.thing.colour, size, box, mask))
        return tuple(reversed(found))

    @property
    def unmistakable(self) -> tuple[ParkObject, ...]:
        """The objects whose kind is there once, so that its name means no other."""
        kinds = [thing.kind for thing in self.objects]
        return tuple(thing for thing in self.objects if kinds.count(thing.kind) == 1)

    @cached_property
    def relations(self) -> tuple[Relation, ...]:
        """Which object is left of, right of, above or below which, where there is no doubt.

        a is left of b when a ends before the centre of b, b begins after the centre of a, and the
        centres are at least a tenth of the width apart; the others likewise.
        """
        found = []
        for a, first in enumerate(self.objects):
            for b, second in enumerate(self.objects):
                if a != b and _before(first.box, second.box, 0, self.width):
                    found += [Relation(a, "left of", b), Relation(b, "right of", a)]
                if a != b and _before(first.box, second.box, 1, self.height):
                    found += [Relation(a, "above", b), Relation(b, "below", a)]
        return tuple(sorted(found))

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """Five different true sentences, each naming every object with colour and kind."""
        return captions.write_captions(self, Dice(_CAPTIONS, *self.entropy))

    @property
    def caption(self) -> str:
        """The first of the captions."""
        return self.captions[0]

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Five to eight questions; the first four are one each of count, colour, exists and
        relation, in an order of the seed, then come comparisons and chains."""
        asked = questions.write_questions(self, Dice(_QUESTIONS, *self.entropy))
        return tuple(Question(*fields) for fields in asked)


def _visible(placement: Placement, covered: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Box]:
    """Mask and box of what is still free; marks it as covered."""
    drawn = sprite_of(placement.thing)
    tall, wide = drawn.mask.shape
    x, y = placement.x, placement.y
    window = covered[y : y + tall, x : x + wide]
    seen = drawn.mask & ~window
    window |= seen
    mask = np.zeros_like(covered)
    mask[y : y + tall, x : x + wide] = seen
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    box = (x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1)
    return mask, (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def _before(a: Box, b: Box, axis: int, extent: int) -> bool:
    """Whether a lies clearly before b along an axis (0 across, 1 down)."""
    a_centre, b_centre = (a[axis] + a[axis + 2]) / 2, (b[axis] + b[axis + 2]) / 2
    apart = b_centre - a_centre >= _RELATION_MARGIN * extent
    return apart and a[axis + 2] <= b_centre and b[axis] >= a_centre


def scene(
    seed: int,
    split: str = "train",
    size: int | tuple[int, int] = 64,
    objects: int | None = None,
    object_pixels: int | None = None,
) -> Scene:
    """The scene of a seed.

    Args:
        seed: any number from 0.
        split: "train" and "test" show no held-out pair of kind and colour, "pairs" always one.
        size: pixels of the square picture, or (height, width).
        objects: how many objects, 1 to 6; None for a number that the seed decides.
        object_pixels: longer side of every object in pixels, for small targets in large pictures.

    Raises:
        ConfigError: a setting outside its range, or objects that do not fit.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if split not in SPLITS:
        raise ConfigError(unknown_name("split", split, SPLITS))
    _check(seed, height, width, objects, object_pixels)
    entropy = (VERSION, SPLITS.index(split), objects or 0, object_pixels or 0, seed)
    dice = Dice(_DRAWING, *entropy)
    layout = arrange(dice, split == "pairs", height, width, objects, object_pixels)
    return Scene(seed, split, height, width, layout, entropy)


def _check(seed: int, height: int, width: int, objects: int | None, pixels: int | None) -> None:
    if seed < 0:
        raise ConfigError(f"seed {seed}: a scene needs a number from 0")
    _check_size(height, width)
    if objects is not None and not 1 <= objects <= MAX_OBJECTS:
        raise ConfigError(f"objects={objects}: a scene has 1 to {MAX_OBJECTS} objects")
    if pixels is None:
        return
    if pixels < MIN_OBJECT_PIXELS:
        raise ConfigError(
            f"object_pixels={pixels}: an object needs at least {MIN_OBJECT_PIXELS} pixels"
        )
    if capacity(height, width, pixels) < (objects or 1):
        raise ConfigError(
            f"object_pixels={pixels}: {objects or 1} such objects do not fit into "
            f"{height} x {width}; take fewer or smaller objects, or a larger picture"
        )


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIZE:
        raise ConfigError(f"size {height} x {width}: a scene needs at least {MIN_SIZE} pixels")


class ParkScenes:
    """Scenes of consecutive seeds as a map-style data set.

    Args:
        size: pixels of the square pictures, or (height, width).
        shapes: several (height, width) that take turns with the seeds, instead of one size: scene
            s has shape s modulo their number, whatever the first seed is.
    """

    def __init__(
        self,
        split: str = "train",
        start: int = 0,
        count: int = 1000,
        size: int | tuple[int, int] = 64,
        objects: int | None = None,
        object_pixels: int | None = None,
        shapes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.split, self.start, self.count = split, start, count
        self.sizes = tuple(shapes) or (size,)
        self.objects, self.object_pixels = objects, object_pixels

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Scene:
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        seed = self.start + index % self.count
        size = self.sizes[seed % len(self.sizes)]
        return scene(seed, self.split, size, self.objects, self.object_pixels)

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(self.count))


def parse_shapes(words: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """["48x96", ...], height before width, to pixels; "mixed" stands for `SHAPES`.

    Raises:
        ConfigError: words of another kind, or a side that no scene has.
    """
    found: list[tuple[int, int]] = []
    for word in words:
        if word == "mixed":
            found += SHAPES
            continue
        sides = re.fullmatch(r"(\d+)x(\d+)", word)
        if sides is None:
            raise ConfigError(
                f"shape {word!r}: write HEIGHTxWIDTH in pixels, such as 48x96, or mixed for "
                f"{', '.join(f'{height}x{width}' for height, width in SHAPES)}"
            )
        shape = int(sides[1]), int(sides[2])
        _check_size(*shape)
        found.append(shape)
    return tuple(found)


def digest() -> str:
    """sha256 over the pixels, boxes and texts of a fixed set of scenes, computed now.

    Scores are comparable where version and digest agree.
    """
    total = hashlib.sha256(f"park {VERSION}".encode())
    sizes: tuple[int | tuple[int, int], ...] = (64, (48, 80))
    for split in SPLITS:
        for seed in range(12):
            drawn = scene(seed, split, sizes[seed % 2])
            total.update(drawn.pixels.tobytes())
            for thing in drawn.objects:
                total.update(np.packbits(thing.mask).tobytes())
            texts = [drawn.captions, [list(q) for q in drawn.questions]]
            total.update(json.dumps(texts).encode())
    return total.hexdigest()
