"""One sample of a data set, and threads that prepare samples in order.

The threads stay within the cores that torch leaves. `worker_processes` has the other way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from sightline.core.devices import available_cores
from sightline.core.errors import ImageError
from sightline.core.pools import dismiss

BATCHES_AHEAD = 2
SAMPLE = 1
"""Spawn key of the generators of samples; that of an epoch's order is another."""


class Drawn(NamedTuple):
    """What became of one sample: its number in the data set, and its value or the error."""

    number: int
    value: Any
    error: ImageError | None


@dataclass(frozen=True)
class Draw:
    """Epoch and number of a sample to the sample, decoded and transformed; runs in a worker."""

    dataset: Sequence[Any]
    transform: Callable[[Any, np.random.Generator], Any] | None
    seed: int

    def __call__(self, epoch: int, index: int) -> Drawn:
        """
        Raises:
            Exception: whatever the data set or the transform raises, except for broken pictures.
        """
        try:
            sample = self.dataset[index]
            if self.transform is not None:
                key = np.random.SeedSequence(self.seed, spawn_key=(SAMPLE, epoch, index))
                sample = self.transform(sample, np.random.default_rng(key))
        except ImageError as error:
            return Drawn(index, None, error)
        except Exception as error:
            error.add_note(f"while loading sample {index} of the data set")
            raise
        return Drawn(index, sample, None)


class Decoders(Protocol):
    """Workers that prepare samples in order; entered and left with an iteration."""

    def results(
        self, epoch: int, indices: np.ndarray, batch_size: int
    ) -> Callable[[int], Drawn]:  # fmt: skip
        """A function that gives the next result; its argument says how many are needed now."""
        ...


class ThreadDecoders:
    """Threads; none of them where `workers` is 0, and the caller's own works."""

    def __init__(self, draw: Draw, workers: int) -> None:
        self._draw = draw
        self._threads = min(workers, available_cores())
        self._ahead = 0
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> ThreadDecoders:
        if self._threads == 0:
            return self
        import torch

        torch_threads = torch.get_num_threads()
        if self._threads + torch_threads <= available_cores():
            self._ahead = BATCHES_AHEAD
        self._pool = ThreadPoolExecutor(
            self._threads, "sightline-loader", _one_torch_thread, (torch_threads,)
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            dismiss(self._pool)

    def results(self, epoch: int, indices: np.ndarray, batch_size: int) -> Callable[[int], Drawn]:
        """As `Decoders` says."""
        waiting = map(int, indices)  # lazily: an epoch may have many millions
        pool = self._pool
        if pool is None:
            return lambda needed: self._draw(epoch, next(waiting))
        pending: deque[Future[Drawn]] = deque()

        def next_result(needed: int) -> Drawn:
            for _, index in zip(
                range(needed + self._ahead * batch_size - len(pending)), waiting, strict=False
            ):
                pending.append(pool.submit(self._draw, epoch, index))
            return pending.popleft().result()

        return next_result


def _one_torch_thread(restore: int) -> None:
    """Keep torch's operators inside this worker on its one core.

    The call counts for the calling thread and for threads yet to come, so the second is undone
    from a thread that ends at once.
    """
    import torch

    torch.get_num_threads()  # settle this thread's number before it is changed
    torch.set_num_threads(1)
    undo = threading.Thread(target=torch.set_num_threads, args=(restore,))
    undo.start()
    undo.join()
