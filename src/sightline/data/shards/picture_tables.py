"""Parquet and Arrow files as tables of pictures: rows at once, pictures a row group at a time.

Parquet is compressed in row groups, so pictures drawn at random cost a row group each once the
groups do not fit `CACHED_BYTES`: read in windows (`sightline.data.shards.windows`), or convert to
tars. Arrow files are mapped.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError, ImageError
from sightline.core.lazy import require
from sightline.data.shards.table_look import PURPOSE, TableLook, arrow, look_at
from sightline.inputs.folders import shown_name
from sightline.inputs.limits import MAX_BYTES

log = logging.getLogger(__name__)

MAX_GROUP_BYTES = 4 * 2**30
"""A larger column of a row group is a bomb, or a file to be written anew with smaller groups."""
CACHED_BYTES = 512 * 2**20


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
                f"{shown_name(self.path.name)}: {one_line(error)}", "image_not_found"
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
        parquet = require("pyarrow.parquet", "datasets", PURPOSE)
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
    compute = require("pyarrow.compute", "datasets", PURPOSE)
    return compute.struct_field(column, fields.index("path")).to_pylist()


def _with_path(row: dict[str, Any], look: TableLook) -> dict[str, Any]:
    inner = row.pop(look.pictures, None) if look.is_struct and look.pictures else None
    return _named(row, inner.get("path") if isinstance(inner, dict) else None)


def _named(row: dict[str, Any], path: str | None) -> dict[str, Any]:
    return {**row, "path": path} if path and "path" not in row else row


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
            f"{shown_name(path.name)}: cannot be read as {what} ({one_line(error)})"
        ) from None


def one_line(error: Exception) -> str:
    """What a library says, short and without line ends."""
    return " ".join(str(error).split())[:160] or type(error).__name__
