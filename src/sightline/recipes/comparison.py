"""Systems side by side at equal budget on drawn parks, several seeds each, as one table.

    sightline compare --table dual-encoders --out DIR
    sightline compare --table dual-encoders --out DIR --only CLIP --seeds 1

Every contender sees as many pictures of the same drawings, with towers of about the same size, and
is scored on the same scenes that none has seen. A run is one call of a recipe, kept in a folder of
its own under DIR; a finished one is not made again, and the command goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.files import write_json
from sightline.data.park.export import write
from sightline.data.park.scenes import SHAPES, ParkScenes, digest
from sightline.data.park.vocabulary import VERSION
from sightline.recipes.park_scores import park_scores
from sightline.recipes.run import Outcome
from sightline.recipes.settings import override
from sightline.recipes.table import find_recipe
from sightline.tasks.model import load

logger = logging.getLogger(__name__)

FORMAT, FORMAT_VERSION = "sightline.comparison", 1
SCENES, LABELLED = 12_000, 6_000
"""Drawings with captions, and drawings of one object with its name as label."""
SCORED = 500
"""Scenes of one object for each score, and scenes among which a sentence is looked for."""
STEPS, BATCH = 400, 64
SHARED = {
    "steps": str(STEPS),
    "batch_size": str(BATCH),
    "eval_limit": "200",
    "autocast": "off",  # products this small gain nothing from bfloat16
}
"""Otherwise every recipe's own defaults, whose towers have 64 wide vectors and three blocks."""
DATA = {
    "scenes": "{data}/scenes",
    "labelled": "{data}/labelled",
    "scenes and labelled": "{data}/scenes=2,{data}/labelled=1",
    "shapes": "{data}/shapes",
}
"""What a contender learns from, as --data has it."""


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

    def chosen(self, data: Path, seed: int, steps: int | None) -> Any:
        """The recipe of one run."""
        settings = {**SHARED, **self.settings, "seed": str(seed)}
        if steps is not None:
            settings["steps"] = str(steps)
        settings |= {"data": DATA[self.data].format(data=data), "eval_every": settings["steps"]}
        return override(find_recipe(self.recipe).recipe(), settings)


TABLES: Mapping[str, tuple[Contender, ...]] = {
    "dual-encoders": (
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
}  # fmt: skip
"""Name to rows."""


@dataclass(frozen=True)
class Finished:
    """One run with its scores."""

    name: str
    seed: int
    scores: Mapping[str, float]
    pictures: int
    minutes: float
    """Of training, the tower's run included."""


def compare_systems(
    table: str,
    out: Path,
    seeds: int = 3,
    steps: int | None = None,
    only: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Finished]:
    """Make every run of a table that is not there yet, and `table.md` of all of them.

    Args:
        only: names of the contenders to run; all of them where none is given.
        steps: instead of each contender's own, for a quick look.
        progress: called with runs done and their number.

    Raises:
        ConfigError: an unknown table or contender, or a folder with other steps or another park.
    """
    contenders = _chosen(table, only)
    _check_folder(out, table, steps)
    data = _draw(out / "data", None if steps is None else steps * BATCH)
    runs = [(contender, seed) for seed in range(seeds) for contender in contenders]
    for number, (contender, seed) in enumerate(runs):
        _run(contender, seed, data, out, steps)
        if progress is not None:
            progress(number + 1, len(runs))
    finished = _finished(table, out)
    (out / "table.md").write_text(as_markdown(finished, TABLES[table]), encoding="utf-8")
    return finished


def _chosen(table: str, only: Sequence[str]) -> list[Contender]:
    if table not in TABLES:
        raise ConfigError(unknown_name("table", table, TABLES))
    names = {contender.name: contender for contender in TABLES[table]}
    for name in only:
        if name not in names:
            raise ConfigError(unknown_name("contender", name, names))
    return [names[name] for name in only] or list(TABLES[table])


def _check_folder(out: Path, table: str, steps: int | None) -> None:
    """Runs of one table and one budget, on one park, share a folder."""
    path = out / "comparison.json"
    own = {
        "format": FORMAT, "version": FORMAT_VERSION, "table": table, "steps": steps,
        "park": {"version": VERSION, "digest": digest()},
    }  # fmt: skip
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != own:
        raise ConfigError(
            f"{out} holds another comparison (another table, other steps or another version of the "
            "park): choose another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, own)


def _draw(folder: Path, most: int | None) -> Path:
    """The drawings that every run learns from, made once."""
    drawings: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("scenes", SCENES, {}),
        ("labelled", LABELLED, {"objects": 1}),
        ("shapes", SCENES, {"shapes": SHAPES}),
    )
    for name, count, kind in drawings:
        if not (folder / name).is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            logger.info("drawing %s", name)
            count = min(count, max(100, most or count))
            write(ParkScenes("train", 0, count, **kind), folder / name)
    return folder


def _run(contender: Contender, seed: int, data: Path, out: Path, steps: int | None) -> None:
    folder = out / f"{_slug(contender.name)}-{seed}"
    if (folder / "scores.json").is_file():
        return
    minutes, settings = 0.0, dict(contender.settings)
    if contender.tower is not None:
        first = _train(contender.tower, seed, data, folder / "tower", steps)
        minutes, settings["init_image"] = first.summary.hours * 60, str(first.model)
    outcome = _train(replace(contender, settings=settings), seed, data, folder, steps)
    model = load(outcome.model, device="cpu", dtype="float32")
    shapes = SHAPES if contender.data == "shapes" else ()
    scored = park_scores(model, SCORED, SCORED, shapes=shapes)
    scores = {name: metric.value for name, metric in scored.items()}
    write_json(
        folder / "scores.json",
        {
            "name": contender.name,
            "seed": seed,
            "scores": scores,
            "pictures": outcome.summary.pictures,
            "minutes": minutes + outcome.summary.hours * 60,
        },
    )


def _train(contender: Contender, seed: int, data: Path, out: Path, steps: int | None) -> Outcome:
    logger.info("%s, seed %d", contender.name, seed)
    run = find_recipe(contender.recipe).run()
    outcome: Outcome = run(contender.chosen(data, seed, steps), out)
    return outcome


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _finished(table: str, out: Path) -> list[Finished]:
    found = []
    for contender in TABLES[table]:
        for path in sorted(out.glob(f"{_slug(contender.name)}-[0-9]*/scores.json")):
            found.append(Finished(**json.loads(path.read_text(encoding="utf-8"))))
    return found


COLUMNS = {
    "image to text": "R@1 of 500, picture to text",
    "text to image": "R@1 of 500, text to picture",
    "test kind": "kind of 20",
    "test phrase": "kind and colour of 200",
    "pairs phrase": "the same, pair never seen",
}


def as_markdown(finished: Sequence[Finished], contenders: Sequence[Contender]) -> str:
    """One row for each contender: mean over its seeds, and the lowest and highest."""
    lines = [
        "| system | seeds | " + " | ".join(COLUMNS.values()) + " | pictures | minutes |",
        "| --- | --- | " + " | ".join("---" for _ in COLUMNS) + " | --- | --- |",
    ]
    for contender in contenders:
        runs = [run for run in finished if run.name == contender.name]
        if not runs:
            continue
        cells = [_spread([run.scores[column] for run in runs]) for column in COLUMNS]
        name = contender.name + (f" ({contender.note})" if contender.note else "")
        minutes = mean(run.minutes for run in runs)
        cells += [f"{runs[0].pictures:,}", f"{minutes:.1f}"]
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    text = f"{mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f} to {max(values):.3f})"
