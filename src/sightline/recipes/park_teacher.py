"""What teaches a small PaliGemma on parks: its answers, and what covers each patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sightline.data.park.records import BACKGROUND
from sightline.nn.linear import Linear, TokenTable
from sightline.nn.norms import unit_length
from sightline.objectives.language import UNCOUNTED, next_token
from sightline.recipes.park_lessons import LessonBatch
from sightline.recipes.park_siglip import patch_loss
from sightline.training.accumulation import Step, StepResult, backward

CYCLES = (0.25, 6.0)
"""Slowest and fastest turn of the places' first vectors from one side of a picture to the other."""
MULTIPLE = 256
"""Scored tokens of a batch are filled up to a multiple of this."""


class Taught(nn.Module):
    """A PaliGemma that is asked what covers each patch, and where it ends.

    Kind and colour are asked of what the projector makes of a patch, against the vectors of their
    own words, so that a picture of a bench and the word come to lie in one direction: whoever looks
    for the bench then finds both alike. The four numbers of its box are asked in the same way, of a
    linear map each: rotary positions tell the decoder how far apart two tokens are and not where
    they are, so that a patch has to say it, and then in the decoder's own words.

    Args:
        model: the network.
        width: D of the tower's patches.
        kinds: tokens of the kinds' words.
        colours: the same of the colours.
        places: those of the places, in their order.
    """

    def __init__(
        self,
        model: Any,
        width: int,
        kinds: Sequence[int],
        colours: Sequence[int],
        places: Sequence[int],
    ) -> None:
        super().__init__()
        self.model = model
        self.words = (list(kinds), list(colours))
        self.places = list(places)
        self.nothing = Linear(width, 2)
        """How likely no kind and no colour is."""
        self.sharpness = nn.Parameter(torch.tensor(3.0))
        self.box = Linear(model.projector.out_features, 4 * model.projector.out_features)

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

    def box_likeness(self, seen: Tensor, boxes: Tensor) -> Tensor:
        """Cosines [N 4] of what projected patches [N D] say of their boxes int64[N 4], with the
        places themselves, which learn nothing from it: they would all become one."""
        table = self.model.decoder.table.weight.detach()
        said = unit_length(self.box(seen).unflatten(-1, (4, -1)))
        return (said * unit_length(table[self.places])[boxes]).sum(dim=-1)

    def parts_to_compile(self) -> list[nn.Module]:
        """Those of the model; what asks is small."""
        parts: list[nn.Module] = self.model.parts_to_compile()
        return parts


def order_places(table: TokenTable, places: Sequence[int]) -> None:
    """First vectors of the places' tokens, by which near places are alike.

    Random Fourier features (Rahimi and Recht 2007), as long as other vectors: what is learned of
    one place then holds for those around it, where a thousand unrelated tokens would have to be
    seen one by one.
    """
    half = table.weight.shape[1] // 2
    low, high = (math.log(cycles) for cycles in CYCLES)
    turns = 2 * math.pi * torch.exp(low + (high - low) * torch.rand(half))  # [D/2] a side
    angles = torch.linspace(0, 1, len(places))[:, None] * turns
    features = torch.cat([angles.cos(), angles.sin()], dim=1)  # [1024 D]
    with torch.no_grad():
        table.weight[list(places)] = features * (2**0.5 / table.scale)


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
    kinds, colours = truth[..., 0], truth[..., 1]
    kind_logits, colour_logits = network.name_patches(patches, seen)
    kind, kind_right = patch_loss(kind_logits, kinds)
    colour, colour_right = patch_loss(colour_logits, colours)
    covered = kinds != BACKGROUND
    box = network.box_likeness(seen[covered], truth[..., 2:][covered]).mean()
    metrics = {"patch_kind": kind_right, "patch_colour": colour_right, "patch_box": box.item()}
    return kind + colour + 4 * (1 - box), metrics
