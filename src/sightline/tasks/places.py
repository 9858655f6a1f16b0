"""Things that were found as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.core.errors import DataError
from sightline.core.outputs import Box, Detection, Segment
from sightline.inputs import run_lengths


def place_json(thing: Detection | Segment) -> dict[str, Any]:
    """Label, score, the box as [x1, y1, x2, y2], and a mask as COCO's run lengths."""
    found: dict[str, Any] = {"label": thing.label, "score": thing.score, "box": list(thing.box)}
    if isinstance(thing, Segment):
        found["mask"] = run_lengths.encode(thing.mask)
    return found


def read_place(document: Any) -> Detection | Segment:
    """What `place_json` wrote.

    Raises:
        DataError: this is something else.
    """
    known = document if isinstance(document, Mapping) else {}
    label, sides, score = (known.get(name) for name in ("label", "box", "score"))
    if not isinstance(label, str) or not isinstance(sides, list) or len(sides) != 4:
        raise DataError(f"no thing with a label and a box: {str(document)[:60]}")
    if not all(isinstance(n, int | float) for n in (*sides, 0 if score is None else score)):
        raise DataError(f"{label[:60]!r}: a box and a score are numbers")
    box: Box = tuple(map(float, sides))  # type: ignore[assignment]
    found = Detection(label, None if score is None else float(score), box)
    return Segment(*found, run_lengths.decode(known["mask"])) if "mask" in known else found
