"""How large a picture may be, and the errors for one that is too large, cut off or damaged."""

from dataclasses import dataclass, field

from sightline.core.errors import ImageError
from sightline.inputs.addresses import FetchLimits

MAX_PIXELS = 64_000_000
MAX_SIDE = 16_384
MAX_BYTES = 268_435_456


@dataclass(frozen=True)
class DecodeOptions:
    """What `read_image` accepts and how it converts.

    Attributes:
        max_pixels: the most pixels a picture may have, read from its header before decoding. The
            peak is about 14 bytes a pixel for a JPEG and up to 32 where transparency, a profile
            and a turn come together: 0.9 to 2 GB at the default.
        max_side: the longest side. 16,384 is the limit of WebP and above what any model looks at;
            1 x 10,000 passes, and a strip of 1 x 64,000,000 cannot reach a resize.
        max_bytes: the largest file; the default holds `max_pixels` of uncompressed 8-bit RGBA.
        colour_managed: convert from the embedded ICC profile to sRGB.
        jpeg_side: decode a JPEG at 1/2, 1/4 or 1/8 of its size, as long as its shorter side keeps
            so many pixels; None decodes all of it. Quicker, and pixels differ: the decoder averages
            blocks where a resize would filter.
        remote: whether an http(s) address may be fetched at all.
        fetch: the rules of the fetcher.
    """

    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE
    max_bytes: int = MAX_BYTES
    colour_managed: bool = True
    jpeg_side: int | None = None
    remote: bool = True
    fetch: FetchLimits = field(default_factory=FetchLimits)


DEFAULT_OPTIONS = DecodeOptions()


def check_size(width: int, height: int, options: DecodeOptions) -> None:
    """Refuse a picture that is larger than the options allow.

    Raises:
        ImageError: `image_too_large`, or `image_undecodable` where a side is zero.
    """
    if width < 1 or height < 1:
        raise ImageError(f"the header says {width} x {height} pixels", "image_undecodable")
    if width * height > options.max_pixels or max(width, height) > options.max_side:
        raise ImageError(
            f"{width:,} x {height:,} pixels are too many; at most {options.max_pixels:,} in all "
            f"and {options.max_side:,} on a side are read: make it smaller first",
            "image_too_large",
        )


def truncated(what: str) -> ImageError:
    """The error for a file that ends too early."""
    return ImageError(f"the file is cut off: {what}; fetch or copy it again", "image_truncated")


def damaged(what: str) -> ImageError:
    """The error for a file whose parts contradict one another."""
    return ImageError(f"the file is damaged: {what}", "image_undecodable")
