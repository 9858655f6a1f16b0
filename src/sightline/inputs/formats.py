"""What the bytes of a picture are: decided from the content, never from a file's suffix.

Sources: PNG (W3C, third edition), JPEG (ITU T.81), GIF89a, WebP (RFC 9649), TIFF 6.0, the Windows
bitmap headers, ISO base media files (ISO 14496-12).
"""

from sightline.core.errors import ImageError

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "HEIC")


def identify(data: bytes) -> str:
    """The format of a picture, one of `FORMATS`, from its first bytes.

    Raises:
        ImageError: `image_empty`, `image_unsupported` with what the bytes look like, or
            `image_undecodable` where they look like nothing known.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)", "image_empty")
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    found = _iso_media(data) if data[4:8] == b"ftyp" else _other_kind(data)
    if found in FORMATS:
        return str(found)
    if found is None:
        raise ImageError(
            f"the content is not a picture of a known format; read are {', '.join(FORMATS)}",
            "image_undecodable",
        )
    raise ImageError(
        f"the content looks like {found}, which is not read; convert it to one of "
        f"{', '.join(FORMATS)} first",
        "image_unsupported",
    )


_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_OTHER_SIGNATURES = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"SIMPLE  =", "FITS"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "a DirectDraw surface (DDS)"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "a GIMP document (XCF)"),
    (b"P1", "a portable bitmap"),
    (b"P4", "a portable bitmap"),
    (b"P5", "a portable graymap"),
    (b"P6", "a portable pixmap"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "HDF5"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"version https://git-lfs", "a Git LFS pointer (fetch the real file with git lfs pull)"),
)


def _other_kind(data: bytes) -> str | None:
    for signature, name in _OTHER_SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "a video (AVI)"
    if data[128:132] == b"DICM":
        return "DICOM"
    text = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML")):
        if text.startswith(mark) or (text.startswith((b"<?xml", b"<!")) and mark in text):
            return name
    if text.startswith(b"<?xml"):
        return "XML"
    printable = all(byte >= 32 or byte in b"\t\r\n" for byte in text) and len(text) > 8
    return "plain text" if printable and text.isascii() else None


def _iso_media(data: bytes) -> str:
    end = min(max(int.from_bytes(data[:4], "big"), 16), 512)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
        return "HEIC"
    return "a video (MP4 or QuickTime)"
