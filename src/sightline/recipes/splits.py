"""Three parts of the data: to train on, to choose a checkpoint by, and to report on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sightline.core.errors import ConfigError, DataError
from sightline.data.formats import open_dataset
from sightline.data.park.records import ParkRecords
from sightline.data.records import Dataset, Record
from sightline.recipes.dual_encoder import DualEncoderRecipe

PARK = "park"
"""As `data`: scenes drawn while training, no files."""
PARK_SIZE = 64
PARK_SCENES = 60_000
"""Scenes to train on."""
CHOOSING = 1_000_000
"""First seed of the test scenes by which a checkpoint is chosen; reports have the ones from 0."""


class Splits(NamedTuple):
    """No record is in two of them. Whoever chooses by a score does not report that score."""

    training: Sequence[Record]
    validation: Dataset
    test: Dataset


def splits(recipe: DualEncoderRecipe) -> Splits:
    """The data's own splits; what it lacks is a seeded share of what is left to train on.

    Raises:
        ConfigError: no data.
        DataError: data that cannot be read, or too little of it.
    """
    if not recipe.data:
        raise ConfigError("the run has no data: give --data PATH (or --data park for drawn parks)")
    return _drawn(recipe) if recipe.data == PARK else _given(open_dataset(recipe.data), recipe)


def _drawn(recipe: DualEncoderRecipe) -> Splits:
    size, count = recipe.image_size or PARK_SIZE, recipe.eval_limit
    held_out = (
        Dataset(list(ParkRecords("test", start, count, size)), name=f"park {name}")
        for name, start in (("validation", CHOOSING), ("test", 0))
    )
    return Splits(ParkRecords("train", count=PARK_SCENES, size=size), *held_out)


def _given(data: Dataset, recipe: DualEncoderRecipe) -> Splits:
    names = {record.split for record in data}
    own = [name for name in ("test", "val") if name in names]
    if not own or "train" not in names:
        rest, test = _held_out(data, data, recipe, 0)
        return Splits(*_held_out(data, rest, recipe, 1), test)
    training, test = data.with_split("train"), data.with_split(own[0])
    if len(own) == 2:
        return Splits(training, data.with_split("val"), test)
    return Splits(*_held_out(data, training, recipe, 1), test)


def _held_out(
    data: Dataset, records: Sequence[Record], recipe: DualEncoderRecipe, draw: int
) -> tuple[list[Record], Dataset]:
    """Records without a seeded share of them, and that share; both in their order."""
    order = np.random.default_rng((recipe.seed, draw)).permutation(len(records))
    count = max(1, round(recipe.test_share * len(records)))
    if len(records) <= count:
        raise DataError(
            f"{data.name} has {len(data)} record(s): too few to train on some, to choose a checkpoint "
            "by others and to test on the rest"
        )
    taken, rest = ([records[int(i)] for i in np.sort(p)] for p in (order[:count], order[count:]))
    return rest, Dataset(taken, name=f"{data.name}, held out")
