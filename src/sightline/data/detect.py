"""Which format a data set has, from names, the first 64 KiB and the first three records.

One answer or none: data that could be read in two ways is refused, and the message names both.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.core.errors import DataError
from sightline.data.columns import find_columns, resolve
from sightline.data.flickr30k import FOLDERS as FLICKR_FOLDERS
from sightline.data.flickr30k import is_flickr30k
from sightline.data.folders import Layout, find_layout, holds_captions
from sightline.data.published.detect import FOLDERS as PUBLISHED_PICTURES
from sightline.data.published.detect import (
    PARTS,
    PUBLISHED_FILES,
    PUBLISHED_FOLDERS,
    Way,
    folder_way,
    is_companion,
    json_way,
    named_way,
    table_way,
)
from sightline.data.records import SPLIT_NAMES, split_name
from sightline.data.shards.detect import (
    BARE_ARCHIVE,
    SHARD_FORMATS,
    UNMISTAKABLE,
    file_way,
    folder_ways,
    pattern_way,
)
from sightline.data.tables import delimiter_of, header_names
from sightline.inputs.folders import IMAGE_SUFFIXES, nearest_files, shown_name

HEAD_BYTES = 64 * 1024
LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt", ".token", ".p")
FOLDER_FORMATS = ("imagefolder", "sidecar", "pictures", *PUBLISHED_FOLDERS)
FILE_FORMATS = (
    *("csv", "tsv", "jsonl", "json", "coco", "karpathy", "flickr30k"),
    *PUBLISHED_FILES,
)
BY_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
             ".json": "json"}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One file that lists pictures."""

    file: Path
    format: str
    why: str
    images: tuple[str, ...] = ()
    """The first pictures it names."""
    split: str | None = None


@dataclass(frozen=True)
class Detection:
    """A way to read a path."""

    format: str
    why: str
    sources: tuple[Source, ...] = ()
    """Empty for formats that are a folder of pictures and nothing else."""


def detect(path: Path, format: str | None = None) -> Detection:
    """The one way to read `path`; with `format`, the one of that name.

    Raises:
        DataError: nothing readable, or more than one way; the message names them all.
    """
    named = pattern_way(path)
    if named is not None:
        if format not in (None, named[0]):
            raise DataError(f"{shown_name(path)}: names shards of {named[0]}, not of {format}")
        return Detection(*named)
    if not path.exists():
        raise DataError(f"{shown_name(path)}: there is no such file or folder{nearest_files(path)}")
    return detect_folder(path, format) if path.is_dir() else detect_file(path, format)


def detect_file(file: Path, format: str | None = None) -> Detection:
    """The format of a single file.

    Raises:
        DataError: a kind of file that does not list pictures.
    """
    if format in FOLDER_FORMATS:
        raise DataError(f"{shown_name(file.name)}: is a file, but format {format!r} reads folders")
    shard = file_way(file)
    if shard is not None and format in (None, shard[0]):
        return Detection(*shard)
    if format in SHARD_FORMATS:
        raise DataError(f"{shown_name(file.name)}: cannot be read as {format!r}")
    split = split_of(file.stem)
    source = sniff(file)
    if format is not None:
        why = "asked for"
        return Detection(format, why, (Source(file, format, why, split=split),))
    if source is None and file.suffix.lower() in BY_SUFFIX:
        kind = BY_SUFFIX[file.suffix.lower()]
        source = Source(file, kind, f"the suffix {file.suffix}")
    if source is None:
        raise DataError(f"{shown_name(file.name)}: {_not_a_list(file)}")
    source = Source(file, source.format, source.why, source.images, split)
    return Detection(source.format, f"{shown_name(file.name)}: {source.why}", (source,))


