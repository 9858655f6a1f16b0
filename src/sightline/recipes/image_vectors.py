"""The vectors of a locked image tower, computed once and kept in the folder of the run.

A tower that does not learn gives a picture the same vector in every epoch, as long as the picture
is not cropped at random. `RUN/image_vectors/` holds them in parts of 4,096 rows, each a safetensors
file that is whole or not there, so that a computation that was stopped goes on with its next part.
Every part carries a key of all that its numbers depend on: the weights of the tower, how pictures
are prepared, which pictures these are, and the type of the products. Parts with another key, or
with other bytes than were written, are computed again; a run that has already learned from others
is refused.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sightline.core.errors import CheckpointError, ConfigError, ImageError
from sightline.core.files import atomic_file
from sightline.core.interfaces import StoredPicture
from sightline.data.mixtures import Mixture
from sightline.data.park.records import ParkRecords
from sightline.data.park.scenes import digest as park_digest
from sightline.data.records import Record
from sightline.tasks.batching import Failed, Pixels
from sightline.tasks.embed import encode_each, evaluating
from sightline.training import distributed
from sightline.training.checkpoints import cannot_write, checkpoint_folders
from sightline.training.options import Progress, autocast

if TYPE_CHECKING:
    from sightline.tasks.model import Model

logger = logging.getLogger(__name__)

FORMAT, VERSION = "sightline.image_vectors", 1
FOLDER = "image_vectors"
ROWS = 4096
"""Of a part."""


@dataclass(frozen=True)
class Looking:
    """How the tower looks at pictures, and where its vectors are kept."""

    model: Model
    """Its network has the tower as `image`."""
    out: Path
    """The folder of the run."""
    batch_size: int
    autocast: str
    """One of `training.options.AUTOCAST`."""


class VectorRecords(Sequence[Record]):
    """The records of a data set, each with the vector of its picture in the picture's place.

    Order, broken pictures and what a `Loader` compares on resuming are those of the data set.
    """

    def __init__(self, records: Sequence[Record], parts: Sequence[Tensor]) -> None:
        """
        Args:
            parts: float32[R, D] each, the rows of all distinct records one behind the other; NaN
                where a picture cannot be read.
        """
        self.records, self.parts = records, parts
        self.rows = sum(map(len, parts))
        for name in ("epoch_order", "fingerprint", "note_broken"):
            if hasattr(records, name):
                setattr(self, name, getattr(records, name))

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """
        Raises:
            ImageError: the picture could not be read when its vector was computed.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.records[index]
        # A mixture draws a record twice in an epoch under an index behind all records.
        part, row = divmod(index % self.rows, ROWS)
        vector = self.parts[part][row]
        if bool(vector.isnan().any()):
            raise ImageError(
                f"record {record.id!r}: the picture could not be read when its vector was computed",
                "image_undecodable",
            )
        return replace(record, image=vector.numpy())


def vector_records(
    looking: Looking, records: Sequence[Record], progress: Progress | None = None
) -> VectorRecords:
    """The records with the vectors that the run's folder holds; what it lacks is computed.

    Several processes share the parts; all of them need the folder.

    Raises:
        ConfigError: the run has learned from the vectors of other weights or pictures.
        CheckpointError: vectors of a newer version of this program.
        TrainingError: the disk cannot be written to.
    """
    # Of a mixture every record of every source once; drawn scenes are drawn when their part comes.
    distinct = list(records) if isinstance(records, Mixture) else records
    folder = looking.out / FOLDER
    key: str = distributed.first(lambda: _agreed_key(looking, distinct))
    count, ranks = math.ceil(len(distinct) / ROWS), distributed.world_size()
    for first in range(0, count, ranks):
        number = first + distributed.rank()
        if number < count and _read(_file(folder, number), key) is None:
            rows = slice(number * ROWS, (number + 1) * ROWS)
            vectors = _looked_at(looking, distinct[rows], number * ROWS, len(distinct), progress)
            _write(_file(folder, number), vectors, key, looking)
        distributed.total([0.0])  # nobody waits for more than one part of the others
    parts = [_read(_file(folder, number), key) for number in range(count)]
    if any(part is None for part in parts):
        raise CheckpointError(f"{folder}: parts have gone while they were written: start again")
    return VectorRecords(records, [part for part in parts if part is not None])


