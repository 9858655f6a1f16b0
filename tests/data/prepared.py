"""Transforms that worker processes can be given, and a program that is killed with its workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sightline.core.errors import ImageError
from sightline.data.loader import Loader
from sightline.data.worker_processes import Processes

BROKEN = (3, 11, 20)


def noisy(value: int, generator: np.random.Generator) -> tuple[int, float]:
    """A sample with some of its own randomness; a few are broken."""
    if value in BROKEN:
        raise ImageError(f"picture {value} is broken", "image_truncated")
    return value, float(generator.random())


def with_process(value: int, generator: np.random.Generator) -> tuple[int, int]:
    """The process that drew it."""
    return value, os.getpid()


class OwnError(Exception):
    """Cannot be unpickled: its arguments are not those it was made of."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def failing(value: int, generator: np.random.Generator) -> int:
    if value == 5:
        raise KeyError("colour")
    if value == 6:
        raise OwnError(1, 2)
    return value


class Large:
    """More than a pipe holds, and a file in a folder once it is drawn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, value: int, generator: np.random.Generator) -> bytes:
        (self.folder / str(value)).touch()
        return bytes(200_000)


def deadly(value: int, generator: np.random.Generator) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def unsendable(value: int, generator: np.random.Generator) -> Any:
    return lambda: value


if __name__ == "__main__":
    iterator = iter(Loader(range(50), list, 5, workers=Processes(2), transform=with_process))
    next(iterator)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
    sys.exit("nobody killed this")
