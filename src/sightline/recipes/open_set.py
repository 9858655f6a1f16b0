"""What a new class costs: a classifier with a closed set of labels beside a dual encoder.

    sightline bench open-set --out DIR

Both start from the very same untrained tower and see the same pictures of drawn parks with one
thing, in equally many steps and batches. Then classes are added that neither has seen: two quite
new kinds, which are words that no sentence held, and the colours of known kinds that only the split
`pairs` shows, which are new combinations of known words. The classifier has no row for any of them;
the dual encoder gets a sentence and no picture. At last both train again with pictures of all.

Towers are small ResNets, since these learn the park's kinds in minutes; sentences are "a red bench"
or the class in the prompt, and pictures of one class match all its sentences (UniCL's loss).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sightline.core.errors import ConfigError
from sightline.core.files import write_json
from sightline.data.convert import convert
from sightline.data.park.scenes import scene
from sightline.data.park.vocabulary import COLOURS, KINDS, held_out_pairs, with_article
from sightline.data.records import Dataset, Record
from sightline.evaluation.closed_set import closed_set
from sightline.evaluation.results import Metric, Result
from sightline.evaluation.zeroshot import zeroshot
from sightline.metrics.intervals import wilson
from sightline.recipes.classifier import ClassifierRecipe, start_classifier, train_classifier
from sightline.recipes.dual_encoder import DualEncoderRecipe
from sightline.recipes.run import Outcome, train_dual_encoder
from sightline.recipes.splits import CHOOSING
from sightline.tasks.abilities import closed_labels
from sightline.tasks.model import Model, load

if TYPE_CHECKING:
    from sightline.recipes.settings import RunSettings

NEW_KINDS = ("boat", "cat")
"""The classes that are quite new words."""
SIZE, OBJECT_PIXELS = 48, 23
"""Pixels of a scene's side, and of the longer side of the thing in it."""
FIRST_SEED = {"train": 0, "val": CHOOSING, "test": 2 * CHOOSING}
"""Where the scenes of a part begin; no part reaches the next."""
FORMAT, VERSION = "sightline.open-set", 1

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OpenSetSettings:
    """What every run of the comparison has alike."""

    steps: int = 900
    again: int = 300
    """Steps of the second training, with the new classes."""
    pictures: int = 6000
    """Of known classes, to train on; new ones are added as often as each of these occurs."""
    test: int = 500
    """Pictures of known classes, and as many of new ones, for the scores."""
    batch_size: int = 64
    width: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.again, self.pictures, self.test, self.batch_size) < 1:
            raise ConfigError("steps, pictures and batches are counted from 1 on")


class Case(NamedTuple):
    """Classes of one kind: those known at first, and those that come later."""

    name: str
    label: str
    """What a class is: a "kind", or a "phrase" of colour and kind."""
    known: tuple[str, ...]
    new: tuple[str, ...]


class Row(NamedTuple):
    """One model at one time."""

    case: str
    model: str
    """"classifier" or "dual encoder"."""
    trained_on: str
    """"known" or "all" classes."""
    known: Metric
    """Accuracy on pictures of known classes, among all labels."""
    new: Metric
    """The same on pictures of new classes."""
    among_new: Metric | None
    """Accuracy on these where only new labels are offered; None for a classifier without them."""
    pictures: int
    """Seen in this training."""
    core_minutes: float
    """Processor time of this training, its evaluations and its report included."""


def cases() -> tuple[Case, Case]:
    """Quite new words, and new combinations of known words."""
    kinds = tuple(kind for kind in KINDS if kind not in NEW_KINDS)
    pairs = {f"{colour} {kind}" for kind, colour in held_out_pairs()}
    phrases = [f"{colour} {kind}" for kind in KINDS for colour in COLOURS]
    known = tuple(phrase for phrase in phrases if phrase not in pairs)
    new = tuple(phrase for phrase in phrases if phrase in pairs)
    return (
        Case("new words", "kind", kinds, NEW_KINDS),
        Case("new combinations", "phrase", known, new),
    )


def open_set(
    out: str | Path, settings: OpenSetSettings | None = None, progress: Progress | None = None
) -> list[Row]:
    """Carry out both cases; data, runs and `open-set.json` are written below `out`.

    Args:
        out: a folder that does not exist yet.
        progress: called with trainings done and their number.

    Raises:
        ConfigError: the folder is there already, or settings out of range.
    """
    settings, folder = settings or OpenSetSettings(), Path(out)
    if folder.exists():
        raise ConfigError(f"{folder} is there already: times would mix, so name a new folder")
    rows: list[Row] = []
    for case in cases():
        for row in _carried_out(case, folder / case.name.replace(" ", "-"), settings):
            rows.append(row)
            if progress is not None:
                progress(len(rows), 4 * len(cases()))
    document = {"format": FORMAT, "version": VERSION, "settings": asdict(settings)}
    write_json(folder / "open-set.json", {**document, "rows": [as_json(row) for row in rows]})
    return rows


def as_json(row: Row) -> dict[str, Any]:
    """One row as JSON values."""
    scores = {name: getattr(row, name) for name in ("known", "new", "among_new")}
    written = {name: None if one is None else asdict(one) for name, one in scores.items()}
    return {**row._asdict(), **written}


