"""Which tests execute which lines, and how long each takes: one run of the tests under coverage.

    python -m tests.mutation.lines FILE TESTS...

A fixture that several tests share runs in the first of them alone; its lines count for all.
"""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutation.planting import PACKAGE, ROOT


@dataclass(frozen=True)
class Lines:
    """What one run of the unchanged tests saw."""

    seconds: dict[str, float]
    """Of each test that passed."""
    executed: dict[str, dict[str, list[str]]]
    """File below the package, line (JSON has no other keys than words), tests."""
    modules: list[str]
    """What was imported from elsewhere, in that order."""

    def tests(self, path: str, lines: tuple[int, int] | None) -> list[str]:
        """Those that execute one of the lines, or any of the file, the quickest first."""
        rows = self.executed.get(path, {})
        found = {
            test
            for row, tests in rows.items()
            if lines is None or lines[0] <= int(row) <= lines[1]
            for test in tests
        }
        return sorted(found & set(self.seconds), key=lambda test: (self.seconds[test], test))


def measured(file: Path, tests: Sequence[str]) -> Lines:
    """The lines in `file`, or those of a run now."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.mutation.lines", str(file), *tests]
        subprocess.run(command, cwd=ROOT, check=True, env=single_threaded())
    return Lines(**json.loads(file.read_text()))


def single_threaded() -> dict[str, str]:
    """The environment of every process that runs tests; two at a time have a core each."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class _Watch:
    """Gives every test, and every shared fixture, its own context."""

    def __init__(self, watched: coverage.Coverage) -> None:
        self.watched = watched
        self.context = ""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.users: defaultdict[str, set[str]] = defaultdict(set)
        """Context of a shared fixture to the tests that use it."""

    def _switch(self, context: str) -> str:
        before, self.context = self.context, context
        self.watched.switch_context(context)
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        begun, before = time.perf_counter(), self._switch(item.nodeid)
        result = yield
        self._switch(before)
        self.seconds[item.nodeid] += time.perf_counter() - begun
        for definitions in getattr(item, "_fixtureinfo").name2fixturedefs.values():  # noqa: B009
            for fixture in definitions:
                self.users[_fixture(fixture)].add(item.nodeid)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        before = self._switch(_fixture(fixturedef))
        result = yield
        self._switch(before)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)


def _fixture(definition: Any) -> str:
    return f"fixture {definition.baseid} {definition.argname}"


def _run(file: Path, tests: list[str]) -> int:
    watched = coverage.Coverage(data_file=None, config_file=False, source_dirs=[str(PACKAGE)])
    watch = _Watch(watched)
    known = set(sys.modules)
    with watched.collect():
        pytest.main(["-p", "no:cacheprovider", *tests], plugins=[watch])
    modules = [name for name in sys.modules if _from_elsewhere(name) and name not in known]
    seconds = {test: took for test, took in watch.seconds.items() if test not in watch.failed}
    executed: dict[str, dict[str, list[str]]] = {}
    data = watched.get_data()
    for name in data.measured_files():
        rows = executed.setdefault(Path(name).relative_to(PACKAGE).as_posix(), {})
        for line, contexts in data.contexts_by_lineno(name).items():
            running = {test for each in contexts for test in watch.users.get(each, {each})}
            if running & set(seconds):
                rows[str(line)] = sorted(running & set(seconds))
    lines = Lines(seconds, executed, modules)
    file.write_text(json.dumps(asdict(lines)))
    print(f"{len(seconds)} tests pass in {sum(seconds.values()):.0f} s; without: {watch.failed}")
    return 0


def _from_elsewhere(name: str) -> bool:
    spec = getattr(sys.modules[name], "__spec__", None)
    own = name.split(".")[0] in ("sightline", "tests", "_pytest", "pytest", "__main__")
    return not own and spec is not None and spec.name == name and spec.origin is not None


if __name__ == "__main__":
    sys.exit(_run(Path(sys.argv[1]), sys.argv[2:]))
