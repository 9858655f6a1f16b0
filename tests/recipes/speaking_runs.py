"""Small data and recipes for runs of models that speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sightline.data.convert import convert
from sightline.data.park.scenes import ParkScenes
from sightline.data.park.spoken import spoken_records
from sightline.data.records import Dataset
from sightline.recipes.paligemma import PaliGemmaRecipe

SMALL: dict[str, Any] = {
    "batch_size": 4, "eval_limit": 6, "eval_every": 9, "save_every": 1, "workers": 0,
    "autocast": "off", "steps": 2, "patch_size": 8, "image_width": 16, "image_depth": 1,
    "image_heads": 2, "width": 16, "depth": 1, "num_heads": 2, "kv_heads": 1, "mlp_width": 24,
    "vocab_size": 1300, "image_size": 16, "text_length": 256,
}  # fmt: skip


def park_folder(folder: Path, layout: str, count: int = 12) -> str:
    """Scenes as `sightline data park --to LAYOUT` writes them."""
    records = spoken_records(ParkScenes("train", 0, count, 32), layout)
    convert(Dataset(records, "park"), folder, layout, strict=True)
    return str(folder)


def small(data: str, **changes: Any) -> PaliGemmaRecipe:
    """A recipe whose run takes a second or two."""
    return PaliGemmaRecipe(data=data, **{**SMALL, **changes})
