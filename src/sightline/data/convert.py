"""Any format that is read, written as another: the bytes of the pictures stay as they are."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline.core.errors import ConfigError, DataError, ImageError, unknown_name
from sightline.core.files import atomic_folder
from sightline.core.lazy import require
from sightline.data.items import Item, item_of
from sightline.data.published.write import PUBLISHED_LAYOUTS, PUBLISHED_WRITERS, lacking
from sightline.data.records import Dataset, Record
from sightline.data.said import said_fields
from sightline.data.shards.parquet import EXTRA_JSON
from sightline.data.shards.samples import OWN_ID
from sightline.inputs.folders import shown_name

OWN_LAYOUTS = ("webdataset", "folder", "jsonl", "parquet")
"""Layouts that keep everything a record says."""
LAYOUTS = (*OWN_LAYOUTS, *PUBLISHED_LAYOUTS)
SEVERAL_PICTURES = ("jsonl", "messages")
"""Layouts in which one record may have several."""
PER_SHARD = 10_000
PER_FOLDER = 10_000
PER_GROUP = 256


@dataclass
class Converted:
    """What was written, and what was left out."""

    out: Path
    layout: str
    records: int = 0
    pictures_bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Ids of records whose picture could not be read, to the reason."""

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"out": str(self.out), "to": self.layout, "records": self.records,
                "picture_bytes": self.pictures_bytes, "left_out": dict(self.failed)}  # fmt: skip


def convert(
    dataset: Dataset,
    out: str | os.PathLike[str],
    layout: str,
    strict: bool = False,
    per_shard: int = PER_SHARD,
    progress: Callable[[int, int], None] | None = None,
) -> Converted:
    """Write a data set in another layout; read again it has the same captions, labels and splits.

    `webdataset`: tars of `per_shard` samples, named for their split, with `classnames.txt` where
    there are labels. `folder`: pictures with .txt and .json beside them. `jsonl`: `metadata.jsonl`
    and the pictures it names. `parquet`: tables with the pictures inside, as `datasets` reads them.
    These keep questions, regions and turns too. `vqa`, `instances`, `messages`, `prefix-suffix`: as
    published sets are laid out (`published.write`); records without a place there are left out.
    Pictures are copied byte by byte and not decoded; arrays and PIL images become PNG.

    Args:
        out: a folder that does not exist yet; it appears when everything is written.
        strict: stop at the first picture that cannot be read, which otherwise is left out.
        progress: called with records done and their number.

    Raises:
        ConfigError: an unknown layout, or `out` is there already.
        DataError: with `strict` an unreadable picture; or none can be read.
        MissingDependencyError: `parquet` without pyarrow.
    """
    if layout not in LAYOUTS:
        raise ConfigError(unknown_name("layout", layout, LAYOUTS))
    if per_shard < 1:
        raise ConfigError(f"a shard holds at least one record, got {per_shard}")
    target = Path(out)
    if os.path.lexists(target):
        raise ConfigError(
            f"{shown_name(target)}: is there already; nothing is overwritten: name a new folder, "
            "or remove it first"
        )
    done = Converted(target, layout)
    with atomic_folder(target) as folder:
        items = _items(dataset, done, strict, progress)
        if layout in PUBLISHED_WRITERS:
            PUBLISHED_WRITERS[layout](folder, items)
        else:
            _WRITERS[layout](folder, items, dataset, per_shard)
        if not done.records:
            first = next(iter(done.failed.values()), "")
            what = (
                "record of it can be written"
                if layout in PUBLISHED_WRITERS
                else "picture of it can be read"
            )
            raise DataError(f"{dataset.name}: no {what}; the first: {first}")
        if os.path.lexists(target):
            raise ConfigError(f"{shown_name(target)}: appeared meanwhile; nothing is overwritten")
    return done


def _items(
    dataset: Dataset,
    done: Converted,
    strict: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Item]:
    for place, record in enumerate(dataset, 1):
        reason = _without_place(record, done.layout)
        try:
            item = item_of(done.records, record) if not reason else None
        except ImageError as error:
            item, reason = None, str(error)
        if item is not None:
            yield item
            done.records += 1
            done.pictures_bytes += sum(len(picture.data) for picture in item.pictures)
        elif strict:
            raise DataError(f"record {record.id!r}: {reason}")
        else:
            done.failed[record.id] = reason
        if progress is not None:
            progress(place, len(dataset))


def _without_place(record: Record, layout: str) -> str:
    """Why a layout cannot hold a record; empty where it can."""
    if record.more_images and layout not in SEVERAL_PICTURES:
        return f"it has several pictures; {' and '.join(SEVERAL_PICTURES)} have a place for them"
    return lacking(record, layout)


# WebDataset


def _write_tars(folder: Path, items: Iterator[Item], dataset: Dataset, per_shard: int) -> None:
    labels = {name: number for number, name in enumerate(dataset.labels)}
    if labels and not any("\n" in name for name in labels):
        (folder / "classnames.txt").write_text("".join(f"{n}\n" for n in labels), encoding="utf-8")
    shards: dict[str | None, _TarShards] = {}
    try:
        for item in items:
            split = item.record.split
            if split not in shards:
                shards[split] = _TarShards(folder, split, per_shard)
            shards[split].add(item, labels)
    finally:
        for shard in shards.values():
            shard.close()


