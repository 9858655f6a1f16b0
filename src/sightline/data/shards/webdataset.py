"""WebDataset: tars of samples that share a key, `0001.jpg` with `0001.txt`, `.json` or `.cls`.

Layout: https://github.com/webdataset/webdataset. `open_shards` holds an index of offsets and
fetches a sample when it is asked for, so a set may have many millions; `open_dataset` holds every
caption as well. Neither unpacks or decodes anything, and members that would have to be unpickled
(`.pyd`, `.pth`) are left alone.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from sightline.core.errors import DataError, ImageError
from sightline.data.columns import Reading
from sightline.data.records import split_name
from sightline.data.shards.files import refuse_address, shard_files
from sightline.data.shards.ranges import Shard
from sightline.data.shards.samples import MAX_TEXT_BYTES, ShardRecords, is_picture, role_of
from sightline.data.shards.tar import TarDamageError, members
from sightline.data.shards.tar_index import index_tar, key_and_suffix
from sightline.inputs.folders import shown_name


def open_shards(
    path: str | os.PathLike[str], split: str | None = None, strict: bool = False
) -> ShardRecords:
    """Open tars without reading their samples: for sets that are too many for the memory.

    Args:
        path: a tar, `train-{000..127}.tar`, a name with a star, or a folder of tars (also below
            train, val, test).
        split: only the tars of this split, as their names or folders tell.
        strict: refuse tars with anything unusable in them.

    Raises:
        DataError: no tars, an address, one that cannot be read at all, no picture, or with
            `strict` any damage.
    """
    refuse_address(path)
    root = Path(path)
    files = shard_files(root, ".tar")
    if split is not None:
        files = [(file, own) for file, own in files if own == split_name(split)]
    if not files:
        part = f" of the split {split!r}" if split is not None else ""
        raise DataError(f"{shown_name(root)}: no tars{part} here")
    indexes, splits, unreadable = [], [], []
    for file, own in files:
        try:
            indexes.append(index_tar(file))
            splits.append(own)
        except DataError as error:
            unreadable.append(str(error))
    records = ShardRecords(indexes, splits, class_names(root), root.name)
    for reason in unreadable:
        records.damage.note("tar(s) that cannot be read", reason)
    if not len(records):
        why = "; ".join(records.damage.sentences()) or "they hold no pictures"
        raise DataError(f"{shown_name(root)}: nothing to read in {len(files)} tar(s): {why}")
    if strict and records.damage.sentences():
        raise DataError(
            f"{shown_name(root)}: {'; '.join(records.damage.sentences())}: repair the data, or "
            "open it without strict"
        )
    return records


def class_names(root: Path) -> tuple[str, ...]:
    """The lines of `classnames.txt` beside the tars, which CLIP_benchmark's sets carry."""
    folder = root if root.is_dir() else root.parent
    for file in (folder / "classnames.txt", folder.parent / "classnames.txt"):
        if file.is_file() and file.stat().st_size <= MAX_TEXT_BYTES:
            text = file.read_text(encoding="utf-8", errors="replace")
            return tuple(line.strip() for line in text.splitlines() if line.strip())
    return ()


def read_webdataset(root: Path) -> Reading:
    """Every sample of the tars as a record that knows where its picture lies.

    Raises:
        DataError: as `open_shards`.
    """
    shards = open_shards(root)
    records = list(shards)
    bare = [record.id for record in records if not record.captions and record.label is None]
    notes = []
    if bare:
        few = ", ".join(shown_name(id) for id in bare[:3])
        notes.append(f"{len(bare)} picture(s) have neither caption nor label: {few}")
    return Reading(records, 0, tuple(notes), shards.damage.sentences())


def looks_like_samples(tar: Path) -> str | None:
    """How the first three samples of a tar look ("0001.{jpg,txt}"); None without pictures.

    Pictures alone are an archive of pictures, which "only pictures" says.
    """
    samples: dict[str, list[str]] = {}
    try:
        shard = Shard.of(tar)
        for count, member in enumerate(members(shard.read_some, shard.size)):
            key, suffix = key_and_suffix(member.name)
            if member.regular and suffix and key.rpartition("/")[2]:
                samples.setdefault(key, []).append(suffix)
            if len(samples) > 3 or count > 60:
                break
    except (TarDamageError, DataError, ImageError):
        pass
    kinds = Counter(suffix for suffixes in samples.values() for suffix in suffixes)
    if not any(is_picture(suffix) for suffix in kinds):
        return None
    if not any(role_of(suffix) in ("text", "json", "cls") for suffix in kinds):
        return "only pictures"
    first = next(iter(samples))
    return f"{shown_name(first)}.{{{','.join(shown_name(s) for s in samples[first])}}}"
