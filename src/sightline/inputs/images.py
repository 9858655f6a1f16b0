"""Pictures from anywhere to uint8[H, W, 3]: the only place that decodes.

    source -> bytes -> identify -> guard -> Pillow, one format allowed -> sRGB -> upright -> array

A picture is decoded completely or refused with an `ImageError` whose `code` a program can read;
nothing is ever filled in with grey. Pillow's warnings and tolerance switches do not reach through.
"""

import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from sightline.core.errors import ImageError, SightlineError
from sightline.core.interfaces import StoredPicture
from sightline.core.lazy import require
from sightline.inputs.addresses import shown_address
from sightline.inputs.colour import to_srgb
from sightline.inputs.fetch import fetch
from sightline.inputs.folders import IMAGE_SUFFIXES, find_images, nearest_files, shown_name
from sightline.inputs.formats import identify
from sightline.inputs.headers import guard
from sightline.inputs.jpeg import is_complete, reduce, with_right_inks
from sightline.inputs.limits import (
    DEFAULT_OPTIONS,
    MAX_PIXELS,
    MAX_SIDE,
    DecodeOptions,
    check_size,
    damaged,
    truncated,
)
from sightline.inputs.strictness import strict_pillow

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "DecodeOptions",
    "ImageSource",
    "find_images",
    "is_address",
    "read_bytes",
    "read_image",
]

ImageSource = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8] | StoredPicture

_ADDRESS = re.compile(r"https?:[/\\]", re.IGNORECASE)
_ORIENTATION = 0x0112  # Exif 2.32, table 4
_PNG_DEPTH = 24  # the byte of the header that holds it
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    source: ImageSource, options: DecodeOptions = DEFAULT_OPTIONS, name: str | None = None
) -> NDArray[np.uint8]:
    """Read a picture as uint8[H, W, 3]: sRGB, upright, transparent parts on white, first frame.

    JPEG, PNG, WebP, GIF, BMP and TIFF; AVIF where Pillow was built with it; HEIC with the extra
    `heif`. The content decides, not the suffix. The rules for unusual pixels stand in
    `sightline.inputs.colour`. Colour spaces that only a PNG gAMA, cHRM or cICP chunk or an AVIF
    nclx box names are read as sRGB.

    Args:
        source: a path, an http(s) address, the bytes of a file, a PIL image (its current frame),
            a picture stored inside a larger file, or uint8[H, W, 3], which is returned as it is.
        options: limits and conversions.
        name: what messages call the picture; its path or kind when None.

    Raises:
        ImageError: the picture cannot be read; `.code` says why.
        AddressError: the address may not or could not be fetched.
        MissingDependencyError: a HEIC picture without the extra `heif`.
    """
    name = shown_name(name) if name is not None else _default_name(source)
    try:
        if isinstance(source, np.ndarray):
            return _checked_array(source)
        if isinstance(source, Image.Image):
            return _decoded(lambda: _finish(source, options, name))
        data = read_bytes(source, options)
        return _decoded(lambda: _decode(data, options, name))
    except ImageError as error:
        raise ImageError(f"{name}: {error}", error.code) from None


def is_address(source: object) -> bool:
    """Whether a source is an http(s) address, which `read_image` would fetch."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def _is_stored(source: object) -> TypeGuard[StoredPicture]:
    return hasattr(source, "read_stored")  # isinstance with a Protocol takes ten times as long


def _default_name(source: ImageSource) -> str:
    if isinstance(source, np.ndarray):
        return "picture (array)"
    if isinstance(source, Image.Image):
        return "picture (PIL image)"
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return shown_address(path) if is_address(path) else shown_name(path)
    if _is_stored(source):
        return shown_name(source.name)
    return f"picture ({type(source).__name__})"


# To bytes


def read_bytes(source: object, options: DecodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The undecoded bytes of a path, an http(s) address, bytes, or a picture in a larger file.

    Raises:
        ImageError: there is no such file, it is too large, or it is something else.
        AddressError: the address may not or could not be fetched.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, str) and is_address(source):
        if not options.remote:
            raise ImageError(
                "addresses are not fetched here; save the picture and give its file",
                "image_unsupported",
            )
        data = fetch(source, options.fetch)
    elif isinstance(source, str | os.PathLike):
        data = _read_file(Path(source), options)
    elif _is_stored(source):
        data = source.read_stored()
    else:
        raise ImageError(
            f"a {type(source).__module__}.{type(source).__qualname__} arrived; a picture is a "
            "path, an http(s) address, bytes, a PIL image or uint8[H, W, 3]",
            "image_unsupported",
        )
    if len(data) > options.max_bytes:
        raise _file_too_large(options)
    return data


def _read_file(path: Path, options: DecodeOptions) -> bytes:
    try:
        state = path.stat()
        # a pipe or a device may block or never end, so only a file is opened
        if stat.S_ISREG(state.st_mode) and state.st_size <= options.max_bytes:
            with path.open("rb") as file:
                return file.read(state.st_size + 1)  # bounded, should the file grow meanwhile
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"there is no such file{_hint(path)}", "image_not_found") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a possible file name"
        raise ImageError(f"the file cannot be opened ({reason})", "image_not_found") from None
    if stat.S_ISREG(state.st_mode):
        raise _file_too_large(options)
    if stat.S_ISDIR(state.st_mode):
        raise ImageError(
            "this is a folder; name one picture, or list them with find_images",
            "image_unsupported",
        )
    raise ImageError("this is a pipe or a device, not a file", "image_unsupported")


def _hint(path: Path) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", str(path)):
        return "; of addresses only http and https are read"
    return nearest_files(path)


def _file_too_large(options: DecodeOptions) -> ImageError:
    return ImageError(
        f"the file has more than {options.max_bytes:,} bytes, the most that is read",
        "image_too_large",
    )


def _checked_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    shape = list(array.shape)
    if array.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3 and array.size:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint8 and len(shape) == 3 and array.size == 0:
        raise ImageError(f"{array.dtype}{shape} arrived, which has no pixels", "image_empty")
    advice = "convert it first"
    if np.issubdtype(array.dtype, np.floating):
        advice = "multiply values in 0..1 by 255, round and convert to uint8"
    elif len(shape) == 2:
        advice = "repeat the grey channel: np.stack([grey] * 3, axis=-1)"
    elif len(shape) == 3 and shape[0] == 3:
        advice = "put the channels last: array.transpose(1, 2, 0)"
    elif len(shape) == 3 and shape[2] == 4:
        advice = "give PIL.Image.fromarray(array), which knows about transparency"
    raise ImageError(
        f"{array.dtype}{shape} arrived; a picture as an array is uint8[H, W, 3]: {advice}",
        "image_unsupported",
    )


# To pixels


def _decoded(decode: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The answer of a decoder, or an ImageError for whatever it raised."""
    try:
        with strict_pillow():
            return decode()
    except SightlineError:
        raise
    except Exception as error:  # decoders raise whatever hostile bytes make them raise
        raise _decoding_error(error) from None


