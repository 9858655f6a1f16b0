"""Lessons of the park in tokens: scenes to rows of a prompt, answers and further turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.data.loader import Loader
from sightline.data.park.lessons import Spell, Turn, turns_about
from sightline.data.park.records import BACKGROUND, patch_owners
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import COLOURS, KINDS
from sightline.data.worker_processes import Processes
from sightline.inputs.coordinates import PALIGEMMA
from sightline.objectives.language import UNCOUNTED
from sightline.tasks.mask_tokens import mask_tokens

if TYPE_CHECKING:
    from sightline.core.interfaces import MaskCodec
    from sightline.data.park.scenes import ParkObject
    from sightline.inputs.instructions import Instructions
    from sightline.inputs.tokenizers import TextTokenizer

PADDING = np.array([[0], [UNCOUNTED], [0], [0], [-1]])
"""What a row is filled up with."""
SHORTEST = 10
"""Tokens that a turn takes at least: nothing else is sought where fewer are left."""
MISSES = 2
"""Turns that did not fit, after which a row is full."""


def spell_box(thing: ParkObject, drawn: Scene) -> str:
    """The four tokens of an object's box."""
    return PALIGEMMA.spelled(PALIGEMMA.encode(thing.box, (drawn.height, drawn.width)))


class MaskSpeller:
    """Spells the box of an object and the sixteen tokens of its mask.

    All objects of a scene go through the codec together, when the first of them is spelled.
    """

    def __init__(self, codec: MaskCodec) -> None:
        self.codec = codec
        self._known: WeakKeyDictionary[Scene, dict[int, str]] = WeakKeyDictionary()

    def __call__(self, thing: ParkObject, drawn: Scene) -> str:
        if drawn not in self._known:
            things = drawn.objects
            masks, frames = [t.mask for t in things], [t.box for t in things]
            self._known[drawn] = {
                id(t): "".join(f"<seg{code:03d}>" for code in row)
                for t, row in zip(
                    things, mask_tokens(self.codec, masks, frames).tolist(), strict=True
                )
            }
        return spell_box(thing, drawn) + self._known[drawn][id(thing)]

    def __reduce__(self) -> tuple[type, tuple[MaskCodec]]:
        return type(self), (self.codec,)  # what is known of scenes stays behind


class Lesson(NamedTuple):
    """One row: a picture, its turns in tokens, and what covers each patch."""

    pixels: NDArray[np.uint8]
    turns: NDArray[np.int64]
    """[5, T]: tokens of all turns, and `LessonBatch`'s other four of each."""
    truth: NDArray[np.int64]
    """int64[P, 6]: index of kind and colour, and the four numbers that spell the box."""


class LessonBatch(NamedTuple):
    """Lessons as tensors, one row each: a picture and T tokens of the turns about it."""

    pixels: Tensor
    """float32[B, 3, H, W]"""
    ids: Tensor
    """int64[B, T]: prompts and answers, without the tokens that end them."""
    following: Tensor
    """int64[B, T]: the token of an answer that comes behind each; `UNCOUNTED` for none."""
    positions: Tensor
    """int64[B, T]: of each in its own sequence of picture, prompt and answer."""
    prefix: Tensor
    """int64[B, T]: length of picture and prompt of each one's turn."""
    owners: Tensor
    """int64[B, T]: the turn of each, from 0; -1 for padding."""
    truth: Tensor
    """int64[B, P, 6]"""


