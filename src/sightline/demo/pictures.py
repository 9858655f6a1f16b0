"""The pictures of the demo: what is shown, what is measured, and the folder they are written to.

Everything is chosen by the content of the scenes, before any model has seen them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sightline.core.errors import ConfigError
from sightline.core.files import atomic_file, write_json
from sightline.data.park.records import as_record
from sightline.data.park.scenes import ParkObject, Scene, scene
from sightline.data.park.vocabulary import KINDS, phrases, with_article
from sightline.data.records import Dataset, Record

FORMAT, VERSION = "sightline-demo", 1
MARKER = "demo.json"
"""Says that a folder is ours, and afterwards holds the numbers."""

SHOWN_SIDE = 192
"""Pixels of the pictures on the page."""
MEASURED_SIDE = 64
"""Pixels of the pictures that are counted: the size at which the park models learned."""
WRITTEN_SIDE = MEASURED_SIDE
"""Pixels of the files that the model reads. A scene that is drawn larger has finer outlines and is
not quite what the park models learned, even when it is reduced again."""
SEARCHED, CALIBRATION = 10_000, 9_000_000
"""First seeds, far from those of the other pictures and of any training run."""


@dataclass(frozen=True)
class Amounts:
    """How much is drawn and measured."""

    shown: int = 10
    """Scenes with one object, of each of the two splits."""
    tagged: int = 5
    """Scenes with several objects that are shown with their tags."""
    measured: int = 200
    searched: int = 300
    described: int = 4
    """Pictures shown with the captions that were found for them."""


class Shown(NamedTuple):
    """A scene on the page, and the file of it that the model reads."""

    path: Path
    scene: Scene
    """At the size for people."""


@dataclass(frozen=True)
class Gallery:
    """The written pictures."""

    single: tuple[Shown, ...]
    """One object each, from the split `test`."""
    unseen: tuple[Shown, ...]
    """One object each, of a kind and colour that `train` never shows together."""
    several: tuple[Shown, ...]

    def __iter__(self) -> Iterator[Shown]:
        return iter((*self.single, *self.unseen, *self.several))


class Query(NamedTuple):
    """A sentence, and which of the searched scenes it is true of."""

    text: str
    right: frozenset[int]


def kind_label(thing: ParkObject) -> str:
    """ "a bench"."""
    return with_article(thing.kind)


def phrase_label(thing: ParkObject) -> str:
    """ "a red bench"."""
    return with_article(thing.name)


KIND_LABELS = tuple(with_article(kind) for kind in KINDS)
PHRASE_LABELS = tuple(with_article(phrase) for phrase in phrases())


def single_scenes(split: str, count: int) -> list[Scene]:
    """Scenes with one object, at the size that is measured."""
    return [scene(seed, split, MEASURED_SIDE, objects=1) for seed in range(count)]


def labelled(scenes: Sequence[Scene], label: Callable[[ParkObject], str]) -> Dataset:
    """Scenes with one object as records whose label is what `label` says of it."""
    records = [
        Record(f"{drawn.split}-{drawn.seed}", drawn.pixels, label=label(drawn.objects[0]))
        for drawn in scenes
    ]
    return Dataset(records, name=f"park {scenes[0].split}, one object" if scenes else "park")


def distinct_scenes(count: int) -> list[Scene]:
    """Test scenes no two of which show the same things, so that each caption has one picture."""
    found: dict[tuple[str, ...], Scene] = {}
    seed = SEARCHED
    while len(found) < count:
        drawn = scene(seed, "test", MEASURED_SIDE)
        found.setdefault(tuple(sorted(thing.name for thing in drawn.objects)), drawn)
        seed += 1
    return list(found.values())


def captioned(scenes: Sequence[Scene]) -> Dataset:
    """Scenes as records with their first caption only."""
    records = [as_record(drawn) for drawn in scenes]
    kept = [Record(r.id, r.image, captions=r.captions[:1], split=r.split) for r in records]
    return Dataset(kept, name="park test, distinct scenes")


def calibration_scenes(count: int) -> list[Scene]:
    """Scenes on which a threshold may be chosen: neither shown nor measured."""
    return [scene(CALIBRATION + i, "train", MEASURED_SIDE) for i in range(count)]


def queries(scenes: Sequence[Scene]) -> list[Query]:
    """Three whole captions, each true of one scene, and the two commonest things to look for."""
    fitting = [i for i, drawn in enumerate(scenes) if 2 <= len(drawn.objects) <= 3]
    found = [Query(scenes[i].caption, frozenset({i})) for i in fitting[:3]]
    things = Counter(name for drawn in scenes for name in {o.name for o in drawn.objects})
    common = sorted(things, key=lambda name: (-things[name], name))[:2]
    for name in common:
        shows = (i for i, drawn in enumerate(scenes) if name in {o.name for o in drawn.objects})
        found.append(Query(f"{with_article(name)}.", frozenset(shows)))
    return found


def enlarged(drawn: Scene, objects: int | None = None) -> Scene:
    """The same scene at the size that is shown."""
    return scene(drawn.seed, drawn.split, SHOWN_SIDE, objects)


def read_size(drawn: Scene) -> Scene:
    """The same scene of several objects at the size of the file that the model reads."""
    return scene(drawn.seed, drawn.split, WRITTEN_SIDE)


def prepare_folder(out: str | os.PathLike[str]) -> Path:
    """The folder to write to, marked as ours.

    Raises:
        ConfigError: it is a file, cannot be written, or holds something else than a demo.
    """
    folder = Path(out)
    again = "name a new or an empty folder"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, the demo needs a folder: {again}")
    try:
        if folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder):
            raise ConfigError(f"{folder} already holds other files: {again}")
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        write_json(folder / MARKER, {"format": FORMAT, "version": VERSION, "complete": False})
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{folder} cannot be written ({reason}): {again}") from None
    return folder


def write_gallery(folder: Path, amounts: Amounts) -> Gallery:
    """Draw and write the pictures that are shown."""
    groups = {
        "single": _of_different_kinds("test", amounts.shown),
        "unseen": _of_different_kinds("pairs", amounts.shown),
        "several": _scenes_with(range(3, 6), amounts.tagged),
    }
    written = {
        group: tuple(_write(folder / "pictures", group, place, drawn) for place, drawn in
                     enumerate(scenes, start=1))
        for group, scenes in groups.items()
    }  # fmt: skip
    return Gallery(**written)


def _is_ours(folder: Path) -> bool:
    try:
        head = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        return False
    if head.get("version") != VERSION:
        raise ConfigError(
            f"{folder} holds a demo of version {head.get('version')!r}, this Sightline writes "
            f"{VERSION}: name a new folder, or delete the old one"
        )
    return True


def _of_different_kinds(split: str, count: int) -> list[Scene]:
    """Scenes in the order of their seeds, each of a new kind, large enough to look at, in a
    colour and a place that the last two did not have."""
    found: list[Scene] = []
    seed = 0
    while len(found) < min(count, len(KINDS)):
        drawn = scene(seed, split, MEASURED_SIDE, objects=1)
        thing, last = drawn.objects[0], found[-2:]
        known = thing.kind in {other.objects[0].kind for other in found}
        alike = any(
            drawn.background == other.background or thing.colour == other.objects[0].colour
            for other in last
        )
        if thing.size == "large" and not known and not alike:
            found.append(drawn)
        seed += 1
    return [enlarged(drawn, objects=1) for drawn in found]


def _scenes_with(counts: range, number: int) -> list[Scene]:
    found: list[Scene] = []
    seed = 0
    while len(found) < number:
        drawn = scene(seed, "test", MEASURED_SIDE)
        if len(drawn.objects) in counts:
            found.append(enlarged(drawn))
        seed += 1
    return found


def _write(folder: Path, group: str, place: int, drawn: Scene) -> Shown:
    what = drawn.objects[0].name.replace(" ", "-") if len(drawn.objects) == 1 else "park"
    path = folder / f"{group}-{place:02d}-{what}.png"
    single = 1 if group != "several" else None
    with atomic_file(path) as temporary:
        scene(drawn.seed, drawn.split, WRITTEN_SIDE, single).image.save(temporary, format="PNG")
    return Shown(path, drawn)
