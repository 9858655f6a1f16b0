"""Measured answers as one HTML page: the numbers, and the pictures that went worst and best.

Worst are first those that the model answers better without the picture, best those that it only
answers with it: there the picture decided.
"""

from __future__ import annotations

from collections.abc import Sequence

from sightline.data.records import Dataset
from sightline.evaluation.answer_metrics import less_is_better
from sightline.evaluation.judged import BETTER
from sightline.evaluation.results import Metric, Result
from sightline.evaluation.samples import Sample
from sightline.tasks.report import Report
from sightline.tasks.sheets import SheetItem

TARGETS_SHOWN = 3
"""Different answers of people under a picture."""
_LONGEST = 300
"""Letters of an answer under a picture."""


def answer_page(result: Result, dataset: Dataset, count: int) -> Report:
    """The page.

    Args:
        result: of `evaluation.caption`, `vqa` and their kin.
        dataset: the records that were measured; the pictures that are shown are read again.
        count: pictures of each kind.
    """
    page = opened(result)
    answered = [sample for sample in result.samples if sample.status == "ok"]
    page.section("Worst", "Score and, where it was asked, what the words alone give.")
    _gallery(page, sorted(answered, key=_badness, reverse=True)[:count], dataset)
    page.section("Best")
    _gallery(page, sorted(answered, key=_badness)[:count], dataset)
    return page.section("Signature").code(result.signature)


def opened(result: Result) -> Report:
    """A page that holds what a result says in numbers, ready for its pictures."""
    partial = ", PARTIAL" if result.partial else ""
    page = Report(f"{result.task} on {result.data}", f"{result.model or 'a model'}{partial}")
    page.facts({result.headline: result.value, result.counted: result.n})
    if result.verdict:
        sees = result.verdict.startswith(BETTER)
        page.note(f"{result.verdict}.", "success" if sees else "warning")
    _numbers(page, result)
    return page


def _badness(sample: Sample) -> tuple[float, float]:
    score, blind = sample.score, sample.blind_score or 0.0
    return (score, -blind) if less_is_better(sample.kind) else (-score, blind)


def _numbers(page: Report, result: Result) -> None:
    page.section("Numbers")
    blind = result.groups.get("blind", {})
    measured = result.metrics.items()
    page.table(
        ("metric", "value", "95 %", "blind"),
        [(name, *_cells(m), _cells(blind.get(name))[0]) for name, m in measured],
    )
    counts = {
        "missing": result.n_missing,
        "cannot be asked": result.n_invalid,
        "unparsed answers": result.n_unparsed,
        "without a truth": result.n_excluded,
    }
    page.table(("left over", result.counted), list(counts.items()))
    for kind, group in result.groups.items():
        rows = [(name, *_cells(m), m.n) for name, m in group.items()]
        if kind != "blind":
            page.table((kind, "value", "95 %", "n"), rows, result.headline)


def _cells(metric: Metric | None) -> tuple[float | None, str]:
    if metric is None:
        return None, ""
    ends = metric.ci95
    return metric.value, "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _gallery(page: Report, samples: Sequence[Sample], dataset: Dataset) -> None:
    images = {record.id: record.image for record in dataset}
    page.gallery(
        SheetItem(images[sample.id], _caption(sample), sample.score)
        for sample in samples
        if sample.id in images
    )


def _caption(sample: Sample) -> str:
    """Question, answer, what the words alone give, and what people said, a line each."""
    people = list(dict.fromkeys(sample.target))
    more = f" and {len(people) - TARGETS_SHOWN} more" if len(people) > TARGETS_SHOWN else ""
    taken = sample.ranking[0][0] if sample.raw is None and sample.ranking else sample.raw
    choices = " / ".join(sample.choices) or None
    lines = [
        ("asked", sample.prompt), ("choices", choices), ("said", taken), ("blind", sample.blind),
        ("truth", " / ".join(people[:TARGETS_SHOWN]) + more),
    ]  # fmt: skip
    return "\n".join(f"{what}: {_short(text)}" for what, text in lines if text is not None)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
