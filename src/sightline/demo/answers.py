"""What the model says about the pictures, with the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.outputs import Label
from sightline.data.park.scenes import Scene
from sightline.data.park.vocabulary import KINDS
from sightline.demo.pictures import (
    KIND_LABELS,
    PHRASE_LABELS,
    Amounts,
    Gallery,
    Query,
    Shown,
    calibration_scenes,
    captioned,
    kind_label,
    labelled,
    phrase_label,
    queries,
    read_size,
    single_scenes,
)
from sightline.evaluation.results import Metric
from sightline.evaluation.retrieval import retrieval
from sightline.evaluation.zeroshot import zeroshot
from sightline.tasks.prompted import checked_templates
from sightline.tasks.retrieve import top_k
from sightline.tasks.scores import independent
from sightline.tasks.tag import THRESHOLDS

if TYPE_CHECKING:
    from sightline.tasks.model import Model

BEST, HITS = 3, 6
"""Answers kept for a picture, and pictures for a query."""
EXPLAINED = 2
"""Things of a scene that are explained, the largest first."""


class Classified(NamedTuple):
    """A picture with the best of all 200 names for it."""

    shown: Shown
    labels: tuple[Label, ...]
    truth: str

    @property
    def right(self) -> bool:
        """Whether the first answer is the truth."""
        return self.labels[0].label == self.truth


class Tagged(NamedTuple):
    """A picture with its tags."""

    shown: Shown
    tags: tuple[Label, ...]
    truth: tuple[str, ...]


class TagScore(NamedTuple):
    """How many tags were given, and how many of them and of the wanted ones are right."""

    threshold: float
    right: int
    given: int
    wanted: int

    @property
    def precision(self) -> float:
        """Share of the given tags that are right; 0 where there is none."""
        return self.right / max(self.given, 1)

    @property
    def recall(self) -> float:
        """Share of the wanted tags that were given."""
        return self.right / max(self.wanted, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        return 2 * self.right / max(self.given + self.wanted, 1)


@dataclass(frozen=True)
class Tagging:
    """Tags by the system's own threshold and by one that suits drawn parks."""

    examples: tuple[Tagged, ...]
    by_default: TagScore
    calibrated: TagScore
    pictures: int


class Found(NamedTuple):
    """A query with the scenes that were found for it, best first."""

    query: Query
    hits: tuple[tuple[Scene, float, bool], ...]
    """Scene, cosine, and whether the sentence is true of it."""


class Described(NamedTuple):
    """A scene with the captions that were found for it, best first."""

    scene: Scene
    captions: tuple[Label, ...]


@dataclass(frozen=True)
class Searching:
    """Both directions."""

    found: tuple[Found, ...]
    described: tuple[Described, ...]
    pictures: int


class Explained(NamedTuple):
    """What spoke for one thing of several in a picture."""

    shown: Shown
    text: str
    heat: NDArray[np.float32]
    """float32[H, W], of the file that the model read."""
    found: bool
    """Whether the hottest pixel is on the thing."""