def key_of(looking: Looking, records: Sequence[Record]) -> str:
    """Sixty-four hexadecimal digits of all that the vectors depend on."""
    model, digest = looking.model, hashlib.sha256()
    with autocast(looking.autocast, model.device.type):
        lowered = torch.is_autocast_enabled(model.device.type)
    spec = getattr(model.processor.image, "spec", None)
    digest.update(repr((FORMAT, VERSION, spec, model.config.image, lowered)).encode())
    for name, tensor in sorted(model.network.image.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for identity in _identities(records):
        digest.update(b"\n" + identity)
    return digest.hexdigest()


def _identities(records: Sequence[Record]) -> Iterator[bytes]:
    if isinstance(records, ParkRecords):  # their seeds say what is drawn
        yield repr((park_digest(), vars(records.scenes))).encode()
    else:
        yield from map(_identity, records)


def _identity(record: Record) -> bytes:
    """What tells a picture from another: path, size and date of a file, else its bytes."""
    image = record.image
    if isinstance(image, Path):
        if not image.is_file():
            return f"missing {image}".encode("utf-8", "surrogateescape")
        found = image.stat()
        text = f"{image.absolute()} {found.st_size} {found.st_mtime_ns}"
        return text.encode("utf-8", "surrogateescape")
    if isinstance(image, StoredPicture):
        try:
            image = image.read_stored()
        except ImageError as error:
            return f"unreadable {record.id} {error.code}".encode()
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    pixels = np.ascontiguousarray(np.asarray(image))
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def _agreed_key(looking: Looking, records: Sequence[Record]) -> str:
    """The key, once the folder holds no parts of another one."""
    key, folder = key_of(looking, records), looking.out / FOLDER
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        logger.info(
            "the vectors of %d pictures are computed once and kept in %s", len(records), folder
        )
        return key
    if all(_told(file).get("key", key) == key for file in files):
        return key
    if checkpoint_folders(looking.out / "checkpoints"):
        raise ConfigError(
            f"{looking.out} has learned from the picture vectors of other weights, other pictures "
            "or another preparation: restore them, or choose another folder"
        )
    logger.info("%s holds vectors of other weights or pictures: they are computed again", folder)
    shutil.rmtree(folder)
    return key


def _looked_at(
    looking: Looking, records: Sequence[Record], done: int, total: int, progress: Progress | None
) -> Tensor:
    """float32[R, D]: what the tower makes of each picture; NaN for what cannot be read."""
    rows: list[Tensor | None] = []
    for answer in _answers(looking, records):
        if isinstance(answer, Failed):
            logger.warning("left out: %s", answer.error)
        rows.append(None if isinstance(answer, Failed) else answer)
        if progress is not None:
            progress.prepare(done + len(rows), total, "vectors of pictures")
    width = next((len(row) for row in rows if row is not None), looking.model.config.image.width)
    nothing = torch.full((width,), math.nan)
    return torch.stack([nothing if row is None else row for row in rows])


def _answers(looking: Looking, records: Sequence[Record]) -> Iterator[Tensor | Failed]:
    model = looking.model

    def encode(pixels: Pixels) -> Tensor:
        with evaluating(model.network), autocast(looking.autocast, model.device.type):
            pooled: Tensor = model.network.image(pixels.to(model.device)).pooled
            return pooled.float().cpu()

    images = (record.image for record in records)
    return encode_each(model, images, encode, looking.batch_size, "collect")


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def _write(file: Path, vectors: Tensor, key: str, looking: Looking) -> None:
    metadata = {"format": FORMAT, "version": str(VERSION), "key": key, "sha256": _sum(vectors)}
    try:
        with atomic_file(file) as temporary:
            save_file({"vectors": vectors}, os.fspath(temporary), metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise cannot_write(file, error, looking.out / "checkpoints") from error


def _read(file: Path, key: str) -> Tensor | None:
    """The rows of a part; None where it is not there, not of this key, or not as it was written."""
    told = _told(file)
    if told.get("key") != key:
        return None
    vectors = load_file(file)["vectors"]
    if told.get("sha256") != _sum(vectors):
        logger.warning("%s is damaged: it is computed again", file)
        return None
    return vectors


def _told(file: Path) -> dict[str, str]:
    """What a part says of itself; nothing of a file that is missing or broken.

    Raises:
        CheckpointError: it was written by a newer version.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            told: dict[str, str] = opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}
    if told.get("format") != FORMAT:
        return {}
    if told.get("version") != str(VERSION):
        raise CheckpointError(
            f"{file} has version {told.get('version')}, this Sightline reads {VERSION}: update "
            "Sightline, or delete the folder"
        )
    return told


def _sum(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.contiguous().view(torch.uint8).numpy().data).hexdigest()
