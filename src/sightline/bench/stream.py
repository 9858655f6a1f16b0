"""`sightline bench stream`: tars streamed once by several workers, and how busy the cores were.

The pictures are parks: some drawings, each encoded again and again at other qualities, because
drawing takes longer than everything that is measured here. Every pass has a process of its own, and
rounds alternate (A-B-A-B). Each contender gives batches uint8[B, H, W, 3] and sees every picture
once:

    sightline, processes    a shuffled epoch in windows through `Loader` with `Processes`
    sightline, threads      the same with threads
    webdataset, processes   the tars in order through torch's DataLoader, decoded by webdataset

Counted are the processor times of the whole family. What was free to use is that and the time in
which the machine was idle, so that others on the machine lower the speed and not the share.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sightline.bench.memory import in_a_process
from sightline.core.devices import available_cores
from sightline.core.errors import ConfigError
from sightline.data.loader import Loader
from sightline.data.records import Record
from sightline.data.shards.webdataset import open_shards
from sightline.data.shards.windows import InWindows
from sightline.data.worker_processes import Processes
from sightline.inputs.images import read_image

PROCESSES, THREADS, PEER = "sightline, processes", "sightline, threads", "webdataset, processes"
LARGEST_SHARD = 10_000
QUALITIES = range(70, 96)
"""Of the JPEG files that one drawing becomes, in turn."""
_BATCH = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StreamRow:
    """One contender; medians over the rounds where nothing else is said."""

    name: str
    pictures_per_second: float
    fastest: float
    slowest: float
    core_use: float
    """Processor time by wall time and cores."""
    share_of_free: float | None
    """Processor time by that and the machine's idle time; None where the system does not tell."""
    microseconds: float
    """Processor time a picture."""
    peak_bytes: int
    """At most in any round: the process, and for each worker as much as the largest had. Pages that
    they share count for each."""
    opening_seconds: float
    """Before the first batch is asked for: the index of the tars; not in the other numbers."""


@dataclass(frozen=True)
class StreamBench:
    """Everything that was measured, in the order of a round."""

    pictures: int
    shards: int
    bytes_per_picture: float
    drawings: int | None
    """Different drawings among the pictures; None for tars that were there before."""
    workers: int
    cores: int
    rounds: int
    rows: tuple[StreamRow, ...]
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"bench": "stream", **asdict(self)}


