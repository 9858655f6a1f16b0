"""Data sets in the formats people have: `open_dataset` finds the format and reads it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sightline.core.errors import ConfigError, DataError, unknown_name
from sightline.data.columns import Reading
from sightline.data.detect import (
    FILE_FORMATS,
    FOLDER_FORMATS,
    Detection,
    candidate_roots,
    detect,
)
from sightline.data.flickr30k import read_flickr30k
from sightline.data.folders import read_class_folders, read_pictures, read_side_cars
from sightline.data.published.choice_tables import read_choice_table
from sightline.data.published.conversations import read_llava, read_messages, read_prefix_suffix
from sightline.data.published.instances import read_instances
from sightline.data.published.questions import (
    read_chart_qa,
    read_gqa,
    read_pope,
    read_text_vqa,
    read_vqa,
)
from sightline.data.published.refcoco import read_refcoco
from sightline.data.published.voc import read_voc
from sightline.data.records import Dataset, Record
from sightline.data.shards.detect import SHARD_FORMATS
from sightline.data.shards.files import refuse_address
from sightline.data.shards.img2dataset import read_img2dataset
from sightline.data.shards.parquet import read_parquet, read_saved
from sightline.data.shards.webdataset import read_webdataset
from sightline.data.tables import (
    read_coco,
    read_json_array,
    read_json_lines,
    read_karpathy,
    read_table,
)
from sightline.inputs.folders import shown_name

log = logging.getLogger(__name__)

FileReader = Callable[[Path, Sequence[Path], str | None], Reading]

FOLDER_READERS: Mapping[str, Callable[[Path], Reading]] = {
    "imagefolder": read_class_folders,
    "sidecar": read_side_cars,
    "pictures": read_pictures,
    "webdataset": read_webdataset,
    "parquet": read_parquet,
    "arrow": read_saved,
    "img2dataset": read_img2dataset,
    "voc": read_voc,
}
FILE_READERS: Mapping[str, FileReader] = {
    "csv": read_table,
    "tsv": read_table,
    "jsonl": read_json_lines,
    "json": read_json_array,
    "coco": read_coco,
    "karpathy": read_karpathy,
    "flickr30k": read_flickr30k,
    "vqa": read_vqa,
    "textvqa": read_text_vqa,
    "chartqa": read_chart_qa,
    "gqa": read_gqa,
    "pope": read_pope,
    "messages": read_messages,
    "llava": read_llava,
    "prefix-suffix": read_prefix_suffix,
    "instances": read_instances,
    "refcoco": read_refcoco,
    "vlmeval": read_choice_table,
}
FORMATS = (*FOLDER_FORMATS, *FILE_FORMATS, *SHARD_FORMATS)
"""Every name that `format=` and `--format` take."""


def open_dataset(
    path: str | os.PathLike[str],
    format: str | None = None,
    strict: bool = False,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Open a folder or a file that lists pictures; no picture is decoded.

    Formats, found by themselves: `imagefolder` (a folder a class, also below train, val, test),
    `sidecar` (x.jpg with x.txt, x.caption or x.json), `csv` and `tsv` with a header, `jsonl` (also
    metadata.jsonl), `json` (one array, as BLIP and LAVIS write), `coco` (captions), `karpathy`,
    `flickr30k` (token file or csv), `pictures` (nothing said); with questions `vqa` (VQAv2: two
    files), `textvqa` (also DocVQA), `chartqa`, `gqa`, `pope`, `vlmeval` (TSV); with conversations
    `messages`, `llava`, `prefix-suffix`; with regions `instances` (COCO), `refcoco`, `voc`; in
    shards `webdataset` (a tar, a folder of tars, `name-{000..127}.tar`), `parquet`, `arrow` (saved
    by `datasets`), `img2dataset` (its three outputs). For sets too large for the memory there is
    `open_shards` in `sightline.data.shards.webdataset`.
    Lines about the same picture join into one record with several captions; a question, an
    expression or a conversation is a record of its own.

    Args:
        format: one of `FORMATS`, where detection finds more than one way, or to be sure.
        strict: refuse data with missing pictures, empty captions, ids used twice or damage.
        split: only the records of this split; "validation" and "dev" are "val".
        images: the folder that the paths in a list are relative to; by default the folder of the
            list, or `images`, or a folder named for the split beside it. A relative path may not
            leave that folder; an absolute one is taken as written.

    Raises:
        DataError: nothing readable, ambiguous, damaged (file and line named), or no picture of it
            is there.
        ConfigError: an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(unknown_name("data format", format, FORMATS))
    refuse_address(path)
    root = Path(path)
    way = detect(root, format)
    reading = read(root, way, Path(images) if images is not None else None)
    if not reading.records:
        raise DataError(f"{shown_name(root)}: read as {way.format}, but it holds no records")
    dataset = Dataset(
        reading.records, root.name, way.format, way.why, reading.empty_captions, reading.notes,
        reading.damage,
    )  # fmt: skip
    if split is not None:
        dataset = dataset.with_split(split)
    _check_present(dataset, way)
    if strict:
        dataset.check()
    for damage in dataset.damage:
        log.warning("%s: %s", dataset.name, damage)
    log.info("%s: %d records read as %s (%s)", root, len(dataset), way.format, way.why)
    return dataset


def read(root: Path, way: Detection, images: Path | None = None) -> Reading:
    """The records of a detected source; several files are the splits of one set.

    Raises:
        DataError: the folder of pictures does not exist, or the source is damaged.
    """
    if images is not None and not images.is_dir():
        raise DataError(f"{shown_name(images)}: the folder of pictures (images=) does not exist")
    if not way.sources:
        return FOLDER_READERS[way.format](root)
    readings = []
    for source in way.sources:
        roots = [images] if images else candidate_roots(source.file, source.split)
        readings.append(FILE_READERS[source.format](source.file, roots, source.split))
    return readings[0] if len(readings) == 1 else _together(readings)


def _together(readings: Sequence[Reading]) -> Reading:
    """Splits in one list; where they use the same ids, each id is led by its split."""
    records = [record for reading in readings for record in reading.records]
    if len({record.id for record in records}) < len(records):
        records = [replace(r, id=f"{r.split}/{r.id}" if r.split else r.id) for r in records]
    notes = tuple(note for reading in readings for note in reading.notes)
    damage = tuple(sentence for reading in readings for sentence in reading.damage)
    return Reading(records, sum(reading.empty_captions for reading in readings), notes, damage)


def _check_present(dataset: Dataset, way: Detection) -> None:
    missing = dataset.report.missing
    if len(missing) < len(dataset) or any(map(_any_there, dataset)):
        if missing:
            log.warning(
                "%s: %d of %d pictures are missing", dataset.name, len(missing), len(dataset)
            )
        return
    first = shown_name(str(dataset[0].image))
    raise DataError(
        f"{dataset.name}: none of its {len(dataset)} pictures is there, the first is sought at "
        f"{first}: name their folder with images=FOLDER"
    )


def _any_there(record: Record) -> bool:
    return any(not isinstance(p, Path) or p.is_file() for p in record.pictures)
