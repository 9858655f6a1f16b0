"""`sightline bench embed`: pictures in memory to unit vectors, against transformers.

Every contender holds the same random weights of a full-size network and gets the same uint8
pictures; preprocessing is part of the time. Rounds alternate (A-B-A-B), so that a machine that
slows down slows everyone, and the vectors are compared before anything is timed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.core.devices import available_cores, fast_bfloat16, set_threads
from sightline.core.errors import ConfigError, unknown_name
from sightline.hub.save import save_checkpoint
from sightline.inputs.preprocessing import ImageProcessor
from sightline.inputs.processors import Processor
from sightline.models.table import system as find_system
from sightline.nn.meta import without_memory
from sightline.nn.norms import unit_length

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model

Embed = Callable[[Sequence[np.ndarray]], "Tensor"]


@dataclass(frozen=True)
class Row:
    """One contender."""

    name: str
    pictures_per_second: float
    """Median over the rounds."""
    fastest: float
    slowest: float
    cosine: float
    """Least cosine between its vectors and Sightline's in float32."""
    share_of_limit: float | None
    """Of the pictures a second that plain matrix products of its type would allow here."""


@dataclass(frozen=True)
class EmbedBench:
    """Everything that was measured, the contenders in the order of the rounds."""

    model: str
    batch: int
    rounds: int
    cores: int
    picture: tuple[int, int]
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
    picture: tuple[int, int] = (480, 640),
    progress: Callable[[int, int], None] | None = None,
) -> EmbedBench:
    """Measure Sightline (auto and float32) and transformers (its default and bfloat16).

    Args:
        model: "system:variant" of a dual encoder, as in the table of systems.
        batch: pictures embedded at once.
        rounds: each contender embeds the batch once a round, after one round that is not counted.
        picture: height and width of the pictures.
        progress: called with rounds done and their total.

    Raises:
        ConfigError: an unknown model.
    """
    set_threads()
    images = _pictures(batch, picture)
    with tempfile.TemporaryDirectory() as folder:
        name, contenders, skipped = _contenders(model, Path(folder))
        expected = contenders["sightline float32"](images)
        cosines = {who: _least_cosine(run(images), expected) for who, run in contenders.items()}
        times: dict[str, list[float]] = {who: [] for who in contenders}
        for done in range(rounds):
            for who, run in contenders.items():
                begun = time.perf_counter()
                run(images)
                times[who].append(time.perf_counter() - begun)
            if progress is not None:
                progress(done + 1, rounds)
        flops = _flops_per_picture(model)
    speeds = {str(kind): product_speed(kind) for kind in (torch.float32, torch.bfloat16)}
    rows = tuple(
        _row(who, taken, batch, cosines[who], flops, speeds) for who, taken in times.items()
    )
    return EmbedBench(
        model=name,
        batch=batch,
        rounds=rounds,
        cores=available_cores(),
        picture=picture,
        gflop_per_picture=flops / 1e9,
        product_gflops={kind: speed / 1e9 for kind, speed in speeds.items()},
        rows=rows,
        skipped=skipped,
    )


def _contenders(model: str, folder: Path) -> tuple[str, dict[str, Embed], tuple[str, ...]]:
    from sightline.tasks.model import load

    network_name = write_random(model, folder)
    contenders: dict[str, Embed] = {}
    for label, dtype in (("sightline auto", "auto"), ("sightline float32", "float32")):
        contenders[label] = _ours(load(folder, device="cpu", dtype=dtype))
    try:
        import transformers
    except ModuleNotFoundError:
        return network_name, contenders, ("transformers",)
    with quiet(transformers):
        contenders["transformers"] = _transformers(transformers, folder, None)
        contenders["transformers bfloat16"] = _transformers(transformers, folder, torch.bfloat16)
    return network_name, contenders, ()


def _ours(model: Model) -> Embed:
    return lambda images: model.embed_images(list(images), len(images))


def write_random(model: str, folder: Path) -> str:
    """A full-size checkpoint with random weights, without a vocabulary."""
    name, colon, variant = model.partition(":")
    system = find_system(name)
    if system.role != "dual encoder" or not colon or variant not in system.variants:
        known = [f"{name}:{v}" for v in system.variants]
        raise ConfigError(unknown_name("model to measure", model, known))
    config = system.variants[variant]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = system.build(config)
    processor = Processor(ImageProcessor(system.preprocessing(config)), None)
    save_checkpoint(network, processor, config, system, folder)
    return f"{system.name} {variant}"


def _transformers(library: Any, folder: Path, dtype: torch.dtype | None) -> Embed:
    """Its model and image processor as `from_pretrained` gives them; None is its default type."""
    options = {} if dtype is None else {"dtype": dtype}
    network = library.AutoModel.from_pretrained(folder, **options).eval()
    processor = library.AutoImageProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def embed(images: Sequence[np.ndarray]) -> Tensor:
        pixels = processor(list(images), return_tensors="pt")["pixel_values"]
        features = network.get_image_features(pixel_values=pixels.to(network.dtype))
        vectors = features if isinstance(features, torch.Tensor) else features.pooler_output
        return unit_length(vectors)

    return embed


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Without the warnings of transformers or a library of its kind."""
    level = library.logging.get_verbosity()
    library.logging.set_verbosity_error()
    try:
        yield
    finally:
        library.logging.set_verbosity(level)


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


def _flops_per_picture(model: str) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    name, _, variant = model.partition(":")
    system = find_system(name)
    config = system.variants[variant]
    spec = system.preprocessing(config)
    with without_memory():
        network: Any = system.build(config)
        pixels = torch.empty(1, 3, spec.height, spec.width)
    with FlopCounterMode(display=False) as counter:
        network.encode_images(pixels)
    return float(counter.get_total_flops())


def product_speed(kind: torch.dtype) -> float:
    """Floating-point operations a second of a product of the network's shape, the best of five."""
    rows, width, hidden = 1600, 768, 3072
    a, b = torch.randn(rows, width).to(kind), torch.randn(hidden, width).to(kind)
    torch.nn.functional.linear(a, b)
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        torch.nn.functional.linear(a, b)
        best = min(best, time.perf_counter() - begun)
    return 2 * rows * width * hidden / best


def _row(
    who: str, taken: list[float], batch: int, cosine: float, flops: float, speeds: dict[str, float]
) -> Row:
    bfloat16 = who.endswith("bfloat16") or (who.endswith("auto") and fast_bfloat16("cpu"))
    limit = speeds["torch.bfloat16" if bfloat16 else "torch.float32"] / flops
    rate = batch / median(taken)
    return Row(who, rate, batch / min(taken), batch / max(taken), cosine, rate / limit)
