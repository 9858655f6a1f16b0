"""What is remembered of each picture after one look: hashes, size, sharpness; 320 bytes each.

dHash is the difference hash of Krawetz ("Kind of Like That", 2013), with the grey conversion and
the Lanczos reduction of the ImageHash package, so that its hashes and these can be compared.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.core.devices import available_cores
from sightline.core.errors import SightlineError
from sightline.core.interfaces import StoredPicture
from sightline.core.pools import dismiss
from sightline.data.records import Dataset, Record
from sightline.inputs.images import read_image
from sightline.inputs.limits import DEFAULT_OPTIONS

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

THUMB_SIDE = 8
SHARPNESS_SIDE = 512
"""Pictures are reduced to this longer side first, so that sharpness compares across sizes."""
FLAT_CONTRAST = 2.0
"""Levels of 255; a picture whose grey levels deviate less is one colour to the eye."""
_AT_ONCE = 16
_FIELDS: Mapping[str, tuple[type, tuple[int, ...]]] = {
    "files": (np.uint8, (32,)),
    "pixels": (np.uint8, (32,)),
    "dhash": (np.uint8, (8,)),
    "mirrored": (np.uint8, (8,)),
    "dhash256": (np.uint8, (32,)),
    "thumbs": (np.uint8, (THUMB_SIDE, THUMB_SIDE, 3)),
    "sizes": (np.int32, (2,)),
    "sharpness": (np.float32, ()),
    "contrast": (np.float32, ()),
}


@dataclass(frozen=True)
class Fingerprints:
    """One row for each record, in the order of the data set."""

    ids: tuple[str, ...]
    read: NDArray[np.bool_]
    """bool[N]: whether the picture could be decoded; the other rows are zero where not."""
    in_file: NDArray[np.bool_]
    """bool[N]: whether there were the bytes of a file to hash."""
    broken: Mapping[int, str]
    """Number of a record that could not be read, to the reason."""
    files: NDArray[np.uint8]
    """uint8[N, 32]: SHA-256 of the file's bytes."""
    pixels: NDArray[np.uint8]
    """uint8[N, 32]: SHA-256 of size and decoded pixels, upright sRGB."""
    dhash: NDArray[np.uint8]
    """uint8[N, 8]: 64 bits, each whether a pixel of the 9 x 8 reduction exceeds its left one."""
    mirrored: NDArray[np.uint8]
    """uint8[N, 8]: the same of the picture flipped left to right."""
    dhash256: NDArray[np.uint8]
    """uint8[N, 32]: 256 bits, of the 17 x 16 reduction."""
    thumbs: NDArray[np.uint8]
    """uint8[N, 8, 8, 3]: mean colours of an 8 x 8 grid."""
    sizes: NDArray[np.int32]
    """int32[N, 2]: width and height in pixels, upright."""
    sharpness: NDArray[np.float32]
    """float32[N]: variance of the Laplacian of the grey levels; low is blurred."""
    contrast: NDArray[np.float32]
    """float32[N]: standard deviation of the grey levels."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def areas(self) -> NDArray[np.int64]:
        """int64[N]: pixels of each picture."""
        return self.sizes.astype(np.int64).prod(axis=1)


class _Look(NamedTuple):
    """The rows of one picture, or the reason why there are none."""

    rows: Mapping[str, Any]
    in_file: bool = False
    reason: str = ""


def fingerprint(dataset: Dataset, progress: Progress | None = None) -> Fingerprints:
    """Decode every picture once, with a thread a core, and remember what comparisons need.

    A picture that cannot be read is noted in the report of the data set and in `broken`.

    Args:
        dataset: the records; their pictures are decoded, never kept.
        progress: called with pictures done and pictures in all.
    """
    count = len(dataset)
    columns: dict[str, NDArray[Any]] = {
        name: np.zeros((count, *shape), kind) for name, (kind, shape) in _FIELDS.items()
    }
    read, in_file = np.zeros(count, bool), np.zeros(count, bool)
    broken: dict[int, str] = {}
    for number, look in enumerate(_looks(dataset)):
        for name, row in look.rows.items():
            columns[name][number] = row
        in_file[number], read[number] = look.in_file, not look.reason
        if look.reason:
            broken[number] = look.reason
            dataset.note_broken(dataset[number].id, look.reason)
        if progress is not None:
            progress(number + 1, count)
    ids = tuple(record.id for record in dataset)
    return Fingerprints(ids=ids, read=read, in_file=in_file, broken=broken, **columns)


def joined(parts: Sequence[Fingerprints]) -> Fingerprints:
    """The rows of several data sets one after the other."""
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    names = ("read", "in_file", *_FIELDS)
    return Fingerprints(
        ids=tuple(id for part in parts for id in part.ids),
        broken={
            start + number: reason
            for start, part in zip(starts, parts, strict=False)
            for number, reason in part.broken.items()
        },
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
    )


def difference_hash(picture: Image.Image, side: int = 8) -> NDArray[np.uint8]:
    """side * side bits as uint8[side * side / 8], row by row, the first bit highest."""
    return np.packbits(_rises(_reduced(picture.convert("L"), side)))


def laplacian_variance(grey: NDArray[np.uint8]) -> float:
    """Variance of the four-neighbour Laplacian of uint8[H, W], edges repeated.

    The focus measure of Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy"
    (2000).
    """
    padded = np.pad(grey.astype(np.float32), 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return float((around - 4 * inner).var())


def picture_bytes(image: object) -> bytes | None:
    """The file's bytes where a record names a file (or carries them); None for pixels in memory.

    None also for what `read_image` refuses to open, such as a pipe; it then says why.

    Raises:
        ImageError: a picture inside a larger file that cannot be read from there.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        try:
            small = image.is_file() and image.stat().st_size <= DEFAULT_OPTIONS.max_bytes
            return image.read_bytes() if small else None
        except (OSError, ValueError):
            return None
    return image.read_stored() if isinstance(image, StoredPicture) else None


