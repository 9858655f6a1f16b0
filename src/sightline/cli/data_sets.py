"""What the commands on whole data sets share: their options, fingerprints, vectors, lists."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sightline.cli.loading import load_model
from sightline.cli.output import Call
from sightline.cli.progress import Meter
from sightline.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sightline.data.curation.fingerprints import Fingerprints
    from sightline.data.curation.matching import Evidence, Thresholds
    from sightline.data.records import Dataset
    from sightline.tasks.embeddings import Embeddings

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Source:
    """A data set as the command line names it."""

    path: str
    format: str | None = None
    split: str | None = None
    images: str | None = None

    def open(self, listed: bool = False) -> Dataset:
        """Its records.

        Args:
            listed: whether a list of them will be written, which is refused at once where their
                pictures are in no files of their own.

        Raises:
            DataError: as `open_dataset`.
        """
        from sightline.data.curation.listing import check_listable
        from sightline.data.formats import open_dataset

        dataset = open_dataset(self.path, self.format, split=self.split, images=self.images)
        if listed:
            check_listable(dataset)
        return dataset


@dataclass(frozen=True)
class Matching:
    """Which records count as the same, as the command line says it."""

    methods: tuple[str, ...] | None
    dhash: int | None
    cosine: float | None
    jaccard: float | None
    embeddings: tuple[str, ...]
    batch: int

    @property
    def thresholds(self) -> Thresholds:
        """The given ones, and the defaults for the rest."""
        from sightline.data.curation.matching import Thresholds

        given = {"dhash": self.dhash, "cosine": self.cosine, "jaccard": self.jaccard}
        return Thresholds(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def source_options(function: F) -> F:
    """PATH, --format, --split and --images; the function gets them as one `source`."""

    @functools.wraps(function)
    def framed(*positional: Any, **options: Any) -> Any:
        names = ("path", "format_", "split", "images")
        source = Source(*(options.pop(name) for name in names))
        return function(*positional, source=source, **options)

    for option in (
        click.option("--images", metavar="DIR", help="The folder that paths are relative to."),
        click.option("--split", metavar="NAME", help="Only this part, such as train."),
        click.option("--format", "format_", metavar="NAME",
                     help="Where it is not found by itself."),
        click.argument("path", type=click.Path()),
    ):  # fmt: skip
        framed = option(framed)
    return framed  # type: ignore[return-value]


def matching_options(default: str) -> Callable[[F], F]:
    """--methods and thresholds; the function gets them as one `matching`.

    Args:
        default: what the help says is taken without --methods.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def framed(*positional: Any, **options: Any) -> Any:
            text = options.pop("methods")
            methods = None if text is None else tuple(m.strip() for m in text.split(",") if m)
            names = ("dhash", "cosine", "jaccard", "embeddings", "batch")
            matching = Matching(methods, *(options.pop(name) for name in names))
            return function(*positional, matching=matching, **options)

        for option in reversed(_matching(default)):
            framed = option(framed)
        return framed  # type: ignore[return-value]

    return decorate


def _matching(default: str) -> list[Callable[[Any], Any]]:
    return [
        click.option("--methods", metavar="NAMES",
                     help="bytes, pixels, dhash, dhash256, mirror, embedding, captions, "
                     f"similar-captions. Default: {default}."),
        click.option("--dhash", type=int, metavar="BITS",
                     help="Bits of 64 that may differ. Default: 11."),
        click.option("--cosine", type=click.FloatRange(-1, 1), metavar="C",
                     help="Least cosine of two embeddings. Default: 0.95."),
        click.option("--jaccard", type=click.FloatRange(0, 1), metavar="J",
                     help="Least likeness of two captions. Default: 0.8."),
        click.option("--embeddings", multiple=True, metavar="FILE",
                     type=click.Path(exists=True, dir_okay=False),
                     help="Vectors that `sightline embed` wrote; several files of one model. "
                     "Without, --methods embedding runs the model."),
        click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True,
                     metavar="N", help="Pictures through the network at once."),
    ]  # fmt: skip


