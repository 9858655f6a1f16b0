"""What a model that speaks says about the pictures: captions, answers, boxes and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sightline.core.errors import HubNotFoundError, UnsupportedTaskError
from sightline.core.outputs import Detection, Segment
from sightline.demo.pictures import Gallery, Shown
from sightline.tasks.model import Model, load

if TYPE_CHECKING:
    from sightline.data.park.scenes import Question

SPEAKER = "park-paligemma"
ASKED = 3
"""Questions of each picture, of different kinds."""


class Said(NamedTuple):
    """A question, the model's answer and the truth."""

    question: str
    answer: str
    truth: str

    @property
    def right(self) -> bool:
        """Whether the answer is the truth."""
        return self.answer == self.truth


class Spoken(NamedTuple):
    """A picture, what was said about it and what was found in it."""

    shown: Shown
    caption: str
    said: tuple[Said, ...]
    found: tuple[Detection | Segment, ...]


def speaker() -> Model | None:
    """The bundled model that speaks, where this installation has it."""
    try:
        return load(SPEAKER)
    except HubNotFoundError:
        return None


def speak(model: Model, gallery: Gallery) -> list[Spoken]:
    """Captions, answers and masks (boxes where there is no mask codec) of the fuller pictures."""
    pictures = [shown.path for shown in gallery.several]
    captions = model.caption(pictures)
    try:
        found = model.segment(pictures)
    except UnsupportedTaskError:
        found = model.detect(pictures)
    return [
        Spoken(shown, caption, _answers(model, shown), tuple(things))
        for shown, caption, things in zip(gallery.several, captions, found, strict=True)
    ]


def _answers(model: Model, shown: Shown) -> tuple[Said, ...]:
    asked: Sequence[Question] = shown.scene.questions[:ASKED]
    return tuple(
        Said(question, model.ask(shown.path, question), truth) for question, truth, _ in asked
    )


def named_right(spoken: Sequence[Spoken]) -> tuple[int, int]:
    """How many objects were found under their right name, and how many there are."""
    hits = there = 0
    for one in spoken:
        truth = Counter(thing.name for thing in one.shown.scene.objects)
        hits += (truth & Counter(found.label for found in one.found)).total()
        there += truth.total()
    return hits, there


def tally(spoken: Sequence[Spoken]) -> Counter[bool]:
    """How many answers are right, and how many wrong."""
    return Counter(said.right for one in spoken for said in one.said)
