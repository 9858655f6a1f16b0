"""One mutant a process: forked from one that has imported everything but this library.

The mutated text takes the place of the file's own when the file is imported, so that import hooks
(jaxtyping's checks of shapes) see it as they see any other.
"""

import contextlib
import gc
import importlib
import importlib.machinery
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.lines import Lines, single_threaded
from tests.mutation.planting import PACKAGE, ROOT, Mutant

PATIENCE = (20.0, 5.0)
"""Seconds of a core, and times the tests' own, after which a mutant's process is ended."""
SLEEPING = 20
"""How many times as long it may take by the clock on the wall."""
MEMORY = 6 * 2**30
"""Bytes that a mutant may ask for."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    caught: bool
    by: str
    """The test that failed, or what else ended it."""
    tests: int
    """How many execute its lines, within the budget."""
    seconds: float


def prepare(modules: Iterable[str]) -> None:
    """Import what the tests will import, once for all trials."""
    os.environ.update(single_threaded())  # before torch starts threads, which no fork survives
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            with contextlib.suppress(Exception):  # a few refuse to be imported on their own
                importlib.import_module(name)
    import hypothesis

    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
    hypothesis.settings.load_profile("mutants")
    gc.freeze()  # what all share needs no collector in any of them


def within(tests: list[str], lines: Lines, budget: float) -> list[str]:
    """The tests from the first on that take no longer than the budget together."""
    chosen: list[str] = []
    for test in tests:
        budget -= lines.seconds[test]
        if budget < 0 and chosen:
            break
        chosen.append(test)
    return chosen


def trials(
    mutants: Iterable[Mutant], lines: Lines, budget: float, jobs: int
) -> Iterator[tuple[Mutant, Outcome]]:
    """Each mutant with what became of it, as they end.

    First the tests of one file, since importing all files takes longer than most tests; then the
    rest in another process.
    """
    waiting = [(mutant, _parts(mutant, lines, budget), 0.0) for mutant in mutants][::-1]
    running: dict[int, tuple[_Trial, list[list[str]], float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, (tests, *rest), before = waiting.pop()
            if not tests:
                yield mutant, Outcome(False, "", 0, 0.0)
                continue
            trial = _Trial(mutant, tests, sum(lines.seconds[test] for test in tests))
            running[trial.pipe] = trial, rest, before
        ready, _, _ = select.select(list(running), [], [], 0.2)
        for pipe in list(running):
            if pipe not in ready and not running[pipe][0].late():
                continue
            trial, rest, before = running.pop(pipe)
            outcome = trial.end(pipe in ready)
            took = round(before + outcome.seconds, 2)
            if rest and not outcome.caught:
                waiting.append((trial.mutant, rest, took))
            else:
                count = len(
                    within(lines.tests(trial.mutant.path, trial.mutant.lines), lines, budget)
                )
                yield trial.mutant, Outcome(outcome.caught, outcome.by, count, took)


def _parts(mutant: Mutant, lines: Lines, budget: float) -> list[list[str]]:
    """The tests of the room's file that executes the mutant most often, then those of others."""
    tests = within(lines.tests(mutant.path, mutant.lines), lines, budget)
    files = Counter(test.split("::")[0] for test in tests)
    if not files:
        return [[]]
    near = [name for name in files if f"/{mutant.room}/" in name] or list(files)
    best = max(near, key=lambda name: (files[name], name))
    parts = [
        [test for test in tests if (test.split("::")[0] == best) is own] for own in (True, False)
    ]
    return [part for part in parts if part]


def control(lines: Lines) -> None:
    """The tests in a forked process, with nothing planted.

    Raises:
        RuntimeError: one fails, so that its failures would say nothing.
    """
    nothing = Mutant("__init__.py", "", "", "", "", 1, "", None, (0, 0), "")
    trial = _Trial(nothing, list(lines.seconds), sum(lines.seconds.values()))
    while not select.select([trial.pipe], [], [], 1)[0] and not trial.late():
        pass
    outcome = trial.end(bool(select.select([trial.pipe], [], [], 0)[0]))
    if outcome.caught:
        raise RuntimeError(f"without a mutant: {outcome.by}")


class _Trial:
    """A process at work on one mutant."""

    def __init__(self, mutant: Mutant, tests: list[str], seconds: float) -> None:
        self.mutant = mutant
        self.begun = time.monotonic()
        self.limit = PATIENCE[0] + PATIENCE[1] * seconds
        sys.stdout.flush()
        sys.stderr.flush()
        self.pipe, writing = os.pipe()
        self.process = os.fork()
        if not self.process:
            _child(mutant, tests, writing, self.limit)
        os.close(writing)

    def late(self) -> bool:
        """Whether it sleeps: what works ends by its own limit, however slow the machine is."""
        return time.monotonic() - self.begun > SLEEPING * self.limit

    def end(self, spoke: bool) -> Outcome:
        """The outcome, once the process has spoken, died or slept too long."""
        said = os.read(self.pipe, 65536).decode() if spoke else ""
        took = time.monotonic() - self.begun
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.pipe)
        answer = json.loads(said or '{"by": "the end of its process"}')
        if "trouble" in answer:
            raise RuntimeError(f"the tests did not run for {self.mutant}:\n{answer['trouble']}")
        return Outcome(bool(answer["by"]), answer["by"], 0, took)


class _First:
    """Keeps the wanted tests, in their order; tells of the first failure before it is described."""

    def __init__(self, tests: list[str], tell: Callable[[str], None]) -> None:
        self.place = {test: place for place, test in enumerate(tests)}
        self.tell = tell

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.place),
            key=lambda item: self.place[item.nodeid],
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell(f"importing {report.nodeid}")


def _child(mutant: Mutant, tests: list[str], writing: int, seconds: float) -> None:
    """Runs the tests, says the outcome and ends; never returns."""

    def answer(**words: str) -> None:
        os.write(writing, json.dumps(words).encode())
        os._exit(0)

    try:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        _limit(seconds)
        sys.dont_write_bytecode = False  # of what is not mutated
        plant(mutant)
        _run(tests, lambda failed: answer(by=failed))
        answer(by="")
    except BaseException:
        answer(trouble=traceback.format_exc()[-4000:])


def _run(tests: list[str], tell: Callable[[str], None]) -> None:
    """The tests in their order, or a RuntimeError where they did not run."""
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    options = ["--tb=no", "--timeout=0", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of hypothesis, imported before
    os.chdir(ROOT)
    status = pytest.main([*options, *files], plugins=[_First(tests, tell)])
    if status != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest ended with {status!r}")


def plant(mutant: Mutant) -> None:
    """From now on, importing the file gives the mutant."""
    assert "sightline" not in sys.modules, "the file may have been imported already"
    target, text = str(PACKAGE / mutant.path), mutant.planted()
    loader = importlib.machinery.SourceFileLoader
    read, stats = loader.get_data, loader.path_stats

    def get_data(self: Any, path: str) -> bytes:
        return text if path == target else read(self, path)

    def path_stats(self: Any, path: str) -> Any:
        if path == target:
            raise OSError("no compiled file is as new as the mutant")
        return stats(self, path)

    loader.get_data, loader.path_stats = get_data, path_stats  # type: ignore[method-assign]


def _limit(seconds: float) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
