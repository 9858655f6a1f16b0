"""Three parts of the data: to train on, to choose a checkpoint by, and to report on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

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


Park = Literal["captions", "kinds", "spoken"]
"""What drawn parks say: captions; the kind of one thing; or captions, regions and a question."""


def splits(recipe: RunSettings, park: Park = "captions") -> Splits:
    """The data's own splits; what it lacks is a seeded share of what is left to train on.

    Args:
        recipe: where the data are, and how much of them is held out.
        park: of drawn parks, what they say.

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
    return _mixed(weights, recipe, park) if weights else _of(recipe.data, recipe, park)


def draws_parks(recipe: RunSettings) -> bool:
    """Whether scenes are drawn while training, be it as a part of a mixture."""
    return PARK in (_weights(recipe.data) or (recipe.data,))


def _weights(data: str) -> dict[str, float] | None:
    return None if Path(data).exists() else parse_mixture(data)


def _of(path: str, recipe: RunSettings, park: Park) -> Splits:
    return _drawn(recipe, park) if path == PARK else _given(open_dataset(path), recipe)


def _mixed(weights: dict[str, float], recipe: RunSettings, park: Park) -> Splits:
    """Each source gives its own parts: training draws by weight, the rest is taken together."""
    parts = {path: _of(path, recipe, park) for path in weights}
    held_out = (
        Dataset([record for part in parts.values() for record in part[place]], f"mixture, {name}")
        for place, name in ((1, "validation"), (2, "test"))
    )
    return Splits(Mixture({path: p.training for path, p in parts.items()}, weights), *held_out)


def _drawn(recipe: RunSettings, park: Park) -> Splits:
    size, count = recipe.image_size or PARK_SIZE, recipe.eval_limit
    objects, label = (1, "kind") if park == "kinds" else (None, "phrase")
    shapes = parse_shapes(recipe.shapes)

    def scenes(split: str, start: int, count: int) -> ParkRecords:
        return ParkRecords(
            split, start, count, size, objects, label, shapes,  # type: ignore[arg-type]
            spoken=park == "spoken",
        )  # fmt: skip

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
    """Records without those of a seeded share of their pictures, and these; both in their order."""
    pictures = [r.image if isinstance(r.image, Hashable) else id(r.image) for r in records]
    places = {picture: place for place, picture in enumerate(dict.fromkeys(pictures))}
    order = np.random.default_rng((recipe.seed, draw)).permutation(len(places))
    count = max(1, round(recipe.test_share * len(places)))
    if len(places) <= count:
        raise DataError(
            f"{data.name} has {len(data)} record(s): too few to train on some, to choose by others "
            "and to test on the rest"
        )
    chosen = set(order[:count].tolist())
    taken, rest = list[Record](), list[Record]()
    for record, picture in zip(records, pictures, strict=True):
        (taken if places[picture] in chosen else rest).append(record)
    return rest, Dataset(taken, name=f"{data.name}, held out")
