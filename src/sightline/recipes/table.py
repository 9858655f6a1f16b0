"""The table of recipes: the name that `sightline train` takes, to settings and function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sightline.core.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class RecipeEntry:
    """Where a recipe lives; nothing is imported before it is asked for."""

    summary: str
    module: str
    settings: str
    function: str
    fixed: Mapping[str, Any]
    """Settings that the name stands for."""

    def recipe(self) -> Any:
        """The settings with their defaults."""
        return self._settings_class()(**self.fixed)

    def run(self) -> Callable[..., Any]:
        """The function (recipe, out, minutes, progress) that carries it out."""
        runner = "sightline.recipes.run" if self.function == "train_dual_encoder" else self.module
        function: Callable[..., Any] = getattr(importlib.import_module(runner), self.function)
        return function

    def _settings_class(self) -> Any:
        return getattr(importlib.import_module(self.module), self.settings)


_DUAL = ("sightline.recipes.dual_encoder", "DualEncoderRecipe", "train_dual_encoder")

RECIPES: Mapping[str, RecipeEntry] = {
    "clip": RecipeEntry(
        "CLIP on pictures with captions: softmax over the batch", *_DUAL, {"system": "clip"}
    ),
    "siglip": RecipeEntry(
        "SigLIP on pictures with captions: every pair on its own", *_DUAL, {"system": "siglip"}
    ),
    "naflex": RecipeEntry(
        "SigLIP 2 NaFlex on pictures of every aspect ratio, under a budget of patches",
        "sightline.recipes.naflex",
        "NaFlexRecipe",
        "train_naflex",
        {},
    ),
    "unicl": RecipeEntry(
        "UniCL on pictures with classes, captions or both: one loss over all of them",
        *_DUAL,
        {"system": "unicl"},
    ),
    "vision_text": RecipeEntry(
        "two towers of other systems, new or from weights, joined as CLIP's are",
        *_DUAL,
        {"system": "vision_text"},
    ),
    "lit": RecipeEntry(
        "LiT on pictures with captions: sentences learn what a locked image tower sees",
        "sightline.recipes.lit",
        "LiTRecipe",
        "train_lit",
        {},
    ),
    "classifier": RecipeEntry(
        "a ViT or a ResNet on pictures with classes: a closed set of labels",
        "sightline.recipes.classifier",
        "ClassifierRecipe",
        "train_classifier",
        {},
    ),
    "paligemma": RecipeEntry(
        "PaliGemma on captions, questions, boxes and conversations, in phases",
        "sightline.recipes.paligemma",
        "PaliGemmaRecipe",
        "train_paligemma",
        {},
    ),
    "mask-codec": RecipeEntry(
        "masks in a few tokens and back: objects of parks, outlines, or pictures of masks",
        "sightline.recipes.mask_codec",
        "MaskCodecRecipe",
        "train_mask_codec",
        {},
    ),
    "park-siglip": RecipeEntry(
        "the bundled SigLIP of drawn parks",
        "sightline.recipes.park_siglip",
        "ParkSigLIPRecipe",
        "train_park_siglip",
        {},
    ),
    "park-paligemma": RecipeEntry(
        "the bundled PaliGemma of drawn parks: captions, answers, boxes and masks",
        "sightline.recipes.park_paligemma",
        "ParkPaliGemmaRecipe",
        "train_park_paligemma",
        {},
    ),
}


def find_recipe(name: str) -> RecipeEntry:
    """The entry of that name.

    Raises:
        ConfigError: no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(unknown_name("recipe", name, RECIPES))
    return RECIPES[name]
