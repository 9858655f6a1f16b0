"""Whether a map of heat is about the thing, and whether it is true to the model.

Two different questions. Energy and pointing compare the map with where the thing is; a model that
looks at the water to say "boat" fails them with an honest map. Deletion and insertion (Petsiuk,
Das and Saenko 2018, arXiv:1806.07421, section 4.1) ask the model: its score should fall at once
when the hottest pixels are taken away, and rise at once when they are put into a blank picture.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import InputError


def energy_inside(heat: Float[Tensor, "H W"], mask: Bool[Tensor, "H W"]) -> float:
    """The share of all heat that lies inside a mask; 0 for a map without heat.

    By chance it is the mask's share of the picture (Wang et al. 2020, arXiv:1910.01279, section
    4.3, with a box for the mask).

    Raises:
        InputError: shapes that differ, or heat below 0 or not finite.
    """
    _check(heat, mask)
    total = heat.double().sum()
    return (heat.double()[mask].sum() / total).item() if total > 0 else 0.0


def pointing_game(heat: Float[Tensor, "H W"], mask: Bool[Tensor, "H W"]) -> float:
    """Whether the hottest pixel lies inside a mask (Zhang et al. 2016, arXiv:1608.00507).

    Of several that are equally hot the share that does; so a map without differences has chance.

    Raises:
        InputError: shapes that differ, or heat below 0 or not finite.
    """
    _check(heat, mask)
    return mask[heat == heat.max()].double().mean().item()


def hottest_first(heat: Float[Tensor, "H W"], generator: torch.Generator) -> Int[Tensor, " HW"]:
    """Flat places of the pixels, the hottest first; equal ones in an order that is drawn."""
    drawn = torch.randperm(heat.numel(), generator=generator)
    return drawn[heat.flatten()[drawn].argsort(descending=True, stable=True)]


def replaced_step_by_step(
    picture: Tensor, by: Tensor, order: Int[Tensor, " HW"], steps: int
) -> Tensor:
    """[steps + 1, H, W, C]: the picture with 0, 1/steps, ... 1 of its pixels from another one.

    Deletion is a picture replaced by a blank one, insertion a blurred picture replaced by the
    picture itself, hottest pixels first.

    Args:
        picture: [H, W, C], and `by` likewise.
        order: flat places, the first to be replaced in front.

    Raises:
        InputError: shapes that differ, or no step.
    """
    if picture.shape != by.shape or order.numel() != picture.shape[0] * picture.shape[1]:
        raise InputError(
            f"a picture {list(picture.shape)}, another {list(by.shape)} and {order.numel()} "
            "places: both must be [H, W, C] with a place for each pixel"
        )
    if steps < 1:
        raise InputError(f"steps is {steps}: at least 1 is needed")
    counts = (torch.arange(steps + 1) * order.numel()) // steps  # [steps+1]
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))  # [HW]
    taken = (rank < counts[:, None]).unflatten(1, picture.shape[:2])  # [steps+1 H W]
    return torch.where(taken[..., None], by, picture)


def area_under(scores: Float[Tensor, "*B S"]) -> Float[Tensor, "*B"]:
    """The mean height of a curve over equal steps, by trapezoids.

    Raises:
        InputError: fewer than two points.
    """
    if scores.shape[-1] < 2:
        raise InputError(f"a curve of {scores.shape[-1]} point(s) has no area: give at least 2")
    return torch.trapezoid(scores, dx=1 / (scores.shape[-1] - 1))


def _check(heat: Tensor, mask: Tensor) -> None:
    if heat.shape != mask.shape:
        raise InputError(
            f"heat is {list(heat.shape)} and the mask {list(mask.shape)}: one number and one "
            "True or False for each pixel are needed"
        )
    if not mask.any():
        raise InputError("the mask is empty: nothing can lie inside it")
    low = heat.min().item() if heat.numel() else math.nan
    if not (torch.isfinite(heat).all() and low >= 0):
        raise InputError("heat must be finite and not below 0")
