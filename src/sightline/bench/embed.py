"""`sightline bench embed`: pictures to unit vectors, against transformers and OpenVINO.

Every contender holds the same random weights of a full-size network and gets the same input.
Rounds alternate (A-B-A-B), so that a machine that slows down slows everyone, and the vectors are
compared before anything is timed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from sightline.bench.embedders import (
    Contender,
    Embed,
    Start,
    contenders,
    product_speed,
    write_random,
)
from sightline.core.devices import available_cores, set_threads
from sightline.core.errors import ConfigError, unknown_name
from sightline.inputs.preprocessing import ImageProcessor
from sightline.models.table import system as find_system
from sightline.nn.meta import without_memory
from sightline.nn.norms import unit_length

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE = "sightline float32"
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True)
class Row:
    """One contender."""

    name: str
    pictures_per_second: float
    """Median over the rounds."""
    fastest: float
    slowest: float
    cosine: float
    """Least cosine between its vectors and Sightline's in float32, after centring."""
    share_of_limit: float | None
    """Of the pictures a second that plain products of its type would allow here."""


@dataclass(frozen=True)
class EmbedBench:
    """Everything that was measured, the contenders in the order of the rounds."""

    model: str
    start: Start
    batch: int
    rounds: int
    cores: int
    picture: tuple[int, int]
    """Height and width before preprocessing."""
    files: int | None
    """JPEG files of a round, where the clock starts at files."""
    gflop_per_picture: float
    product_gflops: dict[str, float]
    """Measured speed of one large product, by type."""
    rows: tuple[Row, ...]
    skipped: tuple[str, ...]
    """Peers that are not installed."""

    def ratio(self, first: str, second: str) -> float:
        """How many times as fast the first contender is."""
        speed = {row.name: row.pictures_per_second for row in self.rows}
        return speed[first] / speed[second]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"bench": "embed", **asdict(self)}


def bench_embed(
    model: str = "clip:B/32",
    batch: int = 32,
    rounds: int = 5,
    start: Start = "pixels",
    picture: tuple[int, int] | None = None,
    files: int = 128,
    only: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> EmbedBench:
    """Measure Sightline (auto, float32, int8) beside transformers and OpenVINO.

    Args:
        model: "system:variant" of a dual encoder, as in the table of systems.
        batch: pictures through a network at once.
        rounds: each contender embeds everything once a round, after one round that is not counted.
        start: where the clock starts; preprocessing counts from "pictures", decoding from "files".
        picture: height and width of the pictures; by default 480 x 640, of files 960 x 1280.
        files: how many JPEG files a round has.
        only: names of contenders; all that are installed where none is given. Sightline in float32
            always takes part, since the others' vectors are held against its own.
        progress: called with rounds done and their total.

    Raises:
        ConfigError: an unknown model, start or contender.
    """
    if start not in get_args(Start):
        raise ConfigError(unknown_name("start", start, get_args(Start)))
    set_threads()
    size = picture or ((960, 1280) if start == "files" else (480, 640))
    with tempfile.TemporaryDirectory() as folder:
        name = write_random(model, Path(folder) / "model")
        spec = _spec(model)
        inputs = _inputs(start, files if start == "files" else batch, size, spec, Path(folder))
        listed, missing = contenders(
            Path(folder) / "model", start, batch, (spec.height, spec.width)
        )
        chosen = _chosen(listed, only)
        embedders = {contender.name: contender.load() for contender in chosen}
        cosines = _cosines(embedders, inputs)
        times = _timed(embedders, inputs, rounds, progress)
    flops = _flops_per_picture(model)
    speeds = {kind: product_speed(KINDS[kind]) for kind in {c.kind for c in chosen}}
    return EmbedBench(
        model=name,
        start=start,
        batch=batch,
        rounds=rounds,
        cores=available_cores(),
        picture=size,
        files=files if start == "files" else None,
        gflop_per_picture=flops / 1e9,
        product_gflops={kind: speed / 1e9 for kind, speed in sorted(speeds.items())},
        rows=tuple(
            _row(c, times[c.name], len(inputs), cosines[c.name], flops, speeds) for c in chosen
        ),
        skipped=tuple(missing),
    )


def _chosen(listed: Sequence[Contender], only: Sequence[str]) -> list[Contender]:
    names = [contender.name for contender in listed]
    for name in only:
        if name not in names:
            raise ConfigError(unknown_name("contender", name, names))
    return [c for c in listed if not only or c.name in only or c.name == REFERENCE]


def _cosines(embedders: Mapping[str, Embed], inputs: Any) -> dict[str, float]:
    vectors = {name: embed(inputs) for name, embed in embedders.items()}
    return {name: _least_cosine(found, vectors[REFERENCE]) for name, found in vectors.items()}


def _timed(
    embedders: Mapping[str, Embed],
    inputs: Any,
    rounds: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, list[float]]:
    """Seconds of each round; everyone has been called before."""
    times: dict[str, list[float]] = {name: [] for name in embedders}
    for done in range(rounds):
        for name, embed in embedders.items():
            begun = time.perf_counter()
            embed(inputs)
            times[name].append(time.perf_counter() - begun)
        if progress is not None:
            progress(done + 1, rounds)
    return times


def _inputs(start: Start, count: int, size: tuple[int, int], spec: Any, folder: Path) -> Any:
    """What every contender is handed."""
    pictures = _pictures(count, size)
    if start == "pixels":
        return ImageProcessor(spec)(pictures)
    if start == "pictures":
        return pictures
    from PIL import Image

    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path, quality=90)
    return paths


def _pictures(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Smooth random pictures: noise would be unlike anything that is ever resized."""
    generator = np.random.default_rng(0)
    from sightline.inputs.transforms import resize

    coarse = generator.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [resize(picture, size, "bicubic") for picture in coarse]


def _least_cosine(vectors: Tensor, expected: Tensor) -> float:
    """After subtracting the mean of the batch: random networks put everything in one place."""
    a, b = (unit_length(rows.float() - rows.float().mean(dim=0)) for rows in (vectors, expected))
    return float((a * b).sum(dim=-1).min())


def _spec(model: str) -> Any:
    name, _, variant = model.partition(":")
    system = find_system(name)
    return system.preprocessing(system.variants[variant])


def _flops_per_picture(model: str) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    name, _, variant = model.partition(":")
    system = find_system(name)
    spec = _spec(model)
    with without_memory():
        network: Any = system.build(system.variants[variant])
        pixels = torch.empty(1, 3, spec.height, spec.width)
    with FlopCounterMode(display=False) as counter:
        network.encode_images(pixels)
    return float(counter.get_total_flops())


def _row(
    contender: Contender,
    taken: Sequence[float],
    count: int,
    cosine: float,
    flops: float,
    speeds: Mapping[str, float],
) -> Row:
    rate = count / median(taken)
    limit = speeds[contender.kind] / flops
    return Row(contender.name, rate, count / min(taken), count / max(taken), cosine, rate / limit)
