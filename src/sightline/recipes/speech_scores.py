"""The scores that a speaking model of drawn parks is judged by."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sightline.core.errors import MissingDependencyError
from sightline.core.interfaces import Prompt, TextBatch
from sightline.core.outputs import Detection, Segment
from sightline.data.park.lessons import EVERYTHING, Turn, caption, instances
from sightline.data.park.scenes import Scene, scene
from sightline.data.park.vocabulary import COLOURS, KINDS, NUMBERS, plural
from sightline.evaluation.results import Metric
from sightline.metrics import boxes
from sightline.metrics.average_precision import FoundThing, TrueThing, average_precision
from sightline.metrics.intervals import bootstrap_counts, mean_of
from sightline.nn.writer import Writer
from sightline.tasks.ask import question_ids
from sightline.tasks.caption import caption_each
from sightline.tasks.detect import detect_each
from sightline.tasks.marked import marked_item
from sightline.tasks.segment import segment_each
from sightline.tasks.writing import read_task_options, write_each

if TYPE_CHECKING:
    from sightline.recipes.park_lessons import Writing
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report

JUDGED = ("count", "colour", "exists", "relation", "detect", "mask", "caption")
"""What "score" is the mean of."""
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
Shown = Literal["own", "grey", "other"]
"""Whose pictures are shown; see `speech_metrics`."""
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
                found.setdefault(kind, []).extend(_exact(network, writing, scenes, turns))
    scores = {kind: float(np.mean(rows)) for kind, rows in found.items()}
    return {"score": float(np.mean(list(scores.values()))), **scores}


def _exact(
    network: Writer, writing: Writing, scenes: Sequence[Scene], turns: Sequence[Turn]
) -> list[float]:
    lessons = [writing.lesson(*pair) for pair in zip(scenes, ([t] for t in turns), strict=True)]
    pictures = tuple((pixels,) for pixels in writing.collate(lessons).pixels)
    prompts, answers = zip(*map(writing.tokens, turns), strict=True)
    prompt, answer = _padded(prompts), _padded(answers)
    logits = network(Prompt(prompt.ids, prompt.mask, pictures), answer).logits
    right = (logits.argmax(dim=-1) == answer.ids) | ~answer.mask
    return right.all(dim=1).float().tolist()


def _padded(rows: Sequence[list[int]]) -> TextBatch:
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return TextBatch(ids, torch.arange(ids.shape[1]) < lengths[:, None])


def _turns(scenes: Sequence[Scene], writing: Writing) -> dict[str, list[Turn]]:
    """One turn of each kind about every scene."""
    words = writing.instructions
    turns = {"caption": [Turn(words.caption_prompt("short"), caption(d)) for d in scenes]}
    for kind in QUESTIONS:
        asked = (_question(drawn, kind) for drawn in scenes)
        turns[kind] = [Turn(words.question(question), answer) for question, answer in asked]
    boxes_of = words.detection([EVERYTHING])
    turns["detect"] = [Turn(boxes_of, instances(d, [EVERYTHING], writing.box)) for d in scenes]
    return turns


def _question(drawn: Scene, kind: str) -> tuple[str, str]:
    found = next(question for question in drawn.questions if question.kind == kind)
    return found.question, found.answer


def speech_scores(
    model: Model,
    count: int = 2000,
    split: str = "test",
    start: int = 0,
    shown: Shown = "own",
    codec: str | os.PathLike[str] | None = None,
) -> dict[str, float]:
    """The values of `speech_metrics`, and "score", the mean of the first ones."""
    found = speech_metrics(model, count, split, start, shown, codec)
    values = {name: metric.value for name, metric in found.items()}
    return {"score": float(np.mean([values[name] for name in JUDGED if name in values])), **values}


def speech_metrics(
    model: Model,
    count: int = 2000,
    split: str = "test",
    start: int = 0,
    shown: Shown = "own",
    codec: str | os.PathLike[str] | None = None,
) -> dict[str, Metric]:
    """What the model says about scenes, by its public tasks.

    "count", "colour", "exists", "relation": exact answers. "detect": F1 at an overlap of 0.5, with
    colour and kind for labels; "detect kind" the same for kinds alone; "AP50 kind" COCO's average
    precision of kinds, ranked by the probability of what was written, where faster-coco-eval is
    installed. "mask": mean overlap of the masks of objects that were found. "caption": exactly the
    right objects and colours, on scenes of up to four.

    Args:
        count: scenes.
        split: "test", or "pairs" for kinds in colours that were never seen.
        start: first seed.
        shown: the scenes' "own" pictures, "grey" ones, or those of "other" scenes, by which nothing
            is right but by chance.
        codec: of the masks; without one there is no "mask".
    """
    scenes = [scene(number, split) for number in range(start, start + count)]
    pictures = [drawn.pixels for drawn in scenes]
    if shown == "grey":
        pictures = [np.full_like(pixels, 128) for pixels in pictures]
    elif shown == "other":
        pictures = [*pictures[1:], *pictures[:1]]
    everything, metrics = [EVERYTHING], question_metrics(model, scenes, pictures)
    found = [
        _all(d) for d in detect_each(model, pictures, everything, MOST["detect"], batch_size=BATCH)
    ]
    kinds = [[d._replace(label=d.label.split(" ")[-1]) for d in seen] for seen in found]
    metrics["detect"] = _f1([truth_of(d) for d in scenes], found)
    metrics["detect kind"] = _f1([truth_of(d, whole=False) for d in scenes], kinds)
    if codec is not None:
        cut = segment_each(model, pictures, everything, MOST["segment"], codec, batch_size=BATCH)
        metrics["mask"] = _mean(mask_overlaps(scenes, [_all(s) for s in cut]))
    metrics["caption"] = _mean(caption_hits(model, scenes, pictures))
    precision = _average_precision(scenes, kinds)
    return metrics if precision is None else {**metrics, "AP50 kind": precision}


def _mean(values: Sequence[float]) -> Metric:
    """The mean with its interval; 0 where there is nothing, which is no success."""
    if not values:
        return Metric(0.0, None, 0)
    rows = torch.tensor(values, dtype=torch.float64)
    low, high = bootstrap_counts(mean_of(rows), len(values))
    return Metric(float(rows.mean()), (float(low), float(high)), len(values))


def _f1(truth: Sequence[Sequence[Detection]], found: Sequence[Sequence[Detection]]) -> Metric:
    """Micro-averaged over all scenes."""
    counts = [boxes.count(t, f) for t, f in zip(truth, found, strict=True)]
    rows = torch.tensor([(2 * c.hits, c.found + c.truth) for c in counts], dtype=torch.float64)

    def f1(drawn: Tensor) -> Tensor:
        hits, whole = (drawn @ rows).unbind(dim=1)
        return hits / whole

    low, high = bootstrap_counts(f1, len(rows))
    return Metric(boxes.total(counts).f1, (float(low), float(high)), len(rows))


def _average_precision(
    scenes: Sequence[Scene], found: Sequence[Sequence[Detection]]
) -> Metric | None:
    names = [f"{drawn.split}-{drawn.seed}" for drawn in scenes]
    truth = [
        TrueThing(name, thing.kind, thing.box)
        for name, drawn in zip(names, scenes, strict=True)
        for thing in drawn.objects
    ]
    things = [
        FoundThing(name, d.label, d.score or 0.0, d.box)
        for name, seen in zip(names, found, strict=True)
        for d in seen
    ]
    try:
        scored = average_precision(names, truth, things)
    except MissingDependencyError:
        return None
    return Metric(scored.statistics["AP50"], None, len(names))


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


def question_metrics(
    model: Model, scenes: Sequence[Scene], pictures: Sequence[Any]
) -> dict[str, Metric]:
    """The share of exact answers to one question of each kind about every scene."""
    asked = [(kind, *_question(d, kind)) for d in scenes for kind in QUESTIONS]
    prompts: Iterator[list[int]] = (question_ids(model, question) for _, question, _ in asked)
    sources = chain.from_iterable([(picture,)] * len(QUESTIONS) for picture in pictures)
    written = write_each(model, sources, prompts, read_task_options({}, 8), BATCH)
    right: dict[str, list[float]] = {kind: [] for kind in QUESTIONS}
    for (kind, _, answer), said in zip(asked, written, strict=True):
        right[kind].append(float(getattr(said, "text", None) == answer))
    return {kind: _mean(rows) for kind, rows in right.items()}


def truth_of(drawn: Scene, whole: bool = True) -> list[Detection]:
    """The objects of a scene as detections, called by colour and kind or by kind alone."""
    return [Detection(t.name if whole else t.kind, 1.0, t.box) for t in drawn.objects]


def mask_overlaps(scenes: Sequence[Scene], found: Sequence[Sequence[Segment]]) -> list[float]:
    """How much the masks of objects overlap whose box was found under their name."""
    overlaps = []
    for drawn, segments in zip(scenes, found, strict=True):
        seen = [Detection(s.label, s.score, s.box) for s in segments]
        for place, own in enumerate(boxes.match(truth_of(drawn), seen)):
            if own is not None:
                one, other = segments[place].mask, drawn.objects[own].mask
                overlaps.append(float((one & other).sum() / max(1, (one | other).sum())))
    return overlaps


def caption_hits(model: Model, scenes: Sequence[Scene], pictures: Sequence[Any]) -> list[float]:
    """Whether a caption names exactly the right objects, for every scene of few."""
    few = [n for n, drawn in enumerate(scenes) if len(drawn.objects) <= MOST_NAMED]
    chosen = [pictures[n] for n in few]
    said = caption_each(model, chosen, options=MOST["caption"], batch_size=BATCH)
    return [
        float(
            isinstance(text, str) and named_in(text) == Counter(t.name for t in scenes[n].objects)
        )
        for n, text in zip(few, said, strict=True)
    ]


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
