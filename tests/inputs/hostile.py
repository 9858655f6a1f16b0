"""Makers of pictures that are valid, unusual, broken or hostile, as bytes.

Nothing here reads or writes files, so that tests of the library, the command line and a server can
share it: `from tests.inputs import hostile`.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms


def drawing(width: int = 48, height: int = 32) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry: uint8[H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(width - 1, 1)
    green = 255 * y / max(height - 1, 1)
    blue = 255 * (x + 2 * y) / max(width + 2 * height - 3, 1)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def encode(picture: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture in a format that Pillow writes."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def valid_files() -> dict[str, bytes]:
    """One small valid file of each kind that the reader takes, by a name for the kind."""
    picture = Image.fromarray(drawing())
    files = {
        "jpeg": encode(picture, "JPEG", quality=90),
        "jpeg-progressive": encode(picture, "JPEG", progressive=True),
        "jpeg-cmyk": encode(picture.convert("CMYK"), "JPEG"),
        "png": encode(picture, "PNG"),
        "png-palette": encode(picture.quantize(16), "PNG"),
        "webp": encode(picture, "WEBP"),
        "webp-lossless": encode(picture, "WEBP", lossless=True),
        "gif": encode(picture, "GIF"),
        "bmp": encode(picture, "BMP"),
        "tiff": encode(picture, "TIFF"),
        "tiff-lzw": encode(picture, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": encode(picture, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": encode(picture, "TIFF", compression="jpeg"),
    }
    from PIL import features

    if features.check("avif"):
        files["avif"] = encode(picture, "AVIF")
    return files


# PNG by hand


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", checksum)


def png(width: int, height: int, depth: int, colour: int, idat: bytes, extra: bytes = b"") -> bytes:
    """A PNG with exactly this header and this compressed data, whatever they say."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", idat)
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def deflated_zeros(count: int) -> bytes:
    """A zlib stream of `count` zeros, made at once because its blocks repeat."""
    packer = zlib.compressobj(9)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    tail = packer.compress(bytes(count % (1 << 20))) + packer.flush()
    checksum = struct.pack(">I", (count % 65521) << 16 | 1)  # Adler-32 of zeros
    return head + block * (count >> 20) + tail[:-4] + checksum


