"""How a pool of threads ends that a generator owns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


def dismiss(pool: ThreadPoolExecutor) -> None:
    """Drop what waits, and let the threads end once they have finished what they are at.

    Nobody waits for them: a generator that was left unfinished is ended by whoever collects
    garbage, which may be a thread in the middle of its own start. It holds a lock there without
    which no thread can be joined, and the program would stand still.
    """
    pool.shutdown(wait=False, cancel_futures=True)
