"""Questions with exactly one right answer, balanced so that guessing without the picture fails.

The answer is drawn before the words: yes and no are equally frequent in every kind of question,
counts spread over 0 to 4, and a "no" names things that the scene nearly holds. Relations are asked
only where they are clear (`Scene.relations`); above and below only between kinds that live in the
same region, because everyone knows that clouds are above benches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sightline.data.park.dice import Dice
from sightline.data.park.vocabulary import (
    COLOURS,
    INVERSE,
    KINDS,
    held_out_pairs,
    plural,
    region,
    with_article,
)

if TYPE_CHECKING:
    from sightline.data.park.scenes import Scene

Asked = tuple[str, str, str]
"""Question, answer, kind of question."""

MAX_COUNT = 4
HALF_MARGIN = 0.05
"""How far from the middle, as a fraction of the width, a centre must be to count as in a half."""
_RARE = {
    "kind": (0.9, 0.9, 4, 12, 14),
    "colour": (0.8, 0.9, 4, 14, 18),
    "pair": (0.7, 0.7, 5, 14, 18),
}
"""Weights of the counts 0 to 4 among those that a scene offers; high counts are offered rarely."""
_SPOKEN = {"left of": "to the left of", "right of": "to the right of"}


def write_questions(scene: Scene, dice: Dice) -> list[Asked]:
    """One question each of count, colour, exists and relation in random order, then two that
    compare counts, then up to two chains where the scene allows them."""
    facts = _Facts(scene)
    first = dice.shuffled((_count, _colour, _exists, _relation))
    asked = [_spoken(make(facts, dice), dice) for make in first]
    later: tuple[Callable[[_Facts, Dice], Asked | None], ...]
    later = (_compare, _compare, _chain_colour, _chain_kind)
    for make_later in later:
        found = make_later(facts, dice)
        if found is not None and found[0].lower() not in {q.lower() for q, _, _ in asked}:
            asked.append(_spoken(found, dice))
    return asked


def another_count(scene: Scene, dice: Dice) -> Asked:
    """One more question of how many there are, of a kind, of a colour or of both, each as often;
    a scene's own question is mostly of a kind."""
    return _spoken(_count(_Facts(scene), dice, (1, 1, 1)), dice)


def _spoken(asked: Asked, dice: Dice) -> Asked:
    """Half of the questions begin with a capital letter, as people write them."""
    question, answer, kind = asked
    return (question[0].upper() + question[1:] if dice.chance(0.5) else question), answer, kind


