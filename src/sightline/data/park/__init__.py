"""The park: drawn scenes with exact truth, for training and scoring every task offline.

`scene(seed)` is a picture of a park with captions, objects (kind, colour, size, box, mask),
relations and questions, all decided by the seed. The splits `train`, `test` and `pairs` share no
scene; `pairs` holds the kind-and-colour pairs that the other two never show.

Must not know any network or task; it writes one folder layout of its own, and gives records to
what writes the layouts of others (`spoken`).
"""

from typing import TYPE_CHECKING

from sightline.core.lazy import lazy_names

if TYPE_CHECKING:
    from sightline.data.park.contrasts import twins as twins
    from sightline.data.park.export import write as write
    from sightline.data.park.export import write_twins as write_twins
    from sightline.data.park.layout import MAX_OBJECTS as MAX_OBJECTS
    from sightline.data.park.planted import planted_scenes as planted_scenes
    from sightline.data.park.scenes import SHAPES as SHAPES
    from sightline.data.park.scenes import ParkObject as ParkObject
    from sightline.data.park.scenes import ParkScenes as ParkScenes
    from sightline.data.park.scenes import Question as Question
    from sightline.data.park.scenes import Relation as Relation
    from sightline.data.park.scenes import Scene as Scene
    from sightline.data.park.scenes import digest as digest
    from sightline.data.park.scenes import scene as scene
    from sightline.data.park.text import texts as texts
    from sightline.data.park.vocabulary import COLOURS as COLOURS
    from sightline.data.park.vocabulary import KINDS as KINDS
    from sightline.data.park.vocabulary import RELATIONS as RELATIONS
    from sightline.data.park.vocabulary import SPLITS as SPLITS
    from sightline.data.park.vocabulary import VERSION as VERSION
    from sightline.data.park.vocabulary import held_out_pairs as held_out_pairs
    from sightline.data.park.vocabulary import phrases as phrases
    from sightline.data.park.vocabulary import plural as plural
    from sightline.data.park.vocabulary import with_article as with_article

_ROOMS = {
    "contrasts": ["twins"],
    "export": ["write", "write_twins"],
    "layout": ["MAX_OBJECTS"],
    "planted": ["planted_scenes"],
    "scenes": [
        *["SHAPES", "ParkObject", "ParkScenes", "Question", "Relation", "Scene"],
        *["digest", "scene"],
    ],
    "text": ["texts"],
    "vocabulary": [
        *["COLOURS", "KINDS", "RELATIONS", "SPLITS", "VERSION"],
        *["held_out_pairs", "phrases", "plural", "with_article"],
    ],
}

__all__ = [
    "COLOURS",
    "KINDS",
    "MAX_OBJECTS",
    "RELATIONS",
    "SHAPES",
    "SPLITS",
    "VERSION",
    "ParkObject",
    "ParkScenes",
    "Question",
    "Relation",
    "Scene",
    "digest",
    "held_out_pairs",
    "phrases",
    "planted_scenes",
    "plural",
    "scene",
    "texts",
    "twins",
    "with_article",
    "write",
    "write_twins",
]

__getattr__ = lazy_names(
    __name__, {name: f"{__name__}.{file}" for file, names in _ROOMS.items() for name in names}
)


def __dir__() -> list[str]:
    return sorted(__all__)
