"""A picture that is base64 text inside of a larger file, such as a cell of a table."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.data.shards.ranges import StoredRange
from sightline.inputs.encoded import from_base64


@dataclass(frozen=True)
class EncodedRange:
    """A picture that is a range of base64 text in a file; decoded when it is asked for."""

    text: StoredRange

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.text.name

    def read_stored(self) -> bytes:
        """The bytes of the picture.

        Raises:
            ImageError: no base64, too much of it, or the file is gone or has changed.
        """
        return from_base64(self.text.read_stored())
