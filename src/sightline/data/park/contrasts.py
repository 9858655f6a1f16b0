"""True and false sentences of nearly the same words, made from what a scene exactly holds.

Five contrasts of one picture: two colours exchanged, left and right exchanged, a number one off, a
thing denied or claimed, a kind replaced. What holds is drawn before the words, so that a sentence
of any form is as often true as false and guessing without the picture fails. And quadruples: two
pictures that differ in one exchange alone (of two colours; of left and right), with two sentences
of the very same words, so that a bag of words cannot tell them apart.

A false sentence names as many held-out pairs of kind and colour as the true one: otherwise who
knows which pairs a split shows would know the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count as numbers_from
from itertools import islice, permutations

from sightline.data.contrasts import Contrast, ContrastSet
from sightline.data.park.dice import Dice
from sightline.data.park.layout import Layout, Placement, sprite_of
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import (
    KINDS,
    NUMBERS,
    SPLITS,
    VERSION,
    held_out_pairs,
    plural,
    with_article,
)

_TWINS = 3
"""The purpose of this stream of choices; 0 to 2 are the scene's own."""
_SEEDS = 100_000
"""Between the seeds of two subsets, so that they share no scene."""


def twins(count: int = 100, split: str = "test", start: int = 0, size: int = 64) -> ContrastSet:
    """So many contrasts of each of the five kinds, and so many quadruples of each of the two.

    Args:
        count: of each subset.
        split: of the scenes.
        start: seed from which scenes are tried.
        size: pixels of the square pictures.

    Raises:
        ConfigError: a setting that no scene takes.
    """
    found: list[Contrast] = []
    for place, (subset, make) in enumerate(_MAKERS.items()):
        made = _subset(subset, make, split, start + place * _SEEDS, size)
        found += islice(made, count)
    return ContrastSet(tuple(found), f"park twins, {split}")


def recoloured(drawn: Scene, colours: dict[int, str]) -> Scene:
    """The same scene with other colours for some objects, by their number."""
    placements = [
        _with_colour(placement, colours[index]) if index in colours else placement
        for index, placement in enumerate(drawn.layout.placements)
    ]
    return replace(drawn, layout=drawn.layout._replace(placements=tuple(placements)))


def mirrored(drawn: Scene) -> Scene:
    """The same objects with left and right exchanged, on the same background."""

    def across(placement: Placement) -> Placement:
        thing = placement.thing._replace(flip=not placement.thing.flip)
        wide = sprite_of(thing).mask.shape[1]
        return Placement(thing, drawn.width - placement.x - wide, placement.y)

    layout: Layout = drawn.layout
    placements = tuple(across(placement) for placement in layout.placements)
    return replace(drawn, layout=layout._replace(placements=placements))


Made = tuple[tuple[Scene, ...], tuple[str, ...]]
"""Scenes and their captions, as in `Contrast`."""
Maker = Callable[[Scene, Dice], Made | None]
"""None where a scene does not offer the contrast."""


def _subset(subset: str, make: Maker, split: str, start: int, size: int) -> Iterator[Contrast]:
    """Contrasts one by one; what is wanted is drawn first, then scenes are tried until one has it.

    Were it drawn for each scene, what scenes offer often would be true more often than false.
    """
    seeds = numbers_from(start)
    for number in numbers_from(start):
        made = None
        while made is None:
            seed = next(seeds)
            dice = Dice(_TWINS, VERSION, SPLITS.index(split), number)  # from its beginning again
            made = make(scene(seed, split, size), dice)
        scenes, captions = made
        images = tuple(shown.pixels for shown in scenes)
        yield Contrast(f"{subset}/{split}-{seed}", images, captions, subset)


def _attribute(drawn: Scene, dice: Dice) -> Made | None:
    """ "a red cat and a blue dog" against "a blue cat and a red dog"."""
    pair = _exchangeable(drawn, dice)
    return None if pair is None else ((drawn,), _exchanged(drawn, *pair))


def _attribute_twins(drawn: Scene, dice: Dice) -> Made | None:
    """The same two sentences, and the picture in which the second holds."""
    pair = _exchangeable(drawn, dice)
    if pair is None:
        return None
    first, second = pair
    colours = {first: drawn.objects[second].colour, second: drawn.objects[first].colour}
    return (drawn, recoloured(drawn, colours)), _exchanged(drawn, first, second)


def _relation(drawn: Scene, dice: Dice) -> Made | None:
    """ "a red cat left of a blue dog" against "a red cat right of a blue dog"."""
    pair = _side_by_side(drawn, dice)
    if pair is None:
        return None
    left, right = pair
    if dice.chance(0.5):
        return (drawn,), (f"{left} left of {right}", f"{left} right of {right}")
    return (drawn,), (f"{right} right of {left}", f"{right} left of {left}")


