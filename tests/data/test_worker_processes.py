"""Worker processes give what threads give, say what went wrong, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data import worker_processes
from sightline.data.loader import Loader
from sightline.data.shares import Share
from sightline.data.worker_processes import Processes
from sightline.data.workers import BATCHES_AHEAD
from tests.data import prepared

ROOT = Path(__file__).parents[2]
TWO = Processes(2)


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "available_cores", lambda: 2)


def make(transform: Any, workers: Any = TWO, **settings: Any) -> Loader[list[Any]]:
    settings = {"batch_size": 4, "seed": 5} | settings
    return Loader(range(30), list, transform=transform, workers=workers, **settings)


def test_batches_are_those_of_the_callers_thread_broken_pictures_included() -> None:
    one, other = make(prepared.noisy, 0), make(prepared.noisy)
    expected = list(islice(one, 20))  # three epochs
    assert list(islice(other, 20)) == expected
    assert other.skipped == one.skipped and len(one.skipped) == len(prepared.BROKEN)
    assert other.state_dict() == one.state_dict()


def test_samples_that_fill_the_pipe_are_drawn_ahead_all_the_same(tmp_path: Path) -> None:
    batches = iter(make(prepared.Large(tmp_path), Processes(1), shuffle=False))
    next(batches)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 4 * (1 + BATCHES_AHEAD):
        assert time.monotonic() < deadline, "the worker waits for somebody to take what it has"
        time.sleep(0.02)


def test_a_state_leads_on_and_a_share_takes_its_part() -> None:
    whole = list(islice(make(prepared.noisy, 0), 12))
    first = make(prepared.noisy)
    list(islice(first, 5))
    rest = make(prepared.noisy)
    rest.load_state_dict(first.state_dict())
    assert list(islice(rest, 7)) == whole[5:]
    ranks = [
        list(make(unchanged, Processes(1), epochs=1, share=Share(rank, 2, lambda own: [own])))
        for rank in range(2)
    ]
    alone = list(make(unchanged, 0, epochs=1))
    assert [a + b for a, b in zip(*ranks, strict=True)] == alone


def unchanged(value: int, generator: Any) -> int:
    return value


def test_all_processes_work_and_end_with_the_iteration() -> None:
    iterator = iter(make(prepared.with_process, batch_size=8))
    batch = next(iterator)
    processes = {process for _, process in batch}
    assert len(processes) == 2 and os.getpid() not in processes
    iterator.close()  # type: ignore[attr-defined]
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_an_error_of_the_transform_is_the_callers_with_its_trace() -> None:
    with pytest.raises(KeyError, match="colour") as raised:
        list(make(prepared.failing, Processes(1), shuffle=False, epochs=1))
    notes = "\n".join(raised.value.__notes__)
    assert "while loading sample 5 of the data set" in notes
    assert "in a worker process of the loader:\nTraceback" in notes and "prepared.py" in notes
    loader = Loader(
        range(6, 12), list, 3, transform=prepared.failing, workers=Processes(1), shuffle=False
    )
    with pytest.raises(RuntimeError, match="OwnError: 1 and 2"):
        next(iter(loader))


def test_a_sample_that_cannot_travel_is_an_error_and_no_silence() -> None:
    with pytest.raises(Exception, match="pickle"):
        next(iter(make(prepared.unsendable, Processes(1))))


def test_a_killed_process_is_noticed() -> None:
    with pytest.raises(DataError, match=r"ended \(exit code -9\): it was killed, perhaps for wa"):
        next(iter(make(prepared.deadly)))


def test_what_cannot_be_given_to_a_process_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be given the data set and the transform \(.*\)"):
        next(iter(make(lambda value, generator: value)))
    with pytest.raises(ConfigError, match="worker processes must be a whole number from 1 on, g"):
        Processes(0)


def test_broken_pictures_keep_their_code_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("cut off", "image_truncated")))
    assert (str(error), error.code) == ("cut off", "image_truncated")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends processes otherwise")
def test_workers_of_a_killed_program_end_too() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.data.prepared"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
    )  # fmt: skip
    assert program.stdout is not None
    workers = [int(number) for number in program.stdout.readline().split()]
    assert workers, "the program did not start"
    program.kill()
    program.wait()
    program.stdout.close()
    deadline = time.monotonic() + 20
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "orphans are left"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether a process runs; a zombie, which ended and was not asked about, does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