def _looks(dataset: Dataset) -> Iterator[_Look]:
    """One look a record, in order, a bounded number of them ahead of the caller."""
    records = iter(dataset)
    waiting: deque[Future[list[_Look]]] = deque()
    threads = available_cores()
    pool = ThreadPoolExecutor(threads, "sightline-fingerprint")
    try:
        while True:
            while len(waiting) <= 2 * threads and (some := list(islice(records, _AT_ONCE))):
                waiting.append(pool.submit(lambda part: [_look(r) for r in part], some))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        dismiss(pool)


def _look(record: Record) -> _Look:
    try:
        data = picture_bytes(record.image)
        source: Any = record.image if data is None else data
        name = record.image.name if isinstance(record.image, Path) else record.id
        pixels = read_image(source, name=name)
    except SightlineError as error:  # also a data set whose archive is damaged
        return _Look({}, reason=str(error))
    rows = _rows(pixels)
    if data is not None:
        rows["files"] = _digest(hashlib.sha256(data))
    return _Look(rows, in_file=data is not None)


def _rows(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    grey = picture.convert("L")
    small = _reduced(grey, 8)
    digest = hashlib.sha256(f"{width}x{height}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    rows: dict[str, Any] = {
        "pixels": _digest(digest),
        "dhash": np.packbits(_rises(small)),
        "mirrored": np.packbits(_rises(small[:, ::-1])),
        "dhash256": np.packbits(_rises(_reduced(grey, 16))),
        "thumbs": np.asarray(
            picture.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX), dtype=np.uint8
        ),
        "sizes": (width, height),
    }
    grey.thumbnail((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.BOX)
    levels = np.asarray(grey)
    return {**rows, "sharpness": laplacian_variance(levels), "contrast": float(levels.std())}


def _reduced(grey: Image.Image, side: int) -> NDArray[np.uint8]:
    return np.asarray(grey.resize((side + 1, side), Image.Resampling.LANCZOS))


def _rises(small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return small[:, 1:] > small[:, :-1]


def _digest(digest: Any) -> NDArray[np.uint8]:
    return np.frombuffer(digest.digest(), np.uint8)
