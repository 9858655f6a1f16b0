"""The scores that a speaking model of drawn parks is judged by."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.core.outputs import Detection, Segment
from sightline.data.park.lessons import EVERYTHING, Turn, caption, instances
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import COLOURS, KINDS, NUMBERS, plural
from sightline.metrics import boxes
from sightline.nn.writer import Writer
from sightline.tasks.ask import question_ids
from sightline.tasks.caption import caption_each
from sightline.tasks.detect import detect_each
from sightline.tasks.marked import marked_item
from sightline.tasks.segment import segment_each
from sightline.tasks.writing import read_task_options, write_each

if TYPE_CHECKING:
    from sightline.recipes.park_paligemma import Writing
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report

QUESTIONS = ("count", "colour", "exists", "relation")
"""The first four questions of every scene hold one each."""
MOST_NAMED = 4
"""Captions are judged on scenes of up to so many objects."""
MOST = {
    "caption": {"max_new_tokens": 64},
    "detect": {"max_new_tokens": 64},
    "segment": {"max_new_tokens": 176},
}
"""Longer than any true answer about six objects; a network that knows nothing writes on and on."""
BATCH = 32
SHOWN = 24
"""Scenes in the report."""


def exact_answers(network: Any, writing: Writing, count: int, first: int) -> dict[str, float]:
    """Share of answers whose every token is the likeliest one, by task; "score" is their mean.

    An answer that is right token for token under its own truth is the one that greedy writing
    gives, so that nothing needs to be written. One turn a row, on scenes of the test split.
    """
    found: dict[str, list[float]] = {}
    # shapes differ here: what training compiled would be compiled again and again
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for start in range(0, count, BATCH):
            scenes = [
                scene(first + n, "test", writing.size)
                for n in range(start, min(start + BATCH, count))
            ]
            for kind, turns in _turns(scenes, writing).items():
                batch = writing.collate(
                    [
                        writing.lesson(drawn, [turn])
                        for drawn, turn in zip(scenes, turns, strict=True)
                    ]
                )
                found.setdefault(kind, []).extend(_exact(network, batch))
    scores = {kind: float(np.mean(rows)) for kind, rows in found.items()}
    return {"score": float(np.mean(list(scores.values()))), **scores}


def _exact(network: Any, batch: Any) -> list[float]:
    from sightline.core.interfaces import Prompt, TextBatch

    writer: Writer = network
    pictures = tuple((pixels,) for pixels in batch.pixels)
    prompt = Prompt(batch.prompt, batch.prompt_mask, pictures)
    logits = writer(prompt, TextBatch(batch.suffix, batch.suffix_mask)).logits
    right = (logits.argmax(dim=-1) == batch.suffix) | ~batch.suffix_mask
    return right.all(dim=1).float().tolist()


def _turns(scenes: Sequence[Scene], writing: Writing) -> dict[str, list[Turn]]:
    """One turn of each kind about every scene."""
    turns = {"caption": [Turn("caption en", caption(drawn)) for drawn in scenes]}
    for kind in QUESTIONS:
        turns[kind] = [Turn(f"answer en {q}", a) for q, a in (_question(d, kind) for d in scenes)]
    turns["detect"] = [
        Turn(f"detect {EVERYTHING}", instances(drawn, EVERYTHING, writing.box)) for drawn in scenes
    ]
    return turns


def _question(drawn: Scene, kind: str) -> tuple[str, str]:
    found = next(question for question in drawn.questions if question.kind == kind)
    return found.question, found.answer


def speech_scores(
    model: Model,
    count: int = 2000,
    split: str = "test",
    start: int = 0,
    blind: bool = False,
    codec: str | os.PathLike[str] | None = None,
) -> dict[str, float]:
    """What the model says about scenes, by its public tasks; "score" is the mean of the rest.

    "count", "colour", "exists", "relation": exact answers. "detect": F1 at an overlap of 0.5, with
    colour and kind for labels; "detect kind" the same for kinds alone. "mask": mean overlap of the
    masks of objects that were found. "caption": exactly the right objects and colours, on scenes of
    up to four.

    Args:
        count: scenes.
        split: "test", or "pairs" for kinds in colours that were never seen.
        start: first seed.
        blind: show grey instead of the pictures.
        codec: of the masks; without one there is no "mask".
    """
    scenes = [scene(number, split) for number in range(start, start + count)]
    pictures = [np.full_like(d.pixels, 128) if blind else d.pixels for d in scenes]
    scores = question_scores(model, scenes, pictures)
    everything = [EVERYTHING]
    found = [
        _all(d) for d in detect_each(model, pictures, everything, MOST["detect"], batch_size=BATCH)
    ]
    scores["detect"] = _f1(scenes, found, whole=True)
    scores["detect kind"] = _f1(scenes, found, whole=False)
    if codec is not None:
        cut = [
            _all(s)
            for s in segment_each(
                model, pictures, everything, MOST["segment"], codec, batch_size=BATCH
            )
        ]
        scores["mask"] = mask_overlap(scenes, cut)
    scores["caption"] = caption_score(model, scenes, pictures)
    return {"score": float(np.mean(list(scores.values()))), **scores}


def show_answers(report: Report, model: Model, codec: str | os.PathLike[str] | None) -> None:
    """Test scenes with what the model says about them: captions, boxes, masks."""
    scenes = [scene(seed, "test") for seed in range(SHOWN)]
    pictures = [drawn.pixels for drawn in scenes]
    everything = [EVERYTHING]
    captions = caption_each(model, pictures, batch_size=BATCH)
    found: Iterator[Any] = detect_each(model, pictures, everything, batch_size=BATCH)
    if codec is not None:
        found = segment_each(model, pictures, everything, codec=codec, batch_size=BATCH)
    items = [
        marked_item(picture, _all(things), str(caption))
        for picture, things, caption in zip(pictures, found, captions, strict=True)
    ]
    report.section("Answers", "Test scenes with their captions, and everything that was found.")
    report.gallery(items)
    report.section("Use it").code(
        f"sightline caption FILE --model {model.folder}\n"
        f"sightline ask FILE 'what colour is the bench?' --model {model.folder}"
    )


def _all(found: Any) -> list[Any]:
    return list(found)


def question_scores(
    model: Model, scenes: Sequence[Scene], pictures: Sequence[Any]
) -> dict[str, float]:
    """The share of exact answers to one question of each kind about every scene."""
    asked = [(kind, *_question(d, kind)) for d in scenes for kind in QUESTIONS]
    prompts: Iterator[list[int]] = (question_ids(model, question) for _, question, _ in asked)
    sources = chain.from_iterable([picture] * len(QUESTIONS) for picture in pictures)
    written = write_each(model, sources, prompts, read_task_options({}, 8), BATCH)
    right: dict[str, list[bool]] = {kind: [] for kind in QUESTIONS}
    for (kind, _, answer), said in zip(asked, written, strict=True):
        right[kind].append(getattr(said, "text", None) == answer)
    return {kind: float(np.mean(rows)) for kind, rows in right.items()}


def truth_of(drawn: Scene, whole: bool = True) -> list[Detection]:
    """The objects of a scene as detections, called by colour and kind or by kind alone."""
    return [Detection(t.name if whole else t.kind, 1.0, t.box) for t in drawn.objects]


def _f1(scenes: Sequence[Scene], found: Sequence[Sequence[Detection]], whole: bool) -> float:
    counts = []
    for drawn, seen in zip(scenes, found, strict=True):
        named = seen if whole else [d._replace(label=d.label.split(" ")[-1]) for d in seen]
        counts.append(boxes.count(truth_of(drawn, whole), named))
    return boxes.total(counts).f1


def mask_overlap(scenes: Sequence[Scene], found: Sequence[Sequence[Segment]]) -> float:
    """Mean overlap of the masks of objects whose box was found under their name."""
    overlaps = []
    for drawn, segments in zip(scenes, found, strict=True):
        seen = [Detection(s.label, s.score, s.box) for s in segments]
        for place, own in enumerate(boxes.match(truth_of(drawn), seen)):
            if own is not None:
                one, other = segments[place].mask, drawn.objects[own].mask
                overlaps.append(float((one & other).sum() / max(1, (one | other).sum())))
    return float(np.mean(overlaps)) if overlaps else 0.0


def caption_score(model: Model, scenes: Sequence[Scene], pictures: Sequence[Any]) -> float:
    """Share of captions that name exactly the right objects, among scenes of few."""
    few = [n for n, drawn in enumerate(scenes) if len(drawn.objects) <= MOST_NAMED]
    chosen = [pictures[n] for n in few]
    said = caption_each(model, chosen, options=MOST["caption"], batch_size=BATCH)
    right = [
        named_in(text) == Counter(t.name for t in scenes[n].objects)
        if isinstance(text, str)
        else False
        for n, text in zip(few, said, strict=True)
    ]
    return float(np.mean(right))


def named_in(text: str) -> Mapping[str, int]:
    """The things that a caption names, by colour and kind, with their number.

    Words of size may stand between; what is no list of such things is ignored.
    """
    singular = {plural(kind): kind for kind in KINDS} | {kind: kind for kind in KINDS}
    numbers = {"a": 1, "an": 1, **{word: n for n, word in enumerate(NUMBERS)}}
    found: Counter[str] = Counter()
    number, colour = 1, ""
    for word in text.lower().replace(",", " ").replace(".", " ").split():
        if word in numbers:
            number, colour = numbers[word], ""
        elif word in COLOURS:
            colour = word
        elif word in singular and colour:
            found[f"{colour} {singular[word]}"] += number
            number, colour = 1, ""
    return found
