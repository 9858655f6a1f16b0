"""What a data set holds, before anything is trained on it: counts, sizes, and what is wrong."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sightline.core.devices import available_cores
from sightline.core.errors import ImageError
from sightline.core.interfaces import StoredPicture
from sightline.data.formats import open_dataset
from sightline.data.records import Dataset, DatasetReport, Record
from sightline.inputs.images import read_image
from sightline.inputs.strictness import strict_pillow

log = logging.getLogger(__name__)

DOCUMENT_FORMAT = "sightline.inspection"
DOCUMENT_VERSION = 1
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
HEADER_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class Example(NamedTuple):
    """One record as a person would look at it."""

    id: str
    captions: tuple[str, ...]
    label: str | None
    split: str | None
    said: str = ""
    """Its question with the first answer, its first turn, or the names of its regions."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect_dataset` found. Quantiles map "min", "5%", ... "max" to a number."""

    path: str
    report: DatasetReport
    """Format and why, counts, splits, labels, missing pictures, broken ones among the checked."""
    caption_words: Mapping[str, float]
    """Words a caption, split at blanks."""
    caption_characters: Mapping[str, float]
    checked: int
    """Pictures that were opened; fewer than the records where a limit was set."""
    decoded: bool
    """Whether the checked pictures were decoded whole, or only their headers read."""
    widths: Mapping[str, float]
    """Pixels, as stored: before the EXIF orientation is applied."""
    heights: Mapping[str, float]
    modes: Mapping[str, int]
    """Pillow's name of the stored pixels (RGB, L, P, CMYK ...) to a count."""
    file_formats: Mapping[str, int]
    file_bytes: Mapping[str, float]
    duplicates: tuple[tuple[str, ...], ...]
    """Ids of checked pictures whose files are equal byte for byte (SHA-256)."""
    examples: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as one JSON document with `format` and `version`."""
        document = asdict(self)
        document["report"] = self.report.to_json()
        document["examples"] = [example._asdict() for example in self.examples]
        return {"format": DOCUMENT_FORMAT, "version": DOCUMENT_VERSION, **document}


class _Look(NamedTuple):
    """One opened picture; `reason` is empty where it could be read."""

    id: str
    reason: str
    width: int = 0
    height: int = 0
    mode: str = "unknown"
    kind: str = "unknown"
    size: int = 0
    digest: str = ""


def inspect_dataset(
    path: str | os.PathLike[str],
    format: str | None = None,
    strict: bool = False,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    limit: int | None = 10_000,
    decode: bool = True,
    examples: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Open a data set, open its pictures, and report.

    Args:
        format: as for `open_dataset`, like `split` and `images`.
        strict: refuse data with anything wrong in it.
        limit: open at most so many pictures, spread evenly over the records; None opens all.
        decode: decode every checked picture, which also finds files that break off; otherwise
            only headers are read, some twenty times faster.
        progress: called with pictures done and pictures in all.

    Raises:
        DataError: as `open_dataset`; with `strict` also for broken pictures.
    """
    dataset = open_dataset(path, format, split=split, images=images)
    chosen = _spread(_one_a_picture(dataset), limit)
    looks = _look_at(chosen, decode, progress)
    for look in looks:
        if look.reason:
            dataset.note_broken(look.id, look.reason)
    if strict:
        dataset.check()
    return _inspection(Path(path), dataset, looks, decode, examples)


def _inspection(
    path: Path, dataset: Dataset, looks: Sequence[_Look], decode: bool, examples: int
) -> Inspection:
    captions = [caption for record in dataset for caption in record.captions]
    good = [look for look in looks if not look.reason]
    return Inspection(
        path=str(path),
        report=dataset.report,
        caption_words=quantiles(len(caption.split()) for caption in captions),
        caption_characters=quantiles(len(caption) for caption in captions),
        checked=len(looks),
        decoded=decode,
        widths=quantiles(look.width for look in good),
        heights=quantiles(look.height for look in good),
        modes=dict(Counter(look.mode for look in good).most_common()),
        file_formats=dict(Counter(look.kind for look in good).most_common()),
        file_bytes=quantiles(look.size for look in good),
        duplicates=_duplicates(good),
        examples=tuple(
            Example(r.id, r.captions, r.label, r.split, _said(r)) for r in dataset[:examples]
        ),
    )


