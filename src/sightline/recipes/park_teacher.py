"""What teaches a small PaliGemma on parks: its answers, and what covers each patch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.data.park.records import BACKGROUND
from sightline.nn.linear import Linear
from sightline.nn.norms import unit_length
from sightline.objectives.language import UNCOUNTED, next_token
from sightline.recipes.park_lessons import REACH, LessonBatch
from sightline.recipes.park_siglip import patch_loss
from sightline.training.accumulation import Step, StepResult, backward

logger = logging.getLogger(__name__)

MULTIPLE = 256
"""Scored tokens of a batch are filled up to a multiple of this."""


class Taught(nn.Module):
    """A PaliGemma that is asked what covers each patch, and where it ends.

    Kind and colour are asked of what the projector makes of a patch, against the vectors of their
    own words, so that a picture of a bench and the word come to lie in one direction: whoever looks
    for the bench then finds both alike. Boxes are asked of the projector's patches too, and from
    the corner of the picture, not of the patch: rotary positions tell the decoder how far apart two
    tokens are and not where they are, so that a patch has to say it.

    Args:
        model: the network.
        width: D of the tower's patches.
        kinds: tokens of the kinds' words.
        colours: the same of the colours.
    """

    def __init__(
        self, model: Any, width: int, kinds: Sequence[int], colours: Sequence[int]
    ) -> None:
        super().__init__()
        self.model = model
        self.words = (list(kinds), list(colours))
        self.nothing = Linear(width, 2)
        """How likely no kind and no colour is."""
        self.sharpness = nn.Parameter(torch.tensor(3.0))
        self.box = Linear(model.projector.out_features, 4)

    def name_patches(self, patches: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B P kinds+1] and [B P colours+1] of the tower's patches and the projector's."""
        table, seen = self.model.decoder.table.weight, unit_length(seen)
        nothing = self.nothing(patches).float()
        kinds, colours = (
            torch.cat(
                [
                    self.sharpness.exp() * (seen @ unit_length(table[words]).T),
                    nothing[..., place : place + 1],
                ],
                dim=-1,
            )
            for place, words in enumerate(self.words)
        )
        return kinds, colours

    def parts_to_compile(self) -> list[nn.Module]:
        """The stacks of blocks; around them are loops over rows. Nothing without a C++ compiler."""
        if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
            logger.info("no C++ compiler: not compiled, which takes about twice as long")
            return []
        return [self.model.decoder, self.model.image.transformer]


def lesson_step(teaching: float) -> Step:
    """Cross-entropy of the answers' tokens, plus what is said about patches.

    Args:
        teaching: weight of what is said about patches.
    """

    def step(network: nn.Module, batches: list[LessonBatch]) -> StepResult:
        (batch,) = batches
        answers, tokens, right, patches = spoken(network, batch)
        taught, metrics = patch_losses(network, *patches, batch.truth)
        loss = answers / tokens
        backward(loss + teaching * taught)
        metrics["token"] = float(right / tokens)
        return StepResult(loss.item(), metrics, len(batch.pixels))

    return step


def spoken(
    network: Any, batch: LessonBatch
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The summed loss of the answers, their tokens, how many were right, and the patches of the
    tower and of the projector.

    The tower runs once: its patches go to the decoder and to the heads. Every turn sees the picture
    and itself; the picture sees the first prompt, as it does where there is one turn.
    """
    model = network.model
    patches = model.image.tokens(batch.pixels)  # [B P D]
    seen = model.projector(patches)
    x = torch.cat([seen.float(), model.decoder.look_up(batch.ids).float()], dim=1)
    rows, count = seen.shape[:2]
    places = torch.arange(count, device=x.device).expand(rows, -1)
    first = batch.prefix[:, :1].expand(-1, count)
    owners = torch.cat([torch.zeros_like(places), batch.owners], dim=1)
    positions = torch.cat([places, batch.positions], dim=1)
    shared = (torch.arange(x.shape[1], device=x.device) < count).expand(rows, -1)
    prefix = torch.cat([first, batch.prefix], dim=1) if model.prefix_lm else None
    hidden = model.decoder(x, prefix, positions, owners, shared)[:, count:]
    counted = batch.following != UNCOUNTED
    loss, tokens = next_token(hidden, batch.following, counted, model.logits, multiple=MULTIPLE)
    with torch.no_grad():
        told = model.logits(hidden[counted]).argmax(dim=-1)
    right = (told == batch.following[counted]).sum()
    return loss, tokens, right, (patches, seen)


def patch_losses(
    network: Any, patches: Tensor, seen: Tensor, truth: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """What the heads learn from, and how well they know it."""
    kinds, colours = truth[..., 0].long(), truth[..., 1].long()
    kind_logits, colour_logits = network.name_patches(patches, seen)
    kind, kind_right = patch_loss(kind_logits, kinds)
    colour, colour_right = patch_loss(colour_logits, colours)
    covered = kinds != BACKGROUND
    boxes, wanted = network.box(seen)[covered].float(), truth[..., 2:][covered]
    box = F.smooth_l1_loss(boxes, wanted, beta=0.1)
    with torch.no_grad():
        off = float((boxes - wanted).abs().mean()) * REACH
    metrics = {"patch_kind": kind_right, "patch_colour": colour_right, "patch_box_pixels": off}
    return kind + colour + 2 * box, metrics
