"""Runs of several phases, one after the other, that can be left and taken up again anywhere.

    OUT/1-alignment/  checkpoints/ log.jsonl report.html ... phase.json
    OUT/2-joint/      ...

A phase is done when its phase.json is there, which is written last. Whoever comes back skips what
is done, goes on inside the phase that is not, and starts the next one from the model that the one
before it left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sightline.core.errors import CheckpointError, ConfigError
from sightline.core.files import write_json
from sightline.recipes.run import Outcome, best_model
from sightline.training import distributed
from sightline.training.cost import RunSummary
from sightline.training.settings import as_json, refuse_changes

DONE = "phase.json"
FORMAT, VERSION = "sightline.phase", 1
_COUNTED = ("steps", "pictures", "hours", "flops")
_KEPT = (*_COUNTED, "loss", "best_score", "scores", "peak_memory_bytes")


@dataclass(frozen=True)
class Part:
    """One phase of a run."""

    name: str
    settings: Mapping[str, Any]
    """What must not change between a phase that is done and a rerun."""
    run: Callable[[Path | None, Path, float | None], Outcome]
    """The model to start from (None for the first phase), the phase's own folder, and the minutes
    that it may take."""


def carry_out_phases(
    parts: Sequence[Part], out: Path, minutes: float | None = None, next_from: str = "best"
) -> Outcome:
    """Run what is not done yet, and say how the whole run went.

    Args:
        minutes: for all phases together, earlier calls included.
        next_from: "best" or "last", the model of a phase that the next one starts from.

    Returns:
        Scores before the first phase and after the last one that ran, and the cost of all.

    Raises:
        ConfigError: a phase that is done had other settings.
        CheckpointError: a phase.json that cannot be read.
    """
    outcomes: list[Outcome] = []
    model: Path | None = None
    for number, part in enumerate(parts, start=1):
        folder = out / f"{number}-{part.name}"
        done = _read(folder, part)
        if done is None:
            spent = 60 * sum(outcome.summary.hours for outcome in outcomes)
            if minutes is not None and outcomes and spent >= minutes:
                last = outcomes[-1]
                outcomes[-1] = replace(last, summary=replace(last.summary, stopped="minutes"))
                break
            done = part.run(model, folder, None if minutes is None else minutes - spent)
            if done.summary.stopped == "finished":
                _write(folder, part, done)
        outcomes.append(done)
        if done.summary.stopped != "finished":
            break
        model = _left(folder, next_from)
    return _together(outcomes, out)


def _left(folder: Path, which: str) -> Path:
    """The model that a phase left."""
    return best_model(folder) if which == "best" else folder / "checkpoints" / "last" / "model"


def _write(folder: Path, part: Part, outcome: Outcome) -> None:
    summary = {name: getattr(outcome.summary, name) for name in _KEPT}
    document = {
        "format": FORMAT, "version": VERSION, "settings": as_json(part.settings),
        "summary": as_json(summary), "before": dict(outcome.before), "after": dict(outcome.after),
        "report": outcome.report.name,
    }  # fmt: skip
    distributed.first(lambda: write_json(folder / DONE, document))


def _read(folder: Path, part: Part) -> Outcome | None:
    """How a phase went that is done."""
    path = folder / DONE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r} instead of {FORMAT!r}")
        version, settings = int(document["version"]), document["settings"]
        summary, before, after = document["summary"], document["before"], document["after"]
        report = folder / document["report"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}): delete it, and the phase "
            "goes on from its checkpoints"
        ) from error
    if version > VERSION:
        raise CheckpointError(f"{path} has version {version}: install the newer Sightline")
    refuse_changes(settings, as_json(part.settings), folder)
    root = folder / "checkpoints"
    kept = RunSummary(
        **summary, stopped="finished", out=folder, checkpoint=root / "last", best=root / "best"
    )
    return Outcome(kept, before, after, best_model(folder), report)


def _together(outcomes: Sequence[Outcome], out: Path) -> Outcome:
    if not outcomes:
        raise ConfigError("a run needs at least one phase")
    first, last = outcomes[0], outcomes[-1]
    summaries = [outcome.summary for outcome in outcomes]
    counted = {name: sum(getattr(s, name) for s in summaries) for name in _COUNTED}
    peak = max(s.peak_memory_bytes for s in summaries)
    summary = replace(last.summary, **counted, peak_memory_bytes=peak, out=out)
    return replace(last, summary=summary, before=first.before)
