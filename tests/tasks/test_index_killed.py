"""SIGKILL while indexing, and two at once: the table is that of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.killed_indexing import PICTURES

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no SIGKILL and no fork on Windows")
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_index_goes_on_where_it_was(tmp_path: Path, kills: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.tasks.killed_indexing", str(tmp_path), str(kills)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["whole"]) == PICTURES
    assert report["killed"] >= kills * 0.6  # the others had finished before
    # The first of these was filled by two processes at once, the others by killed ones.
    assert len(report["after"]) == 1 + kills / 5
    assert all(after == report["whole"] for after in report["after"])
