"""`sightline demo`: classify, tag and search drawn parks, print the results, write one report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from sightline.core.files import atomic_file, write_json
from sightline.data.park.vocabulary import KINDS
from sightline.demo import answers, page, speech
from sightline.demo.answers import Classified, Explained, Searching, Tagging
from sightline.demo.composite import composite
from sightline.demo.pictures import (
    FORMAT,
    MARKER,
    PHRASE_LABELS,
    VERSION,
    Amounts,
    Gallery,
    distinct_scenes,
    prepare_folder,
    single_scenes,
    write_gallery,
)
from sightline.demo.speech import Spoken
from sightline.evaluation.results import Metric
from sightline.tasks.model import Model, load

MODEL = "park-siglip"
STEPS = (
    "load", "draw", "classify", "measure", "tag", "search", "explain", "speak", "figures", "report"
)  # fmt: skip

Progress = Callable[[str, int, int], None]
"""Called before each step with its name, how many are done, and how many there are."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and where it wrote it."""

    report: Path
    lines: list[str]
    """What a person reads in the terminal, aligned."""
    model: str
    domain: str | None
    """What the weights know, where that is little ("drawn parks")."""
    scores: Mapping[str, Metric]
    document: Mapping[str, Any]
    """What `demo.json` holds: equal for equal models."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """One JSON document: the numbers, the answers, the files and the time."""
        return {**self.document, "report": str(self.report), "seconds": round(self.seconds, 2)}


@dataclass(frozen=True)
class _Answers:
    known: list[Classified]
    unseen: list[Classified]
    tagging: Tagging
    searching: Searching
    explained: list[Explained]
    spoken: list[Spoken]
    """Nothing, where no model that speaks is installed."""
    scores: dict[str, Metric]


def run_demo(
    out: str | os.PathLike[str],
    model: str | Model | None = None,
    progress: Progress | None = None,
    amounts: Amounts | None = None,
) -> DemoResult:
    """Let a model look at drawn parks and write pictures, numbers and a report into `out`.

    The same model gives the same pictures and numbers, byte for byte; only the time differs.

    Args:
        out: a new or empty folder, or that of an earlier demo.
        model: a name, a folder or a loaded model; by default the bundled "park-siglip".
        progress: told of each step before it starts.
        amounts: how much is drawn and measured.

    Raises:
        ConfigError: `out` is a file, cannot be written, or holds other files.
        HubError: the model could not be fetched.
        UnsupportedTaskError: it reads no text.
    """
    started = time.monotonic()
    tell = _teller(progress)
    sizes = amounts or Amounts()
    tell("load")
    loaded = model if isinstance(model, Model) else load(model or MODEL)
    loaded.require_role("dual encoder", "classify", "classify, tag and search by words")
    folder = prepare_folder(out)
    tell("draw")
    gallery = write_gallery(folder, sizes)
    _write_words(folder)
    found = _ask(loaded, gallery, sizes, tell)
    tell("figures")
    scenes = single_scenes("test", sizes.measured)
    similarity, places = page.draw_figures(loaded, gallery, scenes, folder)
    hero = _write_composite(folder, found, f"And these, {page.pairs_apart(loaded)}?")
    tell("report")
    seconds = time.monotonic() - started
    page.write_page(
        page.Everything(
            loaded, folder, gallery, found.known, found.unseen, found.tagging, found.searching,
            found.explained, found.spoken, found.scores, hero, similarity, places, seconds,
        ),
        folder / "report.html",
    )  # fmt: skip
    document = _document(loaded, folder, gallery, found)
    write_json(folder / MARKER, document)
    return DemoResult(
        report=folder / "report.html",
        lines=_lines(loaded, folder, gallery, found, seconds),
        model=loaded.name,
        domain=loaded.domain,
        scores=found.scores,
        document=document,
        seconds=seconds,
    )


def _teller(progress: Progress | None) -> Callable[[str], None]:
    def tell(step: str) -> None:
        if progress is not None:
            progress(step, STEPS.index(step), len(STEPS))

    return tell


def _ask(model: Model, gallery: Gallery, sizes: Amounts, tell: Callable[[str], None]) -> _Answers:
    tell("classify")
    known, unseen = answers.classify_all(model, gallery)
    tell("measure")
    memory = answers.Remembering(model)
    scores = answers.accuracies(memory, sizes)
    tell("tag")
    scenes = distinct_scenes(sizes.searched)
    tagging = answers.tag_all(memory, gallery, scenes, sizes)
    tell("search")
    searching, hits = answers.search_both_ways(memory, scenes, sizes)
    tell("explain")
    explained = answers.explain_all(model, gallery)
    tell("speak")
    talker = speech.speaker()
    spoken = [] if talker is None else speech.speak(talker, gallery)
    return _Answers(known, unseen, tagging, searching, explained, spoken, {**scores, **hits})


def _write_words(folder: Path) -> None:
    """The labels and tags that were used, for the commands to try."""
    for name, words in (("labels", PHRASE_LABELS), ("tags", KINDS)):
        with atomic_file(folder / f"{name}.txt") as temporary:
            temporary.write_text("\n".join(words) + "\n", encoding="utf-8")


def _write_composite(folder: Path, found: _Answers, second: str) -> bytes:
    picture = composite(found.known, found.unseen, found.searching.found[0], second)
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    with atomic_file(folder / "composite.png") as temporary:
        temporary.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _lines(
    model: Model, folder: Path, gallery: Gallery, found: _Answers, seconds: float
) -> list[str]:
    scores, tags = found.scores, found.tagging.calibrated
    count = found.searching.pictures
    rows = [
        ("20 kinds", page.interval(scores["test/kind"])),
        ("200 names", page.interval(scores["test/name"])),
        (f"200 names, {page.pairs_apart(model)}", page.interval(scores["pairs/name"])),
        ("tags", f"precision {100 * tags.precision:.1f} %, recall {100 * tags.recall:.1f} %"),
        (f"sentence finds 1 picture of {count}", page.interval(scores["text_to_image"])),
        (f"picture finds 1 sentence of {count}", page.interval(scores["image_to_text"])),
    ]
    width = max(len(name) for name, _ in rows)
    examples = _example_lines([*found.known[:4], *found.unseen[:4]])
    caption = gallery.several[0].scene.caption
    commands = page.commands(folder, gallery, model.name, caption, bool(found.spoken))
    return [
        page.subtitle(model),
        "",
        *examples,
        "",
        *_spoken_lines(found.spoken),
        *(f"{name:<{width}}  {value}" for name, value in rows),
        f"{'':<{width}}  (in brackets: 95 % intervals)",
        "",
        f"All of it took {seconds:.0f} s. Try next:",
        *(f"  {command}" for command in commands),
    ]


def _spoken_lines(spoken: Sequence[Spoken]) -> list[str]:
    """What was said about the first pictures."""
    lines = []
    for one in spoken[:2]:
        said = one.said[0]
        verdict = "right" if said.right else f"wrong: {said.truth}"
        lines += [
            f"{one.shown.path.name}  {one.caption}",
            f"  {said.question} {said.answer} ({verdict})",
        ]
    return [*lines, ""] if lines else []


def _example_lines(shown: Sequence[Classified]) -> list[str]:
    names = [answer.shown.path.name for answer in shown]
    said = [f"{answer.labels[0].label} ({answer.labels[0].score:.2f})" for answer in shown]
    first, second = max(map(len, names)), max(map(len, said))
    verdicts = ["right" if a.right else f"wrong: {a.truth}" for a in shown]
    rows = zip(names, said, verdicts, strict=True)
    return [f"{name:<{first}}  {answer:<{second}}  {verdict}" for name, answer, verdict in rows]


def _document(model: Model, folder: Path, gallery: Gallery, found: _Answers) -> dict[str, Any]:
    tagging = found.tagging
    return {
        "format": FORMAT,
        "version": VERSION,
        "complete": True,
        "model": model.name,
        "domain": model.domain,
        "scores": {
            name: {"value": metric.value, "ci95": metric.ci95, "n": metric.n}
            for name, metric in found.scores.items()
        },
        "tags": {
            name: {"threshold": score.threshold, "precision": score.precision,
                   "recall": score.recall, "pictures": tagging.pictures}
            for name, score in (("default", tagging.by_default),
                                ("calibrated", tagging.calibrated))
        },
        "classified": [
            {"file": answer.shown.path.name, "truth": answer.truth, "right": answer.right,
             "labels": [label._asdict() for label in answer.labels]}
            for answer in (*found.known, *found.unseen)
        ],
        "tagged": [
            {"file": example.shown.path.name, "truth": list(example.truth),
             "tags": [tag._asdict() for tag in example.tags]}
            for example in tagging.examples
        ],
        "searches": [
            {"query": row.query.text, "rank": _rank(row.hits)} for row in found.searching.found
        ],
        "spoken": [
            {"file": one.shown.path.name, "caption": one.caption,
             "answers": [{**said._asdict(), "right": said.right} for said in one.said],
             "found": [{"label": thing.label, "box": list(thing.box)} for thing in one.found]}
            for one in found.spoken
        ],
        "explained": [
            {"file": one.shown.path.name, "text": one.text, "found": one.found}
            for one in found.explained
        ],
        "pictures": sorted(f"pictures/{one.path.name}" for one in gallery),
    }  # fmt: skip


def _rank(hits: Sequence[tuple[Any, float, bool]]) -> int | None:
    """Place of the first right hit among those shown."""
    return next((place for place, (*_, right) in enumerate(hits, start=1) if right), None)
