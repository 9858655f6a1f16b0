"""Records of Parquet and Arrow tables: the layouts that `datasets` and img2dataset write.

Pictures stay in the file when a set is opened (`picture_tables`). A table that names files
(`file_name`) is a list of pictures like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.columns import Reading, Row, assemble, find_columns, row_from
from sightline.data.damage import Damage
from sightline.data.records import Record, split_name
from sightline.data.shards.files import refuse_address, shard_files, split_in
from sightline.data.shards.picture_tables import (
    PictureTable,
    StoredCell,
    one_line,
    open_arrow,
    open_parquet,
)
from sightline.data.shards.table_look import TableLook, arrow
from sightline.inputs.folders import shown_name

EXTRA_JSON = "sightline_extra"
"""In tables that we wrote: what else is known, as one JSON object a row."""


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
        said = row.said.of_record([picture], where)
        found.append(Record(id, picture, captions, row.label, row.split, extra, **said))
    return found


def _readable_rows(table: PictureTable) -> Iterator[dict[str, Any]]:
    try:
        yield from table.rows()
    except (OSError, arrow().ArrowException) as error:
        raise DataError(f"{shown_name(table.path.name)}: is damaged ({one_line(error)})") from None


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