def gather(call: Call, dataset: Dataset, matching: Matching, methods: Sequence[str]) -> Evidence:
    """Everything that the methods ask about a data set; unreadable pictures are named."""
    from sightline.data.curation.matching import Evidence

    prints = prints_of(call, dataset)
    vectors = None
    if "embedding" in methods or matching.embeddings:
        vectors = vectors_of(call, dataset, matching.embeddings, matching.batch)
    return Evidence(prints, [record.captions for record in dataset], vectors)


def prints_of(call: Call, dataset: Dataset) -> Fingerprints:
    """Fingerprints of every picture; unreadable ones are named among the failed."""
    from sightline.data.curation.fingerprints import fingerprint

    with Meter(call) as meter:
        prints = fingerprint(dataset, meter.update)
    for number, reason in prints.broken.items():
        fail(call, prints.ids[number], reason)
    return prints


def vectors_of(
    call: Call, dataset: Dataset, files: Sequence[str], batch: int
) -> NDArray[np.float32]:
    """float32[N, D]: saved embeddings by the names of the pictures, else those of the model.

    Raises:
        DataError: the files come from several models, or have no picture of the data set.
    """
    from sightline.data.curation.clusters import checked_vectors

    if files:
        return saved_vectors(call, dataset, files)
    from sightline.evaluation.records import embed_pictures

    model = load_model(call, "embed")
    with Meter(call) as meter:
        found = embed_pictures(model, list(dataset), batch, meter.update)
    return checked_vectors(found.embeddings.numpy(), len(dataset))


def saved_vectors(call: Call, dataset: Dataset, files: Sequence[str]) -> NDArray[np.float32]:
    """Rows of saved embeddings for the pictures that they have; NaN for the others, which is said.

    Raises:
        DataError: the files come from several models, or have no picture of the data set.
    """
    import numpy as np

    from sightline.data.curation.clusters import checked_vectors

    saved = load_embeddings(files)
    call.model = call.model or saved[0].model
    places = {_location(id): (part, row) for part in saved for row, id in enumerate(part.ids)}
    rows = np.full((len(dataset), saved[0].dim), np.nan, np.float32)
    for number, record in enumerate(dataset):
        for name in (str(record.image), record.id):
            if found := places.get(_location(name)):
                rows[number] = found[0].vectors[found[1]].numpy()
                break
    there = int(np.isfinite(rows).all(axis=1).sum())
    if not there:
        raise DataError(
            f"{', '.join(files)}: no vector of any picture of {dataset.name}: embed its pictures "
            "(sightline embed PATH --out FILE)"
        )
    if there < len(dataset):
        call.warn(f"{len(dataset) - there:,} of {len(dataset):,} pictures have no saved vector")
    return checked_vectors(rows, len(dataset))


def load_embeddings(files: Sequence[str]) -> list[Embeddings]:
    """Files that `sightline embed` wrote.

    Raises:
        DataError: not such a file, of texts, or files of several models.
    """
    from sightline.tasks.embeddings import Embeddings

    saved = [Embeddings.load(file) for file in files]
    for file, part in zip(files, saved, strict=True):
        if part.kind != "image":
            raise DataError(f"{file}: holds vectors of texts: embed the pictures")
        made, first = (part.model, part.preprocessing, part.dim), saved[0]
        if made != (first.model, first.preprocessing, first.dim):
            raise DataError(
                f"{file}: made by {part.model}, {files[0]} by {first.model}: vectors of two "
                "models cannot be compared"
            )
    return saved


def fail(call: Call, name: str, reason: str, logged: bool = True) -> None:
    """Name one picture that could not be used.

    Args:
        logged: whether the library's log has said so already, which --quiet hides.
    """
    call.failed.append({"file": name, "error": reason, "code": "image_unreadable"})
    if call.quiet or not logged:
        call.warn(reason if name in reason else f"{name}: {reason}")


def check_free(path: Path | None, overwrite: bool, option: str = "--out") -> None:
    """Refuse to replace a file before any work is done.

    Raises:
        click.BadParameter: it exists.
    """
    if path is not None and path.exists() and not overwrite:
        raise click.BadParameter(
            f"{path} exists already: name a new file, or pass --overwrite", param_hint=option
        )


def _location(name: str) -> str:
    return name if "://" in name[:12] else os.path.realpath(name)