class Remembering:
    """A model that embeds each picture in memory and each sentence once, for several questions."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name, self.system, self.network = model.name, model.system, model.network
        self._pictures: dict[bytes, Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    def embed_images(self, images: Sequence[Any], batch_size: int = 32) -> Tensor:
        """As `Model.embed_images`, of uint8[H, W, 3] arrays."""
        keys = [image.tobytes() for image in images]
        new = {k: i for k, i in zip(keys, images, strict=True) if k not in self._pictures}
        if new:
            vectors = self.model.embed_images(list(new.values()), batch_size)
            self._pictures.update(zip(new, vectors, strict=True))
        return torch.stack([self._pictures[key] for key in keys])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """As `Model.embed_texts`."""
        new = list(dict.fromkeys(text for text in texts if text not in self._texts))
        if new:
            self._texts.update(zip(new, self.model.embed_texts(new), strict=True))
        return torch.stack([self._texts[text] for text in texts])


def classify_all(model: Model, gallery: Gallery) -> tuple[list[Classified], list[Classified]]:
    """The shown pictures with one object: those of known pairs, then those of unseen ones."""
    return _classify(model, gallery.single), _classify(model, gallery.unseen)


def accuracies(model: Remembering, amounts: Amounts) -> dict[str, Metric]:
    """Share right among all kinds and among all colour-and-kind names, for both splits."""
    found = {}
    for split in ("test", "pairs"):
        scenes = single_scenes(split, amounts.measured)
        for name, label, among in (
            ("kind", kind_label, KIND_LABELS),
            ("name", phrase_label, PHRASE_LABELS),
        ):
            result = zeroshot(model, labelled(scenes, label), labels=among)
            found[f"{split}/{name}"] = result.metrics["top1"]
    return found


def tag_all(
    model: Remembering, gallery: Gallery, measured: Sequence[Scene], amounts: Amounts
) -> Tagging:
    """Tags of the shown pictures, and how right tags are over many others."""
    scores, truths = _tag_scores(model, measured)
    chosen = best_threshold(*_tag_scores(model, calibration_scenes(amounts.measured // 2)))
    answers = model.model.tag([s.path for s in gallery.several], KINDS, chosen)
    examples = [
        Tagged(shown, tuple(tags), _kinds_of(shown.scene))
        for shown, tags in zip(gallery.several, answers, strict=True)
    ]
    return Tagging(
        examples=tuple(examples),
        by_default=tag_score(scores, truths, THRESHOLDS[model.system.score]),
        calibrated=tag_score(scores, truths, chosen),
        pictures=len(measured),
    )


def best_threshold(scores: Sequence[Mapping[str, float]], truths: Sequence[Sequence[str]]) -> float:
    """The threshold with the best F1 on these pictures, among a hundred even shares of scores."""
    every = sorted(score for row in scores for score in row.values())
    candidates = sorted({every[i * (len(every) - 1) // 100] for i in range(101)})
    return max(candidates, key=lambda least: tag_score(scores, truths, least).f1)


def tag_score(
    scores: Sequence[Mapping[str, float]], truths: Sequence[Sequence[str]], threshold: float
) -> TagScore:
    """Counts over all pictures together."""
    right = given = 0
    for row, truth in zip(scores, truths, strict=True):
        tags = {name for name, score in row.items() if score >= threshold}
        given += len(tags)
        right += len(tags & set(truth))
    return TagScore(threshold, right, given, sum(map(len, truths)))


def search_both_ways(
    model: Remembering, scenes: Sequence[Scene], amounts: Amounts
) -> tuple[Searching, dict[str, Metric]]:
    """Pictures for sentences and sentences for pictures, and hit@1 of both directions."""
    result = retrieval(model, captioned(scenes), ks=(1, 5))
    pictures = model.embed_images([scene.pixels for scene in scenes])
    captions = model.embed_texts([scene.caption for scene in scenes])
    asked = queries(scenes)
    hits = _nearest(model.embed_texts([query.text for query in asked]), pictures, HITS)
    found = tuple(
        Found(query, tuple((scenes[i], score, i in query.right) for i, score in row))
        for query, row in zip(asked, hits, strict=True)
    )
    shown = [i for i, scene in enumerate(scenes) if 2 <= len(scene.objects) <= 4]
    shown = shown[-amounts.described :]  # the first ones are queries
    described = tuple(
        Described(scenes[i], tuple(Label(scenes[c].caption, score) for c, score in row))
        for i, row in zip(shown, _nearest(pictures[shown], captions, BEST), strict=True)
    )
    names = {"image_to_text": "image_to_text/hit@1", "text_to_image": "text_to_image/hit@1"}
    metrics = {name: result.metrics[long] for name, long in names.items()}
    return Searching(found, described, len(scenes)), metrics


def explain_all(model: Model, gallery: Gallery) -> list[Explained]:
    """Two things of each scene that has two of different kinds, explained in the same picture."""
    found = []
    for shown in gallery.several:
        things = sorted(read_size(shown.scene).unmistakable, key=lambda thing: -thing.mask.sum())
        if len(things) < EXPLAINED:
            continue
        for thing in things[:EXPLAINED]:
            text = phrase_label(thing)
            heat = model.explain(shown.path, text)
            hottest = np.unravel_index(heat.argmax(), heat.shape)
            found.append(Explained(shown, text, heat, bool(thing.mask[hottest])))
    return found


def _nearest(asked: Tensor, gallery: Tensor, k: int) -> list[list[tuple[int, float]]]:
    """Place and cosine of the k nearest of each row."""
    scores, places = top_k(asked, gallery, k)
    return [
        list(zip(row, found, strict=True))
        for row, found in zip(places.tolist(), scores.tolist(), strict=True)
    ]


def _classify(model: Model, shown: Sequence[Shown]) -> list[Classified]:
    answers = model.classify([s.path for s in shown], PHRASE_LABELS)
    return [
        Classified(one, tuple(labels[:BEST]), phrase_label(one.scene.objects[0]))
        for one, labels in zip(shown, answers, strict=True)
    ]


def _kinds_of(scene: Scene) -> tuple[str, ...]:
    return tuple(kind for kind in KINDS if kind in {thing.kind for thing in scene.objects})


def _tag_scores(
    model: Remembering, scenes: Sequence[Scene]
) -> tuple[list[dict[str, float]], list[tuple[str, ...]]]:
    """What `Model.tag` gives each kind, by scene, and the kinds that are there."""
    pictures = model.embed_images([scene.pixels for scene in scenes])
    words = model.model.prompts.embeddings(
        model.model, list(KINDS), checked_templates(model.model, None)
    )
    rows = independent(model.model, pictures, words).tolist()
    scores = [dict(zip(KINDS, row, strict=True)) for row in rows]
    return scores, [_kinds_of(scene) for scene in scenes]
