"""Three parts of the data: to train on, to choose a checkpoint by, and to report on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sightline.core.errors import ConfigError, DataError
from sightline.data.formats import open_dataset
from sightline.data.mixtures import Mixture, parse_mixture
from sightline.data.park.records import ParkRecords
from sightline.data.park.scenes import parse_shapes
from sightline.data.records import Dataset, Record
from sightline.recipes.settings import RunSettings

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


def splits(recipe: RunSettings, kinds: bool = False) -> Splits:
    """The data's own splits; what it lacks is a seeded share of what is left to train on.

    Args:
        recipe: where the data are, and how much of them is held out.
        kinds: of drawn parks, only scenes with one thing, labelled by its kind.

    Raises:
        ConfigError: no data, or shapes for data that are there already.
        DataError: data that cannot be read, or too little of it.
    """
    if not recipe.data:
        raise ConfigError("the run has no data: give --data PATH (or --data park for drawn parks)")
    if recipe.shapes and not draws_parks(recipe):
        raise ConfigError(
            f"shapes are those of scenes to draw, and the pictures of {recipe.data} have their "
            "own: leave shapes out, or use --data park"
        )
    weights = _weights(recipe.data)
    return _mixed(weights, recipe, kinds) if weights else _of(recipe.data, recipe, kinds)


def draws_parks(recipe: RunSettings) -> bool:
    """Whether scenes are drawn while training, be it as a part of a mixture."""
    return PARK in (_weights(recipe.data) or (recipe.data,))


def _weights(data: str) -> dict[str, float] | None:
    return None if Path(data).exists() else parse_mixture(data)


def _of(path: str, recipe: RunSettings, kinds: bool) -> Splits:
    return _drawn(recipe, kinds) if path == PARK else _given(open_dataset(path), recipe)


def _mixed(weights: dict[str, float], recipe: RunSettings, kinds: bool) -> Splits:
    """Each source gives its own parts: training draws by weight, the rest is taken together."""
    parts = {path: _of(path, recipe, kinds) for path in weights}
    held_out = (
        Dataset([record for part in parts.values() for record in part[place]], f"mixture, {name}")
        for place, name in ((1, "validation"), (2, "test"))
    )
    return Splits(Mixture({path: p.training for path, p in parts.items()}, weights), *held_out)


def _drawn(recipe: RunSettings, kinds: bool) -> Splits:
    size, count = recipe.image_size or PARK_SIZE, recipe.eval_limit
    objects, label = (1, "kind") if kinds else (None, "phrase")
    shapes = parse_shapes(recipe.shapes)

    def scenes(split: str, start: int, count: int) -> ParkRecords:
        return ParkRecords(split, start, count, size, objects, label, shapes)  # type: ignore[arg-type]

    held_out = (
        Dataset(list(scenes("test", start, count)), name=f"park {name}")
        for name, start in (("validation", CHOOSING), ("test", 0))
    )
    return Splits(scenes("train", 0, PARK_SCENES), *held_out)


def _given(data: Dataset, recipe: RunSettings) -> Splits:
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
    data: Dataset, records: Sequence[Record], recipe: RunSettings, draw: int
) -> tuple[list[Record], Dataset]:
    """Records without a seeded share of them, and that share; both in their order."""
    order = np.random.default_rng((recipe.seed, draw)).permutation(len(records))
    count = max(1, round(recipe.test_share * len(records)))
    if len(records) <= count:
        raise DataError(
            f"{data.name} has {len(data)} record(s): too few to train on some, to choose by others "
            "and to test on the rest"
        )
    taken, rest = ([records[int(i)] for i in np.sort(p)] for p in (order[:count], order[count:]))
    return rest, Dataset(taken, name=f"{data.name}, held out")
