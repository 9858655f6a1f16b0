"""`sightline sweep RECIPE`: one recipe over a grid of settings, judged by what is held out.

    sightline sweep siglip --data FOLDER --out DIR --grid lr=1e-4,3e-4,1e-3 --grid epochs=1,3

Every combination is a run in a folder of its own under DIR, made once; the command goes on where it
stopped, and a grid may grow. PaliGemma is moved to a new task so: learning rate, epochs and
resolution, chosen by a held-out score (Beyer et al. 2024, arXiv:2407.07726, section 3.2.4).

Rows stand in the order of the score on validation data, which each run also chooses its checkpoint
by. The test score stands beside it and decides nothing: whoever chooses the best of many runs by a
score reports that score too high.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from sightline.core.errors import ConfigError, TrainingError
from sightline.core.files import write_json
from sightline.recipes.series import SeriesRun, make_all, train_whole
from sightline.recipes.settings import override, parse_assignments, settings_of
from sightline.training.settings import as_json, changes

FORMAT, FORMAT_VERSION = "sightline.sweep", 1
TABLE = "table.json"
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+=")
"""Characters of settings that every file system takes in a name."""
LONGEST = 120
"""Characters of a folder's name."""

Grid = Mapping[str, Sequence[str]]
"""Settings and the values that each of them takes, as text."""


@dataclass(frozen=True)
class SweptRun:
    """One finished run."""

    seed: int
    held_out: float
    """The best score on validation data."""
    test: Mapping[str, float]
    """Of the checkpoint that had it."""
    steps: int
    pictures: int
    minutes: float
    model: str
    """Its folder, from the sweep's own on."""


@dataclass(frozen=True)
class Row:
    """One combination of the grid, with its finished runs."""

    settings: Mapping[str, Any]
    runs: tuple[SweptRun, ...]

    @property
    def held_out(self) -> float:
        """Mean over the seeds."""
        return mean(run.held_out for run in self.runs)

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest."""
        scores = [run.held_out for run in self.runs]
        return min(scores), max(scores)

    @property
    def test(self) -> dict[str, float]:
        """Means over the seeds, of scores that all have: what is held out may differ."""
        names = [n for n in self.runs[0].test if all(n in run.test for run in self.runs)]
        return {name: mean(run.test[name] for run in self.runs) for name in names}

    @property
    def best(self) -> SweptRun:
        """The run with the best held-out score."""
        return max(self.runs, key=lambda run: run.held_out)

    def to_json(self) -> dict[str, Any]:
        """For the table."""
        return {
            "settings": dict(self.settings),
            "held_out": self.held_out,
            "spread": list(self.spread),
            "test": self.test,
            "runs": [asdict(run) for run in self.runs],
        }


@dataclass(frozen=True)
class Sweep:
    """What a sweep found."""

    recipe: str
    grid: Mapping[str, Sequence[Any]]
    score: str
    """Name of the score that decides."""
    rows: tuple[Row, ...]
    """Best held-out score first; combinations without a finished run are left out."""
    failed: Mapping[str, Exception]
    """Runs by name."""

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "recipe": self.recipe,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "score": self.score,
            "rows": [row.to_json() for row in self.rows],
            "failed": {name: str(error) for name, error in self.failed.items()},
        }


@dataclass(frozen=True)
class _Point:
    """One run to be made."""

    settings: Mapping[str, Any]
    recipe: Any

    @property
    def name(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._facts())

    def folder(self, out: Path) -> Path:
        """The same for equal settings, however they were written."""
        words = [f"{name}={value}" for name, value in self._facts()]
        safe = "_".join("".join(c if c in SAFE else "-" for c in w) for w in words)
        if safe != "_".join(words) or len(safe) > LONGEST:  # another may become the same
            digest = hashlib.sha256("_".join(words).encode()).hexdigest()[:8]
            safe = f"{safe[:LONGEST]}_{digest}"
        return out / safe

    def _facts(self) -> Iterator[tuple[str, Any]]:
        yield from self.settings.items()
        yield "seed", self.recipe.seed


def parse_grid(assignments: Sequence[str]) -> dict[str, list[str]]:
    """["lr=1e-5,3e-5", ...] to {"lr": ["1e-5", "3e-5"]}.

    Raises:
        ConfigError: no equals sign, no value, or a key given twice.
    """
    grid = {}
    for name, text in parse_assignments(assignments, "--grid").items():
        grid[name] = [value.strip() for value in text.split(",")]
        if not all(grid[name]):
            raise ConfigError(f"--grid {name}={text}: write values parted by commas, such as 1,3")
    return grid


def sweep(
    name: str,
    recipe: Any,
    grid: Grid,
    out: str | Path,
    seeds: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Make every run of a grid that is not finished, and the table, figure and report of all.

    Args:
        name: of the recipe, as `sightline train` has it.
        recipe: the settings that all runs share; its seed is the first one.
        seeds: runs of each combination.
        progress: called with runs done and their number.

    Raises:
        ConfigError: a grid that the recipe does not take, or a folder that holds another sweep.
        KeyboardInterrupt: stopped by a signal; a further call goes on.
    """
    from sightline.recipes.sweep_report import write_sweep_report

    out = Path(out)
    points = _points(recipe, grid, seeds)
    _check_folder(out, name, recipe)
    runs = [
        SeriesRun(point.name, point.folder(out), partial(_make, name, point, out))
        for point in points
    ]
    failed: dict[str, Exception] = {}

    def table() -> Sweep:
        found = _table(name, points, runs, failed)
        write_json(out / TABLE, found.to_json())
        return found

    def done(number: int, total: int) -> None:
        table()  # what is finished is told even if the next run is killed
        if progress is not None:
            progress(number, total)

    make_all(runs, done, lambda run, error: failed.update({run.name: error}))
    found = table()
    write_sweep_report(found, out)
    return found


