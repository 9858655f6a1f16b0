"""The pictures that a probe learns from, those that choose its penalty, those it is scored on.

Where the data name their own splits these are used; otherwise a seeded, stratified part is held
out, the same whatever the order of the records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError, DataError
from sightline.data.curation.splitting import parse_parts, split_records
from sightline.data.records import Dataset, Record, split_name
from sightline.evaluation.interfaces import EmbeddingModel
from sightline.evaluation.records import (
    PictureEmbeddings,
    Progress,
    data_sha256,
    embed_pictures,
    select,
)

HELD_OUT = "train=80%,test=20%"
"""Of data, or of a training split, that leaves nothing to measure on."""


class ProbeData(NamedTuple):
    """Records with labels; none is in two parts."""

    name: str
    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    """Empty where the data have none of their own."""
    test: tuple[Record, ...]
    how: str
    """Where the parts come from, for the signature: "train+val>test", or "80/20 of all, seed 0"."""
    excluded: int
    """Test records without a label."""
    limit: int | None
    seed: int
    partial: bool

    @property
    def learned(self) -> tuple[Record, ...]:
        """All pictures whose labels a probe may use."""
        return self.train + self.validation


class Known(NamedTuple):
    """Training pictures that could be read."""

    records: tuple[Record, ...]
    embeddings: Float[Tensor, "N D"]
    targets: Int[Tensor, " N"]


class Embedded(NamedTuple):
    """What a model makes of the pictures."""

    labels: list[str]
    """The classes of the training pictures, sorted."""
    unknown: list[str]
    """Labels of test pictures that no training picture has."""
    train: Known
    validation: Known
    left_out: tuple[str, ...]
    """Training pictures that could not be read, or whose vector is not finite, with the reason."""
    test: PictureEmbeddings
    targets: Int[Tensor, " N"]
    """Of the test pictures, as numbers in `labels`, then in `unknown`."""
    train_sha256: str
    test_sha256: str

    @property
    def names(self) -> list[str]:
        """Every label, in the order of the targets."""
        return [*self.labels, *self.unknown]


def probe_data(
    dataset: Dataset,
    train_split: str | None = None,
    test_split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ProbeData:
    """Part a data set for probes.

    Args:
        dataset: records, with a split each or without.
        train_split: the split to learn from; by default "train".
        test_split: the split to score; by default "test", or "val" where there is no test. A
            "val" that is neither trains too, after it has chosen the penalty.
        limit: take at most so many pictures of each part, a seeded sample.
        seed: of the parting and the samples.

    Raises:
        DataError: a split that does not exist, or a part without labels.
        ConfigError: the same split to learn from and to score, or a limit below 1.
    """
    *parts, how = _parted(dataset, train_split, test_split, seed)
    chosen = [select(part, limit, seed, lambda r: r.label is not None) for part in parts]
    for (records, _, _), what in zip(chosen[::2], ("learn from", "score"), strict=True):
        if not records:
            raise DataError(
                f"{dataset.name}: no record to {what} has a label: a probe needs a folder per "
                "class, or a column named label"
            )
    train, validation, test = (cast("tuple[Record, ...]", tuple(part)) for part, _, _ in chosen)
    return ProbeData(
        name=dataset.name, train=train, validation=validation, test=test, how=how,
        excluded=chosen[2][1], limit=limit, seed=seed, partial=any(cut for _, _, cut in chosen),
    )  # fmt: skip


def embed_parts(
    model: EmbeddingModel, data: ProbeData, batch_size: int, progress: Progress | None
) -> Embedded:
    """Embed every part.

    Raises:
        DataError: no training picture can be read, or all are of one class.
    """
    labels = sorted({str(record.label) for record in data.learned})
    unknown = sorted({str(record.label) for record in data.test} - set(labels))
    if len(labels) < 2:
        raise DataError(f"{data.name}: the pictures to learn from are all {labels[0]!r}: a probe "
                        "needs at least two classes")  # fmt: skip
    parts = (data.train, data.validation, data.test)
    total = sum(map(len, parts))
    seen: list[PictureEmbeddings] = []
    for part in parts:
        before = sum(len(pictures.read) for pictures in seen)
        seen.append(embed_pictures(model, part, batch_size, _shifted(progress, before, total)))
    train, lost = _known(data.train, seen[0], labels)
    validation, also_lost = _known(data.validation, seen[1], labels)
    if len(train.records) == 0:
        raise DataError(f"{data.name}: no picture to learn from could be read: {lost[0]}")
    places = {label: place for place, label in enumerate([*labels, *unknown])}
    return Embedded(
        labels=labels,
        unknown=unknown,
        train=train,
        validation=validation,
        left_out=(*lost, *also_lost),
        test=_with_width(seen[2], train.embeddings.shape[1]),
        targets=torch.tensor([places[str(r.label)] for r in data.test], dtype=torch.long),
        train_sha256=data_sha256(data.learned),
        test_sha256=data_sha256(data.test),
    )


def held_out(known: Known, seed: int) -> tuple[Known, Known]:
    """A seeded, stratified fifth to choose a penalty by, and the rest before it.

    Raises:
        DataError: too few pictures.
    """
    parts = split_records(known.records, parse_parts(HELD_OUT), seed)
    here = torch.tensor([part == "train" for part in parts])
    if here.all() or not here.any():
        raise DataError(f"{len(known.records)} picture(s) to learn from are too few to choose a "
                        "penalty by some of them: give a penalty, or more pictures")  # fmt: skip
    return _part(known, here), _part(known, ~here)


def drawn_shots(known: Known, shots: int, seed: int) -> Known:
    """At most so many pictures of each class; those of fewer shots are among those of more.

    Drawn by the ids and the seed: the order of the records does not matter.
    """

    def lot(place: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed}\0{known.records[place].id}".encode()).digest(), place

    taken = torch.zeros(len(known.records), dtype=torch.bool)
    for place in range(int(known.targets.max()) + 1):
        members = (known.targets == place).nonzero()[:, 0].tolist()
        taken[sorted(members, key=lot)[:shots]] = True
    return _part(known, taken)


def joined(first: Known, second: Known) -> Known:
    """Both together; the second may be empty."""
    if not second.records:
        return first
    return Known(
        first.records + second.records,
        torch.cat([first.embeddings, second.embeddings]),
        torch.cat([first.targets, second.targets]),
    )


def _parted(
    dataset: Dataset, train_split: str | None, test_split: str | None, seed: int
) -> tuple[Dataset, Dataset, Dataset, str]:
    """Train, validation, test and where they come from."""
    nothing = Dataset((), dataset.name)
    asked = train_split is not None or test_split is not None
    if not dataset.splits and not asked:
        train, test = _cut(dataset, seed)
        return train, nothing, test, f"80/20 of all, seed {seed}"
    learn = split_name(train_split or "train")
    own = [name for name in ("test", "val") if name in dataset.splits and name != learn]
    if test_split is None and not own:
        train, test = _cut(dataset.with_split(learn), seed)
        return train, nothing, test, f"80/20 of {learn}, seed {seed}"
    score = split_name(test_split) if test_split is not None else own[0]
    if score == learn:
        raise ConfigError(
            f"split {score!r} cannot be both learned from and scored: choose another --split or "
            "--train-split"
        )
    train, test = dataset.with_split(learn), dataset.with_split(score)
    if "val" not in own or score == "val":
        return train, nothing, test, f"{learn}>{score}"
    return train, dataset.with_split("val"), test, f"{learn}+val>{score}"


def _cut(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    parts = split_records(dataset, parse_parts(HELD_OUT), seed)
    pairs = list(zip(dataset, parts, strict=True))
    train, test = (
        Dataset([record for record, own in pairs if own == name], dataset.name)
        for name in ("train", "test")
    )
    return train, test


def _known(
    records: Sequence[Record], pictures: PictureEmbeddings, labels: Sequence[str]
) -> tuple[Known, list[str]]:
    places = {label: place for place, label in enumerate(labels)}
    finite = torch.isfinite(pictures.embeddings).all(dim=1)
    lost = list(pictures.missing)
    lost += [f"{records[row].id}: its vector is not finite"
             for row in (pictures.read & ~finite).nonzero()[:, 0].tolist()]  # fmt: skip
    targets = torch.tensor([places[str(record.label)] for record in records], dtype=torch.long)
    known = Known(tuple(records), pictures.embeddings, targets)
    return _part(known, pictures.read & finite), lost


def _part(known: Known, chosen: Tensor) -> Known:
    records = tuple(known.records[row] for row in chosen.nonzero()[:, 0].tolist())
    return Known(records, known.embeddings[chosen], known.targets[chosen])


def _with_width(pictures: PictureEmbeddings, width: int) -> PictureEmbeddings:
    """Where no picture could be read, nothing told the width."""
    if pictures.read.any():
        return pictures
    return pictures._replace(embeddings=torch.full((len(pictures.read), width), torch.nan))


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of one part as that of all."""
    return None if progress is None else lambda done, _: progress(before + done, total)
