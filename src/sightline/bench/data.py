"""`sightline bench data`: tars of small pictures to pixels, against webdataset and the decoder.

Everyone reads the same tars in one thread, a whole pass each, rounds alternate (A-B-A-B). "bytes"
stops before decoding; "pixels" decodes to uint8[H, W, 3]. The limit decodes bytes that are in
memory already: what would be left if reading cost nothing. The passes are warm: the system has the
tars in its file cache, so the work of the reader is measured and not the disk.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from sightline.core.devices import available_cores
from sightline.core.errors import ConfigError
from sightline.data.loader import Loader
from sightline.data.records import Record
from sightline.data.shards.samples import ShardRecords
from sightline.data.shards.tar_index import index_tar
from sightline.data.shards.webdataset import open_shards
from sightline.data.shards.windows import InWindows
from sightline.inputs.images import read_image

LIMIT = "decoder alone"
PER_SHARD = 10_000
_BATCH = 256

Pass = Callable[[], int]
"""Goes once through the pictures and says how many there were."""


@dataclass(frozen=True)
class Row:
    """One contender."""

    name: str
    pictures_per_second: float
    """Median over the rounds."""
    fastest: float
    slowest: float
    share_of_limit: float | None
    """Of what the decoder alone does; None for those who do not decode."""


@dataclass(frozen=True)
class DataBench:
    """Everything that was measured, the contenders in the order of the rounds."""

    pictures: int
    side: int
    rounds: int
    cores: int
    shards: int
    bytes_per_picture: float
    index_seconds: float
    """To scan all tars once, before the first picture; a cached index needs none of it."""
    rows: tuple[Row, ...]
    skipped: tuple[str, ...]
    """Peers that are not installed."""

    def ratio(self, first: str, second: str) -> float:
        """How many times as fast the first contender is."""
        speed = {row.name: row.pictures_per_second for row in self.rows}
        return speed[first] / speed[second]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"bench": "data", **asdict(self)}


def bench_data(
    pictures: int = 20_000,
    side: int = 64,
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> DataBench:
    """Measure reading and decoding of tars of small JPEG files.

    Args:
        pictures: in all, ten thousand a tar.
        side: of a picture in pixels.
        rounds: each contender makes a pass a round.
        progress: called with passes done and their total.

    Raises:
        ConfigError: no pictures, or no rounds.
    """
    if pictures < 1 or rounds < 1 or side < 1:
        raise ConfigError(f"pictures {pictures}, side {side}, rounds {rounds}: all must be above 0")
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as name:
        folder = Path(name)
        total_bytes = write_shards(folder, pictures, side)
        begun = time.perf_counter()
        for tar in sorted(folder.glob("*.tar")):
            index_tar(tar, cache=False)
        index_seconds = time.perf_counter() - begun
        contenders, skipped = _contenders(folder)
        times = _alternate(contenders, pictures, rounds, progress)
        shards = len(list(folder.glob("*.tar")))
    limit = pictures / median(times[LIMIT])
    rows = tuple(_row(who, taken, pictures, limit) for who, taken in times.items())
    return DataBench(
        pictures, side, rounds, available_cores(), shards, total_bytes / pictures, index_seconds,
        rows, skipped,
    )  # fmt: skip


def write_shards(folder: Path, pictures: int, side: int) -> int:
    """Write tars of noisy JPEG files with a text each; the bytes of all pictures."""
    generator = np.random.default_rng(0)
    total = 0
    for first in range(0, pictures, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:05d}.tar", "w") as tar:
            for number in range(first, min(first + PER_SHARD, pictures)):
                data = _jpeg(generator, side)
                total += len(data)
                for suffix, content in (("jpg", data), ("txt", f"picture {number}".encode())):
                    info = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return total


def _jpeg(generator: np.random.Generator, side: int) -> bytes:
    """Coarse random pixels enlarged: about the bytes that a drawn or photographed picture takes."""
    coarse = generator.integers(0, 256, (max(1, side // 8), max(1, side // 8), 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def _alternate(
    contenders: dict[str, Pass],
    pictures: int,
    rounds: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {who: [] for who in contenders}
    for done in range(rounds):
        for number, (who, run) in enumerate(contenders.items(), 1):
            begun = time.perf_counter()
            count = run()
            times[who].append(time.perf_counter() - begun)
            assert count == pictures, f"{who} gave {count} of {pictures} pictures"
            if progress is not None:
                progress(done * len(contenders) + number, rounds * len(contenders))
    return times


def _contenders(folder: Path) -> tuple[dict[str, Pass], tuple[str, ...]]:
    records = open_shards(folder)
    held = [record.image.read_stored() for record in records]  # type: ignore[union-attr]
    contenders: dict[str, Pass] = {
        "sightline bytes": lambda: sum(1 for data, _ in _stored(records) if data),
        "sightline pixels": lambda: sum(1 for data, _ in _stored(records) if len(read_image(data))),
        "sightline loader, shuffled": lambda: _through_loader(records),
        LIMIT: lambda: sum(1 for data in held if len(read_image(data))),
    }
    try:
        import webdataset
    except ModuleNotFoundError:
        return contenders, ("webdataset",)
    names = [str(path) for path in sorted(folder.glob("*.tar"))]

    def samples(decode: str | None = None) -> Iterator[dict[str, Any]]:
        stream = webdataset.WebDataset(names, shardshuffle=False)
        yield from stream.decode(decode) if decode else stream

    peers: dict[str, Pass] = {
        "webdataset bytes": lambda: sum(1 for s in samples() if s["jpg"] and s["txt"]),
        "webdataset pixels": lambda: sum(1 for s in samples("rgb8") if len(s["jpg"])),
        "webdataset, our decoder": lambda: sum(1 for s in samples() if len(read_image(s["jpg"]))),
    }
    order = ("sightline bytes", "webdataset bytes", "sightline pixels", "webdataset pixels",
             "webdataset, our decoder", "sightline loader, shuffled", LIMIT)  # fmt: skip
    together = {**contenders, **peers}
    return {name: together[name] for name in order}, ()


def _stored(records: ShardRecords) -> Iterator[tuple[bytes, str]]:
    for record in records:
        yield record.image.read_stored(), record.caption  # type: ignore[union-attr]


def _through_loader(records: ShardRecords) -> int:
    """One shuffled epoch in batches, decoded by as many threads as there are cores."""

    def decode(record: Record, generator: np.random.Generator) -> np.ndarray:
        return read_image(record.image)

    loader = Loader(
        InWindows(records), list, _BATCH, drop_last=False, workers=available_cores(),
        transform=decode, epochs=1,
    )  # fmt: skip
    return sum(len(batch) for batch in loader)


def _row(who: str, taken: list[float], pictures: int, limit: float) -> Row:
    rate = pictures / median(taken)
    share = None if who.endswith("bytes") else rate / limit
    return Row(who, rate, pictures / min(taken), pictures / max(taken), share)
