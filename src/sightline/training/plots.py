"""The curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sightline.core.files import atomic_file
from sightline.core.lazy import require
from sightline.training.logs import read_log


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss (raw and smoothed) and scores over the steps of a log, as PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    # objects, not pyplot: no global state, no window, no backend to choose
    figures = require("matplotlib.figure", "train", "drawing curves")
    backend = require("matplotlib.backends.backend_agg", "train", "drawing curves")
    lines = read_log(log)
    losses = [
        (x["step"], x["loss"]) for x in lines if x["kind"] == "step" and x["loss"] is not None
    ]
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        if line["kind"] == "eval":
            for name, value in line["scores"].items():
                if isinstance(value, int | float):
                    curves.setdefault(name, []).append((line["step"], value))
    figure = figures.Figure(figsize=(8, 7 if curves else 4), layout="constrained")
    backend.FigureCanvasAgg(figure)
    panels = figure.subplots(2 if curves else 1, 1, sharex=True, squeeze=False)[:, 0]
    steps, values = [s for s, _ in losses], [v for _, v in losses]
    panels[0].plot(steps, values, color="tab:blue", alpha=0.25, linewidth=0.8, label="loss")
    panels[0].plot(steps, smoothed(values), color="tab:blue", label="smoothed")
    panels[0].set_ylabel("loss")
    for name, points in curves.items():
        panels[1].plot(*zip(*points, strict=True), marker=".", label=name)
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend()
    panels[-1].set_xlabel("step")
    with atomic_file(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def smoothed(values: Sequence[float], span: int | None = None) -> list[float]:
    """An exponential mean over about `span` values, by default a fiftieth of them.

    Divided by the weight given out so far (Kingma and Ba 2015, section 3), so the beginning is
    not pulled towards zero.
    """
    keep = 1 - 1 / (span or max(1, len(values) // 50))
    total = weight = 0.0
    means = []
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        means.append(total / weight)
    return means
