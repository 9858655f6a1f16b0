"""Runs of recipes one after the other, each in a folder of its own: made once, and gone on with.

A finished run leaves a document in its folder. As long as there is none the run is made, and its
recipe goes on where an earlier call stopped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.core.files import write_json
from sightline.recipes.run import Outcome
from sightline.recipes.table import find_recipe

logger = logging.getLogger(__name__)

FINISHED = "scores.json"


@dataclass(frozen=True)
class SeriesRun:
    """One run of a series."""

    name: str
    """For people."""
    folder: Path
    make: Callable[[Path], Mapping[str, Any]]
    """Carries it out in the folder: the document that a finished run leaves."""

    @property
    def finished(self) -> dict[str, Any] | None:
        """What the run left; None where it has not come to its end."""
        path = self.folder / FINISHED
        if not path.is_file():
            return None
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document


def make_all(
    runs: Sequence[SeriesRun],
    progress: Callable[[int, int], None] | None = None,
    failed: Callable[[SeriesRun, Exception], None] | None = None,
) -> None:
    """Make every run that is not finished.

    Args:
        progress: called with runs done and their number, after each.
        failed: told of a run that ended with an error, after which the next one begins; None lets
            the error out.

    Raises:
        KeyboardInterrupt: a run was stopped by a signal; it is saved, and a further call goes on.
    """
    for number, run in enumerate(runs):
        try:
            if run.finished is None:
                logger.info("%s", run.name)
                write_json(run.folder / FINISHED, run.make(run.folder))
        except Exception as error:
            if failed is None:
                raise
            logger.debug("%s", run.name, exc_info=True)
            failed(run, error)
        if progress is not None:
            progress(number + 1, len(runs))


def train_whole(recipe: str, settings: Any, out: Path) -> Outcome:
    """Train by a recipe to its end.

    Raises:
        KeyboardInterrupt: a signal stopped it.
    """
    outcome: Outcome = find_recipe(recipe).run()(settings, out)
    if outcome.summary.stopped != "finished":
        raise KeyboardInterrupt
    return outcome