def _relation_twins(drawn: Scene, dice: Dice) -> Made | None:
    """The picture and its mirror: "a cat left of a dog" against "a dog left of a cat"."""
    pair = _side_by_side(drawn, dice)
    if pair is None:
        return None
    first, second = pair
    word = "left of"
    if dice.chance(0.5):
        first, second, word = second, first, "right of"
    captions = (f"{first} {word} {second}", f"{second} {word} {first}")
    return (drawn, mirrored(drawn)), captions


def _count(drawn: Scene, dice: Dice) -> Made | None:
    """ "there are two cats" against "there are three cats"."""
    fewer = 1 + dice.below(3)
    true, false = dice.shuffled((fewer, fewer + 1))
    kinds = Counter(thing.kind for thing in drawn.objects)
    offered = sorted(kind for kind, number in kinds.items() if number == true)
    if not offered:
        return None
    kind = dice.pick(offered)
    return (drawn,), (_there_are(true, kind), _there_are(false, kind))


def _negation(drawn: Scene, dice: Dice) -> Made | None:
    """ "there is a cat" against "there is no cat"."""
    claimed = dice.chance(0.5)
    present = {thing.kind for thing in drawn.objects}
    kind = dice.pick([kind for kind in KINDS if (kind in present) == claimed])
    claim, denial = f"there is {with_article(kind)}", f"there is no {kind}"
    return (drawn,), (claim, denial) if claimed else (denial, claim)


def _object(drawn: Scene, dice: Dice) -> Made | None:
    """ "a red cat" against "a red dog", where there is no dog at all."""
    thing = dice.pick(drawn.objects)
    present = {other.kind for other in drawn.objects}
    absent = [kind for kind in KINDS if kind not in present]
    withheld = _withheld((thing.kind, thing.colour))
    usable = [kind for kind in absent if _withheld((kind, thing.colour)) == withheld]
    if not usable:
        return None
    false = with_article(f"{thing.colour} {dice.pick(usable)}")
    return (drawn,), (with_article(thing.name), false)


_MAKERS: dict[str, Maker] = {
    "attribute": _attribute,
    "relation": _relation,
    "count": _count,
    "negation": _negation,
    "object": _object,
    "attribute twins": _attribute_twins,
    "relation twins": _relation_twins,
}


def _exchangeable(drawn: Scene, dice: Dice) -> tuple[int, int] | None:
    """Two objects of different kind and colour; with the colours exchanged, neither is there."""
    names = [(thing.kind, thing.colour) for thing in drawn.objects]
    usable = []
    for first, second in permutations(range(len(names)), 2):
        (kind, colour), (other_kind, other_colour) = names[first], names[second]
        exchanged = [(kind, other_colour), (other_kind, colour)]
        if kind == other_kind or colour == other_colour or set(exchanged) & set(names):
            continue
        if names.count(names[first]) + names.count(names[second]) > 2:
            continue  # a second red cat would stay red
        if _withheld(*exchanged) == _withheld(names[first], names[second]):
            usable.append((first, second))
    return dice.pick(usable) if usable else None


def _exchanged(drawn: Scene, first: int, second: int) -> tuple[str, str]:
    """What holds of two objects, and the same with their colours exchanged."""
    one, other = drawn.objects[first], drawn.objects[second]

    def both(colour: str, other_colour: str) -> str:
        phrases = (f"{colour} {one.kind}", f"{other_colour} {other.kind}")
        return " and ".join(with_article(phrase) for phrase in phrases)

    return both(one.colour, other.colour), both(other.colour, one.colour)


def _side_by_side(drawn: Scene, dice: Dice) -> tuple[str, str] | None:
    """Two objects whose names fit no other object, the left one first, with their articles."""
    names = [thing.name for thing in drawn.objects]
    usable = [
        (names[relation.subject], names[relation.object])
        for relation in drawn.relations
        if relation.name == "left of"
        and names.count(names[relation.subject]) == names.count(names[relation.object]) == 1
    ]
    if not usable:
        return None
    left, right = dice.pick(usable)
    return with_article(left), with_article(right)


def _withheld(*pairs: tuple[str, str]) -> int:
    """How many of these pairs of kind and colour only the split `pairs` shows."""
    return sum(pair in held_out_pairs() for pair in pairs)


def _there_are(number: int, kind: str) -> str:
    if number == 1:
        return f"there is one {kind}"
    return f"there are {NUMBERS[number]} {plural(kind)}"


def _with_colour(placement: Placement, colour: str) -> Placement:
    return placement._replace(thing=placement.thing._replace(colour=colour))
