"""The park as a data set: scenes as records, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from sightline.data.park.scenes import ParkScenes, Scene
from sightline.data.park.vocabulary import COLOURS, KINDS
from sightline.data.records import Record
from sightline.data.regions import Region
from sightline.data.turns import Turn
from sightline.inputs import run_lengths

DESCRIBE = "Describe the picture."
ANNOTATORS = 10
"""How many answers a question of VQAv2 has; those of the park agree."""
QUESTIONS_A_SCENE = 10
"""More than a scene ever asks, so that numbers of questions can be told from numbers of scenes."""
BACKGROUND = -1
"""The truth of a patch that no object covers."""
LEAST_COVER = 0.12
"""A patch belongs to an object from this share of its area on."""


class ParkRecords(Sequence[Record]):
    """Scenes with consecutive seeds, drawn when they are asked for.

    Args:
        label: what a scene of a single object is called: its "phrase" ("red bench") or its "kind".
        shapes: several (height, width) that take turns, see `ParkScenes`.
        spoken: whether a record also has the scene's regions and one of its questions.
    """

    def __init__(
        self,
        split: str = "train",
        start: int = 0,
        count: int = 1000,
        size: int = 64,
        objects: int | None = None,
        label: Literal["phrase", "kind"] = "phrase",
        shapes: Sequence[tuple[int, int]] = (),
        spoken: bool = False,
    ) -> None:
        self.label: Literal["phrase", "kind"] = label
        self.spoken = spoken
        self.scenes = ParkScenes(split, start, count, size, objects, shapes=shapes)
        self.name = f"park {split}" + (f", {objects} object(s)" if objects else "")

    def __len__(self) -> int:
        return len(self.scenes)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        scene = self.scenes[index]
        return spoken_record(scene) if self.spoken else as_record(scene, self.label)


def as_record(scene: Scene, label: Literal["phrase", "kind"] = "phrase") -> Record:
    """The scene's picture and captions and, for one object alone, its phrase or kind as label."""
    name = None
    if len(scene.objects) == 1:
        name = scene.objects[0].name if label == "phrase" else scene.objects[0].kind
    return Record(
        id=f"{scene.split}-{scene.seed}",
        image=scene.pixels,
        captions=scene.captions,
        label=name,
        split=scene.split,
    )


def marked_record(scene: Scene, label: Literal["phrase", "kind"] = "kind") -> Record:
    """The scene with its captions and a region for each object: box, visible pixels, area."""
    regions = tuple(
        Region(
            thing.kind if label == "kind" else thing.name,
            thing.box,
            run_lengths.encode(thing.mask),
            area=float(thing.mask.sum()),
        )
        for thing in scene.objects
    )
    return replace(as_record(scene), id=str(scene.seed), regions=regions)


def asked_records(scene: Scene) -> list[Record]:
    """One record a question, answered as often as in VQAv2; ids are numbers, as there."""
    return [
        Record(
            id=str(scene.seed * QUESTIONS_A_SCENE + number),
            image=scene.pixels,
            split=scene.split,
            question=question.question,
            answers=(question.answer,) * ANNOTATORS,
            extra={"question_type": question.kind},
        )
        for number, question in enumerate(scene.questions)
    ]


def spoken_record(scene: Scene) -> Record:
    """The scene with its captions, a region for each object, and one of its questions."""
    question = scene.questions[scene.seed % len(scene.questions)]
    return replace(marked_record(scene), question=question.question, answers=(question.answer,))


def told_record(scene: Scene) -> Record:
    """A conversation: what is in the picture, then every question with its answer."""
    turns = [Turn("user", DESCRIBE, (scene.pixels,)), Turn("assistant", scene.caption)]
    for question in scene.questions:
        turns += [Turn("user", question.question), Turn("assistant", question.answer)]
    return Record(str(scene.seed), scene.pixels, split=scene.split, messages=tuple(turns))


def patch_truth(scene: Scene, patch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What covers each patch: kind and colour indices int64[P] in raster order; see `patch_owners`.

    `BACKGROUND` where nothing does.
    """
    owners = patch_owners(scene, patch)
    kinds = np.array([*(KINDS.index(t.kind) for t in scene.objects), BACKGROUND])
    colours = np.array([*(COLOURS.index(t.colour) for t in scene.objects), BACKGROUND])
    return kinds[owners], colours[owners]  # -1 takes the last one


def patch_owners(scene: Scene, patch: int) -> NDArray[np.int64]:
    """Which object covers each patch, int64[P] in raster order.

    The object that covers most of a patch has it, from `LEAST_COVER` of its area on; `BACKGROUND`
    elsewhere. Sides that the patch does not divide lose their rest.
    """
    rows, columns = scene.height // patch, scene.width // patch
    owners = np.full(rows * columns, BACKGROUND)
    best = np.full(rows * columns, LEAST_COVER * patch * patch)
    for number, thing in enumerate(scene.objects):
        mask = thing.mask[: rows * patch, : columns * patch]
        cover = mask.reshape(rows, patch, columns, patch).sum(axis=(1, 3)).ravel()
        more = cover > best
        best[more] = cover[more]
        owners[more] = number
    return owners
