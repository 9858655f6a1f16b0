"""What stands where: kinds, colours, sizes and places of the objects of one scene.

Every scene has a kind that occurs exactly once, so that "what colour is the bench?" always has
one answer; that object also keeps away from the vertical middle, so that its half is clear.
"""

from __future__ import annotations

from typing import NamedTuple

from sightline.core.errors import ConfigError
from sightline.data.park.backgrounds import HORIZONS, PLACES, water_band
from sightline.data.park.dice import Dice
from sightline.data.park.sprites import Sprite, sprite
from sightline.data.park.vocabulary import KINDS, colours_of, held_out_pairs, region

MAX_OBJECTS = 6
MAX_OF_A_KIND = 4
LARGE = 0.235
"""An object is large when its longer side is at least this fraction of the picture's shorter."""
_HIDDEN = 0.25
"""An object may lose at most this fraction of its pixels to the boxes of others."""
_OFF_CENTRE = 0.06
_COUNT_WEIGHTS = (13, 13, 16, 18, 20, 20)
_CROWD_WEIGHTS = {3: (20, 80), 4: (10, 30, 60), 5: (5, 15, 25, 55), 6: (5, 15, 25, 55)}
"""For a number of objects: how often 1, 2, ... of them are of one kind."""


class Thing(NamedTuple):
    """An object before it has a place."""

    kind: str
    colour: str
    side: int
    flip: bool
    tint: tuple[int, int, int]


class Placement(NamedTuple):
    """An object and the corner of its sprite."""

    thing: Thing
    x: int
    y: int


class Layout(NamedTuple):
    """All that a picture is drawn from. Placements are in painting order, the nearest last."""

    background: str
    horizon: int
    tint: tuple[int, int, int]
    grain: tuple[int, int]
    placements: tuple[Placement, ...]


def arrange(
    dice: Dice, pairs: bool, height: int, width: int, count: int | None, pixels: int | None
) -> Layout:
    """Decide a whole scene.

    Args:
        pairs: whether to show a held-out pair (at least one) or none at all.
        count: number of objects; None for 1 to 6.
        pixels: longer side of every object; None for sizes that suit the picture.
    """
    name = dice.pick(tuple(PLACES))
    horizon = dice.below(len(HORIZONS))
    tint = _tint(dice, 8, 3)
    grain = (dice.below(height), dice.below(width))
    if count is None:
        room = MAX_OBJECTS if pixels is None else min(MAX_OBJECTS, capacity(height, width, pixels))
        count = 1 + dice.weighted(_COUNT_WEIGHTS[:room])
    contents = _contents(dice, pairs, name, count)
    things = _dress(dice, contents, min(height, width), pixels)
    placed = _Placer(dice, height, width, name, HORIZONS[horizon]).place(things)
    order = sorted(placed, key=lambda p: (p.y + sprite_of(p.thing).mask.shape[0], p.x))
    return Layout(name, horizon, tint, grain, tuple(order))


def _tint(dice: Dice, light: int, hue: int) -> tuple[int, int, int]:
    """One shift of all channels, and a smaller one of each."""
    common = dice.between(-light, light)
    red, green, blue = (common + dice.between(-hue, hue) for _ in range(3))
    return red, green, blue