def png_bomb(side: int = 50_000) -> bytes:
    """One bit a pixel, all black: about 300 kB that stand for `side` x `side` pixels."""
    return png(side, side, 1, 0, deflated_zeros(side * (side // 8 + 1)))


def png_with_huge_chunk(kind: bytes, unpacked: int = 200 << 20) -> bytes:
    """A small good picture with an iCCP, zTXt or iTXt chunk that unpacks to `unpacked` bytes."""
    heads = {b"iCCP": b"name\0\0", b"zTXt": b"key\0\0", b"iTXt": b"key\0\1\0\0\0"}
    extra = png_chunk(kind, heads[kind] + deflated_zeros(unpacked))
    rows = b"".join(b"\0" + row.tobytes() for row in drawing())
    return png(48, 32, 8, 2, zlib.compress(rows), extra)


def png_16_bit(values: NDArray[np.uint16], *transparent: int) -> bytes:
    """Grey [H, W] or colour [H, W, 3] with 16 bits a sample, and the colour that is clear."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour = 0 if values.ndim == 2 else 2
    packed = struct.pack(f">{len(transparent)}H", *transparent)
    extra = png_chunk(b"tRNS", packed) if transparent else b""
    return png(values.shape[1], values.shape[0], 16, colour, zlib.compress(rows), extra)


def apng(frames: list[NDArray[np.uint8]]) -> bytes:
    return animation(frames, "PNG")


# Animations and pages


def animation(frames: list[NDArray[np.uint8]], kind: str, **options: Any) -> bytes:
    first, *rest = [Image.fromarray(frame) for frame in frames]
    return encode(first, kind, save_all=True, append_images=rest, duration=40, **options)


def gif_of_many_frames(count: int = 100_000) -> bytes:
    """A 2 x 2 GIF whose first frame is black, white, white, black."""
    head = b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\x02\x03\x44\x02\x05\0"
    return head + frame * count + b";"


def gif_of_small_frame() -> bytes:
    """A 4 x 4 canvas, opaque, of which the only frame covers one red pixel at (1, 2)."""
    head = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + b"\xff\0\0\0\0\xff"
    return head + b"," + struct.pack("<HHHHB", 1, 2, 1, 1, 0) + b"\x02\x02\x44\x01\0;"


def gif_of_endless_comments(count: int = 400_000) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0, 0, 0) + b"!\xfe\0" * count


def tiff_of_many_pages(count: int = 1_000) -> bytes:
    pages = [Image.fromarray(drawing(8, 6)), *([Image.new("RGB", (8, 6))] * (count - 1))]
    stream = io.BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    return stream.getvalue()


# TIFF by hand

_TIFF_TYPES = {"short": (3, "H"), "long": (4, "I")}


def tiff(entries: dict[int, tuple[str, list[int]]], data: bytes, order: str = "<") -> bytes:
    """A TIFF with these tags; the data begin at byte 8 and the directory follows them."""
    start = 8 + len(data) + len(data) % 2
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = mark + struct.pack(order + "I", start) + data + b"\0" * (len(data) % 2)
    tail_at = start + 2 + 12 * len(entries) + 4
    directory, tail = struct.pack(order + "H", len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        code, letter = _TIFF_TYPES[kind]
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            where = struct.pack(order + "I", tail_at + len(tail))
            tail += packed + b"\0" * (len(packed) % 2)
        else:
            where = packed.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, code, len(values)) + where
    return body + directory + struct.pack(order + "I", 0) + tail


def tiff_grey(values: NDArray[Any], photometric: int = 1, bits: int = 0, order: str = "<") -> bytes:
    """One sample a pixel, uncompressed, of the array's own type."""
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(order + values.dtype.str[1:]).tobytes()
    height, width = values.shape
    tags = tiff_tags(width, height, bits or values.dtype.itemsize * 8, photometric, len(data))
    return tiff(tags | {339: ("short", [sample_format])}, data, order)


def tiff_tags(
    width: int, height: int, bits: int, photometric: int, length: int
) -> dict[int, tuple[str, list[int]]]:
    """The tags of one uncompressed strip of one sample a pixel, which begins at byte 8."""
    return {
        256: ("long", [width]),
        257: ("long", [height]),
        258: ("short", [bits]),
        259: ("short", [1]),
        262: ("short", [photometric]),
        273: ("long", [8]),
        277: ("short", [1]),
        278: ("long", [height]),
        279: ("long", [length]),
    }


def tiff_missing_strips() -> bytes:
    """Eight rows are promised and the strips hold two."""
    tags = tiff_tags(8, 8, 8, 1, 16) | {278: ("long", [2])}
    return tiff(tags, bytes(range(16)))


def tiff_huge_tile(side: int = 60_000) -> bytes:
    """One pixel in a tile of `side` x `side`, compressed."""
    tags = tiff_tags(1, 1, 8, 1, 0) | {259: ("short", [8])}
    for tag in (273, 278, 279):
        del tags[tag]
    packed = zlib.compress(b"\0")
    tiles = {322: [side], 323: [side], 324: [8], 325: [len(packed)]}
    return tiff(tags | {tag: ("long", values) for tag, values in tiles.items()}, packed)


# JPEG, BMP, WebP by hand


def jpeg_cmyk(picture: NDArray[np.uint8], adobe: bool, profile: bytes | None = None) -> bytes:
    """CMYK 0..255 [H, W, 4] stored as Adobe does (inverted, with its marker) or plainly."""
    image = Image.fromarray(picture if adobe else 255 - picture, mode="CMYK")
    data = encode(image, "JPEG", quality=100, icc_profile=profile)
    at = data.find(b"\xff\xee\x00\x0eAdobe")
    assert at > 0, "Pillow marks its CMYK files"
    return data if adobe else data[:at] + data[at + 16 :]


def jpeg_header_size(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG whose frame header promises another size."""
    at = data.find(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def jpeg_of_many_scans(count: int = 2_000) -> bytes:
    data = encode(drawing(), "JPEG", progressive=True)
    at = data.rfind(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[-2:]


def jpeg_of_junk(count: int = 1 << 20) -> bytes:
    data = encode(drawing(), "JPEG")
    return data[:20] + bytes(count) + data[20:]  # behind the JFIF segment


def bmp_run_length(width: int, height: int, data: bytes = b"\0\0" * 4000) -> bytes:
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    offset = 14 + 40 + len(palette)
    file_header = b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset)
    return file_header + header + palette + data


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP header that promises a canvas."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sides
    return b"RIFF" + struct.pack("<I", len(body)) + body


# What is not a picture


def not_pictures() -> dict[str, tuple[bytes, str]]:
    """By kind: the bytes and the words by which a message should call them."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    return {
        "svg": (svg, "SVG"),
        "svg-prolog": (b'<?xml version="1.0"?>\n<!-- drawn -->\n' + svg, "SVG"),
        "html": (b"\n<!DOCTYPE html><html><body>Not found</body></html>", "HTML"),
        "pdf": (b"%PDF-1.7\n1 0 obj\n", "PDF"),
        "fits": (b"SIMPLE  =                    T" + b" " * 60, "FITS"),
        "psd": (b"8BPS\0\1" + bytes(40), "PSD"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        "ppm": (b"P6 2 2 255\n" + bytes(12), "pixmap"),
        "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(8), "video"),
        "zip": (b"PK\x03\x04" + bytes(30), "ZIP"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        "text": (b"This is not a picture.\n", "plain text"),
    }


# Colour profiles


def swapped_profile() -> bytes:
    """A matrix profile like sRGB whose red and green primaries have changed places."""
    profile = bytearray(srgb_profile())
    count = struct.unpack_from(">I", profile, 128)[0]
    at = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# Many small mistakes


def prefixes(data: bytes, count: int = 40) -> Iterator[bytes]:
    """The file cut at `count` places, the last few bytes among them."""
    cuts = {len(data) * i // count for i in range(1, count)} | {len(data) - i for i in (1, 2, 5)}
    for cut in sorted(cuts):
        yield data[:cut]