def _carried_out(case: Case, folder: Path, settings: OpenSetSettings) -> Iterator[Row]:
    write_data(case, folder, settings)
    first = folder / "untrained"
    classifier, dual = recipes(case, first, settings)
    start_classifier(replace(classifier, init=None), tuple(sorted(case.known))).save(first)
    test = {part: _records(case, part, "test", settings.test) for part in ("known", "new")}
    runs: tuple[tuple[str, RunSettings, Callable[..., Outcome]], ...] = (
        ("classifier", classifier, train_classifier),
        ("dual encoder", dual, train_dual_encoder),
    )
    for name, recipe, train in runs:
        place = folder / name.replace(" ", "-")
        for trained_on in ("known", "all"):
            begun = time.process_time()
            outcome = train(recipe, place / trained_on)
            minutes = (time.process_time() - begun) / 60
            model = load(outcome.model, device="cpu", dtype="float32")
            scores = score(model, case, test)
            yield Row(case.name, name, trained_on, *scores, outcome.summary.pictures, minutes)
            recipe = again(recipe, outcome, folder, settings)


def recipes(
    case: Case, first: Path, settings: OpenSetSettings
) -> tuple[ClassifierRecipe, DualEncoderRecipe]:
    """The two runs on known classes: the same data, tower, steps, batches, rate and seed."""
    shared: dict[str, Any] = {
        "data": str(first.parent / "known-classes"), "width": settings.width, "image_size": SIZE,
        "steps": settings.steps, "eval_every": -(-settings.steps // 3), "lr": 1e-3,
        "batch_size": settings.batch_size, "seed": settings.seed, "workers": 0, "device": "cpu",
    }  # fmt: skip
    classifier = ClassifierRecipe(tower="resnet", init=str(first), **shared)
    dual = DualEncoderRecipe(
        system="vision_text", init_image=str(first), objective="unicl", template_share=0.5,
        text_width=settings.width, vocab_size=400, **shared,
    )  # fmt: skip
    return classifier, dual


def again(recipe: Any, outcome: Outcome, folder: Path, settings: OpenSetSettings) -> Any:
    """The recipe that goes on from what was reached, with pictures of all classes."""
    changed: dict[str, Any] = {
        "init": str(outcome.model), "data": str(folder / "all-classes"),
        "steps": settings.again, "eval_every": -(-settings.again // 3),
    }  # fmt: skip
    if isinstance(recipe, DualEncoderRecipe):
        changed["init_image"] = None
    return replace(recipe, **changed)


def write_data(case: Case, folder: Path, settings: OpenSetSettings) -> None:
    """Two data sets with their splits: known classes, and these with new ones added."""
    known, added = [], []
    for split, count in (("train", settings.pictures), ("val", settings.test), ("test", 100)):
        known += _records(case, "known", split, count)
        more = max(1, round(count * len(case.new) / len(case.known)))
        added += _records(case, "new", split, more)
    for name, records in (("known", known), ("all", [*known, *added])):
        dataset = Dataset(records, name=f"{case.name}, {name} classes")
        convert(dataset, folder / f"{name}-classes", "jsonl")


def _records(case: Case, part: str, split: str, count: int) -> list[Record]:
    """The first scenes of known or of new classes, each named by its class."""
    classes = set(case.known if part == "known" else case.new)
    drawn_from = "train" if split == "train" else "test"
    if part == "new" and case.label == "phrase":
        drawn_from = "pairs"
    found: list[Record] = []
    seed = FIRST_SEED[split]
    while len(found) < count:
        drawn = scene(seed, drawn_from, SIZE, objects=1, object_pixels=OBJECT_PIXELS)
        thing = drawn.layout.placements[0].thing  # known before anything is drawn
        phrase = f"{thing.colour} {thing.kind}"
        label = thing.kind if case.label == "kind" else phrase
        if label in classes:
            name = f"{part}-{drawn_from}-{seed}"
            found.append(Record(name, drawn.pixels, (with_article(phrase),), label, split))
        seed += 1
    return found


def score(
    model: Model, case: Case, test: dict[str, list[Record]]
) -> tuple[Metric, Metric, Metric | None]:
    """Accuracy on known and on new classes among all labels, and on new ones among themselves."""
    labels = [*case.known, *case.new]
    everything = Dataset([*test["known"], *test["new"]], name=f"{case.name}, test")
    alone = Dataset(test["new"], name=f"{case.name}, new classes")
    if not closed_labels(model):
        result = zeroshot(model, everything, labels=labels)
        among = zeroshot(model, alone, labels=case.new).metrics["top1"]
        return *_by_part(result, test), among
    return *_by_part(closed_set(model, everything), test), None


def _by_part(result: Result, test: dict[str, list[Record]]) -> tuple[Metric, Metric]:
    right = {sample.id: sample.score for sample in result.samples}
    known, new = (_accuracy([right[record.id] for record in test[part]]) for part in test)
    return known, new


def _accuracy(right: Sequence[float]) -> Metric:
    hits = round(sum(right))
    return Metric(hits / len(right), wilson(hits, len(right)), len(right))
