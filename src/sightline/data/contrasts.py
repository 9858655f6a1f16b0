"""True and false sentences about pictures: what compositionality is measured with."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sightline.core.errors import ImageError
from sightline.inputs.images import read_image

if TYPE_CHECKING:
    from sightline.data.records import Picture

PixelBox = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in pixels, x2 and y2 exclusive."""


@dataclass(frozen=True)
class Contrast:
    """One or two pictures, each with its own true sentence, and sentences that are false.

    `captions[i]` describes `images[i]` and no other. With one picture all captions but the first
    are false; with two there are two captions, each false of the other picture.
    """

    id: str
    images: tuple[Picture, ...]
    captions: tuple[str, ...]
    subset: str = ""
    """What is contrasted: "swap_att", "visual_genome_relation", "Object"."""
    kind: str | None = None
    """A finer class within the subset, such as the relation."""


@dataclass(frozen=True)
class ContrastSet:
    """Contrasts in the order of their source."""

    contrasts: tuple[Contrast, ...]
    name: str
    dropped: int = 0
    """False sentences that were equal to the true one and left out."""
    excluded: int = 0
    """Contrasts that had no false sentence left."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """File to the format that it was read as."""

    def __len__(self) -> int:
        return len(self.contrasts)

    def __getitem__(self, index: int) -> Contrast:
        return self.contrasts[index]

    def __iter__(self) -> Iterator[Contrast]:
        return iter(self.contrasts)


@dataclass(frozen=True)
class PictureRegion:
    """A part of a picture, read when it is asked for; a `StoredPicture`."""

    file: Path
    box: PixelBox

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.file} {list(self.box)}"

    def read_stored(self) -> bytes:
        """The part as a PNG file.

        Raises:
            ImageError: the picture cannot be read, or the box lies outside of it.
        """
        pixels = read_image(self.file)
        x1, y1, x2, y2 = self.box
        part = pixels[max(0, y1) : y2, max(0, x1) : x2]
        if not part.size:
            height, width = pixels.shape[:2]
            raise ImageError(
                f"box {list(self.box)} lies outside of {width} x {height} pixels", "image_empty"
            )
        buffer = io.BytesIO()
        Image.fromarray(part).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def contrast_set(
    contrasts: Sequence[Contrast], name: str, formats: Mapping[str, str] | None = None
) -> ContrastSet:
    """Contrasts without the false sentences that equal the true one; both losses are counted.

    Perturbed captions can come out as they went in (a shuffle of two equal words). Such a sentence
    is not false. White space does not make a difference.
    """
    kept, dropped, excluded = [], 0, 0
    for contrast in contrasts:
        if len(contrast.images) > 1:
            kept.append(contrast)
            continue
        true, *false = contrast.captions
        rest = [text for text in false if text.split() != true.split()]
        dropped += len(false) - len(rest)
        excluded += not rest
        if rest:
            kept.append(replace(contrast, captions=(true, *dict.fromkeys(rest))))
    return ContrastSet(tuple(kept), name, dropped, excluded, formats or {})