def capacity(height: int, width: int, pixels: int) -> int:
    """How many objects of this side certainly find a place."""
    return (height // (pixels + 1)) * (width // (pixels + 1)) // 2


def sprite_of(thing: Thing) -> Sprite:
    """The shape that a thing is painted with."""
    return sprite(thing.kind, thing.side, thing.flip)


def _contents(dice: Dice, pairs: bool, place: str, count: int) -> list[tuple[str, str]]:
    """Kinds and colours, the kind that occurs once first."""
    sizes = [1]
    crowd = 1 + dice.weighted(_CROWD_WEIGHTS.get(count, (1,)))
    if count > 1:
        sizes.append(crowd)
    while sum(sizes) < count:
        left = count - sum(sizes)
        sizes.append(2 if left >= 2 and dice.chance(0.3) else 1)
    kinds = _distinct_kinds(dice, place, len(sizes))
    one_colour = dice.pick(colours_of(kinds[0], False)) if dice.chance(0.15) else None
    contents: list[tuple[str, str]] = []
    for kind, number in zip(kinds, sizes, strict=True):
        allowed = colours_of(kind, False)
        common = one_colour if one_colour in allowed else dice.pick(allowed)
        same = one_colour is not None or dice.chance(0.6)
        contents += [(kind, common if same else dice.pick(allowed)) for _ in range(number)]
    if pairs:
        index = dice.below(count)
        kind = contents[index][0]
        contents[index] = (kind, dice.pick(colours_of(kind, True)))
    assert pairs == any(content in held_out_pairs() for content in contents)
    return contents


def _distinct_kinds(dice: Dice, place: str, count: int) -> list[str]:
    """Kinds that suit the place; over all places every kind is about equally frequent."""
    wet = PLACES[place].water is not None
    weights = [(2.0 if wet else 0.4) if region(kind) == "water" else 1.0 for kind in KINDS]
    chosen = []
    for _ in range(count):
        index = dice.weighted(weights)
        weights[index] = 0.0
        chosen.append(KINDS[index])
    return chosen


def _dress(
    dice: Dice, contents: list[tuple[str, str]], shorter: int, pixels: int | None
) -> list[Thing]:
    few = len(contents) <= 3
    ranges = {
        "small": (round(0.172 * shorter), int(0.215 * shorter)),
        "large": (round(0.25 * shorter), int((0.38 if few else 0.29) * shorter)),
    }
    alike = dice.chance(0.4)
    size = dice.pick(("small", "large", "large"))
    things = []
    for kind, colour in contents:
        if not alike:
            size = dice.pick(("small", "large"))
        side = pixels or max(6, dice.between(*ranges[size]))
        things.append(Thing(kind, colour, side, dice.chance(0.5), _tint(dice, 6, 4)))
    return things


class _Placer:
    """Finds corners for things, first where each likes to be, then anywhere."""

    def __init__(self, dice: Dice, height: int, width: int, place: str, horizon: float) -> None:
        self._dice, self._height, self._width = dice, height, width
        self._level = round(horizon * height)
        band = water_band(place, horizon)
        self._water = None if band is None else (round(band[0] * height), round(band[1] * height))

    def place(self, things: list[Thing]) -> list[Placement]:
        """Placements for all things.

        Raises:
            ConfigError: they do not fit into the picture.
        """
        for _ in range(30):
            placed = self._try(things)
            if placed is not None:
                return placed
        raise ConfigError(
            f"{len(things)} objects of up to {max(t.side for t in things)} pixels do not fit into "
            f"{self._height} x {self._width}: take fewer or smaller objects, or a larger picture"
        )

    def _try(self, things: list[Thing]) -> list[Placement] | None:
        placed: list[Placement] = []
        hidden: list[float] = []
        for thing in things:
            anywhere = self._dice.chance(0.12)
            for attempt in range(40):
                spot = self._spot(thing, anywhere or attempt >= 20, keep_off=not placed)
                lost = None if spot is None else _losses(spot, placed, hidden)
                if spot is not None and lost is not None:
                    placed.append(spot)
                    hidden = lost
                    break
            else:
                return None
        return placed

    def _spot(self, thing: Thing, anywhere: bool, keep_off: bool) -> Placement | None:
        drawn = sprite_of(thing)
        tall, wide = drawn.mask.shape
        x = self._dice.between(0, self._width - wide)
        y = self._row(thing.kind, tall, anywhere)
        centre = x + (drawn.box[0] + drawn.box[2]) / 2
        if keep_off and abs(centre / self._width - 0.5) < _OFF_CENTRE:
            return None
        return Placement(thing, x, y)

    def _row(self, kind: str, tall: int, anywhere: bool) -> int:
        """The upper edge: feet below the horizon, flyers above it, swimmers in the water."""
        last = self._height - tall
        home = region(kind)
        if anywhere:
            return self._dice.between(0, last)
        if home == "sky":
            return self._dice.between(0, max(0, min(last, self._level - tall)))
        low, high = self._level, self._height
        if self._water is not None:
            low, high = self._water if home == "water" else self._shore()
        foot = self._dice.between(min(low + tall // 3, high), high)
        return min(last, max(0, foot - tall))

    def _shore(self) -> tuple[int, int]:
        """Rows of dry ground, before or behind the water, in proportion to their extents."""
        assert self._water is not None
        far, near = self._water[0] - self._level, self._height - self._water[1]
        if self._dice.below(far + near) < far:
            return self._level, self._water[0]
        return self._water[1], self._height


def _losses(spot: Placement, placed: list[Placement], hidden: list[float]) -> list[float] | None:
    """Pixels that each object could lose at most, the new one last; None where it is too many.

    Counts whole box overlaps, so that the promise holds whichever is painted last.
    """
    losses = [*hidden, 0.0]
    here = _box(spot)
    for index, other in enumerate(placed):
        there = _box(other)
        across = min(here[2], there[2]) - max(here[0], there[0])
        down = min(here[3], there[3]) - max(here[1], there[1])
        if across > 0 and down > 0:
            losses[index] += across * down
            losses[-1] += across * down
            if losses[index] > _HIDDEN * sprite_of(other.thing).area:
                return None
    return losses if losses[-1] <= _HIDDEN * sprite_of(spot.thing).area else None


def _box(placement: Placement) -> tuple[int, int, int, int]:
    """The painted extents, soft edge included."""
    tall, wide = sprite_of(placement.thing).mask.shape
    return placement.x, placement.y, placement.x + wide, placement.y + tall