def _not_a_list(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "is a picture; a data set is a folder of pictures, or a file that lists them"
    if suffix in (".zip", ".gz", ".tgz", ".7z", ".rar"):
        return "is an archive: unpack it and name the folder"
    return f"is no list of pictures; read are {', '.join(LIST_SUFFIXES)} and folders"


def detect_folder(root: Path, format: str | None = None) -> Detection:
    """The format of a folder: a file that lists its pictures, or their arrangement.

    A list whose pictures are there explains the folders they lie in; side-cars beside such a
    list are a second source of captions and so ambiguous.

    Raises:
        DataError: no pictures and no list, or more than one way to read the folder.
    """
    if format in FOLDER_FORMATS:
        return Detection(format or "", "asked for")
    if format in SHARD_FORMATS:
        return Detection(format or "", "asked for")
    shards = [Detection(*way) for way in folder_ways(root)] if format is None else []
    if shards and shards[0].format in UNMISTAKABLE:
        return shards[0]
    sources = find_lists(root)
    lists = _readable_lists(root, sources, format)
    if format is not None:
        if not lists:
            kinds = ", ".join(f"{s.file.name} ({s.format})" for s in sources) or "no list at all"
            raise DataError(f"{shown_name(root)}: nothing here is {format!r}; found {kinds}")
        return lists[0]
    ways = lists + _arrangements(root, [*lists, *shards])
    # an archive of the pictures that lie beside it unpacked adds nothing
    ways += [way for way in shards if not (ways and BARE_ARCHIVE in way.why)]
    if not ways:
        raise DataError(
            f"{shown_name(root)}: no pictures and no list of pictures (csv, jsonl, json) in it"
        )
    if len(ways) > 1:
        named = "; ".join(f"{way.format} ({way.why})" for way in ways)
        raise DataError(
            f"{shown_name(root)}: can be read in {len(ways)} ways: {named}. Choose with --format "
            f"or format=: {' or '.join(way.format for way in ways)}"
        )
    return ways[0]


def _readable_lists(root: Path, sources: Sequence[Source], format: str | None) -> list[Detection]:
    """One detection a format; several files of one format must be splits of one set."""
    found = []
    kinds = {source.format for source in sources} & set([format] if format else FILE_FORMATS)
    if format is None and "coco" in kinds:
        kinds.discard("instances")  # COCO keeps boxes beside its captions: --format instances
    for kind in sorted(kinds):
        same = tuple(source for source in sources if source.format == kind)
        places = {(source.split, _part_of(source)) for source in same}
        if len(same) > 1 and ((None, None) in places or len(places) < len(same)):
            names = ", ".join(str(source.file.relative_to(root)) for source in same)
            raise DataError(
                f"{shown_name(root)}: {len(same)} lists of the format {kind}: open one of {names}"
            )
        names = ", ".join(source.file.name for source in same)
        found.append(Detection(kind, f"{names}: {same[0].why}", same))
    return found


def _part_of(source: Source) -> str | None:
    """Which part of its split a list is, where a set is published so."""
    stem = source.file.stem.lower()
    return next((part for part in PARTS.get(source.format, ()) if part in stem), None)


def _arrangements(root: Path, lists: Sequence[Detection]) -> list[Detection]:
    """Ways to read the folders themselves that no list explains."""
    try:
        layout = find_layout(root)
    except DataError:
        if lists:
            return []
        raise
    explained = any(names_present_pictures(source) for way in lists for source in way.sources)
    published = folder_way(root)
    if published is not None:
        return [Detection(published.format, published.why)]
    ways = []
    beside = layout.with_side_cars
    if beside and all(holds_captions(picture.side_cars[0]) for picture in beside[:3]):
        name = beside[0].side_cars[0].name
        ways.append(Detection("sidecar", f"{len(beside)} text files beside pictures, as {name}"))
    if _are_classes(layout, bool(ways)) and not explained:
        ways.append(Detection("imagefolder", f"{len(layout.classes)} folders of pictures"))
    if not ways and not explained:
        ways.append(Detection("pictures", f"{len(layout.pictures)} pictures and nothing else"))
    return ways


def _are_classes(layout: Layout, captioned: bool) -> bool:
    """Folders below the root are classes, unless they are numbered shards of captioned pictures."""
    classes = layout.classes
    if captioned:
        return len(classes) > 1 and not all(name.isdigit() for name in classes)
    return bool(classes)


def find_lists(root: Path) -> list[Source]:
    """Files that list pictures: in the folder, in `annotations`, as metadata in split folders."""
    top = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    stems = {path.stem for path in top if path.suffix.lower() in IMAGE_SUFFIXES}
    files = [p for p in top if p.suffix.lower() in LIST_SUFFIXES and p.stem not in stems]
    if (root / "annotations").is_dir():
        files += sorted((root / "annotations").glob("*.json"))
    named = {file: split_of(file.stem) for file in files if file.is_file()}
    for folder in top:
        if folder.name.lower() in SPLIT_NAMES and folder.is_dir():
            named |= {f: split_name(folder.name) for f in sorted(folder.glob("metadata.*"))}
    sniffed = [(source, split) for file, split in named.items() if (source := sniff(file))]
    ways = [(source.file, Way(source.format, source.why)) for source, _ in sniffed]
    return [
        Source(source.file, source.format, source.why, source.images, split)
        for (source, split), (file, way) in zip(sniffed, ways, strict=True)
        if not is_companion(file, way, ways)
    ]


def split_of(stem: str) -> str | None:
    """The split that a file's name tells: `captions_val2017` is "val"."""
    for word in re.split(r"[^a-z]+", stem.lower()):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None


def candidate_roots(file: Path, split: str | None) -> list[Path]:
    """Folders in which the pictures of a list may lie, the most likely first."""
    bases = [file.parent]
    if file.parent.name == "annotations":  # COCO keeps the folders of pictures beside it
        bases.append(file.parent.parent)
    dated = re.search(r"(train|val|test)\d{4}", file.stem)
    inner = ["images", "Images", "img", dated[0] if dated else None, split, *FLICKR_FOLDERS,
             *PUBLISHED_PICTURES]  # fmt: skip
    found = [base / name for base in bases for name in inner if name and (base / name).is_dir()]
    return [*bases, *found]


def names_present_pictures(source: Source) -> bool:
    """Whether one of the first pictures that a list names is there."""
    for root in candidate_roots(source.file, source.split):
        for image in source.images:
            try:
                if resolve(root, image, source.file.name).is_file():
                    return True
            except DataError:  # an unusable path: the reader says so, with its line
                return True
    return False


def sniff(file: Path) -> Source | None:
    """What a file lists, from its content; None when that is not pictures."""
    suffix = file.suffix.lower()
    known = named_way(file)
    if known is not None:
        return Source(file, known.format, known.why)
    try:
        with file.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
            handle.seek(max(0, file.stat().st_size - HEAD_BYTES))
            tail = handle.read(HEAD_BYTES)
    except OSError:
        return None
    text = head.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    if suffix in (".csv", ".tsv", ".txt", ".token"):
        pictures = is_flickr30k(text)
        if pictures:
            return Source(file, "flickr30k", "captions numbered as in Flickr30k", pictures)
    if suffix in (".csv", ".tsv", ".txt"):
        return _sniff_table(file, text)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _sniff_json(file, text, tail.decode("utf-8", "replace"))
    return None


def _sniff_table(file: Path, text: str) -> Source | None:
    lines = text.split("\n")  # splitlines would also cut at separators inside captions
    header = lines[0].rstrip("\r")
    delimiter = delimiter_of(header)
    if delimiter is None:
        return None
    columns = find_columns(header_names(header, delimiter))
    if file.suffix.lower() == ".txt" and not columns.captions:
        return None  # prose whose first line happens to hold such a word
    names = header_names(header, delimiter)
    published = table_way(names, text) if delimiter == "\t" else None
    if published is not None:
        return Source(file, published.format, published.why)
    kind = "tsv" if delimiter == "\t" else "csv"
    why = f"a header with {', '.join(repr(n) for n in (columns.image, *columns.captions) if n)}"
    return Source(file, kind, why, _cells_of(lines[1:4], names, columns.image or "", delimiter))


def _cells_of(
    lines: Sequence[str], names: Sequence[str], column: str, delimiter: str
) -> tuple[str, ...]:
    """The values of one column in these lines; none where they are damaged."""
    try:
        rows = list(csv.DictReader(lines, names, delimiter=delimiter))
    except csv.Error:  # the reader will say which line
        return ()
    return tuple(str(row[column]).strip() for row in rows if row.get(column))


def _sniff_json(file: Path, head: str, tail: str) -> Source | None:
    published = json_way(file, head, tail)
    if published is not None:
        return Source(file, published.format, published.why, published.images)
    text = head.lstrip()
    keys = tuple(dict.fromkeys(re.findall(r'"([^"\\\n]{1,40})"\s*:', text)))
    image = find_columns(keys).image
    if text.startswith("["):
        why = f"a JSON array with {image!r}"
        return Source(file, "json", why, _values(text, image)) if image else None
    if re.search(r'"images"\s*:\s*\[', text + tail):
        return _sniff_images_object(file, text, tail)
    if not text.startswith("{"):
        return None
    first = text.split("\n", 1)[0]
    one_a_line = file.suffix.lower() != ".json" or _is_object(first)
    image = find_columns(tuple(re.findall(r'"([^"\\]{1,40})"\s*:', first))).image
    if not (one_a_line and image):
        return None
    return Source(file, "jsonl", f"a JSON object a line, with {image!r}", _values(text, image))


def _sniff_images_object(file: Path, text: str, tail: str) -> Source | None:
    if '"sentences"' in text:
        images, folders = _values(text, "filename"), _values(text, "filepath")
        images += tuple(f"{a}/{b}" for a, b in zip(folders, images, strict=False))
        return Source(file, "karpathy", "'images' with 'sentences'", images)
    if '"caption"' in text or '"caption"' in tail:
        why = "'images' and 'annotations' with captions"
        return Source(file, "coco", why, _values(text, "file_name"))
    return None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _values(text: str, name: str | None) -> tuple[str, ...]:
    """The first three strings under a key, without parsing a document that may be cut off."""
    found = re.findall(rf'"{re.escape(name or "")}"\s*:\s*("(?:[^"\\\n]|\\.)*")', text)[:3]
    try:
        return tuple(str(json.loads(value, strict=False)) for value in found)
    except ValueError:  # a broken escape: the reader will say where
        return ()
