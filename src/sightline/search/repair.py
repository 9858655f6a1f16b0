"""Make a store whole again: set aside what is broken, so that the newest whole state is newest."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sightline.core.errors import StoreError
from sightline.core.files import sync
from sightline.search.locks import writing
from sightline.search.manifests import SEALS, Damage, manifests, seal, table_folder
from sightline.search.opening import Opened, lancedb, told, try_open

BROKEN = "broken"
"""Where broken manifests are kept; nothing is deleted."""


@dataclass(frozen=True)
class Repaired:
    """What was found and done."""

    version: int
    """The newest version that is whole, which is the newest one now."""
    rows: int
    set_aside: tuple[str, ...]
    """Sentences about newer versions that were moved away; empty where all was well."""


def repair(folder: Path) -> Repaired:
    """Read every row of the newest version; step back until one is whole; move the others away.

    What was committed in the versions that were set aside has to be added again: running the same
    `add` does that.

    Raises:
        StoreError: there is no store, or no version of it is whole.
        MissingDependencyError: LanceDB is not installed.
    """
    lancedb()
    if not table_folder(folder).is_dir():
        raise StoreError(f"{folder}: there is no index in this folder")
    with told(folder), writing(folder):
        damage: list[Damage] = []
        for manifest in manifests(folder):
            opened = try_open(folder, manifest, newest=not damage, thorough=True)
            if isinstance(opened, Opened):
                rows = int(opened.table.count_rows())
                if opened.view is not None:
                    shutil.rmtree(opened.view, ignore_errors=True)
                _set_aside(folder, damage)
                seal(folder, set())
                return Repaired(manifest.version, rows, tuple(str(one) for one in damage))
            damage.append(Damage(manifest, opened))
    reasons = "; ".join(str(one) for one in damage) or "it has none"
    raise StoreError(
        f"{folder}: no version of this index can be opened ({reasons}): index the pictures again "
        "into a new folder"
    )


def _set_aside(folder: Path, damage: list[Damage]) -> None:
    if not damage:
        return
    away = folder / BROKEN
    away.mkdir(exist_ok=True)
    versions = table_folder(folder) / "_versions"
    for one in damage:
        os.replace(one.manifest.path, away / one.manifest.path.name)
        # The number will be given again, to another manifest.
        (folder / SEALS / f"{one.manifest.version}.json").unlink(missing_ok=True)
    for path in (away, versions, folder / SEALS, folder):
        if path.is_dir():
            sync(path)
