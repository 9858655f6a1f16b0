"""Who takes part in `bench embed`: one network of random weights behind every library that runs it.

A contender is a function from pictures to unit vectors. What it is given is the same for all:
prepared pixels, decoded pictures, or JPEG files.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sightline.core.devices import available_cores, fast_bfloat16
from sightline.core.errors import ConfigError, unknown_name
from sightline.hub.save import save_checkpoint
from sightline.inputs.preprocessing import ImageProcessor
from sightline.inputs.processors import Processor
from sightline.models.table import system as find_system
from sightline.nn.norms import unit_length

if TYPE_CHECKING:
    from torch import Tensor

Start = Literal["pixels", "pictures", "files"]
"""Where the clock starts: float32[B, 3, h, w], uint8[H, W, 3] each, or JPEG files."""
Embed = Callable[[Any], "Tensor"]


@dataclass(frozen=True)
class Contender:
    """One library in one number type."""

    name: str
    kind: str
    """Number type of its products, which decides what limit it is held against."""
    load: Callable[[], Embed]
    """Called once. It holds a copy of the weights for as long as the function lives."""


def contenders(
    folder: Path, start: Start, batch: int, image: tuple[int, int]
) -> tuple[list[Contender], list[str]]:
    """Everyone that is installed, in the order of a round, and the names of peers that are not.

    Args:
        folder: a checkpoint that transformers reads.
        batch: pictures at once, which peers that compile for one shape need to know.
        image: height and width of the prepared pixels.
    """
    kind = "bfloat16" if fast_bfloat16("cpu") else "float32"
    own = [
        Contender("sightline auto", kind, lambda: _ours(folder, start)),
        Contender("sightline float32", "float32", lambda: _ours(folder, start, dtype="float32")),
        Contender("sightline int8", "int8", lambda: _ours(folder, start, quantize="int8")),
    ]
    if start == "files":
        own.insert(
            1, Contender("sightline reduced", kind, lambda: _ours(folder, start, decode="reduced"))
        )
    peers, missing = [], []
    if _installed("transformers"):
        peers = [
            Contender("transformers", "float32", lambda: _transformers(folder, start, batch, None)),
            Contender(
                "transformers bfloat16", "bfloat16",
                lambda: _transformers(folder, start, batch, torch.bfloat16),
            ),
        ]  # fmt: skip
        if start == "pixels" and _installed("openvino"):
            shape = (batch, 3, *image)
            peers.append(
                Contender("openvino float32", "float32", lambda: _openvino(folder, shape, "f32"))
            )
            if kind == "bfloat16":  # elsewhere it refuses to
                peers.append(
                    Contender("openvino bfloat16", kind, lambda: _openvino(folder, shape, "bf16"))
                )
    names = ("transformers", *(("openvino",) if start == "pixels" else ()))
    missing = [name for name in names if not _installed(name)]
    return own + peers, missing


def write_random(model: str, folder: Path) -> str:
    """A full-size checkpoint with random weights, without a vocabulary; its name.

    Raises:
        ConfigError: an unknown model.
    """
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


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Without the warnings of transformers or a library of its kind."""
    level = library.logging.get_verbosity()
    library.logging.set_verbosity_error()
    try:
        yield
    finally:
        library.logging.set_verbosity(level)


def product_speed(kind: torch.dtype) -> float:
    """Operations a second of the fastest way to a product of the network's shape, best of five."""
    rows, width, hidden = 1024, 768, 3072
    best = min(_seconds(product) for product in _products(kind, rows, width, hidden))
    return 2 * rows * width * hidden / best


def _products(
    kind: torch.dtype, rows: int, width: int, hidden: int
) -> Iterator[Callable[[], object]]:
    if kind == torch.int8:
        from sightline.nn.quantised import Grid, Int8Product

        small = Int8Product(torch.randn(hidden, width), None, Grid(1.0, 0, torch.int8))
        whole = torch.randint(-99, 99, (rows, width), dtype=torch.int8)
        yield lambda: small(whole, Grid(1.0, 0, torch.float32))
        return
    a, b = torch.randn(rows, width).to(kind), torch.randn(hidden, width).to(kind)
    yield lambda: torch.nn.functional.linear(a, b)
    if kind == torch.bfloat16 and fast_bfloat16("cpu"):
        from sightline.nn.packed import PackedLinear

        packed = PackedLinear(b, None)
        yield lambda: packed(a)


