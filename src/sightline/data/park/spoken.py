"""The park as questions, regions and conversations, for the layouts of published sets."""

from __future__ import annotations

from collections.abc import Iterable

from sightline.data.examples import Examples, as_record
from sightline.data.park.records import asked_records, marked_record, told_record
from sightline.data.park.scenes import Scene
from sightline.data.records import Record

TASKS = ("caption", "ask", "detect")
"""What can be learnt of the park without a codec of masks."""


def spoken_records(scenes: Iterable[Scene], layout: str) -> list[Record]:
    """What of the scenes has a place in a layout.

    Args:
        scenes: drawn parks.
        layout: "vqa" gives a record a question, "instances" the objects of each scene, "messages"
            a conversation about each, "prefix-suffix" the examples of `TASKS`.
    """
    if layout == "vqa":
        return [record for scene in scenes for record in asked_records(scene)]
    if layout == "instances":
        return [marked_record(scene) for scene in scenes]
    if layout == "messages":
        return [told_record(scene) for scene in scenes]
    records = [r for scene in scenes for r in (marked_record(scene), *asked_records(scene))]
    return [as_record(example) for example in Examples(records, TASKS)]
