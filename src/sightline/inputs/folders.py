"""The pictures of a folder, and names that are safe to print."""

import logging
import os
import stat
from itertools import islice
from pathlib import Path

from sightline.core.errors import DataError, nearest

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp"),
        *(".tif", ".tiff", ".avif", ".heic", ".heif"),
    )
)


def shown_name(name: str | os.PathLike[str]) -> str:
    """A file name for messages: one printable line of at most 200 characters."""
    text = os.fsencode(os.fspath(name)).decode("utf-8", "replace")
    clean = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return clean if len(clean) <= 200 else f"{clean[:60]}...{clean[-130:]}"


def nearest_files(path: Path) -> str:
    """The end of a message about a missing file: names like it, or that its folder is missing."""
    try:
        with os.scandir(path.parent) as entries:
            close = nearest(path.name, [entry.name for entry in islice(entries, 2000)])
    except (OSError, ValueError):
        return f": the folder {shown_name(path.parent)} does not exist"
    if not close:
        return f" in {shown_name(path.parent)}"
    return f"; did you mean {' or '.join(shown_name(name) for name in close)}?"


def find_images(path: str | os.PathLike[str]) -> list[Path]:
    """The pictures under a folder, at any depth, sorted by path; a file stands for itself.

    Pictures are the files whose suffix is in `IMAGE_SUFFIXES`. Hidden files and folders and
    unfinished downloads (`.part`) are skipped. Links are followed, each folder once, so that a
    loop of links ends. Names that are not UTF-8 survive as the system gives them.

    Raises:
        DataError: the path does not exist or cannot be listed, or no picture is there.
    """
    root = Path(path)
    try:
        mode = root.stat().st_mode
        if not stat.S_ISDIR(mode):
            return [root]
        found = _walk(root)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{shown_name(root)}: there is no such file or folder{nearest_files(root)}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a possible file name"
        raise DataError(f"{shown_name(root)}: cannot be listed ({reason})") from None
    if not found:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{shown_name(root)}: no pictures in this folder; looked for {suffixes}")
    return sorted(found, key=lambda file: [os.fsencode(part) for part in file.parts])


def _walk(root: Path) -> list[Path]:
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as entries:
                visible = sorted(
                    (entry for entry in entries if not entry.name.startswith(".")),
                    key=lambda entry: os.fsencode(entry.name),
                )
        except OSError as error:
            if folder == root:
                raise
            logger.warning("%s: not listed (%s)", shown_name(folder), error.strerror)
            continue
        # reversed, so that the folder that sorts first is walked first and owns a shared target
        folders += [folder / entry.name for entry in reversed(visible) if _is_folder(entry)]
        found += [folder / entry.name for entry in visible if _is_picture(entry)]
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    if os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES:
        return False
    try:
        if entry.is_file():
            return True
    except OSError:
        pass
    if entry.is_symlink():
        logger.warning("%s: skipped, the link leads nowhere", shown_name(entry.path))
    return False
