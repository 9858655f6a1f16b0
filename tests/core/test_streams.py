"""Pieces side by side: all of them, errors and modes as where they were asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from sightline.core import streams as module
from sightline.core.streams import side_by_side, streams


@pytest.fixture
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_piece_is_run_once_and_two_at_a_time(two_cores):
    together = threading.Barrier(2, timeout=20)
    seen = []

    def run(piece: int) -> None:
        together.wait()  # would break if one had to end before the other begins
        seen.append((piece, torch.get_num_threads()))

    side_by_side(run, range(6))
    assert sorted(piece for piece, _ in seen) == list(range(6))
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == 2  # here nothing has changed


@pytest.mark.parametrize("inference", [True, False])
def test_gradients_are_recorded_as_where_it_was_called(two_cores, inference):
    found = []

    def run(piece: int) -> None:
        found.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    with torch.inference_mode(inference):
        side_by_side(run, range(4))
    assert set(found) == {(inference, not inference)}
    found.clear()
    with torch.no_grad():
        side_by_side(run, range(4))
    assert set(found) == {(False, False)}


def test_an_error_arrives_when_all_have_ended(two_cores):
    ended = []

    def run(piece: int) -> None:
        if piece == 1:
            raise ValueError(f"piece {piece}")
        ended.append(piece)

    with pytest.raises(ValueError, match="piece 1"):
        side_by_side(run, range(4))
    assert sorted(ended) == [0, 2, 3]


def test_one_piece_and_one_core_take_no_thread(two_cores):
    here = threading.get_ident()
    where = []
    side_by_side(lambda piece: where.append(threading.get_ident()), [0])
    torch.set_num_threads(1)
    side_by_side(lambda piece: where.append(threading.get_ident()), [0, 1, 2])
    assert set(where) == {here} and len(where) == 4


def test_many_cores_are_shared_among_the_streams(two_cores):
    torch.set_num_threads(20)
    assert streams() == module.MOST == 8
    counts = set()
    side_by_side(lambda piece: counts.add(torch.get_num_threads()), range(16))
    assert counts == {2}


def test_calls_from_several_threads_do_not_meet(two_cores):
    def call(start: int) -> None:
        side_by_side(lambda piece: results[start].append(piece), range(start, start + 5))

    results: dict[int, list[int]] = {0: [], 10: [], 20: []}
    callers = [threading.Thread(target=call, args=(start,)) for start in results]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert all(sorted(found) == list(range(s, s + 5)) for s, found in results.items())


def test_it_is_imported_where_nothing_forks():
    code = "import os; del os.register_at_fork; import sightline.core.streams"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, about threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork there")
def test_a_forked_process_makes_threads_of_its_own(two_cores):
    side_by_side(lambda piece: None, [0, 1])
    assert module._pools
    child = os.fork()
    if child == 0:
        os._exit(1 if module._pools else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
