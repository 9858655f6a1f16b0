"""The newest state of a store that can be trusted; what is broken is stepped back from, loudly."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from sightline.core.errors import SightlineError, StoreError
from sightline.core.lazy import require
from sightline.search.lance_rows import told_about, vectors_of
from sightline.search.manifests import (
    TABLE,
    Damage,
    Manifest,
    damage_of,
    is_sealed,
    manifests,
    table_folder,
    view_of,
)

logger = logging.getLogger(__name__)

BLOCK = 8192
"""Rows read at once."""
_FRESH = timedelta(seconds=1)
"""How old a state may be before a reader looks for a newer one."""
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_FULL_TEXTS = ("no space left on device", "file too large", "quota exceeded")


class Opened(NamedTuple):
    """A table of LanceDB, and what had to be stepped over to open it."""

    table: Any
    damage: tuple[Damage, ...]
    view: Path | None
    """The temporary folder through which an older version is read."""


def lancedb() -> ModuleType:
    """LanceDB, or a sentence about how to get it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return require("lancedb", "search", "an index of pictures on disk")


def open_newest(folder: Path) -> Opened:
    """The newest version that can be trusted; a warning names each newer one.

    Raises:
        StoreError: there is no store, or none of its versions can be opened.
    """
    found = manifests(folder)
    if not found:
        raise StoreError(f"{folder}: there is no index in this folder")
    damage: list[Damage] = []
    for manifest in found:
        opened = try_open(folder, manifest, newest=not damage)
        if isinstance(opened, Opened):
            for one in damage:
                logger.warning(
                    "%s: %s; opened version %d, the newest that is whole: "
                    "run sightline index repair %s", folder, one, manifest.version, folder,
                )  # fmt: skip
            return opened._replace(damage=tuple(damage))
        damage.append(Damage(manifest, opened))
    reasons = "; ".join(str(one) for one in damage)
    raise StoreError(f"{folder}: no version of this index can be opened: {reasons}")


def try_open(
    folder: Path, manifest: Manifest, newest: bool, thorough: bool = False
) -> Opened | str:
    """The version of a manifest, or why it cannot be trusted.

    Args:
        folder: the store.
        manifest: which version.
        newest: whether Lance finds this version by itself.
        thorough: read every row, also where a seal vouches for them.
    """
    try:
        reason = damage_of(folder, manifest)
    except FileNotFoundError:
        return "it was dropped meanwhile"
    if reason is not None:
        return reason
    view = None if newest else view_of(folder, manifest)
    try:
        database = lancedb().connect(str(view or folder), read_consistency_interval=_FRESH)
        table = database.open_table(TABLE)
        if thorough or not is_sealed(folder, manifest):
            check_rows(table)
        return Opened(table, (), view)
    except SightlineError:
        raise
    except Exception as error:  # Lance raises whatever broken bytes make it raise
        if view is not None:
            shutil.rmtree(view, ignore_errors=True)
        return first_line(error)


def check_rows(table: Any) -> None:
    """Read every row.

    Raises:
        ValueError: columns that are not ours, ids that are missing or doubled, or vectors that are
            not of length one.
    """
    told = told_about(table.schema)
    if told is None or set(table.schema.names) != {"id", "vector", *told[0]}:
        raise ValueError("it was not written by Sightline")
    seen: set[str] = set()
    for batch in table.search().limit(None).to_batches(BLOCK):
        seen.update(batch["id"].to_pylist())
        lengths = np.linalg.norm(vectors_of(batch["vector"]), axis=1)
        if not bool((np.abs(lengths - 1) < 1e-3).all()):  # NaN fails too
            raise ValueError("vectors that are not of length one")
    if None in seen or len(seen) != table.count_rows():
        raise ValueError("ids that are missing or there twice")


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What the engine raises as one sentence for a person.

    Raises:
        StoreError: instead of it.
    """
    try:
        yield
    except SightlineError:
        raise
    except Exception as error:
        if not _is_engines(error):
            raise
        text = str(error).lower()
        full = getattr(error, "errno", None) in _FULL or any(part in text for part in _FULL_TEXTS)
        raise StoreError(
            f"{folder}: the disk is full; what was committed before is safe: make room and run "
            "the same command again"
            if full
            else f"{folder}: the index cannot be read or written: {first_line(error)}"
        ) from error


def _is_engines(error: Exception) -> bool:
    """Whether an error comes from LanceDB or the system, and is no mistake of the program."""
    # Arrow and Rust (which may panic over broken bytes) have kinds of their own.
    own = type(error).__module__ != "builtins"
    return own or isinstance(error, (OSError, RuntimeError, ValueError))


def first_line(error: Exception) -> str:
    """The first line of an error, short enough for a message."""
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def store_exists(folder: Path) -> bool:
    """Whether a store was created in this folder."""
    return table_folder(folder).is_dir() and bool(manifests(folder))
