"""Processes that prepare samples in order, for samples that threads would wait for each other with.

Of the time that a picture of 64 pixels takes, the decoder works without the interpreter's lock for
a third. However many threads there are, the rest is done by one at a time.

Each process is started anew (nothing is forked: threads and locks of the parent cannot be
inherited), gets the data set and the transform once, and ends when its pipe is closed, which also
happens when the parent is killed. Chunks go round by turns and come back in that order.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from sightline.core.devices import available_cores
from sightline.core.errors import ConfigError, DataError
from sightline.data.workers import BATCHES_AHEAD, Draw, Drawn
from sightline.inputs.strictness import strict_pillow

LARGEST_CHUNK = 16
"""Samples that travel together; fewer where a batch would not occupy every process."""


@dataclass(frozen=True)
class Processes:
    """Worker processes for a `Loader`, in place of threads.

    They run two batches ahead whatever torch does. Data set and transform are pickled, so a
    transform is a function at the head of a module, or an object; what it gives is pickled too. A
    program that starts them keeps its own work behind `if __name__ == "__main__":`.

    Raises:
        ConfigError: fewer than one.
    """

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(
                f"worker processes must be a whole number from 1 on, got {self.count!r}"
            )


class _Failed(NamedTuple):
    """What went wrong in a worker, apart from broken pictures."""

    error: Exception
    trace: str


class ProcessDecoders:
    """Processes that prepare samples in order; entered and left with an iteration.

    Raises:
        ConfigError: a data set or a transform that cannot be pickled.
    """

    def __init__(self, draw: Draw, count: int) -> None:
        self._draw = _pickled(draw)
        self._count = min(count, available_cores())
        self._workers: list[_Worker] = []
        self._sent: deque[_Worker] = deque()
        """Whose chunks are still to be received, in order."""

    def __enter__(self) -> ProcessDecoders:
        with contextlib.ExitStack() as stack:
            for _ in range(self._count):
                self._workers.append(_Worker(self._draw))
                stack.callback(self._workers[-1].stop)
            self._stop = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()

    def results(self, epoch: int, indices: np.ndarray, batch_size: int) -> Callable[[int], Drawn]:
        """As `Decoders` says."""
        while self._sent:  # of an order that was left
            self._sent.popleft().receive()
        size = max(1, min(LARGEST_CHUNK, batch_size // self._count))
        waiting = (indices[start : start + size] for start in range(0, len(indices), size))
        turns = cycle(self._workers)
        ready: deque[Drawn] = deque()
        promised = 0

        def next_result(needed: int) -> Drawn:
            nonlocal promised
            while promised + len(ready) < needed + BATCHES_AHEAD * batch_size:
                chunk = next(waiting, None)
                if chunk is None:
                    break
                worker = next(turns)
                worker.send(epoch, chunk.tolist())
                self._sent.append(worker)
                promised += len(chunk)
            if not ready:
                ready.extend(self._sent.popleft().receive())
                promised -= len(ready)
            return ready.popleft()

        return next_result


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, draw: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=serve, args=(other, draw), name="sightline-loader", daemon=True
        )
        self._process.start()
        other.close()  # so that the pipe ends with the process

    def send(self, epoch: int, indices: list[int]) -> None:
        """Ask for samples."""
        try:
            self._pipe.send((epoch, indices))
        except OSError:
            raise self._ended() from None

    def receive(self) -> list[Drawn]:
        """The samples of the chunk that was asked for first.

        Raises:
            DataError: the process has ended.
            Exception: what the data set or the transform raised.
        """
        try:
            answer = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(answer, _Failed):
            answer.error.add_note(f"in a worker process of the loader:\n{answer.trace}")
            raise answer.error
        drawn: list[Drawn] = answer
        return drawn

    def stop(self) -> None:
        """End the process, whatever it is at."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()
        self._process.close()

    def _ended(self) -> DataError:
        self._process.join()
        code = self._process.exitcode
        killed = code is not None and code < 0
        advice = (
            "it was killed, perhaps for want of memory: use fewer processes"
            if killed
            else "what it said stands above; a program that starts processes keeps its own work "
            'behind if __name__ == "__main__":'
        )
        return DataError(f"a worker process of the loader ended (exit code {code}): {advice}")


def serve(pipe: Connection, draw: bytes) -> None:
    """The work of one process: samples for whoever is at the other end of the pipe, until it
    closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
    answer: Any = None
    try:
        prepare: Draw = pickle.loads(draw)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
    except Exception as error:
        answer = _failed(error)
    # A pipe holds a few pictures: without a thread that waits for room in it nothing ran ahead.
    finished: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_send_all, args=(pipe, finished), daemon=True).start()
    # Pillow's switches are thrown once here, not for each picture: nobody else is in this process.
    with strict_pillow(), contextlib.suppress(EOFError, OSError):
        while True:
            epoch, indices = pipe.recv()
            finished.put(answer or _drawn(prepare, epoch, indices))


def _send_all(pipe: Connection, finished: SimpleQueue[bytes]) -> None:
    with contextlib.suppress(OSError):  # the other end is closed: so is this process, soon
        while True:
            pipe.send_bytes(finished.get())


def _drawn(draw: Draw, epoch: int, indices: list[int]) -> bytes:
    try:
        return pickle.dumps([draw(epoch, index) for index in indices], pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> bytes:
    trace = "".join(traceback.format_exception(error)).rstrip()
    try:
        told = pickle.dumps(_Failed(error, trace))
        pickle.loads(told)
    except Exception:  # an error of a class that cannot travel
        return pickle.dumps(_Failed(RuntimeError(f"{type(error).__name__}: {error}"), trace))
    return told


def _pickled(draw: Draw) -> bytes:
    try:
        return pickle.dumps(draw, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # pickle raises whatever an object's own methods do
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"worker processes cannot be given the data set and the transform ({reason}): take a "
            "function at the head of a module, or threads (workers=N)"
        ) from None
