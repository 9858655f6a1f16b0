"""Pictures to the tensor that one checkpoint was trained on.

`ImageSpec` says how, frozen and readable from the JSON that checkpoints publish;
`ImageProcessor` does it. Defaults of each system live in its file in `models`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sightline.core.errors import ConfigError, ImageError, unknown_name
from sightline.core.outputs import Box
from sightline.inputs import transforms

if TYPE_CHECKING:
    from torch import Tensor

Triple = tuple[float, float, float]
Fit = Literal["square", "shortest_then_crop", "stretch_then_crop", "shortest", "crop", "keep"]

MAX_SIDE = 16_384
"""No checkpoint asks for more; a larger number in a file is a mistake or an attack."""


@dataclass(frozen=True)
class ImageSpec:
    """How a checkpoint wants its pictures.

    `fit` says how a picture reaches (height, width):

    - "square": stretched to exactly that, whatever its aspect;
    - "shortest_then_crop": the shorter side to `shortest` (by default the smaller of height and
      width), then the centre cut out, black where the picture is too small;
    - "stretch_then_crop": stretched to `stretched`, then the centre cut out;
    - "shortest": the shorter side to `shortest`, the longer one at most `longest`, no crop;
    - "crop": only the centre cut out;
    - "keep": the picture as it is.

    "shortest" and "keep" give every aspect its own size; a batch then holds one size only.

    Raises:
        ConfigError: a value that no picture can be brought to.
    """

    height: int
    width: int
    fit: Fit
    filter: str = "bicubic"
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)
    rescale: float = 1 / 255
    shortest: int | None = None
    longest: int | None = None
    stretched: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise ConfigError(unknown_name("fit", self.fit, get_args(Fit)))
        if self.filter not in transforms.FILTERS:
            raise ConfigError(unknown_name("filter", self.filter, transforms.FILTERS))
        sides = [self.height, self.width, *(self.stretched or ())]
        for side in [*sides, *(s for s in (self.shortest, self.longest) if s is not None)]:
            if not 1 <= side <= MAX_SIDE:
                raise ConfigError(f"a side of {side} pixels: allowed are 1 to {MAX_SIDE}")
        if self.fit == "stretch_then_crop" and self.stretched is None:
            raise ConfigError("fit 'stretch_then_crop' needs `stretched` = (height, width)")
        if not all(math.isfinite(v) for v in (*self.mean, *self.std, self.rescale)):
            raise ConfigError("mean, std and rescale must be finite numbers")
        if min(map(abs, self.std)) < 1e-12:
            raise ConfigError("std must not be zero: pixels are divided by it")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size that a picture of this size is resampled to, before any crop.

        Raises:
            ConfigError: `longest` does not exceed `shortest`.
        """
        if self.fit == "square":
            return self.height, self.width
        if self.fit == "stretch_then_crop" and self.stretched is not None:
            return self.stretched
        if self.fit in ("shortest", "shortest_then_crop"):
            side = self.shortest or min(self.height, self.width)
            return transforms.shortest_side(height, width, side, self.longest)
        return height, width

    def view(self, height: int, width: int) -> Box:
        """The part of a picture of this size that the tensor shows, in the picture's own pixels.

        It reaches beyond the picture where a border is added.
        """
        if self.fit not in ("shortest_then_crop", "stretch_then_crop", "crop"):
            return 0.0, 0.0, float(width), float(height)
        tall, wide = self.resized(height, width)
        top = transforms.centre_start(tall, self.height)
        left = transforms.centre_start(wide, self.width)
        across, down = width / wide, height / tall
        return (
            left * across, top * down,
            (left + self.width) * across, (top + self.height) * down,
        )  # fmt: skip

    @property
    def least_side(self) -> int | None:
        """Pixels that a shorter side needs so that nothing is enlarged; None to keep them all."""
        if self.fit in ("crop", "keep"):
            return None
        sides = self.resized(1, 1)
        return max(sides)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `ImageSpec.from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageSpec:
        """The inverse of `to_dict`, with lists for tuples.

        Raises:
            ConfigError: an unknown name or a value that does not fit.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(unknown_name("field of ImageSpec", name, known))
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)

    @classmethod
    def from_published(
        cls,
        config: Mapping[str, Any],
        default: ImageSpec,
        source: str = "preprocessor_config.json",
    ) -> ImageSpec:
        """The spec in a published image processor's JSON; what it leaves out is `default`'s.

        Args:
            source: the file, for error messages.

        Raises:
            CheckpointError: names the file and the field that cannot be used.
        """
        # That file makes ImageSpecs, so it imports this one.
        from sightline.inputs.published import PublishedImages

        return PublishedImages(config, default, source).spec()

    def to_published(self, system: str) -> dict[str, Any]:
        """What transformers' image processors read, old and new.

        Args:
            system: short name of the system, "clip"; it chooses `image_processor_type`.
        """
        resizes = self.fit not in ("crop", "keep")
        crops = self.fit in ("shortest_then_crop", "stretch_then_crop", "crop")
        shortest = self.shortest or min(self.height, self.width)
        size = {"height": self.height, "width": self.width}
        if self.fit == "stretch_then_crop" and self.stretched is not None:
            size = {"height": self.stretched[0], "width": self.stretched[1]}
        elif self.fit in ("shortest_then_crop", "shortest"):
            size = {"shortest_edge": shortest}
            size |= {"longest_edge": self.longest} if self.longest is not None else {}
        result: dict[str, Any] = {
            "image_processor_type": _TYPES.get(system, _CROPPING) if not crops else _CROPPING,
            "do_convert_rgb": True,
            "do_resize": resizes,
            "size": size,
            "resample": transforms.FILTERS.index(self.filter),
            "do_center_crop": crops,
            "do_rescale": self.rescale != 1.0,
            "rescale_factor": self.rescale,
            "do_normalize": (self.mean, self.std) != ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        if crops:
            result["crop_size"] = {"height": self.height, "width": self.width}
        return result


# CLIP's class reads every one of the settings, the crop included.
_CROPPING = "CLIPImageProcessor"
_TYPES = {
    "vit": "ViTImageProcessor",
    "swin": "ViTImageProcessor",
    "siglip": "SiglipImageProcessor",
    "paligemma": "SiglipImageProcessor",
}


class ImageProcessor:
    """Pictures of any sizes to one float32 batch, as a checkpoint's `ImageSpec` says."""

    def __init__(self, spec: ImageSpec) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"ImageProcessor({self.spec})"

    def __call__(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8[H, W, 3] each, sizes mixed, to float32[B, 3, h, w] on the CPU.

        Pictures are resampled side by side in as many threads as torch uses.

        Raises:
            ImageError: an array that is not uint8[H, W, 3], or pictures that this spec gives
                different sizes.
        """
        import torch

        for pixels in images:
            transforms.check_pixels(pixels)
        sizes = {self.output_size(*pixels.shape[:2]) for pixels in images}
        if len(sizes) > 1:
            found = " and ".join(f"{h}x{w}" for h, w in sorted(sizes)[:2])
            raise ImageError(
                f"fit {self.spec.fit!r} gives these pictures different sizes ({found}): "
                "hand them in one at a time",
                "image_unsupported",
            )
        height, width = sizes.pop() if sizes else (self.spec.height, self.spec.width)
        batch = torch.empty(len(images), 3, height, width)
        write = _writer(self.spec, batch)
        threads = min(len(images), torch.get_num_threads())
        if threads < 2:
            for index, pixels in enumerate(images):
                write(index, self.fitted(pixels))
            return batch
        with ThreadPoolExecutor(threads) as pool:
            # list() so that an error in a thread is raised here.
            list(pool.map(lambda item: write(item[0], self.fitted(item[1])), enumerate(images)))
        return batch

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the tensor that a picture of this size becomes."""
        if self.spec.fit in ("shortest", "keep"):
            return self.spec.resized(height, width)
        return self.spec.height, self.spec.width

    def fitted(self, pixels: np.ndarray) -> np.ndarray:
        """uint8[H, W, 3] to uint8[h, w, 3]: resized and cropped, not yet normalised."""
        spec = self.spec
        resized = spec.resized(*pixels.shape[:2])
        if spec.fit in ("square", "shortest", "keep"):
            return transforms.resize(pixels, resized, spec.filter)
        return transforms.resize_and_crop(pixels, resized, (spec.height, spec.width), spec.filter)


def _writer(spec: ImageSpec, batch: Tensor) -> Callable[[int, np.ndarray], None]:
    """A function that normalises one picture into its place: one multiply-add a channel."""
    factors, offsets = transforms.affine(spec.mean, spec.std, spec.rescale)
    target = batch.numpy()
    scale = np.asarray(factors, np.float32).reshape(3, 1, 1)
    shift = np.asarray(offsets, np.float32).reshape(3, 1, 1)

    def write(index: int, pixels: np.ndarray) -> None:
        np.multiply(pixels.transpose(2, 0, 1), scale, out=target[index])
        target[index] += shift

    return write
