"""What the park contains and how it is said: kinds, colours, places, plurals, articles."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

VERSION = 1
"""Raised whenever a picture or a text of an existing seed changes."""

SPLITS = ("train", "test", "pairs")
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


class KindEntry(NamedTuple):
    """How a kind is said in the plural and where in the picture it likes to be."""

    plural: str
    region: str


_KINDS = {
    "bench": KindEntry("benches", "ground"),
    "tree": KindEntry("trees", "ground"),
    "car": KindEntry("cars", "ground"),
    "house": KindEntry("houses", "ground"),
    "ball": KindEntry("balls", "ground"),
    "star": KindEntry("stars", "sky"),
    "cat": KindEntry("cats", "ground"),
    "dog": KindEntry("dogs", "ground"),
    "fish": KindEntry("fish", "water"),
    "boat": KindEntry("boats", "water"),
    "umbrella": KindEntry("umbrellas", "ground"),
    "flower": KindEntry("flowers", "ground"),
    "person": KindEntry("people", "ground"),
    "bird": KindEntry("birds", "sky"),
    "kite": KindEntry("kites", "sky"),
    "lamp": KindEntry("lamps", "ground"),
    "mushroom": KindEntry("mushrooms", "ground"),
    "bicycle": KindEntry("bicycles", "ground"),
    "cloud": KindEntry("clouds", "sky"),
    "butterfly": KindEntry("butterflies", "sky"),
}
KINDS = tuple(_KINDS)

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip

PLACES = {
    "meadow": "in a meadow",
    "beach": "at a sandy beach",
    "pond": "in a park with a pond",
    "lake": "at a lake",
    "path": "in a park with a path",
    "snow": "in a snowy park",
    "dusk": "in a park at dusk",
    "square": "in a paved square",
}
"""Background to the words that place a whole scene; they hold for every object in it."""


def plural(kind: str) -> str:
    """The plural of a kind: "bench" to "benches", "person" to "people"."""
    return _KINDS[kind].plural


def region(kind: str) -> str:
    """Where a kind likes to be: "ground", "sky" or "water"."""
    return _KINDS[kind].region


def with_article(words: str) -> str:
    """The words behind the right indefinite article: "an orange boat", "a blue umbrella"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrases() -> tuple[str, ...]:
    """All "colour kind" phrases, kind by kind: "red bench", "orange bench", ..."""
    return tuple(f"{colour} {kind}" for kind in KINDS for colour in COLOURS)


@cache
def held_out_pairs() -> frozenset[tuple[str, str]]:
    """The (kind, colour) pairs that only the split `pairs` shows: 30 of 200.

    A Latin pattern: every colour lacks three kinds, every kind one or two colours, so that each
    word is learned beside most of its partners.
    """
    first = {(kind, COLOURS[(7 * i + 3) % 10]) for i, kind in enumerate(KINDS)}
    second = {(kind, COLOURS[(7 * i + 8) % 10]) for i, kind in enumerate(KINDS[:10])}
    return frozenset(first | second)


@cache
def colours_of(kind: str, held_out: bool) -> tuple[str, ...]:
    """The colours of a kind that are held out, or those that are not, in the order of COLOURS."""
    return tuple(c for c in COLOURS if ((kind, c) in held_out_pairs()) == held_out)
