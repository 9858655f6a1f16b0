"""What a picture of a park teaches a model that speaks: things to be asked, and their answers.

Prompts are those of PaliGemma (`inputs.instructions`). Several turns about one picture are one
lesson.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sightline.data.park.captions import list_of
from sightline.data.park.dice import Dice
from sightline.data.park.questions import another_count
from sightline.data.park.vocabulary import COLOURS, KINDS, PLACES, held_out_pairs
from sightline.inputs.instructions import PALIGEMMA

if TYPE_CHECKING:
    from sightline.data.park.scenes import ParkObject, Scene

Spell = Callable[["ParkObject", "Scene"], str]
"""The tokens of an object's box, or of its box and mask."""

SHARES: Mapping[str, float] = {
    "caption": 2, "describe": 1, "ask": 7, "count": 3, "detect": 4, "segment": 2
}  # fmt: skip
"""How often each kind of turn is drawn. Counting is learned last of all and is a seventh of what
"ask" asks, so that it has turns of its own."""
EVERYTHING = "everything"
"""What `detect` and `segment` are asked for where nothing is named."""
MOST_REPEATED = 20
"""A scene about which so many prompts in a row were known has been told."""
ALONE = 0.6
"""Share of the prompts that name things which name a single one."""
ABSENT = 0.15
"""Share of the named things that are not there; the answer is empty."""


class Turn(NamedTuple):
    """One thing to be asked and its answer."""

    prompt: str
    answer: str


def turns_about(
    scene: Scene,
    generator: np.random.Generator,
    box: Spell,
    mask: Spell | None = None,
    shares: Mapping[str, float] = SHARES,
) -> Iterator[Turn]:
    """Different turns about a scene, one after the other as the dice fall, until all are told.

    Args:
        box: spells a box.
        mask: spells a box and a mask; None leaves masks out.
    """
    kinds = [kind for kind in shares if kind != "segment" or mask is not None]
    weights = np.array([shares[kind] for kind in kinds])
    known: set[str] = set()
    repeated = 0
    while repeated < MOST_REPEATED:
        kind = kinds[int(generator.choice(len(kinds), p=weights / weights.sum()))]
        prompt, answer = _turn(kind, scene, generator, box, mask)
        if prompt in known:
            repeated += 1
            continue
        known.add(prompt)
        repeated = 0
        yield Turn(prompt, answer())


def _turn(
    kind: str, scene: Scene, generator: np.random.Generator, box: Spell, mask: Spell | None
) -> tuple[str, Callable[[], str]]:
    """A prompt, and how to get its answer, which may be dear to spell."""
    if kind == "caption":
        return PALIGEMMA.caption_prompt("short"), lambda: caption(scene)
    if kind == "describe":
        return PALIGEMMA.caption_prompt("long"), lambda: description(scene)
    if kind == "ask":
        own = scene.questions[int(generator.integers(len(scene.questions)))]
        return PALIGEMMA.question(own.question), lambda: own.answer
    if kind == "count":
        question, answer, _ = another_count(scene, Dice(int(generator.integers(2**32))))
        return PALIGEMMA.question(question), lambda: answer
    names = _names(scene, generator)
    if kind == "detect" or mask is None:
        return PALIGEMMA.detection(names), lambda: instances(scene, names, box)
    return PALIGEMMA.segmentation(names), lambda: instances(scene, names, mask)


def caption(scene: Scene) -> str:
    """Every object with its colour, from left to right, equal ones counted."""
    return f"{list_of(scene.objects)}."


def description(scene: Scene) -> str:
    """The same with sizes and the place."""
    return f"{list_of(scene.objects, sized=True)} {PLACES[scene.background]}."


def instances(scene: Scene, names: Sequence[str], spell: Spell) -> str:
    """Every object that a name means, from left to right: its tokens and what it is called.

    Asked for everything, an object is called by colour and kind, otherwise by the first of the
    names that means it.
    """
    placed = sorted(scene.objects, key=lambda thing: (thing.box[0] + thing.box[2], thing.box[1]))
    called = ((thing, _called(thing, names)) for thing in placed)
    return PALIGEMMA.joiner.join(f"{spell(thing, scene)} {name}" for thing, name in called if name)


def _called(thing: ParkObject, names: Sequence[str]) -> str | None:
    if EVERYTHING in names:
        return thing.name
    return next((name for name in names if name in (thing.kind, thing.name)), None)


def _names(scene: Scene, generator: np.random.Generator) -> list[str]:
    """Everything, or up to three things by kind or by colour and kind; some are not there."""
    if generator.random() < 0.5:
        return [EVERYTHING]
    count = 1 if generator.random() < ALONE else 2 + int(generator.integers(2))
    return list(dict.fromkeys(_name(scene, generator) for _ in range(count)))


def _name(scene: Scene, generator: np.random.Generator) -> str:
    """A kind, or a colour and a kind; now and then one that is not there."""
    named = generator.random() < 0.5
    if generator.random() < ABSENT:
        return _absent(scene, generator, named)
    thing = scene.objects[int(generator.integers(len(scene.objects)))]
    return thing.name if named else thing.kind


def _absent(scene: Scene, generator: np.random.Generator, named: bool) -> str:
    """A thing that the scene lacks: a kind, or one of its kinds in another colour."""
    if not named:
        return _pick(generator, sorted(set(KINDS) - {thing.kind for thing in scene.objects}))
    kind = scene.objects[int(generator.integers(len(scene.objects)))].kind
    shown = {thing.colour for thing in scene.objects if thing.kind == kind}
    sayable = [c for c in COLOURS if c not in shown and (kind, c) not in held_out_pairs()]
    return f"{_pick(generator, sayable)} {kind}"


def _pick(generator: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(generator.integers(len(words)))]
