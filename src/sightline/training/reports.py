"""What a run tells while it goes: lines of the log, progress, curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from sightline.core.errors import MissingDependencyError
from sightline.training.accumulation import StepResult
from sightline.training.cost import Pace, RunSummary
from sightline.training.logs import RunLog
from sightline.training.options import LoopOptions, Progress
from sightline.training.plots import draw_curves
from sightline.training.snapshot import RunState

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_DRAWINGS = 30.0


class Reporter:
    """Writes the log, moves the progress, draws the curves."""

    def __init__(
        self, log: RunLog, options: LoopOptions, progress: Progress | None, total: int
    ) -> None:
        self.log, self.options, self.progress, self.total = log, options, progress, total
        self.pace = Pace()
        self.drawn = time.monotonic()

    def step(
        self, state: RunState, facts: Mapping[str, float | str], result: StepResult, seconds: float
    ) -> None:
        """Report one step, which the state already counts.

        Args:
            facts: what the line says of this step alone, and "grad_norm", which is averaged.
            seconds: what the step took.
        """
        window = state.window
        added = {**result.metrics, "loss": result.loss, "grad_norm": float(facts["grad_norm"])}
        added |= {"": 1, "pictures": result.pictures, "seconds": seconds}
        for name, value in added.items():
            window[name] = window.get(name, 0) + value
        self.pace.add(result.pictures, seconds)
        if self.progress is not None:
            left = (self.total - state.step) * self.pace.seconds_per_step
            rate = self.pace.pictures_per_second
            self.progress.update(state.step, self.total, result.loss, rate, left)
        if state.step % self.options.log_every == 0 or state.step == self.total:
            self._line(state, facts)

    def _line(self, state: RunState, facts: Mapping[str, float | str]) -> None:
        window = state.window
        count, pictures, seconds = (window.pop(key) for key in ("", "pictures", "seconds"))
        means = {name: value / count for name, value in window.items()}
        pace = {"pictures_per_second": round(pictures / max(seconds, 1e-9), 2)}
        self.log.write({"kind": "step", "step": state.step, **facts, **means, **pace})
        window.clear()

    def evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Report the scores after a step."""
        self.log.write({"kind": "eval", "step": step, "scores": scores})
        if time.monotonic() - self.drawn >= SECONDS_BETWEEN_DRAWINGS:
            self._draw()

    def end(self, summary: RunSummary) -> None:
        """Report the cost and draw the curves."""
        names = ("stopped", "hours", "flops", "pictures", "peak_memory_bytes")
        cost = {name: getattr(summary, name) for name in names}
        self.log.write({"kind": "end", "step": summary.steps, **cost})
        self._draw()

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        if not self.options.plot:
            return
        try:
            draw_curves(self.log.path, self.log.path.with_name("curves.png"))
        except (MissingDependencyError, OSError) as error:  # no reason to lose a run
            logger.warning("curves.png was not drawn: %s", error)


class Silence:
    """The reporter of every process but the first."""

    def step(
        self, state: RunState, facts: Mapping[str, float | str], result: StepResult, seconds: float
    ) -> None:
        """Report nothing."""

    def evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Report nothing."""

    def end(self, summary: RunSummary) -> None:
        """Report nothing."""