def _decode(data: bytes, options: DecodeOptions, name: str) -> NDArray[np.uint8]:
    kind = identify(data)
    data = guard(kind, data, options, name)
    if kind == "HEIC":
        return _finish(_open_heic(data, options), options, name)
    if kind == "AVIF" and not features.check("avif"):
        raise ImageError(
            "this Pillow was built without AVIF; install its newest wheel, or convert the picture",
            "image_unsupported",
        )
    with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
        check_size(*image.size, options)
        if kind == "JPEG" and options.jpeg_side is not None:
            reduce(image, options.jpeg_side)
        if kind == "TIFF":
            _check_strips(image, len(data), options)
        transparent = image.info.get("transparency")
        if kind == "PNG" and data[_PNG_DEPTH] == 16 and isinstance(transparent, tuple):
            # Pillow keeps the high byte of 16-bit colours but not of the transparent one
            image.info["transparency"] = tuple(level >> 8 for level in transparent)
        covered = _covered(image)
        array = _finish(image, options, name)
        if kind == "JPEG" and not is_complete(image, data, options.jpeg_side):
            raise truncated("its pixel data end before the picture does")
    return array if covered is None else _on_white(array, covered)


def _open_heic(data: bytes, options: DecodeOptions) -> Image.Image:
    heif = require("pillow_heif", "heif", "reading HEIC pictures")
    file = heif.open_heif(io.BytesIO(data))
    width, height = file.size
    check_size(width, height, options)
    image: Image.Image = file.to_pillow()
    image.info.pop("exif", None)  # libheif has turned the picture already
    return image


def _check_strips(image: Any, length: int, options: DecodeOptions) -> None:
    """Refuse a TIFF whose tiles are larger than a picture may be, or whose data is not there."""
    tags = image.tag_v2
    check_size(tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1), options)
    for offsets, counts in ((273, 279), (324, 325)):
        pairs = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        if any(start + count > length for start, count in pairs):
            raise truncated("the file ends before its last strip")
    boxes = [tile[1] for tile in image.tile]
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if area < image.size[0] * image.size[1]:
        raise truncated("some of its strips are missing")


def _covered(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Where the first frame lies, if it leaves a part of an opaque canvas empty (GIF only)."""
    tiles = getattr(image, "tile", [])
    if image.format != "GIF" or not tiles or "transparency" in image.info:
        return None
    left, top, right, bottom = tiles[0][1]
    whole = (left, top, right, bottom) == (0, 0, *image.size)
    return None if whole else (left, top, right, bottom)


def _on_white(array: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    left, top, right, bottom = box
    canvas = np.full_like(array, 255)
    canvas[top:bottom, left:right] = array[top:bottom, left:right]
    return canvas


def _finish(image: Image.Image, options: DecodeOptions, name: str) -> NDArray[np.uint8]:
    check_size(*image.size, options)
    image.load()
    if image.format == "JPEG":
        image = with_right_inks(image)
    rgb = to_srgb(image, options.colour_managed, name)
    turn = _UPRIGHT.get(orientation_of(image))
    if turn is not None:
        rgb = rgb.transpose(turn)
    return np.array(rgb)


def orientation_of(image: Image.Image) -> int:
    """The Exif orientation; 1 where the metadata cannot be read, which must not cost a picture."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the parser raises whatever hostile bytes make it raise
        return 1


def _decoding_error(error: Exception) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(
            "it has too many pixels for Pillow (PIL.Image.MAX_IMAGE_PIXELS): make it smaller first",
            "image_too_large",
        )
    if isinstance(error, MemoryError):
        return ImageError("there is not enough memory to decode it", "image_too_large")
    if isinstance(error, UnidentifiedImageError):
        return damaged("its header cannot be read")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    if isinstance(error, EOFError) or re.search("truncated|not enough|end of file", reason, re.I):
        return truncated(reason)
    return damaged(reason)
