"""Pieces of a batch side by side, each on its own core from beginning to end.

Torch parts every operation among the cores and waits for the slowest each time; where operations
are short, a quarter of the time is waiting. Here a thread of Python takes a piece through all of
them, and meets the others once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")
MOST = 8
"""Threads of Python that can be kept busy; each takes its share of further cores."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # nothing forks on Windows
    os.register_at_fork(after_in_child=_pools.clear)  # its threads stayed with the parent


def streams() -> int:
    """How many pieces are worth having at once: torch's threads, up to `MOST`."""
    import torch

    return min(torch.get_num_threads(), MOST)


def side_by_side(run: Callable[[Piece], object], pieces: Sequence[Piece]) -> None:
    """`run` on every piece; the first error is raised when all have ended.

    Gradients are recorded, or not, as where this was called. One piece, or one core, takes no
    thread.
    """
    import torch

    cores, count = torch.get_num_threads(), streams()
    if count == 1 or len(pieces) == 1:
        for piece in pieces:
            run(piece)
        return
    inference, learning = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work(piece: Piece) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(learning and not inference):
            run(piece)

    waiting = [_pool(count, cores // count).submit(work, piece) for piece in pieces]
    errors = [error for error in (future.exception() for future in waiting) if error is not None]
    if errors:
        raise errors[0]


def _pool(count: int, cores: int) -> ThreadPoolExecutor:
    """So many threads, each with so many of torch's own."""
    import torch

    with _lock:
        if (count, cores) not in _pools:
            ready = threading.Barrier(count + 1)

            def begin() -> None:
                torch.get_num_threads()  # a first call takes over the number of the process
                torch.set_num_threads(cores)  # of this thread, and of threads that begin later
                ready.wait()

            before = torch.get_num_threads()
            pool = ThreadPoolExecutor(count, thread_name_prefix="stream", initializer=begin)
            for _ in range(count):
                pool.submit(lambda: None)
            ready.wait()
            torch.set_num_threads(before)
            _pools[count, cores] = pool
        return _pools[count, cores]
