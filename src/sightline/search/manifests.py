"""The manifests of a Lance table on a disk: which one is newest, and whether it can be trusted.

Every commit of Lance writes one manifest, which names all the files of a version. Nothing forces it
to the disk, so a power cut can leave the newest one empty or half written, and then Lance opens no
version at all. A bit that flips later may even still read as a manifest. Therefore each commit is
followed by a seal: the files are synced, and a small file beside the table keeps the manifest's
size and SHA-256. A sealed manifest is trusted when it matches its seal. One without (the process
was killed between commit and seal) is trusted when it is whole and its rows can be read.

Layout of a manifest: `lance-table/src/io/manifest.rs` of Lance 13 (length and protobuf, then
sixteen bytes: position, version, "LANC"); names: `lance-table/src/io/commit.rs`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sightline.core.files import sync, write_json

TABLE = "vectors"
"""Name of the table; Lance keeps it in the folder `vectors.lance`."""
SEALS = "seals"
FORMAT, VERSION = "sightline.seal", 1
_MAGIC, _FOOTER = b"LANC", 16
_NAME = re.compile(r"([0-9]{1,20})\.manifest")
_LAST = 2**64 - 1


@dataclass(frozen=True)
class Manifest:
    """One manifest file."""

    path: Path
    version: int


@dataclass(frozen=True)
class Damage:
    """A manifest that cannot be trusted."""

    manifest: Manifest
    reason: str

    def __str__(self) -> str:
        return f"version {self.manifest.version} is damaged ({self.reason})"


def table_folder(folder: Path) -> Path:
    """Where Lance keeps the table of a store."""
    return folder / f"{TABLE}.lance"


def manifests(folder: Path) -> list[Manifest]:
    """The manifests of a store, newest first."""
    try:
        names = os.listdir(table_folder(folder) / "_versions")
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        if match := _NAME.fullmatch(name):
            number = int(match[1])
            # Twenty digits count down, so that a listing begins with the newest.
            version = _LAST - number if len(match[1]) == 20 else number
            found.append(Manifest(table_folder(folder) / "_versions" / name, version))
    return sorted(found, key=lambda manifest: -manifest.version)


def damage_of(folder: Path, manifest: Manifest) -> str | None:
    """Why this manifest cannot be trusted, from its bytes; None where nothing speaks against it."""
    data = manifest.path.read_bytes()
    if not data:
        return "0 bytes"
    seal = _seal(folder, manifest)
    if seal is not None and len(data) != seal["bytes"]:
        return f"{len(data):,} bytes of {seal['bytes']:,}"
    if seal is not None:
        same = hashlib.sha256(data).hexdigest() == seal["sha256"]
        return None if same else "its bytes have changed since they were written"
    position = int.from_bytes(data[-_FOOTER : -_FOOTER + 8], "little")
    if len(data) < _FOOTER or data[-4:] != _MAGIC or position > len(data) - _FOOTER:
        return "it ends too early"
    return None


def is_sealed(folder: Path, manifest: Manifest) -> bool:
    """Whether this manifest was brought to the disk with everything that it names."""
    return _seal(folder, manifest) is not None


def seal(folder: Path, synced: set[Path]) -> None:
    """Bring the newest version to the disk, and keep what its manifest has to look like.

    Args:
        folder: the store.
        synced: files that are on the disk already, which never change; new ones are added.
    """
    newest = manifests(folder)[0]
    _sync_new(table_folder(folder), synced)
    data = newest.path.read_bytes()
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_json(folder / SEALS / f"{newest.version}.json", fields)


def drop_seals(folder: Path) -> None:
    """Remove the seals of versions that are gone, and what a killed process left of its own."""
    if not (folder / SEALS).is_dir():
        return
    kept = {f"{manifest.version}.json" for manifest in manifests(folder)}
    for path in (folder / SEALS).iterdir():
        if path.name not in kept:
            path.unlink(missing_ok=True)


def view_of(folder: Path, manifest: Manifest) -> Path:
    """A folder in which this manifest is the newest; the rows are those of the store itself.

    Nothing in the store is touched, so that a version can be read which Lance would not open by
    itself. The caller removes the folder.
    """
    view = Path(tempfile.mkdtemp(prefix="sightline-index-"))
    table = table_folder(view)
    (table / "_versions").mkdir(parents=True)
    shutil.copyfile(manifest.path, table / "_versions" / manifest.path.name)
    for entry in table_folder(folder).iterdir():
        if entry.is_dir() and entry.name != "_versions":
            (table / entry.name).symlink_to(entry.resolve(), target_is_directory=True)
    return view


def _seal(folder: Path, manifest: Manifest) -> dict[str, int | str] | None:
    try:
        fields = json.loads((folder / SEALS / f"{manifest.version}.json").read_bytes())
        return {"bytes": int(fields["bytes"]), "sha256": str(fields["sha256"])}
    except (OSError, ValueError, KeyError, TypeError):  # a broken seal seals nothing
        return None


def _sync_new(table: Path, synced: set[Path]) -> None:
    folders = {table, table.parent}
    for path in _files(table):
        if path in synced:
            continue
        try:
            sync(path)
        except FileNotFoundError:  # another process dropped an old version meanwhile
            continue
        synced.add(path)
        folders |= {path.parent, path.parent.parent}
    for folder in folders:
        sync(folder)


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            yield Path(root) / name
