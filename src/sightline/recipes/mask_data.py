"""Masks that a codec learns from: objects of parks, outlined regions, or pictures of masks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.errors import DataError, ImageError
from sightline.data.boxed_masks import (
    BoxedMask,
    mask_picture,
    park_masks,
    plain_shape,
    region_mask,
)
from sightline.data.loader import Loader
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.inputs.box_masks import crop_mask
from sightline.recipes.splits import CHOOSING, PARK, PARK_SCENES, splits

if TYPE_CHECKING:
    from sightline.recipes.mask_codec import MaskCodecRecipe

logger = logging.getLogger(__name__)

PER_SCENE = 4
"""Objects that are drawn of a scene, with repetition; as many as it has on average."""


class MaskBatch(NamedTuple):
    """Masks as the codec sees them."""

    masks: Tensor
    """float32[B, H, W], -1 outside to 1 inside."""


def mask_parts(
    recipe: MaskCodecRecipe,
) -> tuple[Sequence[Any], list[BoxedMask], list[BoxedMask]]:
    """What to learn from (see `mask_loader`), and masks to choose and to judge by."""
    if recipe.data == PARK:
        choosing, judging = (park_objects(recipe.eval_limit, start) for start in (CHOOSING, 0))
        return range(PER_SCENE * PARK_SCENES), choosing, judging
    training, validation, test = splits(recipe)
    choosing, judging = (_read(part, recipe.eval_limit) for part in (validation, test))
    return objects_of(training), choosing, judging


def park_objects(count: int, start: int = 0, size: int | None = None) -> list[BoxedMask]:
    """The first so many objects of the test scenes from a seed on.

    Args:
        size: of the scenes; None mixes those of `data.boxed_masks.PARK_SIZES`.
    """
    found: list[BoxedMask] = []
    seed = start
    while len(found) < count:
        found += park_masks(seed, "test", size)
        seed += 1
    return found[:count]


def objects_of(records: Sequence[Record]) -> list[Record | Region]:
    """The outlined regions of the records that are no crowd; a record without regions is a mask.

    Raises:
        DataError: there are none.
    """
    found: list[Record | Region] = []
    for record in records:
        outlined = (r for r in record.regions if r.outline is not None and not r.crowd)
        found += outlined if record.regions else [record]
    if not found:
        raise DataError(
            "no region of these data has an outline: a mask codec learns from masks (COCO's "
            "instances, or pictures of masks)"
        )
    return found


def _mask_of(item: Record | Region) -> BoxedMask:
    return region_mask(item) if isinstance(item, Region) else mask_picture(item.image)


def _read(records: Dataset, limit: int) -> list[BoxedMask]:
    """The first so many masks that can be read."""
    found: list[BoxedMask] = []
    for item in objects_of(records):
        if len(found) == limit:
            break
        try:
            found.append(_mask_of(item))
        except ImageError as error:
            logger.warning("%s: a mask cannot be read: %s", records.name, error)
    return found


def mask_loader(data: Sequence[Any], recipe: MaskCodecRecipe, size: int) -> Loader[MaskBatch]:
    """Endless seeded batches of masks, each squeezed out of its box.

    Args:
        data: places of objects in scenes, `PER_SCENE` to each, or what `objects_of` found.
        size: of the squares.
    """

    def draw(item: int | Record | Region, generator: np.random.Generator) -> NDArray[np.float32]:
        if generator.random() < recipe.shapes_share:
            found = plain_shape(generator)
        elif isinstance(item, int):
            objects = park_masks(item // PER_SCENE)
            found = objects[int(generator.integers(len(objects)))]
        else:
            found = _mask_of(item)
        return crop_mask(found.mask, found.box, size)

    def collate(samples: list[NDArray[np.float32]]) -> MaskBatch:
        return MaskBatch(torch.from_numpy(np.stack(samples)))

    # Scenes come in the order of their seeds, so that each is drawn once for its objects.
    return Loader(
        data, collate, recipe.batch_size, recipe.seed, not isinstance(data, range),
        workers=recipe.workers, transform=draw,
    )  # fmt: skip
