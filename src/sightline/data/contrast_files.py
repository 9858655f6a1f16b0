"""The files that compositionality is measured with: Winoground, SugarCrepe, ARO and their kin.

Found by their keys: Winoground (`examples.jsonl`, or Parquet that holds its pictures), SugarCrepe
(a JSON object of numbered entries), ARO's relation and attribution files (a JSON array with a box),
its order tasks as their loader holds them (`image` with `caption_options`, the true one first), and
VL-CheckList (pairs of a path and `{"POS": [...], "NEG": [...]}`). A folder may hold several of
these files; each is a subset by its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.core.lazy import require
from sightline.data.columns import resolve, texts_in
from sightline.data.contrasts import (
    Contrast,
    ContrastSet,
    PictureRegion,
    PixelBox,
    contrast_set,
)
from sightline.data.detect import HEAD_BYTES, candidate_roots
from sightline.data.lines import (
    MAX_DOCUMENT_BYTES,
    parse_json,
    place,
    read_document,
    text_lines,
)
from sightline.data.shards.files import refuse_address
from sightline.data.shards.picture_tables import one_line
from sightline.data.shards.table_look import PURPOSE, arrow
from sightline.inputs.folders import IMAGE_SUFFIXES, nearest_files, shown_name


def open_contrasts(
    path: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> ContrastSet:
    """Read a file of contrasts, or all of them below a folder; no picture is decoded.

    Args:
        path: the file or the folder.
        images: the folder of the pictures; by default the file's own, or `images`, `val2017` and
            the like in it.

    Raises:
        DataError: nothing readable, a damaged file (named, with the place), a path that leads out
            of the folder, or no picture is there.
    """
    refuse_address(path)
    root = Path(path)
    if not root.exists():
        raise DataError(f"{shown_name(root)}: there is no such file or folder{nearest_files(root)}")
    if images is not None and not Path(images).is_dir():
        raise DataError(f"{shown_name(images)}: the folder of pictures (images=) does not exist")
    files = _files(root)
    contrasts: list[Contrast] = []
    for file, name in files.items():
        subset = file.relative_to(root).with_suffix("").as_posix() if root.is_dir() else file.stem
        folders = [Path(images)] if images is not None else _folders(file)
        contrasts += _READERS[name](file, folders, subset)
    if not contrasts:
        raise DataError(f"{shown_name(root)}: holds no contrast")
    _check_present(contrasts, root)
    formats = {file.name: name for file, name in files.items()}
    return contrast_set(contrasts, root.name, formats)


def _files(root: Path) -> dict[Path, str]:
    """Each file of contrasts with its format."""
    listed = [root]
    if root.is_dir():
        listed = sorted(p for p in root.rglob("*") if p.suffix in (".json", ".jsonl", ".parquet"))
    found = {file: name for file in listed if (name := _format_of(file)) is not None}
    if not found:
        raise DataError(
            f"{shown_name(root)}: no file of contrasts; read are Winoground (image_0, caption_0), "
            "SugarCrepe (caption, negative_caption), ARO (true_caption, false_caption), captions "
            "in another order (image, caption_options) and VL-CheckList (POS, NEG)"
        )
    return found


def _format_of(file: Path) -> str | None:
    """The format of a file by the keys in its first 64 kB, or its columns; None for others."""
    if file.suffix == ".parquet":
        columns = set(_opened_table(file).schema_arrow.names)
        return "winoground parquet" if _KEYS["winoground"] <= columns else None
    try:
        with file.open("rb") as handle:
            head = handle.read(HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    keys = set(re.findall(r'"(\w{1,40})"\s*:', head))
    known = (name for name, wanted in _KEYS.items() if wanted <= keys)
    return next(known, None)


def _folders(file: Path) -> list[Path]:
    """Where the pictures of a file may lie, the most likely first."""
    inner = ("val2017", "val2014", "test2014", "../images", "../val2017")
    beside = [file.parent / name for name in inner]
    return [*candidate_roots(file, None), *(folder for folder in beside if folder.is_dir())]


def _read_winoground(file: Path, folders: Sequence[Path], subset: str) -> Iterator[Contrast]:
    root = None
    for line, text in text_lines(file):
        if not text.strip():
            continue
        where = place(file, line)
        entry = _object(parse_json(text, file, line), where)
        names = [_text(entry, f"image_{i}", where) for i in (0, 1)]
        captions = tuple(_text(entry, f"caption_{i}", where) for i in (0, 1))
        root = root or _root(names[0], folders, where)
        images = tuple(_picture(root, name, where) for name in names)
        tag = entry.get("collapsed_tag") or entry.get("tag") or subset
        yield Contrast(f"{subset}/{entry.get('id', line - 1)}", images, captions, str(tag))


def _read_winoground_table(file: Path, folders: Sequence[Path], subset: str) -> Iterator[Contrast]:
    """As the hub gives it out; the pictures are held, undecoded."""
    rows = 0
    try:
        for batch in _opened_table(file).iter_batches(64):
            for entry in batch.to_pylist():
                rows += 1
                where = f"{place(file)}, row {rows}"
                captions = tuple(_text(entry, f"caption_{i}", where) for i in (0, 1))
                images = tuple(_stored(entry[f"image_{i}"], where) for i in (0, 1))
                tag = entry.get("collapsed_tag") or entry.get("tag") or subset
                yield Contrast(f"{subset}/{entry.get('id', rows - 1)}", images, captions, str(tag))
    except (OSError, arrow().ArrowException) as error:
        raise DataError(f"{place(file)}: is damaged ({one_line(error)})") from None


def _opened_table(file: Path) -> Any:
    if file.stat().st_size > MAX_DOCUMENT_BYTES:
        raise DataError(f"{place(file)}: larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    parquet = require("pyarrow.parquet", "datasets", PURPOSE)
    try:
        return parquet.ParquetFile(file)
    except (OSError, arrow().ArrowException) as error:
        raise DataError(f"{place(file)}: is no Parquet file ({one_line(error)})") from None


def _stored(cell: Any, where: str) -> bytes:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(data, bytes):
        raise DataError(f"{where}: a picture's bytes are expected, got {type(data).__name__}")
    return data


def _read_sugarcrepe(file: Path, folders: Sequence[Path], subset: str) -> Iterator[Contrast]:
    root = None
    for number, value in _object(read_document(file), place(file)).items():
        where = f"{place(file)}, entry {shown_name(number)!r}"
        entry = _object(value, where)
        name = _text(entry, "filename", where)
        captions = (_text(entry, "caption", where), _text(entry, "negative_caption", where))
        root = root or _root(name, folders, where)
        yield Contrast(f"{subset}/{number}", (_picture(root, name, where),), captions, subset)


def _read_aro(file: Path, folders: Sequence[Path], subset: str) -> Iterator[Contrast]:
    root = None
    for number, where, entry in _entries(file):
        name = _text(entry, "image_path", where)
        captions = (_text(entry, "true_caption", where), _text(entry, "false_caption", where))
        root = root or _root(name, folders, where)
        picture = _picture(root, name, where)
        shown = PictureRegion(picture, _box(entry, where)) if "bbox_x" in entry else picture
        yield Contrast(f"{subset}/{number}", (shown,), captions, subset, _kind(entry, where))


def _read_options(file: Path, folders: Sequence[Path], subset: str) -> Iterator[Contrast]:
    root = None
    for number, where, entry in _entries(file):
        name = _text(entry, "image", where)
        options = texts_in(entry.get("caption_options"), "caption_options", where)
        if len(options) < 2 or not all(options):
            raise DataError(f"{where}: 'caption_options' must hold the true caption and others")
        root = root or _root(name, folders, where)
        yield Contrast(f"{subset}/{number}", (_picture(root, name, where),), tuple(options), subset)


def _read_checklist(file: Path, folders: Sequence[Path], subset: str) -> Iterator[Contrast]:
    root = None
    for number, where, value in _listed(file):
        if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):
            raise DataError(f"{where}: a path and an object with POS and NEG are expected")
        texts = _object(value[1], where)
        true, false = (texts_in(texts.get(key), key, where) for key in ("POS", "NEG"))
        if len(true) != len(false) or not all(true + false):
            raise DataError(f"{where}: POS and NEG must hold equally many texts, none empty")
        root = root or _root(value[0], folders, where)
        picture = _picture(root, value[0], where)
        for place_, pair in enumerate(zip(true, false, strict=True)):
            yield Contrast(f"{subset}/{number}.{place_}", (picture,), pair, subset)


Reader = Callable[[Path, Sequence[Path], str], Iterator[Contrast]]
_READERS: Mapping[str, Reader] = {
    "winoground": _read_winoground,
    "winoground parquet": _read_winoground_table,
    "sugarcrepe": _read_sugarcrepe,
    "aro": _read_aro,
    "options": _read_options,
    "checklist": _read_checklist,
}
_KEYS: Mapping[str, set[str]] = {
    "winoground": {"image_0", "image_1", "caption_0", "caption_1"},
    "sugarcrepe": {"filename", "caption", "negative_caption"},
    "aro": {"image_path", "true_caption", "false_caption"},
    "options": {"image", "caption_options"},
    "checklist": {"POS", "NEG"},
}


def _listed(file: Path) -> Iterator[tuple[int, str, Any]]:
    """The entries of a JSON array: number from 0, how messages call it, value."""
    document = read_document(file)
    if not isinstance(document, list):
        raise DataError(f"{place(file)}: a JSON array is expected, got {type(document).__name__}")
    for number, value in enumerate(document):
        yield number, f"{place(file)}, entry {number + 1}", value


def _entries(file: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    for number, where, value in _listed(file):
        yield number, where, _object(value, where)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: a JSON object is expected, got {type(value).__name__}")
    return value


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    texts = texts_in(entry.get(key), key, where)
    if len(texts) != 1:
        raise DataError(f"{where}: {key!r} must be one text, got a list of {len(texts)}")
    if not texts[0]:
        raise DataError(f"{where}: {key!r} is missing or empty")
    return texts[0]


def _box(entry: Mapping[str, Any], where: str) -> PixelBox:
    """ARO's corner, width and height as two corners."""
    sides = [entry.get(f"bbox_{side}") for side in "xywh"]
    numbers = [s for s in sides if isinstance(s, int | float) and not isinstance(s, bool)]
    if len(numbers) < 4 or not all(abs(number) < 1e6 for number in numbers):
        raise DataError(f"{where}: bbox_x, bbox_y, bbox_w and bbox_h must be numbers of pixels")
    x, y, wide, tall = (round(number) for number in numbers)
    if wide < 1 or tall < 1:
        raise DataError(f"{where}: a box of {wide} x {tall} pixels shows nothing")
    return x, y, x + wide, y + tall


