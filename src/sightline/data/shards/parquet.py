"""Parquet and Arrow tables that hold pictures: the layouts that `datasets` and img2dataset write.

The column of pictures is a struct {bytes, path} or plain bytes; it is left in the file when a set
is opened, and read a row group at a time. A table that names files (`file_name`) is a list of
pictures like any other. Needs pyarrow, which the extra `datasets` brings.

Parquet is compressed in row groups, so pictures drawn at random cost a row group each once the
groups do not fit `CACHED_BYTES`: read in windows (`sightline.data.shards.windows`), or convert to
tars.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError, ImageError
from sightline.core.lazy import require
from sightline.data.columns import Reading, Row, assemble, find_columns, row_from
from sightline.data.records import Record, split_name
from sightline.data.shards.files import Damage, refuse_address, shard_files, split_in
from sightline.inputs.folders import shown_name
from sightline.inputs.limits import MAX_BYTES

log = logging.getLogger(__name__)

MAX_GROUP_BYTES = 4 * 2**30
"""A larger column of a row group is a bomb, or a file to be written anew with smaller groups."""
CACHED_BYTES = 512 * 2**20
PICTURE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "photo", "bytes",
                 "imagebytes", "pixelvalues", "digit")  # fmt: skip
EXTRA_JSON = "sightline_extra"
"""In tables that we wrote: what else is known, as one JSON object a row."""
_PURPOSE = "reading Parquet and Arrow tables"


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return require("pyarrow", "datasets", _PURPOSE)


# Where the pictures are


@dataclass(frozen=True)
class TableLook:
    """What a schema says: the column of pictures, and the names that class numbers stand for."""

    pictures: str | None
    """The column that holds encoded pictures; None where the table only names them."""
    is_struct: bool
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]]


def look_at(schema: Any) -> TableLook:
    """Read a schema, with the notes that `datasets` leaves in its metadata.

    Raises:
        DataError: several columns of pictures.
    """
    types = arrow().types
    features = _features(schema)
    named = [name for name, kind in features.items() if _kind(kind) == "Image"]
    binary = [f.name for f in schema if _is_binary(types, f.type)]
    structs = [f.name for f in schema if types.is_struct(f.type) and _has_bytes(types, f.type)]
    found = [name for name in named if name in (*structs, *binary)] or structs
    if not found:
        found = [n for n in binary if _plain(n) in PICTURE_NAMES]
    if len(found) > 1:
        known = [n for n in found if _plain(n) in PICTURE_NAMES[:1]]
        if len(known) != 1:
            raise DataError(
                f"several columns hold pictures: {', '.join(found)}: keep one of them, or name it "
                "'image'"
            )
        found = known
    classes = {
        name: tuple(map(str, kind["names"]))
        for name, kind in features.items()
        if _kind(kind) == "ClassLabel" and isinstance(kind.get("names"), list)
    }
    picture = found[0] if found else None
    return TableLook(picture, picture in structs, tuple(schema.names), classes)


def _features(schema: Any) -> dict[str, Any]:
    said = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(said).get("info", {}).get("features", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None


def _is_binary(types: Any, kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _has_bytes(types: Any, kind: Any) -> bool:
    return any(f.name == "bytes" and _is_binary(types, f.type) for f in kind)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


# Reading cells


@dataclass(frozen=True)
class StoredCell:
    """A picture that is a cell of a table."""

    table: PictureTable
    row: int
    name: str

    def read_stored(self) -> bytes:
        """The bytes as they were stored.

        Raises:
            ImageError: the cell is empty or too large, or the file is gone.
        """
        return self.table.picture(self.row, self.name)


class PictureTable:
    """One file: rows without their pictures at once, pictures a group of rows at a time."""

    def __init__(self, path: Path, open_table: Callable[[Path], Groups]) -> None:
        self.path = path
        self._number = next(_NUMBERS)  # id() would be given again to a later table
        self._groups = open_table(path)
        self.look = self._groups.look
        self._warned = False
        self._loads = 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every column but the pictures, and the path inside the struct as "path"."""
        yield from self._groups.rows()

    def picture(self, row: int, name: str) -> bytes:
        """The bytes of a cell; from any thread.

        Raises:
            ImageError: as `StoredCell.read_stored`.
        """
        group, within = self._groups.place(row)
        try:
            column = _CACHE.get((self._number, group), lambda: self._load(group))
            value = column[within]
            if self.look.is_struct:
                value = value["bytes"]
            data = value.as_py()
        except (OSError, arrow().ArrowException) as error:
            raise ImageError(
                f"{shown_name(self.path.name)}: {_one_line(error)}", "image_not_found"
            ) from None
        if data is None:
            raise ImageError("the cell holds no bytes", "image_empty")
        if len(data) > MAX_BYTES:
            raise ImageError(f"the cell has {len(data):,} bytes", "image_too_large")
        return bytes(data)

    def _load(self, group: int) -> Any:
        self._loads += 1
        if self._loads > 4 * self._groups.count + 4 and not self._warned:
            self._warned = True
            log.warning(
                "%s: row groups are read again and again, because its pictures are drawn at "
                "random: convert it to tars with 'sightline data convert'",
                shown_name(self.path.name),
            )
        return self._groups.pictures(group)