def bench_stream(
    pictures: int = 100_000,
    side: int = 64,
    drawings: int = 2000,
    workers: int | None = None,
    rounds: int = 2,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> StreamBench:
    """Measure how fast tars are streamed and decoded, and how busy the cores are meanwhile.

    Args:
        pictures: in all, at most ten thousand a tar, and at least two tars a worker, since
            webdataset hands out whole tars.
        side: of a picture in pixels.
        drawings: different ones; the pictures repeat them at other qualities.
        workers: threads or processes of each contender; by default as many as there are cores.
        rounds: passes of each contender.
        folder: tars that are there are streamed as they are; otherwise the set is written there and
            stays. None takes a folder that is removed afterwards.
        progress: called with passes done and their total; writing is the first.

    Raises:
        ConfigError: a number below 1.
        DataError: a folder whose tars hold no pictures.
    """
    workers = available_cores() if workers is None else workers
    numbers = {"pictures": pictures, "drawings": drawings, "workers": workers, "rounds": rounds}
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name} must be at least 1: {number} arrived")
    contenders, skipped = _contenders()
    total = 1 + rounds * len(contenders)
    tell = progress or (lambda done, of: None)
    shard = max(1, min(LARGEST_SHARD, pictures // (2 * workers)))
    with _set(folder, (pictures, side, drawings, shard)) as (place, drawn):
        records = open_shards(place)
        tell(1, total)
        passes: dict[str, list[dict[str, Any]]] = {who: [] for who in contenders}
        for number in range(rounds * len(contenders)):
            who = contenders[number % len(contenders)]
            result = in_a_process(__name__, "one_pass", who=who, folder=str(place), workers=workers)
            assert result["pictures"] == len(records), f"{who} gave {result['pictures']} pictures"
            passes[who].append(result)
            tell(2 + number, total)
        size = sum(index.shard.size for index in records.indexes)
    return StreamBench(
        pictures=len(records),
        shards=len(records.indexes),
        bytes_per_picture=size / len(records),
        drawings=drawn,
        workers=workers,
        cores=available_cores(),
        rounds=rounds,
        rows=tuple(_row(who, found) for who, found in passes.items()),
        skipped=skipped,
    )


def _contenders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    from importlib.util import find_spec

    if find_spec("webdataset") is None:
        return (PROCESSES, THREADS), ("webdataset",)
    return (PROCESSES, PEER, THREADS), ()


def _row(who: str, passes: list[dict[str, Any]]) -> StreamRow:
    cores = available_cores()
    rates = [one["pictures"] / one["seconds"] for one in passes]
    shares = [one["cpu"] / (one["cpu"] + one["idle"]) for one in passes if one["idle"] is not None]
    return StreamRow(
        name=who,
        pictures_per_second=median(rates),
        fastest=max(rates),
        slowest=min(rates),
        core_use=median(one["cpu"] / one["seconds"] / cores for one in passes),
        share_of_free=median(shares) if shares else None,
        microseconds=median(1e6 * one["cpu"] / one["pictures"] for one in passes),
        peak_bytes=max(one["peak"] for one in passes),
        opening_seconds=median(one["opening"] for one in passes),
    )


# The pictures


@contextmanager
def _set(
    folder: str | os.PathLike[str] | None, numbers: tuple[int, int, int, int]
) -> Iterator[tuple[Path, int | None]]:
    """Where the tars are, and how many drawings are in those that were written now."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="sightline-bench-") as name:
            yield Path(name), write_drawn(Path(name), *numbers)
        return
    place = Path(folder)
    if any(place.glob("*.tar")):
        yield place, None
        return
    place.mkdir(parents=True, exist_ok=True)
    yield place, write_drawn(place, *numbers)


def write_drawn(folder: Path, pictures: int, side: int, drawings: int, shard: int) -> int:
    """Write tars of `shard` drawn parks with their captions.

    Returns:
        How many different drawings there are.
    """
    from sightline.data.park import scene

    count = min(drawings, pictures)
    scenes = [scene(seed, size=side) for seed in range(count)]
    known = [(drawn.image, drawn.caption.encode()) for drawn in scenes]
    for first in range(0, pictures, shard):
        with tarfile.open(folder / f"{first // shard:05d}.tar", "w") as tar:
            for number in range(first, min(first + shard, pictures)):
                image, caption = known[number % count]
                data = io.BytesIO()
                image.save(data, "JPEG", quality=QUALITIES[number // count % len(QUALITIES)])
                for suffix, content in (("jpg", data.getvalue()), ("txt", caption)):
                    info = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return count


# One pass, in a process of its own


def one_pass(who: str, folder: str, workers: int) -> dict[str, Any]:
    """Stream the tars once.

    Returns:
        "pictures"; "seconds" from the first request to the last batch, the start of the workers
        included; "cpu" seconds of the process and its workers; "idle" seconds of all cores, or
        None; "peak" bytes; "opening" seconds before that.
    """
    begun = time.perf_counter()
    batches = _webdataset(folder, workers) if who == PEER else _loader(who, folder, workers)
    opening = time.perf_counter() - begun
    begun, cpu, idle = time.perf_counter(), _cpu_seconds(), _idle_seconds()
    pictures = sum(len(batch) for batch in batches)
    seconds, after = time.perf_counter() - begun, _idle_seconds()
    return {
        "pictures": pictures,
        "seconds": seconds,
        "cpu": _cpu_seconds() - cpu,
        "idle": None if idle is None or after is None else after - idle,
        "peak": _peak_bytes(workers),
        "opening": opening,
    }


def decode(record: Record, generator: np.random.Generator) -> np.ndarray:
    """uint8[H, W, 3]"""
    return read_image(record.image)


def _loader(who: str, folder: str, workers: int) -> Loader[np.ndarray]:
    return Loader(
        InWindows(open_shards(folder)), np.stack, _BATCH, drop_last=False, transform=decode,
        workers=Processes(workers) if who == PROCESSES else workers, epochs=1,
    )  # fmt: skip


def _webdataset(folder: str, workers: int) -> Iterator[Any]:
    import webdataset
    from torch.utils.data import DataLoader

    names = [str(path) for path in sorted(Path(folder).glob("*.tar"))]
    stream = webdataset.WebDataset(names, shardshuffle=False).decode("rgb8")
    batches = stream.to_tuple("jpg", "txt").batched(_BATCH)
    return (images for images, _ in DataLoader(batches, batch_size=None, num_workers=workers))


def _cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _idle_seconds() -> float | None:
    """Of all cores since the machine began; None where the cores are not all ours to use."""
    if available_cores() != os.cpu_count() or not os.path.isfile("/proc/stat"):
        return None
    with open("/proc/stat", encoding="ascii") as file:
        idle, waiting = file.readline().split()[4:6]
    return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(workers: int) -> int:
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (
        resource.getrusage(who).ru_maxrss * unit
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own + workers * children
