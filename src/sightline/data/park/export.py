"""Scenes as a folder of pictures with one line of JSON each, and twins in the layouts of others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.core.errors import DataError
from sightline.core.files import atomic_folder, write_json
from sightline.data.contrasts import Contrast, ContrastSet
from sightline.data.park.scenes import Scene
from sightline.data.park.vocabulary import VERSION

FORMAT, FORMAT_VERSION = "sightline-park", 1
TWINS_FORMAT = "sightline-park-twins"


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


def write_twins(twins: ContrastSet, folder: str | os.PathLike[str]) -> int:
    """Write drawn contrasts as others read theirs; returns how many.

    Contrasts of one picture become SugarCrepe's files, one a subset (`count.json`: filename,
    caption, negative_caption), quadruples Winoground's `examples.jsonl`; the pictures lie in
    `images`. The folder appears whole or not at all.

    Raises:
        DataError: the folder exists and is not empty, or a picture is not an array of pixels.
    """
    target = Path(folder)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(f"{target} already holds other files: name a new or an empty folder")
    with atomic_folder(target) as temporary:
        (temporary / "images").mkdir()
        choices: dict[str, dict[str, dict[str, str]]] = {}
        quadruples = []
        for number, contrast in enumerate(twins):
            names = _write_pictures(contrast, number, temporary / "images")
            first, second = contrast.captions[:2]
            if len(names) == 2:
                quadruples.append({
                    "id": number, "image_0": names[0], "image_1": names[1], "caption_0": first,
                    "caption_1": second, "collapsed_tag": contrast.subset,
                })  # fmt: skip
                continue
            entries = choices.setdefault(contrast.subset, {})
            entries[str(number)] = {
                "filename": names[0] + ".png", "caption": first, "negative_caption": second,
            }  # fmt: skip
        for subset, entries in choices.items():
            write_json(temporary / f"{subset}.json", entries)
        lines = "".join(json.dumps(entry) + "\n" for entry in quadruples)
        (temporary / "examples.jsonl").write_text(lines, encoding="utf-8")
        head = {"format": TWINS_FORMAT, "version": FORMAT_VERSION, "park": VERSION}
        write_json(temporary / "park.json", {**head, "contrasts": len(twins)})
    return len(twins)


def _write_pictures(contrast: Contrast, number: int, folder: Path) -> list[str]:
    """PNG files of a contrast; their names without the suffix, as Winoground writes them."""
    names = []
    for place, image in enumerate(contrast.images):
        if not isinstance(image, np.ndarray):
            raise DataError(f"{contrast.id}: only drawn pictures are written, got a file of one")
        names.append(f"{number:06d}_{place}")
        Image.fromarray(image).save(folder / f"{names[-1]}.png")
    return names


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
