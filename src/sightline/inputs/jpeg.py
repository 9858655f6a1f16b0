"""What Pillow does not tell about a JPEG: if its inks are inverted, and if it is whole."""

import io

from PIL import Image, ImageChops

_END = b"\xff\xd9"
_SCAN = b"\xff\xda"
# bytes that no decoder takes for a marker and whose bits decode to something uneven
_FILLER = bytes((73 * at + 41) % 251 for at in range(4096))


def with_right_inks(image: Image.Image) -> Image.Image:
    """CMYK as 0 for no ink. Pillow inverts every CMYK JPEG, as Adobe's programs store them; only
    files with Adobe's marker (APP14) are stored so."""
    if image.mode != "CMYK" or "adobe" in image.info:
        return image
    plain = ImageChops.invert(image)
    plain.info = image.info
    return plain


def reduce(image: Image.Image, side: int) -> None:
    """Have an opened JPEG decoded at 1/2, 1/4 or 1/8, its shorter side not below `side`."""
    image.draft(None, (side, side))  # None keeps the mode


def is_complete(image: Image.Image, data: bytes, side: int | None = None) -> bool:
    """Whether the pixel data reach to the end of a picture that libjpeg decoded without an error.

    Where a file has its end mark too early, or promises more pixels than it holds, libjpeg fills
    the rest with mid-grey and Pillow does not pass its warning on. So a picture whose last pixel is
    exactly mid-grey is decoded again with filler before the end mark: only a decoder that still
    wanted data reads it, and then the pictures differ.

    Args:
        image: as Pillow decoded it.
        data: the file it was decoded from.
        side: what it was reduced to.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    levels = last if isinstance(last, tuple) else (last,)
    if any(level not in (127, 128) for level in levels):
        return True
    end = data.find(_END, data.find(_SCAN))
    if end < 0:
        return True
    padded = io.BytesIO(data[:end] + _FILLER + data[end:])
    try:
        with Image.open(padded, formats=["JPEG"]) as again:
            if side is not None:
                reduce(again, side)
            again.load()
            return ImageChops.difference(image, again).getbbox(alpha_only=False) is None
    except (OSError, SyntaxError, ValueError):
        return True  # the mark was found inside a table, so nothing was learnt
