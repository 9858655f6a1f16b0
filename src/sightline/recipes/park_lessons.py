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
from sightline.tasks.mask_tokens import mask_tokens

if TYPE_CHECKING:
    from sightline.core.interfaces import MaskCodec
    from sightline.data.park.scenes import ParkObject
    from sightline.inputs.instructions import Instructions
    from sightline.inputs.tokenizers import TextTokenizer

SHORTEST = 10
"""Tokens that a turn takes at least: nothing else is sought where fewer are left."""
MISSES = 2
"""Turns that did not fit, after which a row is full."""
REACH = 16.0
"""Pixels that the box head counts as one."""


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
    prompt: list[int]
    suffix: list[int]
    counted: list[bool]
    truth: NDArray[np.float32]
    """[P, 6]: kind, colour, and the box from the picture's corner, in `REACH`."""


class LessonBatch(NamedTuple):
    """Lessons as tensors; one row each."""

    pixels: Tensor
    """float32[B, 3, H, W]"""
    prompt: Tensor
    """int64[B, T]"""
    prompt_mask: Tensor
    suffix: Tensor
    """int64[B, M]: answers, and between them the prompts of further turns."""
    suffix_mask: Tensor
    counted: Tensor
    """bool[B, M]: True on the tokens of answers."""
    truth: Tensor
    """float32[B, P, 6]"""


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
        room, kept, missed = self.room - 1, list[Turn](), 0
        for turn in turns_about(drawn, generator, self.box, self.mask):
            length = len(self._prompt(turn)) + len(self._answer(turn))
            if length <= room:
                kept.append(turn)
                room -= length
            else:
                missed += 1
            if len(kept) == self.most_turns or room < SHORTEST or (kept and missed == MISSES):
                break
        return self.lesson(drawn, kept)

    def lesson(self, drawn: Scene, turns: Sequence[Turn]) -> Lesson:
        """A scene and what is said about it."""
        first, *further = turns
        prompt = self.instructions.encode(self.tokenizer, first.prompt, trusted=True)
        suffix = self._answer(first)
        counted = [True] * len(suffix)
        for turn in further:
            asked, answer = self._prompt(turn), self._answer(turn)
            suffix += asked + answer
            counted += [False] * len(asked) + [True] * len(answer)
        pixels = np.full_like(drawn.pixels, 128) if self.grey else drawn.pixels
        return Lesson(pixels, prompt, suffix, counted, patch_targets(drawn, self.patch_size))

    def _prompt(self, turn: Turn) -> list[int]:
        """A prompt between turns: without the begin token."""
        framed = self.instructions.encode(self.tokenizer, turn.prompt, trusted=True)
        return framed[1:] if self.instructions.begin else framed

    def _answer(self, turn: Turn) -> list[int]:
        assert self.tokenizer.eos_id is not None
        return [*self.tokenizer.encode(turn.answer, trusted=True), self.tokenizer.eos_id]

    def collate(self, lessons: list[Lesson]) -> LessonBatch:
        """Rows side by side, padded to the room there is, so that shapes repeat."""
        pixels = torch.from_numpy(np.stack([each.pixels for each in lessons]))
        prompt, prompt_mask = _padded([each.prompt for each in lessons])
        suffix, suffix_mask = _padded([each.suffix for each in lessons])
        counted, _ = _padded([[int(c) for c in each.counted] for each in lessons])
        return LessonBatch(
            pixels.permute(0, 3, 1, 2).float() / 127.5 - 1,
            prompt,
            prompt_mask,
            suffix,
            suffix_mask,
            counted.bool(),
            torch.from_numpy(np.stack([each.truth for each in lessons])),
        )


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = True
    return ids, mask


def patch_targets(drawn: Scene, patch: int) -> NDArray[np.float32]:
    """float32[P, 6]: index of kind and colour (-1 for none), and the box of what covers a patch,
    x1 y1 x2 y2 in `REACH`."""
    owners = patch_owners(drawn, patch)
    none = (BACKGROUND, BACKGROUND, 0.0, 0.0, 0.0, 0.0)
    rows = [(KINDS.index(t.kind), COLOURS.index(t.colour), *t.box) for t in drawn.objects]
    truth = np.array([*rows, none], np.float32)[owners]  # [P 6]; -1 takes the last one
    truth[:, 2:] /= REACH
    return truth


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
