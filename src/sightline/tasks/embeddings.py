"""Vectors with the names they belong to and the model they came from, in memory and in one file.

The file is safetensors: `vectors` float32[N, D], `ids` (UTF-8 JSON as bytes), `probe` float32[P, D]
and, in its metadata, `format`, `version` and what made the vectors. Vectors of two models look
alike and mean nothing to each other, so a file is compared with a model before it is searched: by
the preprocessing, and by a probe, the model's own embedding of a drawn picture (and of a sentence,
where it reads text). Names alone would not notice a folder whose weights were trained further.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sightline.core.errors import DataError, InputError
from sightline.core.files import atomic_file
from sightline.tasks.batching import Failed, as_texts, source_name
from sightline.tasks.embed import embed_images, embed_readable, embed_texts

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model

FORMAT = "sightline.embeddings"
VERSION = 1
PROBE_TEXT = "a red bench beside a small lake"
# bfloat16 on one side and float32 on the other is the same model (DESIGN's batch policy).
SAME_COSINE, SAME_DIFFERENCE = 0.9995, 2.0**-6

Kind = Literal["image", "text"]


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors, what each belongs to, and which model made them."""

    ids: tuple[str, ...]
    vectors: Tensor
    """float32[N, D], unit length."""
    kind: Kind
    model: str
    revision: str | None
    preprocessing: str
    """Digest of the picture preprocessing."""
    probe: Tensor
    """float32[P, D]: the model's embedding of the probe picture, then of the probe sentence."""

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return int(self.vectors.size(1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, whole or not at all."""
        from safetensors.torch import save_file

        about = {
            "format": FORMAT,
            "version": str(VERSION),
            "about": json.dumps({"kind": self.kind, "model": self.model, "dim": self.dim,
                                 "revision": self.revision, "count": len(self.ids),
                                 "preprocessing": self.preprocessing}),
        }  # fmt: skip
        # Escaped JSON also carries file names that are not UTF-8.
        ids = np.frombuffer(json.dumps(self.ids).encode(), np.uint8).copy()
        tensors = {
            "vectors": self.vectors.contiguous(),
            "probe": self.probe.contiguous(),
            "ids": torch.from_numpy(ids),
        }
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata=about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embeddings:
        """Read a file that `save` wrote.

        Raises:
            DataError: not such a file, damaged, or of a newer version.
        """
        name = os.fspath(path)
        tensors, about = _read(name)
        try:
            ids = json.loads(tensors["ids"].numpy().tobytes())
            vectors, probe = tensors["vectors"], tensors["probe"]
            loaded = cls(
                ids=tuple(ids), vectors=vectors, kind=about["kind"], model=about["model"],
                revision=about["revision"], preprocessing=about["preprocessing"], probe=probe,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, RecursionError):
            raise DataError(
                f"{name}: embeddings are incomplete; embed the collection again"
            ) from None
        loaded._check(name)
        return loaded

    def check_model(self, model: Model) -> None:
        """Make sure that queries of this model can be compared with these vectors.

        Raises:
            DataError: they were made by another model or with another preprocessing.
        """
        again = "embed the collection again, or load the model that made it"
        if self.preprocessing != preprocessing_digest(model):
            raise DataError(
                f"these embeddings were made by {self.model} with another picture preprocessing "
                f"than {model.name} has: {again}"
            )
        own = probe(model)
        if own.shape != self.probe.shape or not _same(own, self.probe):
            raise DataError(
                f"these embeddings ({self.dim} numbers each) were made by {_made_by(self)}, and "
                f"{model.name} (revision {model.revision}) gives other vectors: {again}"
            )

    def _check(self, name: str) -> None:
        fits = (
            self.vectors.ndim == 2
            and self.probe.ndim == 2
            and self.vectors.dtype == self.probe.dtype == torch.float32
            and self.probe.size(1) == self.dim
            and len(self.ids) == len(self.vectors)
            and all(isinstance(id_, str) for id_ in self.ids)
            and isinstance(self.model, str)
            and isinstance(self.preprocessing, str)
            and self.kind in ("image", "text")
        )
        if not fits:
            raise DataError(f"{name}: ids and vectors do not fit; embed the collection again")
        lengths = self.vectors.norm(dim=1)
        if not bool(((lengths - 1).abs() < 1e-3).all()):  # NaN fails too
            raise DataError(f"{name}: holds vectors that are not of length one; embed again")


def of_images(
    model: Model, sources: Iterable[Any], ids: Sequence[str] | None = None, batch_size: int = 32
) -> tuple[Embeddings, list[Failed]]:
    """Embed a collection of pictures; those that cannot be read are left out and named.

    Args:
        model: what embeds.
        sources: the pictures.
        ids: their names; by default path or address, else the kind and the place.
        batch_size: pictures through the network at once.
    """
    listed = list(sources)
    names = [source_name(source, place) for place, source in enumerate(listed)]
    names = _checked_ids(names if ids is None else ids, len(listed))
    embedded = embed_readable(model, listed, batch_size)
    kept = tuple(names[place] for place in embedded.places)
    return _made(model, kept, embedded.vectors, "image"), embedded.failed


def of_texts(model: Model, texts: Iterable[str], ids: Sequence[str] | None = None) -> Embeddings:
    """Embed a collection of sentences, each named by itself unless `ids` are given."""
    listed = as_texts(texts)
    names = _checked_ids(listed if ids is None else ids, len(listed))
    return _made(model, tuple(names), embed_texts(model, listed), "text")


def probe(model: Model) -> Tensor:
    """float32[P, D]: embeddings of a drawn picture and of a sentence, whatever the model takes."""
    if model.system.role == "text encoder":
        return embed_texts(model, PROBE_TEXT)
    row, column = np.mgrid[0:72, 0:96]
    picture = np.stack([row * 3, column * 2, (row // 8 + column // 8) % 2 * 255], axis=-1)
    vectors = embed_images(model, picture.astype(np.uint8))
    if model.system.role != "dual encoder":
        return vectors
    return torch.cat([vectors, embed_texts(model, PROBE_TEXT)])


def preprocessing_digest(model: Model) -> str:
    """Sixteen hex digits that change when the preprocessing or the decoding of pictures does."""
    spec = getattr(model.processor.image, "spec", None)
    fields = asdict(spec) if is_dataclass(spec) and not isinstance(spec, type) else repr(spec)
    text = json.dumps(fields, sort_keys=True, default=str)
    if model.decode != "exact":
        text += model.decode
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _made(model: Model, ids: tuple[str, ...], vectors: Tensor, kind: Kind) -> Embeddings:
    return Embeddings(
        ids,
        vectors,
        kind,
        str(model.name),
        model.revision,
        preprocessing_digest(model),
        probe(model),
    )


def _made_by(embeddings: Embeddings) -> str:
    return f"{embeddings.model} (revision {embeddings.revision})"


def _same(one: Tensor, other: Tensor) -> bool:
    close = (one * other).sum(dim=1).min() >= SAME_COSINE
    return bool(close and (one - other).abs().max() <= SAME_DIFFERENCE * other.abs().max())


def _checked_ids(ids: Sequence[str], count: int) -> list[str]:
    listed = as_texts(ids, "ids")
    if len(listed) != count:
        raise InputError(f"{len(listed)} ids arrived for {count} items: give one each")
    return listed


def _read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not Path(name).is_file():
        raise DataError(f"{name}: no such file of embeddings")
    try:
        with safe_open(name, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DataError(f"{name}: not a file of embeddings that Sightline wrote")
            _check_version(name, metadata.get("version", ""))
            about = json.loads(metadata.get("about", "null"))
            return {key: file.get_tensor(key) for key in file.keys()}, about
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: embeddings cannot be read: {error}") from None


def _check_version(name: str, version: str) -> None:
    if not version.isdigit() or int(version) < 1:
        raise DataError(f"{name}: embeddings of version {version!r}, which does not exist")
    if int(version) > VERSION:
        raise DataError(
            f"{name}: embeddings of version {version}, this program reads up to {VERSION}: "
            "update Sightline"
        )