def _said(record: Record) -> str:
    if record.question is not None:
        return f"{record.question} {record.answers[0] if record.answers else ''}".rstrip()
    if record.messages:
        return record.messages[0].text
    return ", ".join(region.label for region in record.regions)


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """Seven quantiles by name, linearly interpolated; empty for no values."""
    numbers = np.fromiter(values, dtype=np.float64)
    if not len(numbers):
        return {}
    names = ["min", *(f"{q:.0%}" for q in QUANTILES[1:-1]), "max"]
    return dict(zip(names, np.quantile(numbers, QUANTILES).tolist(), strict=True))


def _one_a_picture(dataset: Dataset) -> list[Record]:
    """A record for each picture: several questions may share one, one record have several."""
    seen: set[object] = set()
    found = []
    for record in dataset:
        for picture in record.pictures:
            key = picture if isinstance(picture, Path) else id(picture)
            if key not in seen:
                seen.add(key)
                whole = picture is record.image
                found.append(record if whole else replace(record, image=picture, messages=()))
    return found


def _spread(records: Sequence[Record], limit: int | None) -> list[Record]:
    if limit is None or limit >= len(records):
        return list(records)
    return [records[i * len(records) // limit] for i in range(limit)]


def _look_at(
    records: Sequence[Record], decode: bool, progress: Callable[[int, int], None] | None
) -> list[_Look]:
    """Open the pictures that are there, in order, with a thread a core."""
    present = [r for r in records if not isinstance(r.image, Path) or r.image.is_file()]
    looks = []
    with ThreadPoolExecutor(available_cores(), "sightline-inspect") as pool:
        for look in pool.map(lambda record: _look(record, decode), present):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(present))
    return looks


def _look(record: Record, decode: bool) -> _Look:
    """Open one picture. Decoding goes through `read_image`, the only judge of what is readable."""
    image = record.image
    if not isinstance(image, Path):
        return _look_at_bytes(record, decode)
    try:
        pixels = read_image(image) if decode else None
    except ImageError as error:
        return _Look(record.id, str(error))
    mode, kind, width, height, reason = _header(image)
    if pixels is not None and reason:  # a format that only our decoder knows, such as HEIC
        height, width = pixels.shape[:2]
        mode, kind, reason = "RGB", image.suffix.lstrip(".").upper(), ""
    if reason:
        return _Look(record.id, reason)
    try:
        with image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        return _Look(record.id, f"{image.name}: cannot be read ({error.strerror or error})")
    return _Look(record.id, "", width, height, mode, kind, size, digest)


def _look_at_bytes(record: Record, decode: bool) -> _Look:
    """A picture that lies in a shard, or in memory as encoded bytes."""
    image = record.image
    if not isinstance(image, bytes | StoredPicture):
        return _Look(record.id, "only encoded pictures are inspected")
    name = image.name if isinstance(image, StoredPicture) else record.id
    try:
        data = image if isinstance(image, bytes) else image.read_stored()
        pixels = read_image(data, name=name) if decode else None
    except ImageError as error:
        return _Look(record.id, str(error))
    mode, kind, width, height, reason = _header(io.BytesIO(data), name)
    if pixels is not None and reason:
        (height, width), mode, kind, reason = pixels.shape[:2], "RGB", "unknown", ""
    digest = hashlib.sha256(data).hexdigest()
    return _Look(record.id, reason, width, height, mode, kind, len(data), digest)


def _header(source: Path | io.BytesIO, name: str | None = None) -> tuple[str, str, int, int, str]:
    """Mode, format, width, height from the header, and the reason where there is none."""
    from PIL import Image

    name = name or (source.name if isinstance(source, Path) else "picture")
    try:
        with strict_pillow(), Image.open(source, formats=HEADER_FORMATS) as image:
            return image.mode, image.format or "unknown", image.width, image.height, ""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        what = "no picture of a known format" if type(error).__name__.startswith("Un") else error
        return "unknown", "unknown", 0, 0, f"{name}: {what}"


def _duplicates(looks: Iterable[_Look]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for look in looks:
        groups.setdefault(look.digest, []).append(look.id)
    return tuple(tuple(ids) for ids in groups.values() if len(ids) > 1)
