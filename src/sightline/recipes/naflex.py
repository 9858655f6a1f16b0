"""`sightline train naflex`: SigLIP 2 NaFlex on captioned pictures of every aspect ratio.

    sightline train naflex --data FOLDER --out RUN
    sightline train naflex --data park --out RUN --set max_patches=64 --set sequence_lengths=32,64
    sightline train naflex --data FOLDER --out RUN --set init=google/siglip2-base-patch16-naflex

No picture is squeezed or cropped to a square: each keeps its aspect ratio in at most `max_patches`
patches, and a batch is a fixed number of patches (`tokens`) that holds as many pictures as fit,
several of them in one row. Everything else is the recipe of the dual encoders, with its settings;
`--data park` draws scenes of four shapes. It runs in one process, since processes would have
different numbers of pictures to gather.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from sightline.core.errors import ConfigError, DataError
from sightline.core.interfaces import PackedPatches
from sightline.data.packed_pairs import packed_loader
from sightline.data.records import Record
from sightline.data.token_budget import TokenBudgetLoader
from sightline.inputs.naflex import NaFlexProcessor
from sightline.inputs.packing import first_fit
from sightline.inputs.processors import Processor
from sightline.recipes.dual_encoder import DualEncoderRecipe, number_of_steps
from sightline.recipes.pair_data import PairBatch, Sample, paired, sample_drawer, usable_pairs
from sightline.recipes.run import (
    Outcome,
    all_sentences,
    carry_out,
    dual_encoder_plan,
    sample_sizes,
    template_of,
)
from sightline.recipes.splits import draws_parks, splits
from sightline.recipes.start import Start
from sightline.recipes.towers import fitting_size, start_from
from sightline.training import distributed
from sightline.training.accumulation import Step, StepResult
from sightline.training.options import Progress


@dataclass(frozen=True)
class NaFlexRecipe(DualEncoderRecipe):
    """Settings of one run; the defaults train a small network on a small data set."""

    system: str = "siglip2-naflex"
    shapes: tuple[str, ...] = ()
    """Of drawn parks: heights and widths that take turns, such as 64x64,48x96; None given mixes
    four of them."""
    image_size: int | None = None
    """Side of the square whose patches have positions of their own, from which those of every other
    grid are resampled; None takes one of about `max_patches`."""
    max_patches: int | None = None
    """Patches of a picture at most; None takes as many as the pictures have, between 32 and 224
    pixels square, or as many as the weights were made for."""
    sequence_lengths: tuple[int, ...] = ()
    """Instead of `max_patches` while training: one of these is drawn for each picture and epoch, so
    that one network learns several resolutions."""
    batch_size: int = 64
    """Pictures of the largest size that a batch has room for, where `tokens` does not say it;
    smaller pictures are more."""
    tokens: int | None = None
    """Patches of a batch, padding included."""
    row_length: int | None = None
    """Patches of a row, which holds one picture or several; None takes the largest picture, or two
    of it where `sequence_lengths` mixes several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"max_patches": self.max_patches, "tokens": self.tokens}
        given |= {"row_length": self.row_length, "sequence_lengths": min(self.lengths, default=1)}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} counts patches from 1 on, got {value}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """What a picture may have at most while training."""
        return self.sequence_lengths or ((self.max_patches,) if self.max_patches else ())

    @property
    def rows(self) -> int:
        """Rows of a batch, once every setting is known."""
        assert self.tokens is not None and self.row_length is not None
        return self.tokens // self.row_length