def _kind(entry: Mapping[str, Any], where: str) -> str | None:
    """ARO's relation, or its two attributes as the published code joins them."""
    if "attributes" in entry:
        return "_".join(texts_in(entry["attributes"], "attributes", where))
    return _text(entry, "relation_name", where) if "relation_name" in entry else None


def _root(name: str, folders: Sequence[Path], where: str) -> Path:
    """The folder that holds this picture; the first one where none does."""
    return next((f for f in folders if _picture(f, name, where).is_file()), folders[0])


def _picture(root: Path, name: str, where: str) -> Path:
    """The file that a source means, also where it leaves the suffix out."""
    path = resolve(root, name, where)
    if path.is_file() or path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    named = (path.with_name(path.name + suffix) for suffix in (".png", ".jpg", ".jpeg", ".webp"))
    return next((file for file in named if file.is_file()), path)


def _check_present(contrasts: Sequence[Contrast], root: Path) -> None:
    pictures = (image for contrast in contrasts for image in contrast.images)
    files = [p.file if isinstance(p, PictureRegion) else p for p in pictures]
    if not any(not isinstance(file, Path) or file.is_file() for file in files):
        raise DataError(
            f"{shown_name(root)}: none of its pictures is there, the first is sought at "
            f"{shown_name(str(files[0]))}: name their folder with images=FOLDER"
        )
