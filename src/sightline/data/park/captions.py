"""Sentences that are exactly true and name every object with its colour and kind.

Equal objects are grouped under a number word; groups stand in the order in which the eye meets
them from left to right. Lower case, a full stop at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sightline.data.park.dice import Dice
from sightline.data.park.vocabulary import NUMBERS, PLACES, plural, with_article

if TYPE_CHECKING:
    from sightline.data.park.scenes import ParkObject, Scene

PARAPHRASES = 5


def write_captions(scene: Scene, dice: Dice) -> tuple[str, ...]:
    """Five different captions; how often each style comes first is in `_STYLES`."""
    weights = [weight for _, weight in _STYLES]
    found: list[str] = []
    while len(found) < PARAPHRASES:
        index = dice.weighted(weights)
        style = _STYLES[index][0]
        weights[index] *= 0.3
        text = style(scene, dice)
        if text is not None and text not in found:
            found.append(text)
    return tuple(found)


def _list(scene: Scene, dice: Dice) -> str:
    return f"{list_of(scene.objects)}."


def _opened_list(scene: Scene, dice: Dice) -> str:
    opening = dice.pick(("a picture of", "a drawing of", "a park scene with", "an image of"))
    return f"{opening} {list_of(scene.objects)}."


def _there_is(scene: Scene, dice: Dice) -> str:
    listed = list_of(scene.objects)
    verb = "is" if listed.split()[0] in ("a", "an", "one") else "are"
    place = f" {PLACES[scene.background]}" if dice.chance(0.5) else ""
    return f"there {verb} {listed}{place}."


def _placed(scene: Scene, dice: Dice) -> str:
    return f"{list_of(scene.objects)} {PLACES[scene.background]}."


def _place_first(scene: Scene, dice: Dice) -> str:
    return f"{PLACES[scene.background]}: {list_of(scene.objects)}."


def _sized(scene: Scene, dice: Dice) -> str:
    place = f" {PLACES[scene.background]}" if dice.chance(0.4) else ""
    return f"{list_of(scene.objects, sized=True)}{place}."


def _related(scene: Scene, dice: Dice) -> str | None:
    """One relation between two objects that are named by colour and kind, then the rest."""
    names = [thing.name for thing in scene.objects]
    single = {index for index, name in enumerate(names) if names.count(name) == 1}
    usable = [r for r in scene.relations if r.subject in single and r.object in single]
    if not usable:
        return None
    relation = dice.pick(usable)
    first, second = scene.objects[relation.subject], scene.objects[relation.object]
    rest = [t for t in scene.objects if t is not first and t is not second]
    sized = dice.chance(0.25)
    text = f"{_one(first, sized)} {relation.name} {_one(second, sized)}"
    return f"{text}, and {list_of(rest, sized)}." if rest else f"{text}."


_STYLES: tuple[tuple[Callable[[Scene, Dice], str | None], float], ...] = (
    (_list, 30),
    (_opened_list, 12),
    (_there_is, 12),
    (_placed, 18),
    (_place_first, 4),
    (_sized, 12),
    (_related, 12),
)


def _words(thing: ParkObject, sized: bool) -> tuple[str, str]:
    return (f"{thing.size} {thing.colour}" if sized else thing.colour), thing.kind


def _one(thing: ParkObject, sized: bool) -> str:
    return with_article(" ".join(_words(thing, sized)))


def list_of(objects: Sequence[ParkObject], sized: bool = False) -> str:
    """ "two red benches, a blue cat and an orange umbrella"."""
    ordered = sorted(objects, key=lambda thing: (thing.box[0] + thing.box[2], thing.box[1]))
    counts: dict[tuple[str, str], int] = {}
    for thing in ordered:
        words = _words(thing, sized)
        counts[words] = counts.get(words, 0) + 1
    said = [_group(*words, count) for words, count in counts.items()]
    if len(said) == 1:
        return said[0]
    return f"{', '.join(said[:-1])} and {said[-1]}"


def _group(adjectives: str, kind: str, count: int) -> str:
    if count == 1:
        return with_article(f"{adjectives} {kind}")
    return f"{NUMBERS[count]} {adjectives} {plural(kind)}"