def train_naflex(
    recipe: NaFlexRecipe,
    out: str | Path,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train and write checkpoints, log, curves and report into `out`.

    Args:
        minutes: stop after this much time, with everything saved; a rerun goes on.

    Raises:
        DataError: no captions, data that cannot be read, or too few pictures for one batch.
        ConfigError: settings that do not fit, or a folder that holds another run.
    """
    if distributed.world_size() > 1:
        raise ConfigError(
            "naflex fills a batch up to a number of patches, so processes would have different "
            "numbers of pictures: train it in one process, with accumulate=N for larger batches"
        )
    if draws_parks(recipe) and not recipe.shapes:
        recipe = replace(recipe, shapes=("mixed",))
    parts = splits(recipe)
    template = template_of(recipe)
    sizes = sample_sizes(parts.training)
    recipe = with_positions(recipe, sizes)
    start = start_from(recipe, all_sentences(parts.training, template))
    recipe, start = with_budget(recipe, start)
    usable = usable_pairs(parts.training, recipe, template)
    batch = pictures_of_a_batch(recipe, start.processor, sizes)
    if batch > len(usable):
        raise DataError(
            f"a batch of {recipe.tokens} patches holds about {batch:.0f} of these pictures, and "
            f"there are {len(usable)} to train on: use fewer tokens, or more data"
        )
    loader = packed_pair_loader(usable, start.processor, recipe, template)
    steps = number_of_steps(recipe, len(usable), batch)
    plan = dual_encoder_plan(recipe, parts, start, loader, steps)
    plan.step = reporting_fill(plan.step)
    return carry_out(recipe, plan, Path(out), minutes, progress)


def with_positions(recipe: NaFlexRecipe, sizes: Sequence[tuple[int, int]]) -> NaFlexRecipe:
    """The recipe with the patches of a picture and of the grid of positions of a small network.

    Where there are weights or a variant, these say it.

    Args:
        sizes: height and width of some of the pictures.
    """
    if recipe.init or recipe.init_image or recipe.variant:
        return recipe
    patch, most = recipe.patch_size, recipe.max_patches
    if most is None:
        side = fitting_size([round(math.sqrt(height * width)) for height, width in sizes], patch)
        most = (side // patch) ** 2
    square = recipe.image_size or math.isqrt(most) * patch
    return replace(recipe, max_patches=most, image_size=square)


def with_budget(recipe: NaFlexRecipe, start: Start) -> tuple[NaFlexRecipe, Start]:
    """Every number of patches that the recipe left open, and a processor that keeps to them.

    Raises:
        ConfigError: the budget holds no row, or a row not every picture.
    """
    spec = _image_processor(start.processor).spec
    recipe = replace(recipe, max_patches=recipe.max_patches or spec.max_num_patches)
    longest = max(recipe.lengths)
    row = recipe.row_length or longest * (1 if len(set(recipe.lengths)) == 1 else 2)
    tokens = recipe.tokens or recipe.batch_size * longest
    if tokens < row:
        raise ConfigError(
            f"tokens={tokens} holds no row of {row} patches: give more tokens, shorter rows "
            "(row_length) or smaller pictures (max_patches)"
        )
    assert recipe.max_patches is not None
    image = NaFlexProcessor(replace(spec, max_num_patches=recipe.max_patches))
    processor = Processor(image, start.processor.text)
    recipe = replace(recipe, row_length=row, tokens=tokens)
    return recipe, replace(start, processor=processor)


def _image_processor(processor: Processor) -> NaFlexProcessor:
    return cast(NaFlexProcessor, processor.image)


def pictures_of_a_batch(
    recipe: NaFlexRecipe, processor: Processor, sizes: Sequence[tuple[int, int]]
) -> float:
    """How many pictures of these sizes a batch holds on average, random crops left aside."""
    assert recipe.row_length is not None
    spec = _image_processor(processor).spec
    specs = [replace(spec, max_num_patches=most) for most in recipe.lengths]
    counts = [math.prod(one.grid(*size)) for size in sizes for one in specs]
    rows = 1 + max(row for row, _ in first_fit(counts, recipe.row_length))
    return recipe.rows * len(counts) / rows


def packed_pair_loader(
    records: Sequence[Record], processor: Processor, recipe: NaFlexRecipe, template: str
) -> TokenBudgetLoader[PairBatch]:
    """Endless seeded batches of readable pictures with sentences, as many as the budget holds."""
    assert recipe.row_length is not None
    sample_of = sample_drawer(recipe, template)

    def draw(record: Record, generator: np.random.Generator) -> tuple[np.ndarray, Sample]:
        sample = sample_of(record, generator)
        return sample.pixels, sample

    def collate(pixels: PackedPatches, samples: list[Sample]) -> PairBatch:
        return paired(samples, pixels, processor)

    return packed_loader(
        records, _image_processor(processor), (recipe.rows, recipe.row_length), recipe.lengths,
        draw, collate, recipe.seed, recipe.workers,
    )  # fmt: skip


def reporting_fill(step: Step) -> Step:
    """The step, which also logs its number of pictures and the share of patches that is picture."""

    def reporting(network: nn.Module, batches: list[PairBatch]) -> StepResult:
        result = step(network, batches)
        owners = [cast(PackedPatches, batch.pixels).pictures for batch in batches]
        filled = sum(float((rows >= 0).float().mean()) for rows in owners) / len(owners)
        facts = {"batch": float(result.pictures), "filled": filled}
        return replace(result, metrics={**result.metrics, **facts})

    return reporting