class _Facts:
    """What holds in a scene, ready to be asked."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.objects = scene.objects
        self.kinds = Counter(thing.kind for thing in self.objects)
        self.colours = Counter(thing.colour for thing in self.objects)
        self.pairs = Counter((thing.kind, thing.colour) for thing in self.objects)
        self.sayable = frozenset(
            (kind, colour)
            for kind in KINDS
            for colour in COLOURS
            if scene.split == "pairs" or (kind, colour) not in held_out_pairs()
        )
        """A pair that no training scene shows is not asked for there: the answer would be known."""

    def name(self, index: int, dice: Dice) -> str | None:
        """Words that fit this object only; None where there are none."""
        thing = self.objects[index]
        if self.pairs[thing.kind, thing.colour] > 1:
            return None
        if self.kinds[thing.kind] > 1 or dice.chance(0.5):
            return f"the {thing.name}"
        return f"the {thing.kind}"

    def absent_kinds(self) -> list[str]:
        return [kind for kind in KINDS if kind not in self.kinds]

    def near_misses(self, dice: Dice) -> list[tuple[str, str]]:
        """Pairs that the scene lacks: usually its kinds in other colours, or its colours on other
        kinds, so that neither word alone gives the answer away."""
        absent = [pair for pair in sorted(self.sayable) if pair not in self.pairs]
        if self.scene.split == "pairs" and dice.chance(0.5):
            absent = [pair for pair in absent if pair in held_out_pairs()]
        style = dice.below(5)
        if style < 2:
            absent = [pair for pair in absent if pair[0] in self.kinds] or absent
        elif style < 4:
            absent = [pair for pair in absent if pair[1] in self.colours] or absent
        return absent


def _yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


def _count(facts: _Facts, dice: Dice, forms: Sequence[float] = (70, 15, 15)) -> Asked:
    form = ("kind", "colour", "pair")[dice.weighted(forms)]
    subjects = _countable(facts, form, dice)
    weights = [w if subjects[n] else 0.0 for n, w in enumerate(_RARE[form])]
    number = dice.weighted(weights)
    many = dice.pick(subjects[number])
    question = dice.pick(
        (
            f"how many {many} are there?",
            f"how many {many} are in the picture?",
            f"how many {many} can you see in the picture?",
            f"how many {many} do you see?",
            f"count the {many}.",
            f"what is the number of {many}?",
        )
    )
    return question, str(number), "count"


def _countable(facts: _Facts, form: str, dice: Dice) -> list[list[str]]:
    """For each count 0 to 4 the plurals that occur so often."""
    subjects: list[list[str]] = [[] for _ in range(MAX_COUNT + 1)]
    if form == "kind":
        for kind in KINDS:
            subjects[facts.kinds[kind]].append(plural(kind))
    elif form == "colour":
        for colour in COLOURS:
            if facts.colours[colour] <= MAX_COUNT:
                subjects[facts.colours[colour]].append(f"{colour} objects")
    else:
        subjects[0] = [f"{colour} {plural(kind)}" for kind, colour in facts.near_misses(dice)]
        for (kind, colour), number in facts.pairs.items():
            subjects[number].append(f"{colour} {plural(kind)}")
    return subjects


def _colour(facts: _Facts, dice: Dice) -> Asked:
    """Asks about a kind that occurs once; every scene has one."""
    thing = dice.pick([thing for thing in facts.objects if facts.kinds[thing.kind] == 1])
    question = dice.pick(
        (
            f"what colour is the {thing.kind}?",
            f"what is the colour of the {thing.kind}?",
            f"which colour does the {thing.kind} have?",
            f"what color is the {thing.kind}?",
            f"the {thing.kind} is what colour?",
        )
    )
    return question, thing.colour, "colour"


def _exists(facts: _Facts, dice: Dice) -> Asked:
    yes = dice.chance(0.5)
    form = dice.weighted((40, 40, 20))
    if form == 0:
        words = with_article(dice.pick(list(facts.kinds) if yes else facts.absent_kinds()))
    elif form == 1:
        kind, colour = dice.pick(list(facts.pairs) if yes else facts.near_misses(dice))
        words = with_article(f"{colour} {kind}")
    else:
        colours = [colour for colour in COLOURS if (colour in facts.colours) == yes]
        words = f"anything {dice.pick(colours)}"
    question = dice.pick(
        (
            f"is there {words}?",
            f"is there {words} in the picture?",
            f"can you see {words}?",
            f"do you see {words} here?",
        )
    )
    return question, _yes_no(yes), "exists"


def _relation(facts: _Facts, dice: Dice) -> Asked:
    """Where two named objects stand, or, where nothing else is clear, the half of one object."""
    yes = dice.chance(0.5)
    usable = []
    for subject, relation, other in facts.scene.relations:
        kinds = facts.objects[subject].kind, facts.objects[other].kind
        level = relation in _SPOKEN or region(kinds[0]) == region(kinds[1])
        names = facts.name(subject, dice), facts.name(other, dice)
        if level and names[0] is not None and names[1] is not None:
            usable.append((names[0], relation, names[1]))
    if not usable or dice.chance(0.15):
        return _half(facts, dice, yes)
    first, relation, second = dice.pick(usable)
    relation = relation if yes else INVERSE[relation]
    said = _SPOKEN.get(relation, relation) if dice.chance(0.5) else relation
    verb = dice.pick((f"is {first}", f"is {first}", f"can you see {first}"))
    return f"{verb} {said} {second}?", _yes_no(yes), "relation"


def _half(facts: _Facts, dice: Dice, yes: bool) -> Asked:
    """The object that occurs once and stands off the middle is in every scene."""
    width = facts.scene.width
    sides: list[tuple[str, str]] = []
    for index, thing in enumerate(facts.objects):
        offset = (thing.box[0] + thing.box[2]) / 2 / width - 0.5
        name = facts.name(index, dice)
        if name is not None and abs(offset) >= HALF_MARGIN:
            sides.append((name, "left" if offset < 0 else "right"))
    name, side = dice.pick(sides)
    said = side if yes else {"left": "right", "right": "left"}[side]
    where = dice.pick((f"in the {said} half of the picture", f"on the {said} side of the picture"))
    return f"is {name} {where}?", _yes_no(yes), "relation"


def _compare(facts: _Facts, dice: Dice) -> Asked:
    yes, fewer = dice.chance(0.5), dice.chance(0.3)
    kinds = [*facts.kinds, dice.pick(facts.absent_kinds())]
    ordered = [(a, b) for a in kinds for b in kinds if a != b]
    more = [(a, b) for a, b in ordered if (facts.kinds[a] > facts.kinds[b])]
    rest = [(a, b) for a, b in ordered if (facts.kinds[a] <= facts.kinds[b])]
    first, second = dice.pick(more if yes else rest)
    if fewer:  # "fewer b than a" says what "more a than b" says
        first, second = second, first
    word = "fewer" if fewer else "more"
    question = dice.pick(
        (
            f"are there {word} {plural(first)} than {plural(second)}?",
            f"does the picture show {word} {plural(first)} than {plural(second)}?",
        )
    )
    return question, _yes_no(yes), "compare"


def _chain_colour(facts: _Facts, dice: Dice) -> Asked | None:
    found = _lone_neighbours(facts, dice, ("left of", "right of", "above", "below"))
    if not found:
        return None
    index, relation, name = dice.pick(found)
    said = _SPOKEN.get(relation, relation) if dice.chance(0.5) else relation
    question = f"what colour is the object {said} {name}?"
    return question, facts.objects[index].colour, "chain"


def _chain_kind(facts: _Facts, dice: Dice) -> Asked | None:
    """Across only: above and below would betray the kind."""
    found = _lone_neighbours(facts, dice, ("left of", "right of"))
    if not found:
        return None
    index, relation, name = dice.pick(found)
    said = _SPOKEN[relation] if dice.chance(0.5) else relation
    return f"what is {said} {name}?", facts.objects[index].kind, "chain"


def _lone_neighbours(
    facts: _Facts, dice: Dice, relations: Sequence[str]
) -> list[tuple[int, str, str]]:
    """(object, relation, name of another) where it alone stands so to the other, and every third
    object clearly stands the opposite way."""
    clear = set(facts.scene.relations)
    found = []
    for subject, relation, other in facts.scene.relations:
        name = facts.name(other, dice)
        if relation not in relations or name is None:
            continue
        thirds = [i for i in range(len(facts.objects)) if i not in (subject, other)]
        if all((third, INVERSE[relation], other) in clear for third in thirds):
            found.append((subject, relation, name))
    return found
