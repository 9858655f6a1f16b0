"""SIGKILL at random moments: no checkpoint is unreadable, and the resumed run is the same run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.killed_runs", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_killed_at_write_events_leaves_readable_checkpoints_and_resumes_the_same_run(report):
    assert report["writes"] > 100, "the hook must see the writes"
    for number, killed, sound, outcome in report["at_writes"]:
        assert killed and sound, f"write {number}"
        assert outcome == report["whole"], f"write {number}"


def test_killed_twenty_times_at_random_moments_it_is_still_the_same_run(report):
    assert report["often_readable"]
    assert report["often_kills"] >= 10, "kills must have hit runs that were still going"
    assert report["often"] == report["long"]
