"""A sweep for people: one figure of the held-out scores, and a page with the table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import MissingDependencyError
from sightline.core.lazy import require
from sightline.evaluation.figures import write_png
from sightline.tasks.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sightline.recipes.sweep import Row, Sweep

logger = logging.getLogger(__name__)

FIGURE, PAGE = "sweep.png", "report.html"
FAR = 8.0
"""Largest value over smallest from which an axis is logarithmic."""
MOST_PANELS = 6


def columns_of(found: Sweep) -> list[str]:
    """Heads of the table."""
    tests = [f"test {name}" for name in _tests_of(found)]
    seeds = ["seeds"] if any(len(row.runs) > 1 for row in found.rows) else []
    return [*found.grid, f"held-out {found.score}", *tests, *seeds, "steps", "minutes"]


def _tests_of(found: Sweep) -> list[str]:
    return list(dict.fromkeys(name for row in found.rows for name in row.test))


def cells_of(found: Sweep) -> Iterator[list[str]]:
    """The rows of the table as text, best first."""
    several = any(len(row.runs) > 1 for row in found.rows)
    for row in found.rows:
        low, high = row.spread
        spread = f" ({low:.4f} to {high:.4f})" if low < high else ""
        minutes = sum(run.minutes for run in row.runs) / len(row.runs)
        yield [
            *(shown(row.settings[key]) for key in found.grid),
            f"{row.held_out:.4f}{spread}",
            *(f"{row.test[n]:.4f}" if n in row.test else "-" for n in _tests_of(found)),
            *([str(len(row.runs))] if several else []),
            str(row.best.steps),
            f"{minutes:.1f}",
        ]


def write_sweep_report(found: Sweep, out: Path) -> None:
    """Write the figure, where matplotlib is installed, and `report.html`."""
    report = Report(f"Sweep of {found.recipe}", "Best score on held-out data first.")
    report.section("Table").table(columns_of(found), cells_of(found))
    report.note(
        "Choose by the held-out score, and report the test score of the row that it chose: the "
        "best test score of many runs is better than any of them is."
    )
    for name, error in found.failed.items():
        report.note(f"{name}: {error}", "warning")
    if found.rows:
        try:
            write_png(sweep_figure(found), out / FIGURE, dpi=120)
            report.section("Figure").picture((out / FIGURE).read_bytes())
        except MissingDependencyError as error:
            logger.warning("%s was not drawn: %s", FIGURE, error)
        best = out / found.rows[0].best.model
        report.section("Use it").code(f"sightline.load({str(best)!r})")
    report.write(out / PAGE)


def sweep_figure(found: Sweep) -> Figure:
    """Held-out scores over the setting with the most values; a line for each value of the next,
    a panel for each combination of further ones. Bars go from the worst seed to the best.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    module = require("matplotlib.figure", "train", "drawing figures")
    across, line, rest = _axes_of(found)
    panels = _panels(found, rest)[:MOST_PANELS]
    figure: Figure = module.Figure(figsize=(1.6 + 4 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, rows) in zip(axes, panels, strict=True):
        _draw(axis, rows, found, across, line)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel(across)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"held-out {found.score}")
    return figure


def _axes_of(found: Sweep) -> tuple[str, str | None, list[str]]:
    """The setting across, that of the lines, and those of the panels."""
    names = sorted(found.grid, key=lambda n: (not _numeric(found.grid[n]), -len(found.grid[n])))
    varying = [n for n in names if len(found.grid[n]) > 1] or names
    return varying[0], (varying[1] if len(varying) > 1 else None), varying[2:]


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _panels(found: Sweep, names: Sequence[str]) -> list[tuple[str, list[Row]]]:
    panels = []
    for values in product(*(found.grid[name] for name in names)):
        wanted = dict(zip(names, values, strict=True))
        own = [row for row in found.rows if wanted.items() <= row.settings.items()]
        if own:
            panels.append((", ".join(f"{name} {shown(wanted[name])}" for name in names), own))
    return panels


def shown(value: Any) -> str:
    """A setting's value as a person writes it: 3 for 3.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _draw(axis: Axes, rows: Sequence[Row], found: Sweep, across: str, line: str | None) -> None:
    values = found.grid[across]
    numeric = _numeric(values)
    order = sorted(values) if numeric else values
    for value in [None] if line is None else found.grid[line]:
        own = [row for row in rows if line is None or row.settings[line] == value]
        own.sort(key=lambda row: order.index(row.settings[across]))
        places = [row.settings[across] if numeric else str(row.settings[across]) for row in own]
        scores = [row.held_out for row in own]
        low = [score - row.spread[0] for score, row in zip(scores, own, strict=True)]
        high = [row.spread[1] - score for score, row in zip(scores, own, strict=True)]
        axis.errorbar(places, scores, yerr=(low, high), marker="o", capsize=3,
                      label=f"{line} {shown(value)}" if line else None)  # fmt: skip
    if numeric and min(values) > 0 and max(values) / min(values) >= FAR:
        axis.set_xscale("log")
    if numeric:
        axis.set_xticks(values, labels=[shown(value) for value in values])
        axis.minorticks_off()
    if line is not None:
        axis.legend(fontsize="small")
