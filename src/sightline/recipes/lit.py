"""`sightline train lit`: sentences learn to find pictures that a locked tower sees.

    sightline train classifier --data FOLDER --out TOWER
    sightline train lit --data FOLDER --out RUN --set init_image=TOWER/checkpoints/best/model
    sightline train lit --data FOLDER --out RUN --set init_image=google/vit-base-patch16-224-in21k \
        --set init_text=google-bert/bert-base-uncased --set lr=1e-3

The image tower (a ViT, a ResNet, a Swin, the image half of CLIP or of SigLIP) stays as it is in
every bit: no gradient, no weight decay, no dropout, no statistics. Only the text tower, its head
and the scale learn, by CLIP's loss; `objective=sigmoid` is SigLiT. Zhai et al. 2022,
https://arxiv.org/abs/2111.07991.

What the tower sees in a picture does not change, so it is computed once (`recipes.image_vectors`),
and a step costs the text tower alone. `precompute=no` looks again in every step; random crops
(`crop=0.9`) need that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.core.devices import choose_device
from sightline.core.errors import ConfigError
from sightline.core.outputs import EncodedImage
from sightline.data.records import Record
from sightline.inputs.processors import Processor
from sightline.recipes.dual_encoder import DualEncoderRecipe, number_of_steps
from sightline.recipes.image_vectors import Looking, vector_records
from sightline.recipes.pair_data import pair_loader, sentence_loader, usable_pairs
from sightline.recipes.run import (
    Outcome,
    Plan,
    all_sentences,
    carry_out,
    dual_encoder_plan,
    template_of,
)
from sightline.recipes.splits import Splits, splits
from sightline.recipes.start import Start
from sightline.recipes.towers import start_from
from sightline.training.options import Progress
from sightline.training.stages import lock

LONGEST = 16
"""Tokens of a sentence for a text tower that comes with its words, as in the released models."""


@dataclass(frozen=True)
class LiTRecipe(DualEncoderRecipe):
    """Settings of one run; those of a dual encoder's image tower do nothing here."""

    system: str = "lit"
    crop: float = 1.0
    image_head: int | None = None
    """Width of a linear layer over the picture's vector, which learns; None: there is none, and
    sentences meet pictures in the tower's own space."""
    precompute: bool | None = None
    """Whether pictures are looked at once, before the first step; None: where no random crop is
    taken and the run would see every picture at least once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precompute and self.crop < 1:
            raise ConfigError(
                f"precompute=yes keeps one vector of a picture, and crop={self.crop:g} cuts it "
                "anew each time: use crop=1, or precompute=no"
            )
        if self.patch_dropout or self.image_lr_scale != 1:
            raise ConfigError(
                "the image tower of lit is locked: patch_dropout and image_lr_scale are for towers "
                "that learn"
            )


def train_lit(
    recipe: LiTRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train LiT or SigLiT and write checkpoints, log, curves and report into `out`.

    Args:
        minutes: stop after this much time, with everything saved; a rerun goes on. The time in
            which pictures are looked at before the first step is not counted.

    Raises:
        DataError: no captions, or data that cannot be read.
        ConfigError: no image tower, settings that do not fit, or a folder that holds another run.
    """
    if not (recipe.init or recipe.init_image):
        raise ConfigError(
            "lit teaches sentences to find pictures that a good tower already sees: give it with "
            "init_image=NAME, such as the best model of 'sightline train classifier'"
        )
    parts = splits(recipe)
    start = start_lit(recipe, all_sentences(parts.training, template_of(recipe)))
    steps = number_of_steps(recipe, len(parts.training))
    if looks_once(recipe, steps, len(parts.training)):
        plan = plan_from_vectors(recipe, start, parts, Path(out), progress)
    else:
        loader = pair_loader(parts.training, start.processor, recipe, template_of(recipe))
        plan = dual_encoder_plan(recipe, parts, start, loader, steps)
    return carry_out(recipe, plan, Path(out), minutes, progress)


def start_lit(recipe: LiTRecipe, captions: Iterable[str]) -> Start:
    """The network with its locked tower; a vocabulary is learned where no text tower is given.

    Raises:
        ConfigError: weights without the tower, or an unknown variant.
        HubError: the weights cannot be fetched.
    """
    start = start_from(recipe, captions, lambda config: _settled(recipe, config))
    lock(start.network, "image")
    pictures, words = start.processor.image, start.processor.text
    assert words is not None and start.system.text is not None
    words = words.with_spec(start.system.text(start.config))
    return replace(start, processor=Processor(pictures, words))


def _settled(recipe: LiTRecipe, config: Any) -> Any:
    """The config with what the recipe says, where no weights or variant have said it."""
    changed: dict[str, Any] = {}
    if not (recipe.init or recipe.variant):
        new = config.text.context_length  # as long as the sentences
        length = min(LONGEST, new) if recipe.init_text else new
        changed |= {"score": "softmax", "image_head": 0, "max_tokens": length}
    if recipe.objective is not None:
        changed["score"] = "sigmoid" if recipe.objective == "sigmoid" else "softmax"
    if recipe.image_head is not None:
        changed["image_head"] = recipe.image_head
    if recipe.context_length is not None:
        changed["max_tokens"] = recipe.context_length
    return replace(config, **changed)


def looks_once(recipe: LiTRecipe, steps: int, pictures: int) -> bool:
    """Whether the tower's vectors are computed before the first step."""
    if recipe.precompute is not None:
        return recipe.precompute
    return recipe.crop == 1 and steps * recipe.batch_size * recipe.accumulate >= pictures


class Seen(nn.Module):
    """In the image tower's place: takes the vectors that the tower gave before."""

    def forward(self, vectors: Tensor) -> EncodedImage:
        """float32[B, D], handed on."""
        return EncodedImage(tokens=vectors[:, None], pooled=vectors)


def with_tower(network: nn.Module, tower: nn.Module) -> nn.Module:
    """The network with another image tower; everything else is shared, not copied."""
    other = copy.copy(network)
    other._modules = {**network._modules, "image": tower}
    return other


def plan_from_vectors(
    recipe: LiTRecipe, start: Start, parts: Splits, out: Path, progress: Progress | None
) -> Plan:
    """A run that looks at its pictures once: what is trained has no image tower.

    Scores are taken and models saved with the tower in its place.
    """
    tower, template = start.network.get_submodule("image"), template_of(recipe)
    start.network.to(choose_device(recipe.device))
    looking = Looking(start.as_model("lit"), out, recipe.batch_size, recipe.autocast)
    seen = vector_records(looking, usable_pairs(parts.training, recipe, template), progress)
    loader = sentence_loader(seen, start.processor, recipe, template, _vector, _stacked)
    return replace(
        dual_encoder_plan(
            recipe, parts, start, loader, number_of_steps(recipe, len(parts.training))
        ),
        network=with_tower(start.network, Seen()),
        inner=lambda network: with_tower(network, tower),
    )


def _vector(record: Record, generator: np.random.Generator) -> np.ndarray:
    assert isinstance(record.image, np.ndarray)
    return record.image


def _stacked(vectors: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(vectors))
