"""One picture with what is said about it, and a sequence of such records with an honest report."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from sightline.core.errors import DataError, unknown_name
from sightline.data.regions import Region
from sightline.data.turns import Turn, to_json

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from sightline.core.interfaces import StoredPicture

    Picture = Path | bytes | Image.Image | np.ndarray | StoredPicture

log = logging.getLogger(__name__)

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What people call their splits, to the one name used here; other names stay as they are."""


def split_name(name: str) -> str:
    """The one spelling of a split: "validation" and "dev" are "val"."""
    return SPLIT_NAMES.get(name.strip().lower(), name.strip())


@dataclass(frozen=True)
class Record:
    """One picture with its sentences and its class.

    The picture stays undecoded (a path, as a rule): only `inputs.images.read_image` touches bytes.
    """

    id: str
    image: Picture
    captions: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the source says about the picture, untouched."""
    question: str | None = None
    """What is asked about the picture; a picture with three questions is three records."""
    answers: tuple[str, ...] = ()
    """What people answered, one entry each, equal ones too."""
    choices: tuple[str, ...] = ()
    """Among which answers to choose, in the order in which they are shown."""
    regions: tuple[Region, ...] = ()
    more_images: tuple[Picture, ...] = ()
    """Further pictures or frames, where one record is about several."""
    messages: tuple[Turn, ...] = ()
    """A conversation; its pictures are those of the record."""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of its pictures in order."""
        return (self.image, *self.more_images)

    @property
    def caption(self) -> str:
        """The first caption.

        Raises:
            DataError: there is none.
        """
        if not self.captions:
            raise DataError(
                f"record {self.id!r} has no caption: use data with captions, or drop such records"
            )
        return self.captions[0]


@dataclass(frozen=True)
class DatasetReport:
    """What was found when a data set was opened, and which pictures turned out broken since."""

    format: str
    why: str
    """What in the data spoke for this format."""
    records: int
    captions: int
    captions_per_picture: Mapping[int, int]
    """Number of captions to number of pictures that have so many."""
    empty_captions: int
    """Captions without a character, which were left out."""
    missing: tuple[str, ...]
    """Ids of records whose picture is not there."""
    duplicate_ids: tuple[str, ...]
    labels: Mapping[str, int]
    splits: Mapping[str, int]
    broken: Mapping[str, str]
    """Ids of pictures that could not be read so far, to the reason."""
    notes: tuple[str, ...]
    """What was left out or looked odd, one sentence each."""
    damage: tuple[str, ...] = ()
    """Parts of the source that could not be used, one sentence a kind."""
    questions: int = 0
    answers: int = 0
    regions: int = 0
    outlines: int = 0
    """Regions that have an outline, so that a mask can be drawn."""
    region_labels: Mapping[str, int] = field(default_factory=dict)
    turns: int = 0
    further_pictures: int = 0
    """Pictures beyond the first of each record."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values (numbers of captions become text, as JSON keys must)."""
        document = asdict(self)
        per_picture = self.captions_per_picture.items()
        document["captions_per_picture"] = {str(key): count for key, count in per_picture}
        return document

    @property
    def problems(self) -> tuple[str, ...]:
        """What `strict` refuses, one sentence each; empty for clean data."""
        found = (
            (len(self.missing), "missing picture(s)", self.missing),
            (self.empty_captions, "empty caption(s)", ()),
            (len(self.duplicate_ids), "id(s) used twice", self.duplicate_ids),
            (len(self.broken), "broken picture(s)", tuple(self.broken)),
        )
        return (
            tuple(
                f"{count} {what}" + (f" ({_few(names)})" if names else "")
                for count, what, names in found
                if count
            )
            + self.damage
        )


