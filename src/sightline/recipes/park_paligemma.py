"""`sightline train park-paligemma`: the bundled model of drawn parks that speaks.

    sightline train park-paligemma --set codec=park-mask-codec --out RUN

Stages of the paper (PaliGemma, section 3.2) at the size of a park. Stage 0 is taken as it is: the
image tower of the bundled park-siglip, which has learned to see. Stage 1 trains everything on a
mixture of all tasks: captions, questions, boxes and masks of scenes drawn as it goes. Stage 2 would
raise the resolution, which parks do not need.

A picture is followed by as many turns as fit into a row (`data.park.lessons`): the first one is a
prefix, which picture and prompt see in both directions, further ones follow causally, and only
answers are learned from. A row then teaches a dozen answers for the price of one picture.

Three small heads ask every patch of the tower what covers it: kind, colour and box, which the park
knows exactly. They are thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.core.interfaces import TextBatch
from sightline.data.loader import Loader
from sightline.data.park.lessons import Spell, Turn, lesson
from sightline.data.park.records import BACKGROUND, patch_owners
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import COLOURS, KINDS
from sightline.nn.linear import Linear
from sightline.nn.writer import Writer
from sightline.objectives.language import next_token
from sightline.recipes.park_siglip import patch_loss
from sightline.training.accumulation import Step, StepResult, backward

if TYPE_CHECKING:
    from sightline.inputs.instructions import Instructions
    from sightline.inputs.tokenizers import TextTokenizer

MULTIPLE = 256
"""Scored tokens of a batch are filled up to a multiple of this."""
REACH = 16.0
"""Pixels that the box head counts as one."""


class Taught(nn.Module):
    """A PaliGemma with heads that name what covers each patch, and where it ends."""

    def __init__(self, model: Any, width: int) -> None:
        super().__init__()
        self.model = model
        self.kind = Linear(width, len(KINDS) + 1)
        self.colour = Linear(width, len(COLOURS) + 1)
        self.box = Linear(width, 4)


class Lesson(NamedTuple):
    """One row: a picture, its turns in tokens, and what covers each patch."""

    pixels: NDArray[np.uint8]
    prompt: list[int]
    suffix: list[int]
    counted: list[bool]
    truth: NDArray[np.float32]
    """[P, 6]: kind, colour, and the box from the middle of the patch, in `REACH`."""


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

    def lesson(self, drawn: Scene, generator: np.random.Generator) -> Lesson:
        """As many turns about the scene as there is room for."""
        turns = lesson(drawn, generator, self.most_turns, self.box, self.mask)
        first, *further = self._fitting(turns)
        prompt = self.instructions.encode(self.tokenizer, first.prompt, trusted=True)
        suffix = self._answer(first)
        counted = [True] * len(suffix)
        for turn in further:
            asked, answer = self._prompt(turn), self._answer(turn)
            suffix += asked + answer
            counted += [False] * len(asked) + [True] * len(answer)
        truth = patch_targets(drawn, self.patch_size)
        return Lesson(drawn.pixels, prompt, suffix, counted, truth)

    def _fitting(self, turns: Sequence[Turn]) -> list[Turn]:
        room, kept = self.room - 1, list[Turn]()
        for turn in turns:
            length = len(self._prompt(turn)) + len(self._answer(turn))
            if length <= room:
                kept.append(turn)
                room -= length
        return kept

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
    x1 y1 x2 y2 from the middle of the patch in `REACH`."""
    owners = patch_owners(drawn, patch)
    none = (BACKGROUND, BACKGROUND, 0.0, 0.0, 0.0, 0.0)
    rows = [(KINDS.index(t.kind), COLOURS.index(t.colour), *t.box) for t in drawn.objects]
    truth = np.array([*rows, none], np.float32)[owners]  # [P 6]; -1 takes the last one
    across = drawn.width // patch
    places = np.arange(len(owners))
    middle = np.stack([places % across, places // across], axis=1) * patch + patch / 2  # [P 2]
    truth[:, 2:] = (truth[:, 2:] - np.tile(middle, 2)) / REACH
    return truth


def lesson_loader(
    writing: Writing, count: int, batch_size: int, seed: int, workers: int, split: str = "train"
) -> Loader[LessonBatch]:
    """Scenes drawn by the loader's threads in the order of their seeds."""

    def draw(number: int, generator: np.random.Generator) -> Lesson:
        return writing.lesson(scene(number, split, writing.size), generator)

    return Loader(
        range(count), writing.collate, batch_size, seed, False, workers=workers, transform=draw
    )


def lesson_step(teaching: float, slots: int) -> Step:
    """Cross-entropy of the answers' tokens, plus what the heads say about patches."""

    def step(network: nn.Module, batches: list[LessonBatch]) -> StepResult:
        (batch,) = batches
        answers, tokens, right, patches = spoken(network, batch, slots)
        taught, metrics = patch_losses(network, patches, batch.truth)
        loss = answers / tokens
        backward(loss + teaching * taught)
        metrics["token"] = float(right / tokens)
        return StepResult(loss.item(), metrics, len(batch.pixels))

    return step


def spoken(network: Any, batch: LessonBatch, slots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The summed loss of the answers, their tokens, how many were right, and the tower's patches.

    The tower runs once: its patches go to the decoder and to the heads.
    """
    writer: Writer = network.model
    patches = network.model.image.tokens(batch.pixels)  # [B P D]
    seen = network.model.projector(patches)
    words = writer.token_vectors(batch.prompt, batch.prompt_mask)
    prompts = [torch.cat(pair) for pair in zip(seen.float(), words, strict=True)]
    suffix = TextBatch(batch.suffix, batch.suffix_mask)
    hidden = writer.hidden_behind(prompts, suffix, slots=slots)
    loss, tokens = next_token(hidden, batch.suffix, batch.counted, writer.logits, multiple=MULTIPLE)
    with torch.no_grad():
        told = writer.logits(hidden[batch.counted]).argmax(dim=-1)
    right = (told == batch.suffix[batch.counted]).sum()
    return loss, tokens, right, patches


def patch_losses(network: Any, patches: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
    """What the heads learn from, and how well they know it."""
    kinds, colours = truth[..., 0].long(), truth[..., 1].long()
    kind, kind_right = patch_loss(network.kind(patches), kinds)
    colour, colour_right = patch_loss(network.colour(patches), colours)
    covered = kinds != BACKGROUND
    boxes, wanted = network.box(patches)[covered].float(), truth[..., 2:][covered]
    box = F.smooth_l1_loss(boxes, wanted, beta=0.1)
    with torch.no_grad():
        off = float((boxes - wanted).abs().mean()) * REACH
    metrics = {"patch_kind": kind_right, "patch_colour": colour_right, "patch_box_pixels": off}
    return kind + colour + 2 * box, metrics
