"""Whether a file is safe to give to a decoder, from its header alone.

The size is checked before any raster exists, chunks that no picture needs are dropped before they
can be unpacked, and files that ask a decoder for unbounded work are refused. Sources: see
`sightline.inputs.formats`.
"""

import logging
import struct
import zlib
from collections.abc import Callable, Iterator

from sightline.core.errors import ImageError
from sightline.inputs.limits import DecodeOptions, check_size, damaged, truncated

logger = logging.getLogger(__name__)

_MAX_CHUNKS = 200_000  # PNG chunks, GIF blocks: what a walk in Python does within a second
_MAX_JPEG_SEGMENTS = 5_000
_MAX_JPEG_SCANS = 500  # each pass costs a whole picture; encoders write about ten
_MAX_BOXES = 10_000
_MAX_JUNK = 65_536  # bytes between markers
_MAX_RUN_LENGTH_PIXELS = 4_000_000  # Pillow unpacks run-length bitmaps in Python
_MAX_PROFILE = 1_000_000
_DEFLATE_RATIO = 1032  # the most that one byte of deflate can stand for


def guard(kind: str, data: bytes, options: DecodeOptions, name: str) -> bytes:
    """Check what a header promises, and return the bytes that the decoder may see.

    Args:
        kind: what `identify` answered.
        data: the whole file.
        options: the limits.
        name: for the log.

    Raises:
        ImageError: too large, truncated or damaged, as far as that shows without decoding.
    """
    guards: dict[str, Callable[[bytes, DecodeOptions, str], bytes]] = {
        "PNG": _guard_png,
        "JPEG": _guard_jpeg,
        "GIF": _guard_gif,
        "WebP": _guard_webp,
        "BMP": _guard_bmp,
        "TIFF": _guard_tiff,
        "AVIF": _guard_boxes,
        "HEIC": _guard_boxes,
    }
    check = guards.get(kind)
    return data if check is None else check(data, options, name)


# PNG. The chunks kept are those that decide pixels. Dropping the animation chunks leaves the
# default picture, which is the first frame or the still that the author chose for one.

_PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"IDAT", b"IEND"}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk up to and with IEND; the payload is [start+8, end-4)."""
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            raise truncated("its last chunk is missing")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise truncated(f"{len(data) - at:,} of {length + 12:,} bytes of a chunk are there")
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end
    raise damaged(f"it has more than {_MAX_CHUNKS:,} chunks")


def _guard_png(data: bytes, options: DecodeOptions, name: str) -> bytes:
    if len(data) < 33:
        raise truncated("the header is incomplete")
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or colour not in _PNG_CHANNELS:
        raise damaged("it does not begin with a header chunk")
    check_size(width, height, options)
    kept = [data[:8]]
    compressed = 0
    for kind, start, end in _png_chunks(data):
        if kind not in _PNG_NEEDED:
            continue
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            if kind[0] < 97:  # an upper-case first letter marks a chunk that no reader may skip
                raise damaged(f"a wrong checksum in its {kind.decode()} chunk")
            logger.warning("%s: a damaged %s chunk is ignored", name, kind.decode())
        elif kind != b"iCCP" or _png_profile_fits(data[start + 8 : end - 4], name):
            kept.append(data[start:end])
            compressed += end - start - 12 if kind == b"IDAT" else 0
    _check_png_data(width * depth * _PNG_CHANNELS[colour], height, compressed)
    return b"".join(kept)


def _check_png_data(row_bits: int, height: int, compressed: int) -> None:
    raw = height * ((row_bits + 7) // 8)
    if compressed * _DEFLATE_RATIO < raw:
        raise truncated(f"{compressed:,} bytes of pixel data cannot fill the size in its header")
    if compressed > 2 * (raw + 8 * height) + 4096:
        raise damaged(f"{compressed:,} bytes of pixel data are too many for the size in its header")


def _png_profile_fits(payload: bytes, name: str) -> bool:
    packed = payload[payload.find(b"\0") + 2 :]
    try:
        size = len(zlib.decompressobj().decompress(packed, _MAX_PROFILE))
    except zlib.error:
        size = 0
    if 0 < size < _MAX_PROFILE:
        return True
    logger.warning("%s: the colour profile is damaged or over 1 MB and is ignored", name)
    return False


# JPEG. Only markers before the first scan are walked; entropy-coded data is the decoder's.


def _guard_jpeg(data: bytes, options: DecodeOptions, name: str) -> bytes:
    junk = 0
    at = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        marker_at = data.find(b"\xff", at)
        if marker_at < 0 or marker_at + 4 > len(data):
            raise truncated("it ends before any pixel data")
        junk += marker_at - at
        marker = data[marker_at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at = marker_at + (1 if marker == 0xFF else 2)
            junk += at - marker_at
        elif marker == 0xD9:
            raise damaged("it ends before any pixel data")
        elif marker == 0xDA:
            return _check_scans(data)
        else:
            at = marker_at + 2 + _jpeg_segment(data, marker_at, marker, options)
        if junk > _MAX_JUNK:
            break
    raise damaged("its header is padded beyond reason")


def _jpeg_segment(data: bytes, at: int, marker: int, options: DecodeOptions) -> int:
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if length < 2:
        raise damaged("a segment of its header has no length")
    if at + 2 + length > len(data):
        raise truncated("it ends within its header")
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and length >= 8:
        height, width = struct.unpack_from(">HH", data, at + 5)
        check_size(width, height, options)
    return length


def _check_scans(data: bytes) -> bytes:
    if data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise damaged(f"it has more than {_MAX_JPEG_SCANS} scans")
    return data


# GIF, WebP, BMP


def _guard_gif(data: bytes, options: DecodeOptions, name: str) -> bytes:
    if len(data) < 13:
        raise truncated("the header is incomplete")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    check_size(width, height, options)
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    blocks = 0
    while at < len(data):
        if data[at] == 0x2C:
            return _check_gif_frame(data, at, options)
        if data[at] == 0x3B:
            raise damaged("it holds no frame")
        at += 2 if data[at] == 0x21 else 1
        while data[at - 2 : at - 1] == b"\x21" and at < len(data) and data[at]:
            at += data[at] + 1
            blocks += 1
        blocks += 1
        if blocks > _MAX_CHUNKS:
            raise damaged(f"it has more than {_MAX_CHUNKS:,} blocks before its first frame")
    raise truncated("it ends before its first frame")


def _check_gif_frame(data: bytes, at: int, options: DecodeOptions) -> bytes:
    if at + 10 > len(data):
        raise truncated("it ends within its first frame")
    left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
    if at + 10 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0) >= len(data):
        raise truncated("it ends within its first frame")
    check_size(left + width, top + height, options)
    return data


def _guard_webp(data: bytes, options: DecodeOptions, name: str) -> bytes:
    if len(data) < 30 or 8 + int.from_bytes(data[4:8], "little") > len(data):
        raise truncated(f"{len(data):,} bytes are there, the header promises more")
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise damaged("its first chunk is not a WebP picture")
    check_size(width, height, options)
    return data


def _guard_bmp(data: bytes, options: DecodeOptions, name: str) -> bytes:
    if len(data) < 26:
        raise truncated("the header is incomplete")
    if int.from_bytes(data[14:18], "little") == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        check_size(width, height, options)
        return data
    if len(data) < 54:
        raise truncated("the header is incomplete")
    width, height = struct.unpack_from("<ii", data, 18)
    check_size(width, abs(height), options)
    run_length = int.from_bytes(data[30:34], "little") in (1, 2)
    if run_length and width * abs(height) > _MAX_RUN_LENGTH_PIXELS:
        raise ImageError(
            f"{width:,} x {abs(height):,} pixels are too many for a run-length bitmap; at most "
            f"{_MAX_RUN_LENGTH_PIXELS:,} are read: save it as PNG first",
            "image_too_large",
        )
    return data


# TIFF and the ISO formats: whether the parts lie within the file; sizes are checked when opened


_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 13: 4, 16: 8}
# bits per sample, strip offsets and lengths, colour map, tile offsets and lengths
_TIFF_NEEDED = {258, 273, 279, 320, 324, 325}


def _guard_tiff(data: bytes, options: DecodeOptions, name: str) -> bytes:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    layout, entry = (order + "Q", 20) if big else (order + "H", 12)
    at_layout, at = (order + "Q", 8) if big else (order + "I", 4)
    try:
        (start,) = struct.unpack_from(at_layout, data, at)
        (count,) = struct.unpack_from(layout, data, min(start, len(data)))
    except struct.error:
        raise truncated("its directory is missing") from None
    if start + struct.calcsize(layout) + count * entry > len(data):
        raise truncated("its directory is incomplete")
    first = start + struct.calcsize(layout)
    _check_tags(data, range(first, first + count * entry, entry), order, big)
    return data


def _check_tags(data: bytes, entries: range, order: str, big: bool) -> None:
    """That the values of the tags that place the pixels lie within the file."""
    layout, inline = (order + "HHQQ", 8) if big else (order + "HHII", 4)
    for at in entries:
        tag, kind, count, where = struct.unpack_from(layout, data, at)
        size = count * _TIFF_SIZES.get(kind, 1)
        if tag in _TIFF_NEEDED and size > inline and where + size > len(data):
            raise truncated(f"the values of its tag {tag} are missing")


def _guard_boxes(data: bytes, options: DecodeOptions, name: str) -> bytes:
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > len(data):
            break
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size == 0:  # the last box, as long as the file
            return data
        if size < 8:
            raise damaged("a box has an impossible length")
        at += size
    if at > len(data):
        raise truncated(f"{len(data):,} of {at:,} bytes are there")
    return data
