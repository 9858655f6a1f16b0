"""The tables of `sightline compare --table`: who is compared, at what budget, by which scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from sightline.data.park.scenes import SHAPES
from sightline.recipes.park_scores import park_scores
from sightline.recipes.settings import override
from sightline.recipes.speech_scores import QUESTIONS, speech_scores
from sightline.recipes.table import find_recipe
from sightline.tasks.segment import FOLDER

if TYPE_CHECKING:
    from sightline.tasks.model import Model

SCENES, LABELLED = 12_000, 6_000
"""Drawings with captions, and drawings of one object with its name as label."""
SCORED = 500
"""Scenes of one object for each score, and scenes among which a sentence is looked for."""
STEPS, BATCH = 400, 64
SPEAKING_STEPS, SPEAKING_BATCH = 600, 32
"""Of what learns to write: after 400 steps of the bundled model's recipe no list of boxes was right
token for token yet."""
SPOKEN = 300
"""Scenes that are spoken about for each score."""
DATA = {
    "scenes": "{data}/scenes",
    "labelled": "{data}/labelled",
    "scenes and labelled": "{data}/scenes=2,{data}/labelled=1",
    "shapes": "{data}/shapes",
    "drawn": "park",
}
"""What a contender learns from, as --data has it; "drawn" is drawn in each run anew."""


@dataclass(frozen=True)
class Contender:
    """One row: a recipe and what it changes."""

    name: str
    recipe: str
    settings: Mapping[str, str] = field(default_factory=dict)
    data: str = "scenes"
    """One of `DATA`."""
    tower: Contender | None = None
    """A run before this one, whose model gives the image tower (`init_image`)."""
    note: str = ""
    """What makes its budget another one, for the table."""

    def chosen(self, shared: Mapping[str, str], data: Path, seed: int, steps: int | None) -> Any:
        """The recipe of one run; its own settings stand before those of the whole table."""
        settings = {**shared, **self.settings, "seed": str(seed)}
        if steps is not None:
            settings["steps"] = str(steps)
        settings |= {"data": DATA[self.data].format(data=data), "eval_every": settings["steps"]}
        return override(find_recipe(self.recipe).recipe(), settings)


@dataclass(frozen=True)
class Table:
    """Contenders with a common budget and common scores."""

    contenders: tuple[Contender, ...]
    columns: Mapping[str, str]
    """Scores that are shown, and their heads."""
    scores: Callable[[Model, Contender], dict[str, float]]
    """Of a trained model."""
    shared: Mapping[str, str]
    """Settings; otherwise every recipe's own defaults."""
    codec: Contender | None = None
    """A run before all others, whose model is the mask codec of each of them (`codec`)."""


def pair_scores(model: Model, contender: Contender) -> dict[str, float]:
    """What a dual encoder is compared by."""
    shapes = SHAPES if contender.data == "shapes" else ()
    scored = park_scores(model, SCORED, SCORED, shapes=shapes)
    return {name: metric.value for name, metric in scored.items()}


def writing_scores(model: Model, contender: Contender) -> dict[str, float]:
    """What a model that writes is compared by: four tasks, and their mean."""
    found = speech_scores(model, SPOKEN, codec=model.folder / FOLDER)
    tasks = {
        "caption": found["caption"],
        "answers": mean(found[kind] for kind in QUESTIONS),
        "boxes": found["detect"],
        "masks": found["mask"],
    }
    return {"mean": mean(tasks.values()), **tasks}


DUAL_ENCODERS = Table(
    (
        Contender("CLIP", "clip"),
        Contender("SigLIP", "siglip"),
        Contender(
            "FLIP", "clip", {"patch_dropout": "0.5", "batch_size": str(2 * BATCH)},
            note="half of the patches of twice the pictures",
        ),
        Contender("UniCL, captions", "unicl"),
        Contender("UniCL, captions and labels", "unicl", data="scenes and labelled"),
        Contender("ResNet and BERT", "vision_text", {"image_tower": "resnet"}),
        Contender(
            "LiT", "lit", {"steps": str(STEPS)},
            tower=Contender("its tower", "classifier", {"patch_size": "8"}, data="labelled"),
            note="its tower learned from as many labelled pictures before",
        ),
        Contender("SigLIP, scenes of four shapes", "siglip", {"image_size": "64"}, data="shapes"),
        Contender("NaFlex, scenes of four shapes", "naflex", {"max_patches": "64"}, data="shapes"),
    ),
    columns={
        "image to text": "R@1 of 500, picture to text",
        "text to image": "R@1 of 500, text to picture",
        "test kind": "kind of 20",
        "test phrase": "kind and colour of 200",
        "pairs phrase": "the same, pair never seen",
    },
    scores=pair_scores,
    shared={
        "steps": str(STEPS),
        "batch_size": str(BATCH),
        "eval_limit": "200",
        "autocast": "off",  # products this small gain nothing from bfloat16
    },
)  # fmt: skip
"""Towers with vectors 64 wide and three blocks."""

PREFIX_LM = Table(
    (
        Contender("full attention on the prefix", "park-paligemma", data="drawn"),
        Contender("causal everywhere", "park-paligemma", {"causal": "yes"}, data="drawn"),
    ),
    columns={
        "mean": "mean of the four",
        "caption": "captions, all objects right",
        "answers": "answers to four questions",
        "boxes": "boxes, F1 at 0.5",
        "masks": "masks, mean overlap",
    },
    scores=writing_scores,
    shared={
        "steps": str(SPEAKING_STEPS),
        "batch_size": str(SPEAKING_BATCH),
        "eval_limit": "50",
    },
    codec=Contender(
        "its codec", "mask-codec", {"steps": "1200", "batch_size": "128"}, data="drawn"
    ),
)
"""The ablation of PaliGemma (Beyer et al. 2024, arXiv:2407.07726, section 4.3) on parks: whether
picture and question see each other in both directions."""

TABLES: Mapping[str, Table] = {"dual-encoders": DUAL_ENCODERS, "prefix-lm": PREFIX_LM}
"""By name."""