class _Cache:
    """The columns read last, up to `CACHED_BYTES` in all."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], load: Callable[[], Any]) -> Any:
        """The column of a key; loaded by one thread while the others wait."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            column = load()
            self._held[key] = column
            self._bytes += column.nbytes
            while self._bytes > CACHED_BYTES and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
            return column


_CACHE = _Cache()
_NUMBERS = count()


class Groups:
    """Row groups of a Parquet file."""

    def __init__(self, path: Path) -> None:
        parquet = require("pyarrow.parquet", "datasets", _PURPOSE)
        self.file = parquet.ParquetFile(path, memory_map=True)
        self.look = look_at(self.file.schema_arrow)
        self.count = self.file.num_row_groups
        self._ends: list[int] = []
        for group in range(self.count):
            rows = self.file.metadata.row_group(group).num_rows
            self._ends.append(rows + (self._ends[-1] if self._ends else 0))

    def place(self, row: int) -> tuple[int, int]:
        """Group and row within it."""
        from bisect import bisect_right

        group = bisect_right(self._ends, row)
        return group, row - (self._ends[group - 1] if group else 0)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows without pictures."""
        look = self.look
        wanted = [name for name in look.columns if name != look.pictures]
        inner = f"{look.pictures}.path" if look.is_struct else None
        columns = [*wanted, inner] if inner else wanted
        if not columns:
            yield from ({} for _ in range(self.file.metadata.num_rows))
            return
        for batch in self.file.iter_batches(1024, columns=columns):
            for row in batch.to_pylist():
                yield _with_path(row, look)

    def pictures(self, group: int) -> Any:
        """The column of pictures of one group.

        Raises:
            ImageError: it would take more than `MAX_GROUP_BYTES`.
        """
        said = self.file.metadata.row_group(group)
        sizes = (said.column(i) for i in range(said.num_columns))
        picture = self.look.pictures or ""
        total = sum(
            column.total_uncompressed_size
            for column in sizes
            if column.path_in_schema.split(".")[0] == picture
        )
        if total > MAX_GROUP_BYTES:
            raise ImageError(
                f"row group {group} has {total:,} bytes of pictures", "image_too_large"
            )
        column = f"{picture}.bytes" if self.look.is_struct else picture
        return self.file.read_row_group(group, columns=[column]).column(0).combine_chunks()


class Batches(Groups):
    """Record batches of an Arrow file, as `datasets` saves them; mapped, so never in memory."""

    def __init__(self, path: Path) -> None:
        pa = arrow()
        source = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
        self.table = reader.read_all()
        self.look = look_at(self.table.schema)
        self.count = 1

    def place(self, row: int) -> tuple[int, int]:
        """One group holds all."""
        return 0, row

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows without pictures."""
        look = self.look
        kept = [name for name in look.columns if name != look.pictures]
        paths = None
        if look.is_struct:
            paths = _paths(self.table.column(look.pictures))
        for number, row in enumerate(_rows_of(self.table, kept)):
            yield row if paths is None else _named(row, paths[number])

    def pictures(self, group: int) -> Any:
        """The whole column, mapped."""
        return _Mapped(self.table.column(self.look.pictures))