@dataclass(frozen=True)
class Writing:
    """What turns lessons into tokens."""

    tokenizer: TextTokenizer
    instructions: Instructions
    box: Spell
    mask: Spell | None
    """None where no masks are taught."""
    patch_size: int
    room: int
    """Tokens of a row beside those of the picture."""
    size: int = 64
    most_turns: int = 12
    grey: bool = False
    """Whether pictures are replaced by grey."""

    def draw(self, drawn: Scene, generator: np.random.Generator) -> Lesson:
        """As many turns about the scene as there is room for."""
        room, kept, missed = self.room, list[NDArray[np.int64]](), 0
        for turn in turns_about(drawn, generator, self.box, self.mask):
            own = self._spelled(turn, len(kept))
            if own.shape[1] <= room:
                kept.append(own)
                room -= own.shape[1]
            else:
                missed += 1
            if len(kept) == self.most_turns or room < SHORTEST or (kept and missed == MISSES):
                break
        return self._lesson(drawn, kept)

    def lesson(self, drawn: Scene, turns: Sequence[Turn]) -> Lesson:
        """A scene and what is said about it."""
        return self._lesson(drawn, [self._spelled(turn, n) for n, turn in enumerate(turns)])

    def _lesson(self, drawn: Scene, spelled: Sequence[NDArray[np.int64]]) -> Lesson:
        pixels = np.full_like(drawn.pixels, 128) if self.grey else drawn.pixels
        truth = patch_targets(drawn, self.patch_size)
        return Lesson(pixels, np.concatenate(spelled, axis=1), truth)

    def tokens(self, turn: Turn) -> tuple[list[int], list[int]]:
        """A prompt as it stands behind its picture, and the answer with its end token."""
        assert self.tokenizer.eos_id is not None
        prompt = self.instructions.encode(self.tokenizer, turn.prompt, trusted=True)
        answer = self.tokenizer.encode(turn.answer, trusted=True)
        return prompt, [*answer, self.tokenizer.eos_id]

    def _spelled(self, turn: Turn, number: int) -> NDArray[np.int64]:
        """The five numbers of each token of a turn, as `LessonBatch` names them."""
        prompt, answer = self.tokens(turn)
        ids = prompt + answer[:-1]  # nobody reads on from the end
        start = self.instructions.picture_tokens
        return np.stack(
            [
                np.array(ids),
                np.array([UNCOUNTED] * (len(prompt) - 1) + answer),
                start + np.arange(len(ids)),
                np.full(len(ids), start + len(prompt)),
                np.full(len(ids), number),
            ]
        )

    def collate(self, lessons: list[Lesson]) -> LessonBatch:
        """Rows side by side, padded to the room there is, so that shapes repeat."""
        pixels = torch.from_numpy(np.stack([each.pixels for each in lessons]))
        turns = np.tile(PADDING, (len(lessons), 1, self.room))  # [B 5 T]
        for row, lesson in zip(turns, lessons, strict=True):
            row[:, : lesson.turns.shape[1]] = lesson.turns
        ids, following, positions, prefix, owners = torch.from_numpy(turns).unbind(dim=1)
        return LessonBatch(
            pixels.permute(0, 3, 1, 2).float() / 127.5 - 1,
            ids,
            following,
            positions,
            prefix,
            owners,
            torch.from_numpy(np.stack([each.truth for each in lessons])),
        )


def patch_targets(drawn: Scene, patch: int) -> NDArray[np.int64]:
    """What covers each patch: see `Lesson`. Kind and colour are -1 for none."""
    size = (drawn.height, drawn.width)
    rows = [
        (KINDS.index(t.kind), COLOURS.index(t.colour), *PALIGEMMA.encode(t.box, size))
        for t in drawn.objects
    ]
    none = (BACKGROUND, BACKGROUND, 0, 0, 0, 0)
    return np.array([*rows, none])[patch_owners(drawn, patch)]  # -1 takes the last one


@dataclass(frozen=True)
class DrawLesson:
    """The lesson of a number; an object, so that it can travel to a worker process."""

    writing: Writing
    simple: int
    """Scenes with smaller numbers have one to three objects."""

    def __call__(self, number: int, generator: np.random.Generator) -> Lesson:
        objects = 1 + number % 3 if number < self.simple else None
        return self.writing.draw(scene(number, "train", self.writing.size, objects), generator)


def lesson_loader(
    writing: Writing, count: int, easy: float, batch_size: int, seed: int, workers: int
) -> Loader[LessonBatch]:
    """Scenes in the order of their seeds, simple ones first.

    Drawing and spelling hold the interpreter's lock for most of their time, so that workers are
    processes.

    Args:
        easy: share of the scenes that have one to three objects.
        workers: processes; 0 draws between the steps.
    """
    return Loader(
        range(count),
        writing.collate,
        batch_size,
        seed,
        False,
        workers=Processes(workers) if workers else 0,
        transform=DrawLesson(writing, round(easy * count)),
    )
