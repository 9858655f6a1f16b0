"""Which tests execute which lines, and how long each takes: one run of the tests under coverage.

    python -m tests.mutation.lines FILE TESTS...

A fixture that several tests share runs in the first of them alone; its lines count for all.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
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

    def of(self, file: str) -> "Lines":
        """What the tests of one file saw."""
        own = {test: took for test, took in self.seconds.items() if test.split("::")[0] == file}
        executed = {
            path: {row: [test for test in tests if test in own] for row, tests in rows.items()}
            for path, rows in self.executed.items()
        }
        return Lines(own, executed, self.modules)


def measured(folder: Path, tests: Iterable[str]) -> Lines:
    """The lines of files and folders of tests; those whose code and text are known are not run.

    Args:
        folder: where the lines of each file of tests are kept.
    """
    library = fingerprint(*(path.read_text() for path in sorted(PACKAGE.rglob("*.py"))))
    kept = {
        name: folder / f"lines-{fingerprint(library, name, (ROOT / name).read_text())}.json"
        for name in _files(tests)
    }
    missing = [name for name, file in kept.items() if not file.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.mutation.lines", str(folder / "lines.json")]
        subprocess.run([*command, *missing], cwd=ROOT, check=True, env=single_threaded())
        found = Lines(**json.loads((folder / "lines.json").read_text()))
        for name in missing:
            kept[name].write_text(json.dumps(asdict(found.of(name))))
    return _joined([Lines(**json.loads(file.read_text())) for file in kept.values()])


def _files(tests: Iterable[str]) -> list[str]:
    paths = [ROOT / each for each in tests]
    files = {
        file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path])
    }
    return sorted(file.relative_to(ROOT).as_posix() for file in files)


def _joined(parts: Iterable[Lines]) -> Lines:
    whole = Lines({}, {}, [])
    for part in parts:
        whole.seconds.update(part.seconds)
        whole.modules.extend(name for name in part.modules if name not in whole.modules)
        for path, rows in part.executed.items():
            for row, tests in rows.items():
                whole.executed.setdefault(path, {}).setdefault(row, []).extend(tests)
    return whole


def fingerprint(*words: str) -> str:
    """Short, and the same only for the same words."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


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
