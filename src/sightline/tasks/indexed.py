"""The pictures that an index holds: what is kept of each, and when one counts as changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sightline.core.errors import DataError, ImageError
from sightline.inputs.folders import find_images, shown_name
from sightline.inputs.formats import identify
from sightline.inputs.images import is_address, read_bytes, read_image
from sightline.inputs.picture_size import picture_size
from sightline.search.store import Fields
from sightline.tasks.batching import as_sources, source_name

FIELDS: Fields = {
    "path": "text",
    "name": "text",
    "folder": "text",
    "format": "text",
    "width": "whole",
    "height": "whole",
    "bytes": "whole",
    "modified": "time",
    "added": "time",
    "missing": "flag",
    "digest": "text",
    "file": "raw",
}
"""Fields of a row. `folder` is the name of the folder that the picture lies in; width and height
are those of the stored pixels; `digest` is the SHA-256 of the file; `file` is the path exactly as
the system has it, which may not be UTF-8."""
SHOWN = tuple(name for name, kind in FIELDS.items() if kind != "raw")


class Seen(NamedTuple):
    """What the index knows about a picture from before."""

    size: int
    modified: int
    digest: str
    missing: bool
    file: bytes


class Picture:
    """One picture on its way into an index; a `StoredPicture` that notes what it read."""

    # A million of them are held at once.
    __slots__ = (
        *("bytes", "digest", "format", "height", "id", "is_file", "modified", "name", "source"),
        "width",
    )

    def __init__(self, source: Any, place: int) -> None:
        self.source = source
        self.is_file = isinstance(source, (str, os.PathLike)) and not is_address(source)
        self.name = os.path.abspath(source) if self.is_file else source_name(source, place)
        self.digest = self.format = ""
        self.width = self.height = self.bytes = self.modified = 0
        if isinstance(source, (str, os.PathLike)):
            self.id = picture_id(self.name)
        else:  # a picture without a name is known by its pixels
            self.source = _encoded(source)
            self.id = hashlib.sha256(self.source).hexdigest()[:20]
            self.name = f"memory:{self.id}"

    def look(self) -> None:
        """Size and time of a file, before it is read, so that a change meanwhile is seen later."""
        if self.is_file:
            try:
                state = os.stat(self.name)
            except (OSError, ValueError):  # whoever reads it says what is wrong
                return
            self.bytes, self.modified = state.st_size, state.st_mtime_ns

    def read_stored(self) -> bytes:
        """The bytes; what they are is noted."""
        data = read_bytes(self.name if self.is_file else self.source)
        self.bytes = len(data)
        self.digest = hashlib.sha256(data).hexdigest()
        self.format = identify(data).lower()
        try:
            self.width, self.height = picture_size(data)
        except ImageError:
            pass  # the decoder is about to meet the same damage, and words it with the name
        return data

    def is_as(self, seen: Seen) -> bool:
        """Whether nothing about it has changed; a file of another time is read to find out."""
        if not self.is_file:
            return True  # an address or a picture in memory has no time that could tell
        if (self.bytes, self.modified) == (seen.size, seen.modified):
            return True
        if self.bytes != seen.size:
            return False
        try:
            return hashlib.sha256(read_bytes(self.name)).hexdigest() == seen.digest
        except ImageError:
            return False

    def fields(self) -> dict[str, Any]:
        """Its values of `FIELDS`."""
        raw = _raw(self.name)
        path = raw.decode("utf-8", "replace")
        return {
            "path": path,
            "name": os.path.basename(path),
            "folder": os.path.basename(os.path.dirname(path)) if self.is_file else "",
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "bytes": self.bytes,
            "modified": self.modified,
            "added": time.time_ns(),
            "missing": False,
            "digest": self.digest,
            "file": raw,
        }


class Given(NamedTuple):
    """What was given to be indexed."""

    pictures: Iterator[Picture]
    folders: list[str]
    """Folders that were walked: what the index knows below them and was not found has vanished."""


def pictures_of(images: Any) -> Given:
    """Pictures of a folder, of files, addresses or anything else that can be read.

    Raises:
        DataError: a folder that does not exist.
    """
    sources: list[Any] = []
    folders: list[str] = []
    for source in as_sources(images):
        if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            folders.append(os.path.abspath(source))
            sources += _walked(Path(folders[-1]))
        else:
            sources.append(source)
    return Given((Picture(source, place) for place, source in enumerate(sources)), folders)


def picture_id(name: str) -> str:
    """The id of a picture of that absolute path or address: the same whenever it is added."""
    return hashlib.sha256(_raw(name)).hexdigest()[:20]


def lies_below(path: bytes, folders: Iterable[str]) -> bool:
    """Whether a file lies in one of the folders, at any depth."""
    return any(path.startswith(os.path.join(os.fsencode(folder), b"")) for folder in folders)


def _walked(folder: Path) -> list[Path]:
    """The pictures of a folder; none where it is there and holds none, since all may have gone."""
    try:
        return find_images(folder)
    except DataError:
        try:
            os.listdir(folder)
        except OSError:
            raise DataError(f"{shown_name(folder)}: this folder cannot be listed") from None
        return []


def _raw(name: str) -> bytes:
    """A path as the system has it; an impossible one still gets bytes of its own."""
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def _encoded(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if hasattr(source, "read_stored"):
        data: bytes = source.read_stored()
        return data
    buffer = BytesIO()
    Image.fromarray(read_image(source)).save(buffer, "PNG")
    return buffer.getvalue()
