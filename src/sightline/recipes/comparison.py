"""Systems side by side at equal budget on drawn parks, several seeds each, as one table.

    sightline compare --table dual-encoders --out DIR
    sightline compare --table dual-encoders --out DIR --only CLIP --seeds 1
    sightline compare --table prefix-lm --out DIR

Every contender of a table (`comparison_tables`) sees as many pictures of the same drawings, with
networks of about the same size, and is scored on the same scenes that none has seen. A run is one
call of a recipe, kept in a folder of its own under DIR; a finished one is not made again, and the
command goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.files import write_json
from sightline.data.park.export import write
from sightline.data.park.scenes import SHAPES, ParkScenes, digest
from sightline.data.park.vocabulary import VERSION
from sightline.recipes.comparison_tables import (
    BATCH,
    DATA,
    LABELLED,
    SCENES,
    TABLES,
    Contender,
    Table,
)
from sightline.recipes.run import Outcome
from sightline.recipes.series import SeriesRun, make_all, train_whole
from sightline.tasks.model import load

logger = logging.getLogger(__name__)

FORMAT, FORMAT_VERSION = "sightline.comparison", 1


@dataclass(frozen=True)
class Finished:
    """One run with its scores."""

    name: str
    seed: int
    scores: Mapping[str, float]
    pictures: int
    minutes: float
    """Of training, the tower's run included."""


@dataclass(frozen=True)
class _Budget:
    """What all runs of one call share."""

    table: Table
    out: Path
    steps: int | None

    def train(self, contender: Contender, seed: int, folder: Path) -> Outcome:
        """One run of a recipe."""
        settings = contender.chosen(self.table.shared, self.out / "data", seed, self.steps)
        return train_whole(contender.recipe, settings, folder)

    def make(self, contender: Contender, seed: int, folder: Path) -> dict[str, Any]:
        """Train a contender, and what stands before it, and score its model."""
        minutes, settings = 0.0, dict(contender.settings)
        if contender.tower is not None:
            first = self.train(contender.tower, seed, folder / "tower")
            minutes, settings["init_image"] = first.summary.hours * 60, str(first.model)
        if self.table.codec is not None:
            codec = self.train(self.table.codec, 0, self.out / "codec")
            settings["codec"] = str(codec.model)
        outcome = self.train(replace(contender, settings=settings), seed, folder)
        model = load(outcome.model, device="cpu", dtype="float32")
        minutes += outcome.summary.hours * 60
        scores = self.table.scores(model, contender)
        return asdict(Finished(contender.name, seed, scores, outcome.summary.pictures, minutes))


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
        KeyboardInterrupt: stopped by a signal; a further call goes on.
    """
    contenders = _chosen(table, only)
    _check_folder(out, table, steps)
    _draw(out / "data", TABLES[table], None if steps is None else steps * BATCH)
    budget = _Budget(TABLES[table], out, steps)
    runs = [
        SeriesRun(
            f"{contender.name}, seed {seed}",
            out / f"{_slug(contender.name)}-{seed}",
            partial(budget.make, contender, seed),
        )
        for seed in range(seeds)
        for contender in contenders
    ]
    make_all(runs, progress)
    finished = _finished(table, out)
    (out / "table.md").write_text(as_markdown(finished, TABLES[table]), encoding="utf-8")
    return finished


def _chosen(table: str, only: Sequence[str]) -> list[Contender]:
    if table not in TABLES:
        raise ConfigError(unknown_name("table", table, TABLES))
    names = {contender.name: contender for contender in TABLES[table].contenders}
    for name in only:
        if name not in names:
            raise ConfigError(unknown_name("contender", name, names))
    return [names[name] for name in only] or list(names.values())


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


def _draw(folder: Path, table: Table, most: int | None) -> None:
    """The drawings that runs of the table learn from, made once."""
    drawings: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("scenes", SCENES, {}),
        ("labelled", LABELLED, {"objects": 1}),
        ("shapes", SCENES, {"shapes": SHAPES}),
    )
    needed = " ".join(DATA[contender.data] for contender in table.contenders)
    for name, count, kind in drawings:
        if f"/{name}" in needed and not (folder / name).is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            logger.info("drawing %s", name)
            count = min(count, max(100, most or count))
            write(ParkScenes("train", 0, count, **kind), folder / name)


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _finished(table: str, out: Path) -> list[Finished]:
    found = []
    for contender in TABLES[table].contenders:
        for path in sorted(out.glob(f"{_slug(contender.name)}-[0-9]*/scores.json")):
            found.append(Finished(**json.loads(path.read_text(encoding="utf-8"))))
    return found


def as_markdown(finished: Sequence[Finished], table: Table) -> str:
    """One row for each contender: mean over its seeds, and the lowest and highest."""
    lines = [
        "| system | seeds | " + " | ".join(table.columns.values()) + " | pictures | minutes |",
        "| --- | --- | " + " | ".join("---" for _ in table.columns) + " | --- | --- |",
    ]
    for contender in table.contenders:
        runs = [run for run in finished if run.name == contender.name]
        if not runs:
            continue
        cells = [_spread([run.scores[column] for run in runs]) for column in table.columns]
        name = contender.name + (f" ({contender.note})" if contender.note else "")
        minutes = mean(run.minutes for run in runs)
        cells += [f"{runs[0].pictures:,}", f"{minutes:.1f}"]
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    text = f"{mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f} to {max(values):.3f})"
