"""The HTML report of a run: cost, before and after, curves, then pictures with their answers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ImageError
from sightline.evaluation.embedding_map import embedding_map
from sightline.evaluation.figures import embedding_figure, similarity_figure
from sightline.inputs.images import read_image
from sightline.recipes.settings import RunSettings, settings_of
from sightline.tasks.abilities import closed_labels
from sightline.tasks.report import Report
from sightline.tasks.sheets import SheetItem

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from sightline.data.records import Record
    from sightline.recipes.run import Plan
    from sightline.tasks.model import Model
    from sightline.training.cost import RunSummary

MATRIX = 8
"""Pictures in the similarity matrix."""
ANSWERS = 24
"""Test pictures that a classifier answers about."""
MAP = 200
"""Pictures on the map."""


def write_report(
    out: Path,
    recipe: RunSettings,
    plan: Plan,
    summary: RunSummary,
    scores: tuple[Mapping[str, float], Mapping[str, float]],
    model: Model,
) -> Path:
    """Write `out/report.html` about the model that was kept; returns its path.

    Args:
        scores: on the test data, before the first step and of the model.
    """
    before, after = scores
    report = Report(f"{plan.start.system.name} on {plan.test.name}", str(plan.start.system.title))
    report.facts(_facts(summary, plan))
    report.section(
        "Before and after", "Scores on pictures that took no part in training and chose nothing."
    )
    rows = [[name, before.get(name), after.get(name)] for name in after]
    report.table(["score", "before", "after"], rows)
    curves = out / "curves.png"
    if curves.is_file():
        report.section("Curves").picture(curves.read_bytes())
    if plan.show is not None:
        plan.show(report, model)
    else:
        (_answers if closed_labels(model) else _pictures)(report, model, plan)
        labels = "" if closed_labels(model) else " --labels a,b"
        report.section("Use it").code(
            f"sightline classify FILE{labels} --model {model.folder}\n"
            f"sightline.load({str(model.folder)!r}).embed_images(files)"
        )
    settings = settings_of(recipe)
    report.section("Settings").table(
        ["setting", "value"], [[k, str(v)] for k, v in settings.items()]
    )
    path = out / "report.html"
    report.write(path)
    return path


def _facts(summary: RunSummary, plan: Plan) -> dict[str, Any]:
    parameters = sum(p.numel() for p in plan.start.network.parameters())
    return {
        "parameters": f"{parameters / 1e6:.2f} M",
        "steps": summary.steps,
        "pictures": summary.pictures,
        "pictures a step": f"{summary.pictures / max(1, summary.steps):.4g}",
        "time": f"{60 * summary.hours:.1f} min",
        "arithmetic": _arithmetic(summary.flops),
        "peak memory": f"{summary.peak_memory_bytes / 2**30:.2f} GiB",
    }


def _arithmetic(flops: float) -> str:
    """Three digits with the unit that fits: 1.98 TFLOP."""
    units = {"EFLOP": 1e18, "PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9}
    unit = next((name for name, size in units.items() if flops >= size), "GFLOP")
    return f"{flops / units[unit]:.3g} {unit}"


def _pictures(report: Report, model: Model, plan: Plan) -> None:
    records, images = _readable([r for r in plan.test if r.captions], MAP)
    if len(records) < 2:
        return
    captions = [record.captions[0] for record in records]
    chosen = _distinct(captions, MATRIX)
    scores = model.similarity([images[i] for i in chosen], [captions[i] for i in chosen])
    report.section(
        "Similarity", "The logit of each picture with each caption; the frame is the best."
    )
    matrix = similarity_figure(scores, [captions[i] for i in chosen], [images[i] for i in chosen])
    report.picture(_png(matrix))
    places = embedding_map(model.embed_images(images), model.embed_texts(captions))
    report.section("Map", "Pictures and captions in the shared space.")
    labels = [record.label or "picture" for record in records]
    report.picture(_png(embedding_figure(places, labels, labels)))


def _answers(report: Report, model: Model, plan: Plan) -> None:
    """What a classifier says about some of the test pictures."""
    records, images = _readable([r for r in plan.test if r.label is not None], ANSWERS)
    answers = [found[0] for found in model.classify(images)]
    items = [
        SheetItem(image, f"{answer.label}, true: {record.label}", answer.score)
        for record, image, answer in zip(records, images, answers, strict=True)
    ]
    right = [a.label == r.label for a, r in zip(answers, records, strict=True)]
    report.section("Answers", "The best label of each picture, and the true one.")
    report.gallery(items, right)


def _readable(records: Sequence[Record], count: int) -> tuple[list[Record], list[np.ndarray]]:
    kept: list[Record] = []
    images: list[np.ndarray] = []
    for record in records:
        if len(kept) == count:
            break
        try:
            images.append(read_image(record.image))
        except ImageError:  # counted by the evaluation already
            continue
        kept.append(record)
    return kept, images


def _distinct(captions: Sequence[str], count: int) -> list[int]:
    first = {caption: index for index, caption in reversed(list(enumerate(captions)))}
    return sorted(first.values())[:count]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    return buffer.getvalue()
