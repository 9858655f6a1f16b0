"""Records on their way into an evaluation: the choice, their hash, their embeddings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.core.errors import AddressError, ConfigError, ImageError
from sightline.core.interfaces import StoredPicture
from sightline.evaluation.interfaces import DatasetLike, EmbeddingModel, RecordLike

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
"""Called with the number of pictures done and their total."""

UNREADABLE = (ImageError, AddressError)
"""What one broken picture raises; any other error ends the evaluation."""


class PictureEmbeddings(NamedTuple):
    """Embeddings of what could be read, and why the rest could not."""

    embeddings: Float[Tensor, "N D"]
    """NaN in the rows that could not be read."""
    read: Bool[Tensor, " N"]
    missing: tuple[str, ...]
    """The id and the reason of each picture that could not be read."""


def select(
    dataset: DatasetLike, limit: int | None, seed: int, has_truth: Callable[[RecordLike], bool]
) -> tuple[list[RecordLike], int, bool]:
    """The records to evaluate, how many had no truth, and whether `limit` left some out.

    A limit draws a seeded sample in the data's own order: the first ones of a folder per class
    would all be of one class.

    Raises:
        ConfigError: a limit below 1.
    """
    records = [dataset[i] for i in range(len(dataset))]
    usable = [record for record in records if has_truth(record)]
    chosen = drawn_part(usable, limit, seed)
    return chosen, len(records) - len(usable), len(chosen) < len(usable)


def drawn_part(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """A seeded sample of at most `limit` items in their own order; None for all.

    Raises:
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}: it must be at least 1, or None for all pictures")
    if limit is None or limit >= len(items):
        return list(items)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(items), generator=generator)[:limit].sort().values
    return [items[i] for i in chosen.tolist()]


def data_sha256(records: Sequence[RecordLike]) -> str:
    """Hash of pictures, captions, labels, questions, answers and choices, in any order of records.

    A file counts with its bytes, a picture in memory with its pixels, an address with its text, a
    file that cannot be opened as missing.
    """
    parts = []
    seen: dict[Path, bytes] = {}  # of two questions about one file it is read once
    for record in records:
        known = json.dumps([record.id, list(record.captions), record.label, *_asked(record)])
        shown = b"".join(picture_digest(picture, seen) for picture in pictures_of(record))
        parts.append(hashlib.sha256(known.encode() + b"\0" + shown).digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def pictures_of(record: RecordLike) -> tuple[Any, ...]:
    """All pictures of a record, in order."""
    return (record.image, *getattr(record, "more_images", ()))


def picture_digest(image: Any, seen: dict[Path, bytes] | None = None) -> bytes:
    """Hash of a picture as `data_sha256` counts it.

    Args:
        seen: hashes of files read before; what is read is added.
    """
    if not isinstance(image, Path) or seen is None:
        return _image_digest(image)
    if image not in seen:
        seen[image] = _image_digest(image)
    return seen[image]


def embed_pictures(
    model: EmbeddingModel,
    records: Sequence[RecordLike],
    batch_size: int,
    progress: Progress | None,
) -> PictureEmbeddings:
    """Embed every picture; one that cannot be read is named and leaves its batch."""
    rows: list[Tensor | None] = []
    reasons: dict[int, str] = {}
    for first in range(0, len(records), batch_size):
        batch = list(range(first, min(first + batch_size, len(records))))
        rows += _embed_readable(model, records, batch, batch_size, reasons)
        if progress is not None:
            progress(len(rows), len(records))
    width = next((len(row) for row in rows if row is not None), 0)
    blank = torch.full((width,), torch.nan)
    embeddings = torch.stack([blank if row is None else row for row in rows]) if rows else blank
    missing = tuple(f"{records[i].id}: {reasons[i]}" for i in sorted(reasons))
    read = torch.tensor([row is not None for row in rows], dtype=torch.bool)
    return PictureEmbeddings(embeddings.reshape(len(rows), width), read, missing)


def embed_captions(
    model: EmbeddingModel, texts: Sequence[str], chunk: int = 256
) -> Float[Tensor, "M D"]:
    """Embed texts a few at a time, so that a thousand classes times eighty prompts fit."""
    parts = [
        model.embed_texts(list(texts[i : i + chunk])).float() for i in range(0, len(texts), chunk)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, 0)


def _embed_readable(
    model: EmbeddingModel,
    records: Sequence[RecordLike],
    batch: list[int],
    batch_size: int,
    reasons: dict[int, str],
) -> list[Tensor | None]:
    """Rows of a batch; a batch that fails is halved until the broken picture is alone."""
    images = [records[i].image for i in batch]
    try:
        return list(model.embed_images(images, batch_size=batch_size).float())
    except UNREADABLE as error:
        if len(batch) == 1:
            reasons[batch[0]] = str(error)
            return [None]
    middle = len(batch) // 2
    return [
        *_embed_readable(model, records, batch[:middle], batch_size, reasons),
        *_embed_readable(model, records, batch[middle:], batch_size, reasons),
    ]


def _asked(record: RecordLike) -> list[Any]:
    """What a record asks; nothing where it asks nothing, so that such data keep their hash."""
    said = [getattr(record, name, None) for name in ("question", "answers", "choices")]
    return said if any(said) else []


def _image_digest(image: Any) -> bytes:
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return hashlib.sha256(image.encode()).digest()
    if isinstance(image, str | os.PathLike):
        return _file_digest(Path(image))
    if isinstance(image, StoredPicture):
        return _stored_digest(image)
    pixels = image.tobytes()  # a PIL image and a numpy array agree on the name
    size = getattr(image, "size", None) if hasattr(image, "mode") else image.shape
    kind = getattr(image, "mode", None) or str(image.dtype)
    return hashlib.sha256(f"{kind} {size} ".encode() + pixels).digest()


def _stored_digest(image: StoredPicture) -> bytes:
    try:
        return hashlib.sha256(image.read_stored()).digest()
    except ImageError:
        return b"missing"


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b"missing"