class Dataset(Sequence[Record]):
    """Records in the order of their source; an index gives a record, a slice a data set."""

    def __init__(
        self,
        records: Sequence[Record],
        name: str = "records",
        format: str = "memory",
        why: str = "",
        empty_captions: int = 0,
        notes: Sequence[str] = (),
        damage: Sequence[str] = (),
    ) -> None:
        self.records = tuple(records)
        self.name = name
        self.format = format
        self.why = why
        self.notes = tuple(notes)
        self.damage = tuple(damage)
        self._empty_captions = empty_captions
        self._missing: tuple[str, ...] | None = None
        self._broken: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Record | Dataset:
        if isinstance(index, slice):
            return self._part(self.records[index])
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, format={self.format!r}, records={len(self)})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that occur, sorted."""
        return tuple(sorted({record.label for record in self.records if record.label is not None}))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that occur, sorted."""
        return tuple(sorted({record.split for record in self.records if record.split is not None}))

    @property
    def fingerprint(self) -> str:
        """Sixty-four hexadecimal digits that change with any id, caption, label, split, question,
        answer, choice, region or turn.

        Of the records, not of the pixels: it stays the same where the folder is copied.
        """
        digest = hashlib.sha256()
        for record in self.records:
            fields = (record.id, *record.captions, record.label or "", record.split or "")
            for text in (str(len(record.captions)), *fields, *_further(record)):
                data = text.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    def with_split(self, split: str) -> Dataset:
        """The records of one split.

        Raises:
            DataError: no record belongs to it; the message names the splits that occur.
        """
        wanted = split_name(split)
        if not self.splits:
            raise DataError(
                f"{self.name}: asked for split {split!r}, but nothing in this data names a split"
            )
        if wanted not in self.splits:
            raise DataError(f"{self.name}: {unknown_name('split', split, self.splits)}")
        return self._part([record for record in self.records if record.split == wanted])

    def note_broken(self, id: str, reason: str) -> None:
        """Remember that a picture could not be read; the report counts and names it."""
        if id not in self._broken:
            log.warning("%s: picture of record %r cannot be read: %s", self.name, id, reason)
        self._broken[id] = reason

    @property
    def report(self) -> DatasetReport:
        """What is known now; looks once whether the files of the pictures are there."""
        if self._missing is None:
            self._missing = tuple(r.id for r in self.records if any(map(_is_missing, r.pictures)))
        ids = Counter(record.id for record in self.records)
        per_picture = Counter(len(record.captions) for record in self.records)
        return DatasetReport(
            format=self.format,
            why=self.why,
            records=len(self.records),
            captions=sum(count * pictures for count, pictures in per_picture.items()),
            captions_per_picture=dict(sorted(per_picture.items())),
            empty_captions=self._empty_captions,
            missing=self._missing,
            duplicate_ids=tuple(id for id, count in ids.items() if count > 1),
            labels=_histogram(record.label for record in self.records),
            splits=_histogram(record.split for record in self.records),
            broken=dict(self._broken),
            notes=self.notes,
            damage=self.damage,
            **_spoken(self.records),
        )

    def check(self) -> None:
        """Refuse data with anything wrong in it, as `strict` asks.

        Raises:
            DataError: a picture is missing or broken, a caption empty, or an id used twice.
        """
        problems = self.report.problems
        if problems:
            raise DataError(
                f"{self.name}: {'; '.join(problems)}: repair the data, or open it without strict"
            )

    def _part(self, records: Sequence[Record]) -> Dataset:
        """Some of the records; what is known to be broken stays known."""
        part = Dataset(
            records, self.name, self.format, self.why, self._empty_captions, self.notes, self.damage
        )
        ids = {record.id for record in part.records}
        part._broken = {id: reason for id, reason in self._broken.items() if id in ids}
        return part


def _further(record: Record) -> tuple[str, ...]:
    """What a record says beyond captions, as one text; none where that is nothing.

    None, so that the fingerprint of data without any of it is what it always was.
    """
    said = (record.question, record.answers, record.choices, record.regions, record.messages,
            record.more_images)  # fmt: skip
    if not any(said) and record.question is None:
        return ()
    regions = [region.to_json() for region in record.regions]
    turns = to_json(record.messages, record.pictures)
    fields = [record.question, record.answers, record.choices, regions, turns,
              len(record.more_images)]  # fmt: skip
    return (json.dumps(fields, sort_keys=True),)


def _spoken(records: Sequence[Record]) -> dict[str, Any]:
    """Counts of what there is to say and to point at, by the names of the report."""
    regions = [region for record in records for region in record.regions]
    return {
        "questions": sum(record.question is not None for record in records),
        "answers": sum(len(record.answers) for record in records),
        "regions": len(regions),
        "outlines": sum(region.outline is not None for region in regions),
        "region_labels": _histogram(region.label for region in regions),
        "turns": sum(len(record.messages) for record in records),
        "further_pictures": sum(len(record.more_images) for record in records),
    }


def _is_missing(image: object) -> bool:
    return isinstance(image, Path) and not image.is_file()


def _histogram(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(value for value in values if value is not None).items()))


def _few(names: Sequence[str], count: int = 3) -> str:
    """The first names and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:count])
    return shown + (f" and {len(names) - count} more" if len(names) > count else "")