class _Mapped:
    """A mapped column: the cache need not count what the system can drop."""

    nbytes = 0

    def __init__(self, column: Any) -> None:
        self._column = column

    def __getitem__(self, row: int) -> Any:
        return self._column[row]


def _rows_of(table: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not names:
        yield from ({} for _ in range(table.num_rows))
        return
    for batch in table.select(names).to_batches(1024):
        yield from batch.to_pylist()


def _paths(column: Any) -> list[str | None]:
    fields = [field.name for field in column.type]
    if "path" not in fields:
        return [None] * len(column)
    compute = require("pyarrow.compute", "datasets", _PURPOSE)
    return compute.struct_field(column, fields.index("path")).to_pylist()


def _with_path(row: dict[str, Any], look: TableLook) -> dict[str, Any]:
    inner = row.pop(look.pictures, None) if look.is_struct and look.pictures else None
    return _named(row, inner.get("path") if isinstance(inner, dict) else None)


def _named(row: dict[str, Any], path: str | None) -> dict[str, Any]:
    return {**row, "path": path} if path and "path" not in row else row


# Records


def open_parquet(path: Path) -> PictureTable:
    """One Parquet file.

    Raises:
        DataError: damaged, or no Parquet at all.
        MissingDependencyError: pyarrow is not installed.
    """
    return _opened(path, Groups, "Parquet")


def open_arrow(path: Path) -> PictureTable:
    """One Arrow file (stream or file format).

    Raises:
        DataError: damaged, or no Arrow at all.
        MissingDependencyError: pyarrow is not installed.
    """
    return _opened(path, Batches, "Arrow")


def _opened(path: Path, kind: Callable[[Path], Groups], what: str) -> PictureTable:
    pa = arrow()
    try:
        return PictureTable(path, kind)
    except DataError as error:
        raise DataError(f"{shown_name(path.name)}: {error}") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{shown_name(path.name)}: cannot be read as {what} ({_one_line(error)})"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def table_records(
    table: PictureTable, split: str | None, damage: Damage, prefix: str = ""
) -> list[Record]:
    """The rows of a table that holds its pictures.

    Raises:
        DataError: a value that its column cannot have.
    """
    found = []
    for number, fields in enumerate(_readable_rows(table)):
        where = f"{shown_name(table.path.name)}, row {number + 1}"
        if fields.get("status", "success") != "success" and "url" in fields:
            continue  # img2dataset keeps a row of each address that gave no picture
        id = _id_of(fields, f"{prefix}{number}")
        row = row_from({"image": id, **_worded(fields, table.look)}, where, split)
        extra = {name: value for name, value in row.extra.items() if name != "path"}
        captions = tuple(text for text in row.captions if text)
        if len(captions) < len(row.captions):
            damage.note("empty caption(s)", where, len(row.captions) - len(captions))
        picture = StoredCell(table, number, where)
        found.append(Record(id, picture, captions, row.label, row.split, extra))
    return found


def _readable_rows(table: PictureTable) -> Iterator[dict[str, Any]]:
    try:
        yield from table.rows()
    except (OSError, arrow().ArrowException) as error:
        raise DataError(f"{shown_name(table.path.name)}: is damaged ({_one_line(error)})") from None


def _id_of(fields: Mapping[str, Any], otherwise: str) -> str:
    name = find_columns(tuple(fields)).id
    value = fields.get(name) if name else None
    if isinstance(value, str | int) and value != "":
        return str(value)
    path = fields.get("path")
    return path if isinstance(path, str) and path else otherwise


