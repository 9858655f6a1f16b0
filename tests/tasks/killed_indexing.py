"""Indexing that is killed again and again, for `test_index_killed`. Writes one JSON document.

Every run is a process of its own (LanceDB keeps threads, so nothing is forked after it is
imported): the parent imports what takes long once, and each child imports LanceDB and indexes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import lance_namespace  # noqa: F401  (most of the time that importing LanceDB takes)
import numpy as np
import pyarrow.dataset  # noqa: F401
import torch
from PIL import Image

from tests.tasks.colours import colour_model

PICTURES = 48


def draw(folder: Path) -> None:
    """Small pictures of different colours, in two folders."""
    dice = np.random.default_rng(0)
    for number in range(PICTURES):
        place = folder / ("left" if number % 2 else "right")
        place.mkdir(parents=True, exist_ok=True)
        colour = dice.integers(0, 256, 3)
        Image.fromarray(np.full((6, 9, 3), colour, np.uint8)).save(place / f"{number:03d}.png")


def index(photos: Path, out: Path, started: int | None = None) -> None:
    """One run: commits of three pictures each, with files joined on the way."""
    from sightline.search import lance
    from sightline.tasks.index import Index

    lance.MANY_FRAGMENTS = 4
    with Index.open(out, colour_model("clip")) as made:
        if started is not None:
            os.write(started, b"!")
        for folder in ("left", "right", "."):
            made.add(photos / folder, batch_size=3, commit_rows=3)


def started(photos: Path, out: Path) -> int:
    """A child that indexes, once it has begun to work; its number."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            index(photos, out, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    return child


def ended(child: int) -> bool:
    """Wait for a child; whether it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"indexing failed with {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)


def killed_after(seconds: float, photos: Path, out: Path) -> bool:
    """Index, and be killed unless it is done by then."""
    child = started(photos, out)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def contents(out: Path) -> dict[str, object]:
    """The table by key, without what depends on the clock; rows that are there twice fail."""
    from sightline.tasks.index import Index

    names = ("file", "digest", "width", "height", "format", "bytes", "modified", "missing")
    rows: dict[str, object] = {}
    with Index.open(out) as made:
        for part in made.store.scan(names, vectors=True):
            for place, name in enumerate(part.ids):
                assert name not in rows, name
                fields = [str(part.fields[field][place]) for field in names]
                rows[name] = [np.round(part.vectors[place], 4).tolist(), *fields]
        assert made.info().store.damage == ()
    return rows


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # what a killed process wrote is kept by the system anyway
    dice = random.Random(7)
    photos = folder / "photos"
    draw(photos)
    child = started(photos, folder / "whole")
    begun = time.monotonic()
    ended(child)
    duration = time.monotonic() - begun
    for child in [started(photos, folder / "two") for _ in range(2)]:
        ended(child)
    killed, outs = 0, [folder / "two"]
    for number in range(kills):
        # Several kills meet the same index before it may finish, as they would in life.
        out = folder / f"killed-{number // 5}"
        killed += killed_after(dice.uniform(0, duration / 4), photos, out)
        outs.append(out)
    for out in dict.fromkeys(outs[1:]):
        ended(started(photos, out))
    # Only now may this process import LanceDB: nothing is forked any more.
    report = {"killed": killed, "whole": contents(folder / "whole")}
    report["after"] = [contents(out) for out in dict.fromkeys(outs)]
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