@torch.inference_mode()
def _seconds(product: Callable[[], object]) -> float:
    product()
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        product()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _ours(folder: Path, start: Start, decode: str = "exact", **options: Any) -> Embed:
    from sightline.tasks.embed import evaluating
    from sightline.tasks.model import load

    model = load(folder, device="cpu", **options)
    model.decode = decode
    _without_words(model.network, "text")
    if start != "pixels":
        return lambda images: model.embed_images(list(images), len(images))

    def embed(pixels: Tensor) -> Tensor:
        with evaluating(model.network):
            return unit_length(model.network.encode_images(pixels))

    return embed


def _transformers(folder: Path, start: Start, batch: int, dtype: torch.dtype | None) -> Embed:
    """Its model and image processor as `from_pretrained` gives them; None is its default type.

    Files go through torch's DataLoader with a worker for each core, which opens, converts and
    prepares them, as its users write it.
    """
    import transformers

    options = {} if dtype is None else {"dtype": dtype}
    with quiet(transformers):
        network = transformers.AutoModel.from_pretrained(folder, **options).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    _without_words(network, "text_model")

    @torch.inference_mode()
    def vectors(pixels: Tensor) -> Tensor:
        features = network.get_image_features(pixel_values=pixels.to(network.dtype))
        return unit_length(_pooled(features))

    if start == "pixels":
        return vectors
    if start == "pictures":
        return lambda images: vectors(_prepared(processor, list(images)))

    def from_files(paths: Sequence[Path]) -> Tensor:
        loader = torch.utils.data.DataLoader(
            _Files(paths, processor), batch_size=batch, num_workers=available_cores()
        )
        return torch.cat([vectors(pixels) for pixels in loader])

    return from_files


class _Files(torch.utils.data.Dataset[torch.Tensor]):
    """Pictures by number, as a loop over a DataLoader has them."""

    def __init__(self, paths: Sequence[Path], processor: Any) -> None:
        self.paths, self.processor = paths, processor

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        with Image.open(self.paths[index]) as picture:
            return _prepared(self.processor, picture.convert("RGB"))[0]


def _prepared(processor: Any, images: Any) -> Tensor:
    pixels: Tensor = processor(images, return_tensors="pt")["pixel_values"]
    return pixels


def _pooled(features: Any) -> Tensor:
    pooled: Tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    return pooled


def _openvino(folder: Path, shape: tuple[int, ...], precision: str) -> Embed:
    """The image tower of transformers, converted and compiled for one shape and every core."""
    import openvino
    import transformers

    with quiet(transformers):
        network = transformers.AutoModel.from_pretrained(folder).eval()

    class ImageTower(torch.nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixel_values: Tensor) -> Tensor:
            return _pooled(self.network.get_image_features(pixel_values=pixel_values))

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that meet newer ones than they know
        program = torch.export.export(ImageTower(network).eval(), (torch.zeros(shape),))
        converted = openvino.convert_model(program)
    compiled = openvino.Core().compile_model(
        converted,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, every core on it
            "INFERENCE_NUM_THREADS": available_cores(),
        },
    )
    del converted, network, program
    gc.collect()

    def embed(images: Tensor) -> Tensor:
        found: np.ndarray = compiled([images.numpy()])[0]
        return unit_length(torch.from_numpy(found))

    return embed


def _without_words(network: Any, name: str) -> None:
    """Give up the text tower, which is not measured: half of the memory."""
    setattr(network, name, torch.nn.Identity())


def _installed(name: str) -> bool:
    try:
        __import__(name)
    except ModuleNotFoundError:
        return False
    return True