def _points(recipe: Any, grid: Grid, seeds: int) -> list[_Point]:
    """Every run of a grid, its settings read and checked before the first one begins."""
    if not grid:
        raise ConfigError("a sweep needs settings that vary: give --grid lr=1e-5,3e-5")
    if "seed" in grid:
        raise ConfigError("seeds are no setting to choose by: leave seed out and give --seeds N")
    points: list[_Point] = []
    for values in product(*grid.values()):
        chosen = override(recipe, dict(zip(grid, values, strict=True)))
        if "epochs" in grid and chosen.steps is not None:
            raise ConfigError(
                f"epochs mean nothing beside steps={chosen.steps}: add --set steps=none"
            )
        settings = {
            key: as_json(getattr(chosen, key, _number(text)))
            for key, text in zip(grid, values, strict=True)
        }
        if any(point.settings == settings for point in points):
            raise ConfigError(f"the grid has {settings} twice: give every value once")
        points += [
            _Point(settings, override(chosen, {"seed": str(recipe.seed + number)}))
            for number in range(seeds)
        ]
    return points


def _number(text: str) -> float | str:
    """The value of a setting that is no field of its own (`transfer.lr`), by the looks of it."""
    try:
        return float(text)
    except ValueError:
        return text


def _check_folder(out: Path, name: str, recipe: Any) -> None:
    """Runs of one recipe with the same settings beside the grid's share a folder."""
    path = out / "sweep.json"
    own = {
        "format": FORMAT, "version": FORMAT_VERSION, "recipe": name,
        "settings": as_json({**settings_of(recipe), "seed": None}),
    }  # fmt: skip
    if path.is_file():
        lines = changes(json.loads(path.read_text(encoding="utf-8")), own)
        if lines:
            raise ConfigError(
                f"{out} holds another sweep:\n" + "\n".join(lines) + "\nchoose another folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, own)


def _make(name: str, point: _Point, out: Path, folder: Path) -> dict[str, Any]:
    outcome = train_whole(name, point.recipe, folder)
    summary = outcome.summary
    if summary.best_score is None:
        raise TrainingError(f"{point.name} has no score on held-out data to be compared by")
    run = SweptRun(
        point.recipe.seed, summary.best_score, dict(outcome.after), summary.steps,
        summary.pictures, 60 * summary.hours, os.path.relpath(outcome.model, out),
    )  # fmt: skip
    return asdict(run)


def _table(
    name: str, points: Sequence[_Point], runs: Sequence[SeriesRun], failed: Mapping[str, Exception]
) -> Sweep:
    rows: dict[str, tuple[Mapping[str, Any], list[SweptRun]]] = {}
    grid: dict[str, list[Any]] = {key: [] for key in points[0].settings}
    for point, run in zip(points, runs, strict=True):
        _, found = rows.setdefault(json.dumps(point.settings), (point.settings, []))
        kept = run.finished
        if kept is not None:
            found.append(SweptRun(**kept))
        for key, value in point.settings.items():
            if value not in grid[key]:
                grid[key].append(value)
    finished = [Row(settings, tuple(found)) for settings, found in rows.values() if found]
    finished.sort(key=lambda row: -row.held_out)
    score = next(iter(finished[0].test), "") if finished else ""
    return Sweep(name, grid, score, tuple(finished), failed)
