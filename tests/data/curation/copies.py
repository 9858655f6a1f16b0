"""Pictures with planted copies, shared by the tests of curation."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from sightline.data import park
from sightline.data.curation.fingerprints import Fingerprints, fingerprint
from sightline.data.records import Dataset, Record


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def png(image: Image.Image, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.point(lambda level: round(min(level * factor, 255)))


def cropped(image: Image.Image, pixels: int) -> Image.Image:
    return image.crop((pixels, pixels, image.width - pixels, image.height - pixels))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 90": lambda image: jpeg(image, 90),
    "jpeg 50": lambda image: jpeg(image, 50),
    "half the size": lambda image: image.resize((32, 32), Image.Resampling.BICUBIC),
    "half as large again": lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
    "cropped by a thirtieth": lambda image: cropped(image, 1),
    "cropped by a sixteenth": lambda image: cropped(image, 2),
    "brighter": lambda image: scaled(image, 1.1),
    "darker": lambda image: scaled(image, 0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def scenes(count: int, start: int = 0) -> list[Image.Image]:
    return [park.scene(seed).image.convert("RGB") for seed in range(start, start + count)]


def recoloured(seed: int) -> Image.Image:
    """A scene whose largest object has another colour: not a copy."""
    scene = park.scene(seed)
    pixels = np.array(scene.image.convert("RGB"))
    largest = max(scene.objects, key=lambda thing: np.asarray(thing.mask).sum())
    mask = np.asarray(largest.mask, bool)
    pixels[mask] = pixels[mask][:, [2, 0, 1]]
    return Image.fromarray(pixels)


def prints(images: list[Image.Image]) -> Fingerprints:
    records = [Record(str(i), np.asarray(image)) for i, image in enumerate(images)]
    return fingerprint(Dataset(records))
