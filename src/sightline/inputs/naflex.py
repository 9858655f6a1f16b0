"""Pictures to at most so many patches with their own aspect ratio (NaFlex).

`NaFlexSpec` says how, `NaFlexProcessor` does it. A picture becomes a row of flattened patches, so
pictures of different sizes fit into one batch; padding stands behind the shorter ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.interfaces import PatchBatch
from sightline.core.outputs import Box
from sightline.inputs import transforms
from sightline.inputs.preprocessing import MAX_SIDE, ImageSpec, Triple
from sightline.inputs.published import PublishedImages

if TYPE_CHECKING:
    from torch import Tensor

# The bisection for the scale, as published: where it stops decides the size of some pictures.
_PRECISION = 1e-5
_SMALLEST_SCALE, _LARGEST_SCALE = _PRECISION / 10, 100.0


@dataclass(frozen=True)
class NaFlexSpec:
    """How a checkpoint of flexible resolution wants its pictures.

    Raises:
        ConfigError: a value that no picture can be brought to.
    """

    patch_size: int = 16
    """Pixels of a patch's side."""
    max_num_patches: int = 256
    """A picture is enlarged or reduced to as many patches as its aspect allows below this."""
    filter: str = "bilinear"
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)
    rescale: float = 1 / 255

    def __post_init__(self) -> None:
        if self.filter not in transforms.FILTERS:
            raise ConfigError(unknown_name("filter", self.filter, transforms.FILTERS))
        for name in ("patch_size", "max_num_patches"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not 1 <= value <= MAX_SIDE:
                raise ConfigError(f"{name} is {value!r}: allowed is a number from 1 to {MAX_SIDE}")
        if not all(math.isfinite(v) for v in (*self.mean, *self.std, self.rescale)):
            raise ConfigError("mean, std and rescale must be finite numbers")
        if min(map(abs, self.std)) < 1e-12:
            raise ConfigError("std must not be zero: pixels are divided by it")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that a picture of this size is resized to.

        The largest scale at which both sides, each rounded up to whole patches, hold at most
        `max_num_patches`; found by bisection between 1e-6 and 100, as published checkpoints were
        trained and tested behind it.
        """
        low, high = _SMALLEST_SCALE, _LARGEST_SCALE
        while high - low >= _PRECISION:
            scale = (low + high) / 2
            rows, columns = self._patches(height, scale), self._patches(width, scale)
            if rows * columns <= self.max_num_patches:
                low = scale
            else:
                high = scale
        return self._patches(height, low), self._patches(width, low)

    def _patches(self, side: int, scale: float) -> int:
        return max(1, math.ceil(side * scale / self.patch_size))

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Pixels (height, width) that a picture of this size is resampled to."""
        rows, columns = self.grid(height, width)
        return rows * self.patch_size, columns * self.patch_size

    def view(self, height: int, width: int) -> Box:
        """The part of a picture of this size that the patches show: all of it."""
        return 0.0, 0.0, float(width), float(height)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_published(
        cls,
        config: Mapping[str, Any],
        default: NaFlexSpec,
        source: str = "preprocessor_config.json",
    ) -> NaFlexSpec:
        """The spec in a published image processor's JSON; what it leaves out is `default`'s.

        Args:
            default: of the network; its patch size cannot be changed by the file.
            source: the file, for error messages.

        Raises:
            CheckpointError: names the file and the field that cannot be used.
        """
        plain = ImageSpec(
            default.patch_size, default.patch_size, "square", filter=default.filter,
            mean=default.mean, std=default.std, rescale=default.rescale,
        )  # fmt: skip
        read = PublishedImages(config, plain, source)
        if not read.flag("do_resize", True):
            raise read.refuse(
                "do_resize", "is false", "true, since pictures must fill whole patches"
            )
        patch = read.side("patch_size", config.get("patch_size") or default.patch_size)
        if patch != default.patch_size:
            raise read.refuse(
                "patch_size",
                f"is {patch}",
                f"{default.patch_size}, which the network was built for",
            )
        most = read.side("max_num_patches", config.get("max_num_patches", default.max_num_patches))
        normal = read.flag("do_normalize", True)
        rescaled = read.flag("do_rescale", True)
        return cls(
            patch_size=patch,
            max_num_patches=most,
            filter=read.filter(),
            mean=read.triple("image_mean", default.mean) if normal else (0.0, 0.0, 0.0),
            std=read.triple("image_std", default.std) if normal else (1.0, 1.0, 1.0),
            rescale=read.number("rescale_factor", default.rescale) if rescaled else 1.0,
        )

    def to_published(self, system: str) -> dict[str, Any]:
        """What transformers' Siglip2ImageProcessor reads."""
        return {
            "image_processor_type": "Siglip2ImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "patch_size": self.patch_size,
            "max_num_patches": self.max_num_patches,
            "resample": transforms.FILTERS.index(self.filter),
            "do_rescale": self.rescale != 1.0,
            "rescale_factor": self.rescale,
            "do_normalize": (self.mean, self.std) != ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


class NaFlexProcessor:
    """Pictures of any sizes to one batch of flattened patches."""

    def __init__(self, spec: NaFlexSpec) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"NaFlexProcessor({self.spec})"

    def __call__(self, images: Sequence[np.ndarray], length: int | None = None) -> PatchBatch:
        """uint8[H, W, 3] each, sizes mixed, to a batch on the CPU.

        Args:
            length: P of the batch; None takes that of the longest picture, as nothing depends on
                padding. `spec.max_num_patches` gives the published shape.

        Raises:
            ImageError: an array that is not uint8[H, W, 3].
            ConfigError: a length that is too short for a picture.
        """
        import torch

        for pixels in images:
            transforms.check_pixels(pixels)
        threads = min(len(images), torch.get_num_threads())
        if threads < 2:
            pictures = [self.patches(pixels) for pixels in images]
        else:
            with ThreadPoolExecutor(threads) as pool:
                pictures = list(pool.map(self.patches, images))
        return in_rows(pictures, 3 * self.spec.patch_size**2, length)

    def patches(self, pixels: np.ndarray, most: int | None = None) -> Patches:
        """One picture, resized, normalised, cut and flattened.

        Args:
            most: patches at most, instead of the spec's; training mixes several.
        """
        import torch

        spec = self.spec if most is None else dataclasses.replace(self.spec, max_num_patches=most)
        rows, columns = spec.grid(*pixels.shape[:2])
        side = spec.patch_size
        resized = transforms.resize(pixels, (rows * side, columns * side), spec.filter)
        factors, offsets = transforms.affine(spec.mean, spec.std, spec.rescale)
        values = resized * np.asarray(factors, np.float32) + np.asarray(offsets, np.float32)
        cut = values.reshape(rows, side, columns, side, 3).swapaxes(1, 2)  # [rows columns p p 3]
        flat = np.ascontiguousarray(cut).reshape(rows * columns, -1)  # [P p*p*3]
        return Patches(torch.from_numpy(flat), (rows, columns))


@dataclass(frozen=True)
class Patches:
    """One picture, cut."""

    values: Tensor
    """float32[P, p*p*3]"""
    grid: tuple[int, int]

    def __len__(self) -> int:
        return self.grid[0] * self.grid[1]


def in_rows(pictures: Sequence[Patches], width: int, length: int | None = None) -> PatchBatch:
    """One picture a row, zeros behind each.

    Args:
        width: numbers of one patch, for a batch without pictures.
        length: P; None is that of the longest picture.

    Raises:
        ConfigError: a picture is longer than `length`.
    """
    import torch

    longest = max(map(len, pictures), default=0)
    if length is not None and longest > length:
        raise ConfigError(
            f"a picture of {longest} patches does not fit into a row of {length}: give a longer "
            "row, or lower max_num_patches"
        )
    patches = torch.zeros(len(pictures), longest if length is None else length, width)
    for row, picture in zip(patches, pictures, strict=True):
        row[: len(picture)] = picture.values
    lengths = torch.tensor([len(picture) for picture in pictures], dtype=torch.int64)  # [B]
    mask = torch.arange(patches.shape[1]) < lengths[:, None]  # [B P]
    grids = torch.tensor([picture.grid for picture in pictures], dtype=torch.int64)  # [B 2]
    return PatchBatch(patches, mask, grids.reshape(-1, 2))


def join(batches: Sequence[PatchBatch]) -> PatchBatch:
    """The pictures of all batches in one, padded to the longest."""
    import torch
    from torch.nn.functional import pad

    longest = max(batch.mask.shape[1] for batch in batches)
    missing = [longest - batch.mask.shape[1] for batch in batches]
    return PatchBatch(
        torch.cat([pad(b.patches, (0, 0, 0, m)) for b, m in zip(batches, missing, strict=True)]),
        torch.cat([pad(b.mask, (0, m)) for b, m in zip(batches, missing, strict=True)]),
        torch.cat([b.grids for b in batches]),
    )


def as_pixels(batch: PatchBatch, side: int) -> Tensor:
    """Pictures of one grid, put together again: float[B, C, rows * side, columns * side].

    Args:
        batch: without padding.
        side: of a patch.
    """
    rows, columns = batch.grids[0].tolist()
    cut = batch.patches.unflatten(2, (side, side, -1)).unflatten(1, (rows, columns))
    return cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # [B C rows*side columns*side]


def as_patches(pixels: Tensor, side: int) -> PatchBatch:
    """The inverse of `as_pixels`, for float[B, C, H, W] whose sides are multiples of `side`."""
    import torch

    count, _, height, width = pixels.shape
    rows, columns = height // side, width // side
    cut = pixels.unflatten(3, (columns, side)).unflatten(2, (rows, side))  # [B C r side c side]
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # [B P side*side*C]
    mask = torch.ones(count, rows * columns, dtype=torch.bool, device=pixels.device)
    return PatchBatch(patches, mask, torch.tensor([[rows, columns]]).expand(count, -1))
