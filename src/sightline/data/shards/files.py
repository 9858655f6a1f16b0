"""Which files a set of shards is: patterns with braces and stars, folders, and their splits."""

from __future__ import annotations

import os
import re
from itertools import product
from pathlib import Path

from sightline.core.errors import DataError
from sightline.data.records import SPLIT_NAMES, split_name
from sightline.inputs.folders import nearest_files, shown_name

MAX_SHARDS = 1_000_000
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def expand_braces(pattern: str) -> list[str]:
    """`a-{000..127}.tar` and `{a,b}.tar` as the names they stand for, in order, as bash has it.

    Raises:
        DataError: a range that counts down or stands for more than a million names.
    """
    parts: list[list[str]] = []
    rest, count = pattern, 1
    while found := _BRACES.search(rest):
        if found[3] is None:
            first, last = found[1], found[2]
            if int(first) > int(last) or int(last) - int(first) >= MAX_SHARDS:
                raise DataError(
                    f"{shown_name(pattern)}: {found[0]} must count up, at most {MAX_SHARDS:,} names"
                )
            width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
            names = [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
        else:
            names = found[3].split(",")
        count *= len(names)
        if count > MAX_SHARDS:
            raise DataError(f"{shown_name(pattern)}: stands for more than {MAX_SHARDS:,} names")
        parts += [[rest[: found.start()]], names]
        rest = rest[found.end() :]
    return ["".join(words) for words in product(*parts, [rest])]


def is_pattern(path: str) -> bool:
    """Whether a path is written with braces or a star."""
    return bool(_BRACES.search(path) or "*" in path)


def refuse_address(path: str | os.PathLike[str]) -> None:
    """Data is read from files only.

    Raises:
        DataError: the path is an address or a command.
    """
    text = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text) and not (os.name == "nt" and text[1] == ":"):
        kind = "an address"
    elif text.startswith("pipe:"):
        kind = "a command"
    else:
        return
    raise DataError(
        f"{shown_name(text)}: is {kind}; data sets are read from files only: fetch the shards "
        "first and name the files"
    )


def shard_files(path: Path, suffix: str, depth: int = 1) -> list[tuple[Path, str | None]]:
    """The files of a set with this suffix, each with the split that a folder or name tells.

    A file stands for itself, a pattern for what it names, a folder for the files in it and, to
    `depth`, in folders below it. Sorted by path.

    Raises:
        DataError: a pattern names a file that is not there, or matches nothing.
    """
    if is_pattern(str(path)) and not path.exists():
        found = _matches(str(path))
        return [(file, split_in(file.name)) for file in found]
    if path.is_file():
        return [(path, split_in(path.name))] if path.suffix.lower() == suffix else []
    found = []
    for level in range(depth + 1):
        found += [f for f in path.glob("*/" * level + "*") if _is_shard(f, path, suffix)]
    return [(file, _folder_split(file, path) or split_in(file.name)) for file in sorted(found)]


def _is_shard(file: Path, root: Path, suffix: str) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.suffix.lower() == suffix and not hidden and file.is_file()


def _matches(pattern: str) -> list[Path]:
    found: list[Path] = []
    for name in expand_braces(pattern):
        if "*" in name:
            path = Path(name)
            if "*" in str(path.parent):
                raise DataError(f"{shown_name(name)}: a star may stand in the file's name only")
            found += sorted(path.parent.glob(path.name))
        elif Path(name).is_file():
            found.append(Path(name))
        else:
            raise DataError(
                f"{shown_name(name)}: there is no such shard{nearest_files(Path(name))}"
            )
    if not found:
        raise DataError(f"{shown_name(pattern)}: no file has such a name")
    return found


def split_in(name: str) -> str | None:
    """The split that a file's name tells: `cc3m-train-0001.tar` is "train"."""
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None


def _folder_split(file: Path, root: Path) -> str | None:
    for part in file.relative_to(root).parts[:-1]:
        if part.lower() in SPLIT_NAMES:
            return split_name(part)
    return None
