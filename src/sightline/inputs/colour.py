"""Every kind of pixel that a file can hold, to 8-bit sRGB.

Rules, so that one file has one meaning:

- 16-bit grey is divided by 257, 12-bit grey in TIFF scaled from 4095; 16-bit colour keeps its high
  byte. Nothing is clipped to white.
- 32-bit integers: values within 0..255 are taken as they are, within 0..65535 as 16 bits, all
  others from their minimum (black) to their maximum (white).
- 32-bit floats: where all finite values lie in 0..1 they are multiplied by 255, otherwise scaled
  from the smallest to the largest finite value. NaN and -inf are black, +inf is white.
- An embedded ICC profile is applied (perceptual intent). Without one, CMYK becomes
  R = 255 (1 - C)(1 - K) and so on, and everything else is read as sRGB.
- What is transparent lies on white.
"""

import io
import logging
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sightline.core.errors import ImageError

logger = logging.getLogger(__name__)

_MAX_PROFILE = 4_000_000
_MAX_REMEMBERED = 65_536
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_BIT_DEPTH, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


def to_srgb(image: Image.Image, colour_managed: bool, name: str) -> Image.Image:
    """A decoded picture in mode RGB: sRGB, transparent parts on white; itself where it is that.

    Args:
        image: in any mode that Pillow decodes; it is not changed.
        colour_managed: apply the embedded ICC profile. One that is broken, or for another kind of
            picture, is logged and ignored.
        name: for the log.

    Raises:
        ImageError: the mode is not one that a picture has.
    """
    base, alpha = _split_alpha(image)
    profile = image.info.get("icc_profile") if colour_managed else None
    rgb = _with_profile(base, profile, name) if isinstance(profile, bytes) and profile else None
    if rgb is None:
        rgb = _to_rgb(base)
    if alpha is None:
        return rgb
    del base  # a large picture should not be held three times
    canvas = Image.new("RGB", rgb.size, (255, 255, 255))
    canvas.paste(rgb, mask=alpha)
    return canvas


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image  # convert() would copy it
    return _lab_to_rgb(image) if image.mode == "LAB" else image.convert("RGB")


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours in mode L, RGB, CMYK or LAB, and the opacity in mode L where there is one."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _grey_to_8_bits(image)
    if mode in ("La", "RGBa"):  # stored multiplied by its opacity
        image, mode = image.convert(mode.upper()), mode.upper()
    if mode in ("P", "PA", "1", "L", "RGB") and image.has_transparency_data:
        image, mode = image.convert("RGBA"), "RGBA"
    if mode in ("LA", "RGBA"):
        return image.convert(mode[:-1]), image.getchannel("A")
    if mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    if mode == "1":
        return image.convert("L"), None
    if mode in ("P", "RGBX", "YCbCr", "HSV"):
        return image.convert("RGB"), None
    raise ImageError(f"pixels of the kind {mode!r} are not read", "image_unsupported")


def _grey_to_8_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    values = np.asarray(image)
    if image.mode == "F":
        grey = _floats_to_8_bits(values)
    elif image.mode == "I":
        grey = _integers_to_8_bits(values)
    else:
        tags: Any = getattr(image, "tag_v2", {})
        top = 4095 if tags.get(_BIT_DEPTH) in (12, (12,)) else 65535
        grey = _scale(values.clip(0, top), 0, top)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = np.subtract(255, grey, dtype=np.uint8)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(grey), None
    opaque = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.fromarray(grey), Image.fromarray(opaque)


def _integers_to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if 0 <= low and high <= 65535:
        return _scale(values, 0, 255 if high <= 255 else 65535)
    return _scale(values, low, high)


def _floats_to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low = float(values.min(where=finite, initial=np.inf))
    high = float(values.max(where=finite, initial=-np.inf))
    if 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    return _scale(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)


def _scale(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """`low` to 0 and `high` to 255, rounded; all black where they are equal. Row by row in blocks,
    because a float64 copy of a large picture would weigh 8 bytes a pixel."""
    result = np.empty(values.shape, dtype=np.uint8)
    factor = 255.0 / (high - low) if high > low else 0.0
    for start in range(0, len(values), 256):
        block = (values[start : start + 256].astype(np.float64) - low) * factor
        result[start : start + 256] = np.rint(block)
    return result


def _with_profile(base: Image.Image, profile: bytes, name: str) -> Image.Image | None:
    """The picture through its own profile, or None where the profile cannot be used."""
    try:
        if len(profile) > _MAX_PROFILE:
            raise ValueError("it is larger than 4 MB")
        if base.mode in ("L", "RGB") and len(profile) <= _MAX_REMEMBERED and _is_srgb(profile):
            return base.convert("RGB")
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = _PROFILE_MODES.get(space, "")
        if base.mode != mode and not (base.mode == "L" and mode == "RGB"):
            raise ValueError(f"it describes {space or 'nothing'}, the picture is {base.mode}")
        return _transform(base.convert(mode) if base.mode != mode else base, source)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        logger.warning("%s: the embedded colour profile is ignored (%s)", name, reason)
        return None


def _transform(base: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(
        source, ImageCms.createProfile("sRGB"), base.mode, "RGB", ImageCms.Intent.PERCEPTUAL
    )
    result = ImageCms.applyTransform(base, transform)
    assert result is not None  # None only where the transform is asked to work in place
    return result


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile is sRGB under any name: then the pixels stay exact. Remembered, because
    most files with a profile carry one of a few, and building a transform takes milliseconds."""
    source = ImageCms.getOpenProfile(io.BytesIO(profile))
    if source.profile.xcolor_space.strip() != "RGB":
        return False
    probe = _colour_cube()
    moved = np.asarray(_transform(probe, source), dtype=np.int16)
    return bool(np.abs(moved - np.asarray(probe, dtype=np.int16)).max() <= 1)


def _colour_cube() -> Image.Image:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    return Image.fromarray(cube)


def _lab_to_rgb(base: Image.Image) -> Image.Image:
    source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return _transform(base, source)
