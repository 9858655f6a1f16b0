"""A park with a known bias: what a measurement of bias must find, and its balanced twin.

Half of the pictures show one kind, half show others. In a planted park most things of that kind
have one colour, and as many of the others have the other colour, so that over all pictures both
colours are equally frequent: only a search for the kind shows one of them more often.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as numbers_from

from sightline.core.errors import ConfigError
from sightline.data.park.contrasts import recoloured
from sightline.data.park.dice import Dice
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import KINDS, SPLITS, VERSION, held_out_pairs

_PLANTED = 4
"""The purpose of this stream of choices."""


def planted_scenes(
    count: int = 40,
    share: float = 0.9,
    kind: str = "bench",
    colours: tuple[str, str] = ("red", "blue"),
    split: str = "test",
    start: int = 0,
    size: int = 64,
) -> list[Scene]:
    """`count` scenes of one object of the kind and as many of other kinds, in seeded order.

    Args:
        count: of each half.
        share: of the first colour among the kind, and of the second among the others; 0.5 is
            balanced.
        kind: what a search will be for.
        colours: the two groups.
        split: "train" or "test".
        start: seed from which scenes are tried, and of their order.
        size: pixels of the square pictures.

    Raises:
        ConfigError: a share outside 0 .. 1, or a kind that the split never shows in such a colour.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share}: it must lie in 0 .. 1, 0.5 is balanced")
    withheld = held_out_pairs()
    shown = [k for k in KINDS if not any((k, colour) in withheld for colour in colours)]
    if kind not in shown or len(shown) < 2:
        raise ConfigError(
            f"no {' or '.join(colours)} {kind} is drawn in this split: kinds that are, "
            f"{', '.join(shown)}"
        )
    first = round(share * count)
    halves = (
        _coloured((kind,), colours, first, count, split, start, size),
        _coloured([k for k in shown if k != kind], colours, count - first, count, split, start,
                  size),
    )  # fmt: skip
    dice = Dice(_PLANTED, VERSION, SPLITS.index(split), start)
    return dice.shuffled([drawn for half in halves for drawn in half])


def _coloured(
    kinds: tuple[str, ...] | list[str],
    colours: tuple[str, str],
    first: int,
    count: int,
    split: str,
    start: int,
    size: int,
) -> Iterator[Scene]:
    """Scenes of one object of these kinds, so many of them in the first colour."""
    found = 0
    for seed in numbers_from(start):
        if found == count:
            return
        drawn = scene(seed, split, size, objects=1)
        if drawn.layout.placements[0].thing.kind in kinds:
            yield recoloured(drawn, {0: colours[0] if found < first else colours[1]})
            found += 1
