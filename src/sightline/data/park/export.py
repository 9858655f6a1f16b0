"""Scenes as a folder of pictures with one line of JSON each, for programs that read files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.core.files import atomic_folder, write_json
from sightline.data.park.scenes import Scene
from sightline.data.park.vocabulary import VERSION

FORMAT, FORMAT_VERSION = "sightline-park", 1


def write(scenes: Iterable[Scene], folder: str | os.PathLike[str]) -> int:
    """Write PNG files, `captions.jsonl` and `park.json`; returns the number of scenes.

    A line holds file_name, label (of one object alone: "red bench"), caption, captions, objects
    (kind, colour, size, box), relations, questions (question, answer, kind), seed, split and
    background. The folder appears whole or not at all.

    Raises:
        DataError: the folder exists and holds something else than an earlier export.
    """
    target = Path(folder)
    if target.exists() and not _replaceable(target):
        raise DataError(f"{target} already holds other files: name a new or an empty folder")
    count = 0
    with atomic_folder(target) as temporary:
        with open(temporary / "captions.jsonl", "w", encoding="utf-8") as lines:
            for count, drawn in enumerate(scenes, start=1):
                name = f"{count - 1:06d}.png"
                drawn.image.save(temporary / name)
                lines.write(json.dumps({"file_name": name, **describe(drawn)}) + "\n")
        head = {"format": FORMAT, "version": FORMAT_VERSION, "park": VERSION, "scenes": count}
        write_json(temporary / "park.json", head)
    return count


def describe(drawn: Scene) -> dict[str, Any]:
    """All that is true of a scene as plain values, masks left out."""
    return {
        **({"label": drawn.objects[0].name} if len(drawn.objects) == 1 else {}),
        "caption": drawn.caption,
        "captions": list(drawn.captions),
        "objects": [
            {"kind": o.kind, "colour": o.colour, "size": o.size, "box": list(o.box)}
            for o in drawn.objects
        ],
        "relations": [list(relation) for relation in drawn.relations],
        "questions": [question._asdict() for question in drawn.questions],
        "background": drawn.background,
        "seed": drawn.seed,
        "split": drawn.split,
    }


def _replaceable(target: Path) -> bool:
    """Whether this is an empty folder or an export of ours, and nothing of value is lost."""
    if not target.is_dir():
        return False
    names = {path.name for path in target.iterdir()}
    if not names:
        return True
    ours = {"captions.jsonl", "park.json"}
    return ours <= names and all(name in ours or name.endswith(".png") for name in names)
