"""CHAIR: objects that a caption names and the picture does not show (Rohrbach et al. 2018).

CHAIR_i is the share of mentions, CHAIR_s the share of captions with one (arXiv:1809.02156). What
a picture shows is the union of its annotations and of what its reference captions name. Less is
better, and a caption that names nothing is free: read both beside the recall of objects.

Which words name an object decides the score, so the list is data with a hash (`ObjectList`). Words
are looked up as written, then as the singular of a regular plural; where the original asks a
parser, irregular plurals stand in the list.

Letters: N captions, R drawn sets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sightline.core.errors import InputError
from sightline.metrics.per_sample import same_length

FORMAT = "sightline.objects"
VERSION = 1
QUALIFIERS = {"animals": ("baby", "adult"), "vehicles": ("passenger",)}
"""Words that would be a person, were they not in front of an animal or a vehicle."""
CHAIR_NUMBERS = ("chair_i", "chair_s", "recall")
"""The order of what `chair_of_counts` returns."""
_WORD = re.compile(r"\w+(?:-\w+)*|[^\w\s]")
_PLURALS = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))


@dataclass(frozen=True)
class ObjectList:
    """Which words name which object."""

    names: Mapping[str, str]
    """A word or phrase to the object it names."""
    sha256: str
    """Of the text that the list was read from; it belongs into the signature of a score."""
    longest: int = 1
    """Words of the longest phrase."""

    def mentions(self, caption: str) -> list[str]:
        """The objects that a caption names, once for every mention, in its order.

        The longest phrase at a place counts. Beside a toilet a seat is no chair.
        """
        words = _WORD.findall(caption.lower())
        found: list[tuple[str, str]] = []
        place = 0
        while place < len(words):
            for count in range(min(self.longest, len(words) - place), 0, -1):
                phrase = self._known(words[place : place + count])
                if phrase is not None:
                    found.append((phrase, self.names[phrase]))
                    break
            place += count
        toilet = "toilet" in words or "toilets" in words
        return [name for phrase, name in found if not (toilet and phrase == "seat")]

    def _known(self, words: Sequence[str]) -> str | None:
        """The entry that a run of words is, as it stands or with its last word in the singular."""
        for last in (words[-1], *_singulars(words[-1])):
            phrase = " ".join([*words[:-1], last])
            if phrase in self.names:
                return phrase
        return None


class Chair(NamedTuple):
    """Hallucination of a set of captions; NaN where nothing was named, or nothing is there."""

    chair_i: float
    chair_s: float
    recall: float
    """Share of the objects of all pictures that their captions name."""
    mentions: int
    counts: Float[ndarray, "N 6"]
    """Of each caption: mentions, false ones, whether there is one, 1, objects found, objects."""
    hallucinated: tuple[tuple[str, ...], ...]
    """The objects that each caption names wrongly."""


def read_object_list(text: str) -> ObjectList:
    """An object list from the text of its file.

    JSON: `{"format": "sightline.objects", "version": 1, "objects": {"dog": ["puppy"]}}` where each
    object names itself too. "merged" may hold phrases to be read as another word ("bow tie":
    "tie"), "animals" and "vehicles" words before which baby and adult, or passenger, are nobody.

    Raises:
        InputError: the text is something else, a word names two objects, or a rule's word is none.
    """
    document = _document(text)
    names: dict[str, str] = {}
    for name, words in document["objects"].items():
        for word in dict.fromkeys([name, *words]):
            _enter(names, word, name)
    merged = dict(document.get("merged", {}))
    for kind, qualifiers in QUALIFIERS.items():
        for word in document.get(kind, ()):
            merged |= {f"{qualifier} {word}": word for qualifier in qualifiers}
    for phrase, word in merged.items():
        if word not in names:
            raise InputError(f"the object list reads {phrase!r} as {word!r}, which names no object")
        names[phrase] = names[word]
    longest = max((len(_WORD.findall(phrase)) for phrase in names), default=1)
    return ObjectList(names, hashlib.sha256(text.encode()).hexdigest(), longest)


def park_objects() -> ObjectList:
    """The kinds and colours of drawn parks: the project's own list."""
    path = files("sightline.metrics").joinpath("park_objects.json")
    return read_object_list(path.read_text(encoding="utf-8"))


def chair(
    captions: Sequence[str],
    annotated: Sequence[Collection[str]],
    references: Sequence[Sequence[str]],
    objects: ObjectList,
) -> Chair:
    """CHAIR of captions.

    Args:
        captions: one a picture, as the model wrote it.
        annotated: the objects annotated in each picture, by any of their words in the list.
        references: captions by people, none or more a picture; what they name is there too.
        objects: which words name an object.

    Raises:
        InputError: lengths that differ, or an annotation that the list does not know.
    """
    same_length(captions=captions, annotated=annotated, references=references)
    rows: list[tuple[int, ...]] = []
    wrong: list[tuple[str, ...]] = []
    for caption, own, people in zip(captions, annotated, references, strict=True):
        truth = {_annotation(word, objects) for word in own}
        truth |= {name for reference in people for name in objects.mentions(reference)}
        named = objects.mentions(caption)
        false = tuple(name for name in named if name not in truth)
        wrong.append(false)
        rows.append((len(named), len(false), bool(false), 1, len(truth & set(named)), len(truth)))
    counts = np.array(rows, dtype=np.float64).reshape(-1, 6)
    chair_i, chair_s, recall = chair_of_counts(counts.sum(axis=0)).tolist()
    mentions = int(counts[:, 0].sum())
    return Chair(chair_i, chair_s, recall, mentions, counts, tuple(wrong))


def chair_of_counts(totals: Float[ndarray, "*R 6"]) -> Float[ndarray, "*R 3"]:
    """CHAIR_i, CHAIR_s and recall of summed counts, of one set or of many at once.

    For `metrics.intervals.bootstrap_counts`: `chair_of_counts(times @ counts)` with times[R, N].
    """
    mentions, false, captions_with, captions, found, truth = np.moveaxis(totals, -1, 0)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN, not a score
        ratios = [false / mentions, captions_with / captions, found / truth]
    return np.stack(ratios, axis=-1)


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
        known = (document["format"], document["version"])
        fits = all(isinstance(words, list) for words in document["objects"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        fits, known = False, ("", 0)
    if not fits:
        raise InputError(
            f'this is no object list: it must be JSON with "format": "{FORMAT}", "version" and '
            '"objects", each with a list of words'
        )
    if known != (FORMAT, VERSION):
        raise InputError(
            f"the object list has format {known[0]!r}, version {known[1]!r}; "
            f"this Sightline reads {FORMAT!r}, version {VERSION}"
        )
    return dict(document)


def _enter(names: dict[str, str], word: str, name: str) -> None:
    # A space at an end would never match: one published list has such an entry.
    if word != word.lower() or word != " ".join(word.split()) or not word:
        raise InputError(f"the object list has {word!r}: write words in lower case, single spaces")
    if names.setdefault(word, name) != name:
        raise InputError(f"the object list has {word!r} for both {names[word]!r} and {name!r}")


def _annotation(word: str, objects: ObjectList) -> str:
    if word not in objects.names:
        raise InputError(f"the annotation {word!r} is no word of the object list")
    return objects.names[word]


def _singulars(word: str) -> list[str]:
    return [word.removesuffix(end) + single for end, single in _PLURALS if word.endswith(end)]
