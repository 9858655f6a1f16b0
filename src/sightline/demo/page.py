"""The report of the demo: one page that a person enjoys reading, with every truth marked."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import MissingDependencyError
from sightline.data.park.scenes import Scene
from sightline.data.park.vocabulary import with_article
from sightline.demo.answers import Classified, Explained, Searching, Tagging
from sightline.demo.pictures import WRITTEN_SIDE, Gallery, enlarged
from sightline.demo.speech import SPEAKER, Said, Spoken, named_right, tally
from sightline.evaluation.embedding_map import embedding_map
from sightline.evaluation.figures import embedding_figure, similarity_figure, write_png
from sightline.evaluation.results import Metric
from sightline.tasks.marked import marked_item
from sightline.tasks.overlay import heat_overlay
from sightline.tasks.report import Report
from sightline.tasks.sheets import SheetItem

if TYPE_CHECKING:
    from sightline.tasks.model import Model

log = logging.getLogger(__name__)

PARK_DOMAIN = "drawn parks"
MAPPED_KINDS = ("tree", "car", "house", "cat", "fish", "boat", "umbrella", "butterfly")
CHANCE = 1 / 200
MOST_TAGS, MOST_HITS = 6, 5
"""Shown on the page."""


@dataclass(frozen=True)
class Everything:
    """What the sections of the page are made of."""

    model: Model
    out: Path
    gallery: Gallery
    known: Sequence[Classified]
    unseen: Sequence[Classified]
    tagging: Tagging
    searching: Searching
    explained: Sequence[Explained]
    spoken: Sequence[Spoken]
    scores: Mapping[str, Metric]
    composite: bytes
    """The PNG file."""
    similarity: Path | None
    map: Path | None
    """Figures, where matplotlib is installed."""
    seconds: float


def write_page(everything: Everything, path: Path) -> None:
    """Write the report."""
    report = Report("Sightline, the first minute", subtitle(everything.model))
    _summary(report, everything)
    _classification(report, everything)
    _unseen(report, everything)
    _tags(report, everything)
    _search(report, everything)
    _words(report, everything)
    _explanations(report, everything)
    _speech(report, everything)
    _inside(report, everything)
    _your_turn(report, everything)
    report.write(path)


def subtitle(model: Model) -> str:
    """What the model is, in one sentence."""
    if model.domain == PARK_DOMAIN:
        return f"{model.name}, a model of drawn parks, not for photographs, looks at new drawings."
    return f"{model.name} looks at drawings of parks."


def pairs_apart(model: Model) -> str:
    """What to call the pairs of kind and colour that only the split `pairs` shows."""
    return "pairs never seen" if model.domain == PARK_DOMAIN else "pairs kept apart"


def percent(metric: Metric) -> str:
    """ "97.5 %"."""
    return f"{100 * metric.value:.1f} %"


def interval(metric: Metric) -> str:
    """ "97.5 % (94.3 to 98.9)": with the 95 % interval."""
    if metric.ci95 is None:
        return percent(metric)
    low, high = (100 * end for end in metric.ci95)
    return f"{percent(metric)} ({low:.1f} to {high:.1f})"


def draw_figures(
    model: Model, gallery: Gallery, scenes: Sequence[Scene], out: Path
) -> tuple[Path | None, Path | None]:
    """The similarity matrix and the map of embeddings; None where matplotlib is missing."""
    try:
        return _similarity(model, gallery, out), _map(model, scenes, out)
    except MissingDependencyError as error:
        log.info("%s", error)
        return None, None


def commands(
    out: Path, gallery: Gallery, model: str, caption: str, speaks: bool = False
) -> list[str]:
    """What a person can type next, with the names of the files that were just written."""
    one, many = _quoted(gallery.unseen[0].path), _quoted(gallery.several[0].path)
    labels, tags = (shlex.quote(f"@{out / stem}.txt") for stem in ("labels", "tags"))
    folder, name = _quoted(out / "pictures"), shlex.quote(model)
    thing = gallery.unseen[0].scene.objects[0]
    choices = ",".join(sorted({thing.kind, "cat", "boat"}))
    spoken = [
        f"sightline ask {one} 'what colour is the {thing.kind}?' --model {SPEAKER}",
        f"sightline segment {many} --model {SPEAKER} --out {_quoted(out / 'found')}",
    ]
    return [
        f"sightline classify {one} --labels {labels} --model {name}",
        f"sightline tag {many} --vocabulary {tags} --model {name}",
        f"sightline retrieve {shlex.quote(caption)} {folder} --model {name}",
        f"sightline ask {one} 'what is it?' --choices {choices} --model {name}",
        f"sightline explain {one} '{with_article(thing.name)}' --model {name}",
        *(spoken if speaks else []),
    ]


def _summary(report: Report, e: Everything) -> None:
    report.picture(e.composite, "Green: right. Red: wrong. The truth is known exactly.")
    report.facts(
        {
            "right name of 200": percent(e.scores["test/name"]),
            f"the same, {pairs_apart(e.model)}": percent(e.scores["pairs/name"]),
            f"right picture of {e.searching.pictures}": percent(e.scores["text_to_image"]),
            f"right sentence of {e.searching.pictures}": percent(e.scores["image_to_text"]),
        }
    )
    report.text(
        "The park is drawn by a program that knows what it drew, so every answer below can be "
        "checked. Pictures and queries were chosen by their content (objects of a fair size, many "
        "kinds), before the model saw them; right and wrong answers are shown as they came. No "
        f"training run has seen these scenes. The files that the model reads have {WRITTEN_SIDE} x "
        f"{WRITTEN_SIDE} pixels; here the same scenes are drawn larger."
    )
    report.text(f"Everything on this page took {e.seconds:.0f} seconds.")


def _classification(report: Report, e: Everything) -> None:
    report.section(
        "What is it?",
        "The model was not built with a list of answers. It gets 200 names as sentences, such as "
        "“This is a photo of a red bench.”, and tells which sentence fits the picture best. "
        "The numbers are the scores that it gives to each name, the bars compare them; a tick "
        "marks the truth.",
    )
    _cards(report, e.known)
    _accuracy_table(report, e, "test", "Scenes with one object")


def _unseen(report: Report, e: Everything) -> None:
    ours = e.model.domain == PARK_DOMAIN
    never = "its training never showed" if ours else "the park models never see"
    report.section(
        pairs_apart(e.model).capitalize(),
        f"Thirty of the 200 pairs of colour and kind are kept away: {never} a single "
        f"{_bare(e.unseen[0].truth)}, for example. To name one, a model takes the colour from some "
        "pictures and the kind from others, and puts the two together. One that had only learned "
        "pairs by heart would name none of these; guessing is right "
        f"{100 * CHANCE:.1f} % of the time.",
    )
    _cards(report, e.unseen)
    _accuracy_table(report, e, "pairs", "Scenes with one object of a pair that is kept away")


def _tags(report: Report, e: Everything) -> None:
    report.section(
        "What is in it?",
        "Tagging asks for each of the twenty kinds on its own whether it fits, and keeps those "
        "above a threshold. The sentences of the training name everything in a picture, while a "
        "tag names one thing of several: this is the hardest task on this page.",
    )
    for example in e.tagging.examples:
        tags = example.tags[:MOST_TAGS]
        full = max((score for _, score in tags), default=1.0)
        report.labels(tags, example.shown.scene.image, "", example.truth, full, claims=len(tags))
    rows = [
        [
            name,
            f"{score.threshold:.3g}",
            f"{100 * score.precision:.1f} % ({score.right} of {score.given})",
            f"{100 * score.recall:.1f} % ({score.right} of {score.wanted})",
        ]
        for name, score in (
            ("chosen for parks, used above", e.tagging.calibrated),
            ("default of the command", e.tagging.by_default),
        )
    ]
    header = ["threshold", "value", "given tags that are right", "kinds that are found"]
    caption = f"{e.tagging.pictures} scenes; the threshold was chosen on others."
    report.table(header, rows, caption)


def _search(report: Report, e: Everything) -> None:
    report.section(
        "Find the picture",
        f"A sentence, and the best of {e.searching.pictures} pictures for it, best first. No two "
        "of them show the same things. A green frame: the sentence is true of the picture.",
    )
    for found in e.searching.found:
        report.heading(f"“{found.query.text}”")
        hits = found.hits[:MOST_HITS]
        items = [SheetItem(enlarged(scene).image, "", score) for scene, score, _ in hits]
        report.gallery(items, [right for *_, right in hits])


def _words(report: Report, e: Everything) -> None:
    report.section(
        "Find the words", f"The other way round: the best of {e.searching.pictures} captions."
    )
    for answer in e.searching.described:
        full, truth = answer.captions[0].score, answer.scene.caption
        picture = enlarged(answer.scene).image
        report.labels(answer.captions, picture, "", truth, full, claims=1, broad=True)
    rows = [
        [name, interval(e.scores[key]), f"{100 / e.searching.pictures:.1f} %"]
        for name, key in (
            ("a sentence finds its picture", "text_to_image"),
            ("a picture finds its sentence", "image_to_text"),
        )
    ]
    report.table(["first answer right", "share (95 % interval)", "by chance"], rows)


def _explanations(report: Report, e: Everything) -> None:
    report.section(
        "What spoke for it",
        "Which pixels made a sentence fit? The same picture is asked for two of its things, and "
        "the heat moves from one to the other: dark is what mattered least, bright what mattered "
        "most. A green frame: the brightest pixel is on the thing. Heat says where a score came "
        "from, not what is there, and it reaches over the edges of things, since the model looks "
        "at patches and not at outlines.",
    )
    for shown, group in groupby(e.explained, key=lambda one: one.shown):
        answers = list(group)
        pixels = shown.scene.pixels
        items = [SheetItem(heat_overlay(pixels, one.heat), one.text) for one in answers]
        framed = [one.found for one in answers]
        report.gallery([SheetItem(shown.scene.image, "the picture"), *items], [False, *framed])


def _speech(report: Report, e: Everything) -> None:
    if not e.spoken:
        return
    right, (hits, there) = tally(e.spoken), named_right(e.spoken)
    report.section(
        "In its own words",
        f"A second model, {SPEAKER}, writes: a caption, answers to questions, and where things "
        "are, as boxes and masks, all of it word by word. The scenes are those of above. "
        f"{right[True]} of {right.total()} answers are right, and {hits} of {there} things are "
        "found under their name.",
    )
    items = []
    for one in e.spoken:
        lines = [one.caption, *(f"{s.question} {s.answer} {_verdict(s)}" for s in one.said)]
        items.append(marked_item(one.shown.scene.pixels, list(one.found), "\n".join(lines)))
    report.gallery(items)


def _verdict(said: Said) -> str:
    return "\u2713" if said.right else f"\u2717 ({said.truth})"


def _inside(report: Report, e: Everything) -> None:
    report.section(
        "How the model sees them",
        "Picture and sentence become two lists of numbers, and the closer they point the same "
        "way, the better they fit. That one number answers everything above.",
    )
    if e.similarity is None or e.map is None:
        report.note("Two figures belong here: pip install 'sightline[train]' brings what draws.")
        return
    report.picture(
        e.similarity, "Each row a picture, each column a sentence; framed: the best.", 620
    )
    report.picture(
        e.map, "Pictures (dots) and sentences (crosses) of eight kinds in two dimensions.", 800
    )


def _your_turn(report: Report, e: Everything) -> None:
    report.section("Your turn", "The pictures of this page are files now. Try:")
    caption = e.gallery.several[0].scene.caption
    report.code("\n".join(commands(e.out, e.gallery, e.model.name, caption, bool(e.spoken))))
    if e.model.domain != PARK_DOMAIN:
        return
    report.note(
        f"{e.model.name} knows drawn parks and nothing else. For photographs take a model that "
        "has seen some; the first command fetches one, once.",
        "warning",
    )
    report.code(
        "sightline pull google/siglip2-base-patch16-224\n"
        "sightline classify photo.jpg --labels cat,dog,bicycle"
    )


def _cards(report: Report, answers: Sequence[Classified]) -> None:
    for answer in answers:
        labels = [(_bare(name), score) for name, score in answer.labels]
        picture, truth = answer.shown.scene.image, _bare(answer.truth)
        report.labels(labels, picture, "", truth, full=labels[0][1], claims=1)


def _accuracy_table(report: Report, e: Everything, split: str, caption: str) -> None:
    kind, name = e.scores[f"{split}/kind"], e.scores[f"{split}/name"]
    rows = [
        ["which of 20 kinds", interval(kind), "5.0 %", kind.n],
        ["which of 200 names", interval(name), f"{100 * CHANCE:.1f} %", name.n],
    ]
    report.table(["question", "right (95 % interval)", "by chance", "pictures"], rows, caption)


def _similarity(model: Model, gallery: Gallery, out: Path) -> Path:
    captions = [one.scene.caption for one in gallery.several]
    figure = similarity_figure(
        model.similarity([one.path for one in gallery.several], captions),
        captions,
        images=[one.scene.pixels for one in gallery.several],
    )
    write_png(figure, out / "similarity.png", dpi=110)
    return out / "similarity.png"


def _map(model: Model, scenes: Sequence[Scene], out: Path) -> Path:
    chosen = [s for s in scenes if s.objects[0].kind in MAPPED_KINDS]
    texts = [f"a photo of {with_article(kind)}." for kind in MAPPED_KINDS]
    places = embedding_map(model.embed_images([s.pixels for s in chosen]), model.embed_texts(texts))
    figure = embedding_figure(places, [s.objects[0].kind for s in chosen], list(MAPPED_KINDS))
    write_png(figure, out / "map.png", dpi=110)
    return out / "map.png"


def _bare(label: str) -> str:
    """ "red bench" of "a red bench", so that it fits into one line of a card."""
    return label.split(" ", 1)[1]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