def _worded(fields: dict[str, Any], look: TableLook) -> dict[str, Any]:
    """Class numbers as their names, and our own extra fields unfolded."""
    worded = dict(fields)
    for name, names in look.class_names.items():
        value = worded.get(name)
        if isinstance(value, int) and 0 <= value < len(names):
            worded[name] = names[value]
    extra = worded.pop(EXTRA_JSON, None)
    if isinstance(extra, str):
        try:
            value = json.loads(extra)
        except (ValueError, RecursionError):
            value = None
        worded = {**(value if isinstance(value, dict) else {EXTRA_JSON: extra}), **worded}
    return worded


def read_parquet(root: Path) -> Reading:
    """Parquet files: with their pictures inside, or naming files beside them.

    Raises:
        DataError: damaged, no pictures named, or pictures that are addresses.
    """
    refuse_address(root)
    files = shard_files(root, ".parquet", depth=3)
    return read_tables([(open_parquet(file), split) for file, split in files], root)


def read_saved(root: Path) -> Reading:
    """A folder that `datasets` saved: `dataset_info.json` with Arrow files, also below splits.

    Raises:
        DataError: damaged, or no Arrow files.
    """
    found = [root] if root.is_file() else _arrow_files(root)
    if not found:
        raise DataError(f"{shown_name(root)}: a saved data set without .arrow files")
    tables = []
    for file in found:
        folder = file.parent.name if file.parent != root and file != root else ""
        tables.append((open_arrow(file), split_in(folder) or _named_split(file, folder)))
    return read_tables(tables, root)


def _named_split(file: Path, folder: str) -> str | None:
    """The split that the description beside the file names, or the folder of a saved part."""
    try:
        state = json.loads((file.parent / "state.json").read_text(encoding="utf-8"))
        said = state.get("_split") if isinstance(state, dict) else None
    except (OSError, ValueError, RecursionError):
        said = None
    return split_name(said) if isinstance(said, str) and said else folder or None


def _arrow_files(root: Path) -> list[Path]:
    """Those that `state.json` lists; all others are left by interrupted work or caches."""
    found: list[Path] = []
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            names = [str(entry["filename"]) for entry in state["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError):
            names = sorted(
                p.name for p in folder.glob("*.arrow") if not p.name.startswith("cache-")
            )
        found += [folder / Path(name).name for name in names]
    return found


def read_tables(tables: Sequence[tuple[PictureTable, str | None]], root: Path) -> Reading:
    """Records of several tables; ids that occur in more than one are led by the file's name.

    Raises:
        DataError: as `read_parquet`.
    """
    damage = Damage()
    if not tables:
        raise DataError(f"{shown_name(root)}: no tables here")
    if any(table.look.pictures is None for table, _ in tables):
        return _listed(tables, root)
    records: list[Record] = []
    for table, split in tables:
        prefix = f"{shown_name(table.path.stem)}/" if len(tables) > 1 else ""
        records += table_records(table, split, damage, prefix)
    return Reading(_with_single_ids(records), 0, (), damage.sentences())


def _with_single_ids(records: list[Record]) -> list[Record]:
    from dataclasses import replace

    if len({record.id for record in records}) == len(records):
        return records
    named = []
    for record in records:
        picture = record.image
        stem = picture.table.path.stem if isinstance(picture, StoredCell) else ""
        number = picture.row if isinstance(picture, StoredCell) else 0
        named.append(replace(record, id=f"{shown_name(stem)}/{number}/{record.id}"))
    return named


def _listed(tables: Sequence[tuple[PictureTable, str | None]], root: Path) -> Reading:
    """Tables that name files."""
    rows: list[Row] = []
    for table, split in tables:
        for number, fields in enumerate(_readable_rows(table), 1):
            where = f"{shown_name(table.path.name)}, row {number}"
            rows.append(row_from(_worded(fields, table.look), where, split))
    folder = root if root.is_dir() else root.parent
    roots = [folder, *(folder / name for name in ("images", "img") if (folder / name).is_dir())]
    return assemble(rows, roots)