class _TarShards:
    """The tars of one split, one open at a time."""

    def __init__(self, folder: Path, split: str | None, per_shard: int) -> None:
        self._folder = folder
        self._lead = f"{_plain_name(split)}-" if split else ""
        self._per_shard = per_shard
        self._count = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, item: Item, labels: Mapping[str, int]) -> None:
        if self._count % self._per_shard == 0:
            self.close()
            name = f"{self._lead}{self._count // self._per_shard:06d}.tar"
            self._tar = tarfile.open(self._folder / name, "w", format=tarfile.PAX_FORMAT)
        self._count += 1
        record, key = item.record, f"{item.number:09d}"
        self._member(f"{key}.{item.suffix}", item.data)
        fields = _fields(record)
        if _are_lines(record.captions):
            self._member(f"{key}.txt", "\n".join(record.captions).encode())
        if record.label is not None:
            self._member(f"{key}.cls", str(labels[record.label]).encode())
        self._member(f"{key}.json", _json({OWN_ID: record.id, **fields}))

    def _member(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None


# Folders and lists


def _write_folder(folder: Path, items: Iterator[Item], dataset: Dataset, per_shard: int) -> None:
    for item in items:
        path = _picture_file(folder, item)
        record = item.record
        fields = _fields(record)
        if _are_lines(record.captions):
            path.with_suffix(".txt").write_text("\n".join(record.captions) + "\n", "utf-8")
        path.with_suffix(".json").write_bytes(_json({OWN_ID: record.id, **fields}))


def _write_lines(folder: Path, items: Iterator[Item], dataset: Dataset, per_shard: int) -> None:
    with (folder / "metadata.jsonl").open("wb") as lines:
        for item in items:
            paths = [_picture_file(folder / "images", item, n) for n in range(len(item.pictures))]
            first, *more = (path.relative_to(folder).as_posix() for path in paths)
            lines.write(_json({"file_name": first, **_fields(item.record, more)}) + b"\n")


def _picture_file(folder: Path, item: Item, number: int = 0) -> Path:
    """A picture written: numbered, below its split and a folder for each ten thousand."""
    split = item.record.split
    inner = f"{item.number // PER_FOLDER:05d}"
    place = folder / _plain_name(split) / inner if split else folder / inner
    place.mkdir(parents=True, exist_ok=True)
    picture, end = item.pictures[number], f"-{number}" if number else ""
    path = place / f"{item.number:09d}{end}.{picture.suffix}"
    path.write_bytes(picture.data)
    return path


# Parquet


def _write_tables(folder: Path, items: Iterator[Item], dataset: Dataset, per_shard: int) -> None:
    pa = require("pyarrow", "datasets", "writing Parquet tables")
    tables: dict[str | None, _Tables] = {}
    try:
        for item in items:
            split = item.record.split
            if split not in tables:
                tables[split] = _Tables(pa, folder, split, per_shard)
            tables[split].add(item)
    finally:
        for table in tables.values():
            table.close()


class _Tables:
    """The Parquet files of one split, one open at a time."""

    def __init__(self, pa: Any, folder: Path, split: str | None, per_shard: int) -> None:
        self._pa = pa
        self._folder = folder
        self._lead = _plain_name(split) if split else "all"
        self._per_shard = per_shard
        self._count = 0
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None
        self._schema = _schema(pa)

    def add(self, item: Item) -> None:
        if self._count % self._per_shard == 0:
            self.close()
        self._count += 1
        record = item.record
        extra = {**record.extra, **said_fields(record, [])}
        picture = {"bytes": item.data, "path": f"{item.number:09d}.{item.suffix}"}
        self._rows.append(
            {
                "image": picture,
                "captions": list(record.captions),
                "label": record.label,
                "split": record.split,
                "id": record.id,
                EXTRA_JSON: _json(extra).decode() if extra else None,
            }
        )
        if len(self._rows) >= PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            parquet = require("pyarrow.parquet", "datasets", "writing Parquet tables")
            name = f"{self._lead}-{(self._count - 1) // self._per_shard:05d}.parquet"
            # pictures are compressed already
            self._writer = parquet.ParquetWriter(
                self._folder / name, self._schema, compression="none"
            )
        self._writer.write_table(self._pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _schema(pa: Any) -> Any:
    """Columns, with the note by which `datasets` knows that the first one is a picture."""
    text = pa.string()
    picture = pa.struct([("bytes", pa.binary()), ("path", text)])
    columns = [("image", picture), ("captions", pa.list_(text)), ("label", text),
               ("split", text), ("id", text), (EXTRA_JSON, text)]  # fmt: skip
    word = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {name: word for name, _ in columns}
    features["image"] = {"_type": "Image"}
    features["captions"] = {"feature": word, "_type": "List"}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(columns, metadata=said)


_WRITERS: Mapping[str, Callable[[Path, Iterator[Item], Dataset, int], None]] = {
    "webdataset": _write_tars,
    "folder": _write_folder,
    "jsonl": _write_lines,
    "parquet": _write_tables,
}


# What is said about a picture


def _fields(record: Record, more_images: Sequence[str] = ()) -> dict[str, Any]:
    """What a record says as JSON; also what is empty, lest another field be taken for it."""
    fields = {"id": record.id, "captions": list(record.captions), "label": record.label,
              "split": record.split, **said_fields(record, more_images)}  # fmt: skip
    taken = {*fields, "caption", "image", "file_name", OWN_ID}
    return {**fields, **{k: v for k, v in record.extra.items() if k not in taken}}


def _are_lines(captions: tuple[str, ...]) -> bool:
    """Whether captions can be told apart when each has a line of its own."""
    return bool(captions) and not any(
        "\n" in caption or "\r" in caption or caption != caption.strip() for caption in captions
    )


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")


def _plain_name(split: str | None) -> str:
    """A split as a part of a file's name."""
    kept = "".join(c if c.isalnum() or c in "_-" else "_" for c in split or "")
    return kept or "split"
