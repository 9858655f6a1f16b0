"""Whether a model reads a sentence or only its words: true captions against nearly true ones.

Two tasks, told apart by the number of pictures of a contrast: choices (SugarCrepe, ARO,
VL-CheckList) and quadruples (Winoground); see `metrics.compositionality` for the rules. Beside the
model stand two that cannot see: a small language model of captions (`text_only`), and the model
itself before one grey picture (`blank`). What they reach needs no picture.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import DataError
from sightline.data.contrasts import Contrast, ContrastSet, PictureRegion
from sightline.data.records import Record
from sightline.evaluation import results
from sightline.evaluation.caption_scores import (
    CaptionModel,
    CaptionScores,
    choose_method,
    score_captions,
)
from sightline.evaluation.contrast_samples import QUESTIONS, choose, contrast_samples
from sightline.evaluation.records import Progress, data_sha256, drawn_part
from sightline.evaluation.results import Metric, Result
from sightline.evaluation.text_only import text_only_scores
from sightline.metrics.compositionality import mean_of_classes, quadruples
from sightline.metrics.intervals import RESAMPLES, bootstrap, wilson

VERSION = 1
"""Raised when the same model and data would score differently than before."""
SUGARCREPE = (
    "add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att",
)  # fmt: skip


class _Judged(NamedTuple):
    """One task: which samples each scorer gets right."""

    rows: list[int]
    """Numbers of the contrasts."""
    right: Bool[Tensor, "N J"]
    """A column for each of `names`."""
    names: list[str]
    """The model's own columns first, without a prefix."""


def compositionality(
    model: CaptionModel,
    dataset: ContrastSet,
    score: str | None = None,
    prompt: str = "",
    limit: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """Strict accuracy on choices, and the text, image and group score on quadruples.

    `accuracy` is the mean over subsets; `accuracy/micro` the mean over samples, `accuracy/groups`
    over SugarCrepe's add, replace and swap, `accuracy/classes` over relations or pairs of
    attributes (ARO). Ties are wrong; a score that is not finite and a picture that cannot be read
    make a sample wrong. Intervals draw whole pictures with all their sentences.

    Args:
        model: what `sightline.load` returns.
        dataset: of `sightline.data.contrast_files.open_contrasts` or `sightline.data.park.twins`.
        score: one of `caption_scores.METHODS`; by default the first that the model has.
        prompt: what a likelihood comes after, beside the picture.
        limit: evaluate only a seeded sample of so many contrasts; the result is marked partial.
        batch_size: pictures embedded at a time.
        progress: called with pictures done and their total.
        seed: of the sample, of the folds of the text-only model and of the intervals.
        resamples: draws of the intervals; 0 leaves them out.

    Raises:
        DataError: no contrast.
        ConfigError: an unknown score, or a limit below 1.
        UnsupportedTaskError: the model cannot give that score.
    """
    started = time.monotonic()
    if not len(dataset):
        raise DataError(f"{dataset.name!r} holds no contrast: there is nothing to compare")
    method = choose_method(model, score, dataset[0].captions[0])
    contrasts = drawn_part(dataset.contrasts, limit, seed)
    scored = score_captions(model, contrasts, method, prompt, batch_size, progress)
    pictures = [_picture_digest(picture.image) for picture in scored.pictures]
    judged = _judge(contrasts, scored, pictures, seed)
    digest = _data_digest(contrasts, scored, pictures)
    metrics: dict[str, Metric] = {}
    groups: dict[str, dict[str, Metric]] = {}
    for task in judged:
        metrics |= _metrics(task, contrasts, scored, seed, resamples)
        _add_groups(groups, task, contrasts)
    finite = [bool(torch.isfinite(own).all()) for own in scored.scores]
    readable = scored.read.tolist()
    headline = "accuracy" if "accuracy" in metrics else "group"
    return results.build(
        model, "compositionality", VERSION, headline, digest,
        {"metric": "strict", "score": method, "ties": "wrong",
         **({"prompt": results.short_hash([prompt])} if prompt else {}),
         "subsets": results.short_hash(sorted({contrast.subset for contrast in contrasts})),
         "blind": f"bigram-{seed}", "n": len(contrasts)},
        started,
        variant=method,
        metrics=metrics,
        n=len(contrasts),
        data=dataset.name,
        n_invalid=sum(read and not whole for read, whole in zip(readable, finite, strict=True)),
        n_missing=readable.count(False),
        n_excluded=dataset.excluded,
        missing=scored.missing,
        groups=groups,
        prompt_templates=(prompt,) if prompt else (),
        settings={"limit": limit, "batch_size": batch_size, "score": method,
                  "dropped_captions": dataset.dropped, "formats": dict(dataset.formats)},
        seed=seed,
        counted="contrasts",
        partial=len(contrasts) < len(dataset),
        samples=contrast_samples(contrasts, scored),
    )  # fmt: skip


def _judge(
    contrasts: Sequence[Contrast], scored: CaptionScores, pictures: Sequence[str], seed: int
) -> list[_Judged]:
    """Choices and quadruples apart, each by the model and by those that cannot see."""
    told = text_only_scores(
        [contrast.captions for contrast in contrasts],
        [len(contrast.images) for contrast in contrasts],
        [pictures[own[0]] for own in scored.shown],
        seed,
    )
    blind = [torch.tensor(own, dtype=torch.float64) for own in told]
    columns = [("", scored.scores)]
    columns.append(("text_only/", _whatever_the_picture(blind, contrasts)))
    if scored.blank is not None:
        columns.append(("blank/", _whatever_the_picture(scored.blank, contrasts)))
    found = []
    for several in (False, True):
        rows = [i for i, own in enumerate(contrasts) if (len(own.images) > 1) == several]
        if not rows:
            continue
        names: list[str] = []
        parts: list[Tensor] = []
        for prefix, matrices in columns:
            mine = [matrices[row] for row in rows]
            if not several:
                parts.append(choose(mine))
                names.append(f"{prefix}accuracy")
                continue
            answers = quadruples(torch.stack(mine))
            asked = ("group",) if prefix else QUESTIONS  # those that cannot see get 0 everywhere
            parts += [getattr(answers, question) for question in asked]
            names += [prefix + question for question in asked]
        found.append(_Judged(rows, torch.stack(parts, dim=1), names))
    return found


def _whatever_the_picture(
    scores: Sequence[Float[Tensor, " C"]], contrasts: Sequence[Contrast]
) -> list[Float[Tensor, "C I"]]:
    """Scores of captions alone, the same for each picture of a contrast."""
    return [
        own[:, None].expand(-1, len(contrast.images))
        for own, contrast in zip(scores, contrasts, strict=True)
    ]


class _Partition(NamedTuple):
    """Classes to take a mean over."""

    name: str
    classes: Int[Tensor, " N"]
    size: int
    """How many classes there are."""


def _metrics(
    task: _Judged,
    contrasts: Sequence[Contrast],
    scored: CaptionScores,
    seed: int,
    resamples: int,
) -> dict[str, Metric]:
    """All numbers of a task from one bootstrap, so that they share each draw."""
    own = [contrasts[row] for row in task.rows]
    partitions = _partitions(own) if task.names[0] == "accuracy" else []
    width = len(task.names)
    columns = [task.right.double(), *(p.classes[:, None].double() for p in partitions)]
    rows = torch.cat(columns, dim=1)  # [N J+P]

    def numbers(drawn: Float[Tensor, "N K"]) -> Float[Tensor, " M"]:
        right = drawn[:, :width]
        if not partitions:
            return right.mean(dim=0)
        means = [
            mean_of_classes(right, drawn[:, width + place].long(), partition.size)
            for place, partition in enumerate(partitions)
        ]
        return torch.cat([means[0], right[:, 0].mean()[None], *(m[:1] for m in means[1:])])

    names = list(task.names)
    if partitions:
        names += ["accuracy/micro", *(f"accuracy/{p.name}" for p in partitions[1:])]
    pictures = torch.tensor([scored.shown[row][0] for row in task.rows])
    low, high = bootstrap(rows, numbers, pictures, resamples, seed=seed)
    different = len(pictures.unique())
    found = {}
    for name, value, *ends in zip(
        names, numbers(rows).tolist(), low.tolist(), high.tolist(), strict=True
    ):
        # drawn from nothing but hits, or nothing but misses, every set is the same
        known = value in (0, 1) and resamples > 0
        interval = wilson(round(value * different), different) if known else (ends[0], ends[1])
        found[name] = Metric(value, interval, len(task.rows))
    return found


def _partitions(contrasts: Sequence[Contrast]) -> list[_Partition]:
    """By subset; by SugarCrepe's three groups and by finer classes where there are such."""
    subsets = [contrast.subset for contrast in contrasts]
    found = [_partition("subsets", subsets)]
    if set(subsets) <= set(SUGARCREPE):
        found.append(_partition("groups", [subset.split("_")[0] for subset in subsets]))
    if any(contrast.kind for contrast in contrasts):
        kinds = [f"{contrast.subset}/{contrast.kind}" for contrast in contrasts]
        found.append(_partition("classes", kinds))
    return found


def _partition(name: str, labels: Sequence[str]) -> _Partition:
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    classes = torch.tensor([numbers[label] for label in labels])
    return _Partition(name, classes, len(numbers))


def _add_groups(
    groups: dict[str, dict[str, Metric]], task: _Judged, contrasts: Sequence[Contrast]
) -> None:
    """The share of each subset and class; a quadruple counts as right where its group score is."""
    own = [contrasts[row] for row in task.rows]
    for column, name in enumerate(task.names):
        prefix, _, question = name.rpartition("/")
        if question in ("text", "image"):
            continue
        kind = f"subset {prefix}".strip()
        shares = _shares([contrast.subset for contrast in own], task.right[:, column])
        groups.setdefault(kind, {}).update(shares)
    if any(contrast.kind for contrast in own):
        labels = [f"{contrast.subset}/{contrast.kind}" for contrast in own]
        groups.setdefault("class", {}).update(_shares(labels, task.right[:, 0]))


def _shares(labels: Sequence[str], right: Bool[Tensor, " N"]) -> dict[str, Metric]:
    rows: dict[str, list[bool]] = {}
    for label, hit in zip(labels, right.tolist(), strict=True):
        rows.setdefault(label, []).append(hit)
    return {
        label: Metric(sum(hits) / len(hits), wilson(sum(hits), len(hits)), len(hits))
        for label, hits in rows.items()
    }


def _picture_digest(image: Any) -> str:
    """Of pixels or bytes alone: what a picture is called must not decide its fold."""
    if isinstance(image, PictureRegion):  # nothing need be decoded to tell it from others
        return data_sha256([Record(str(image.box), image.file)])
    return data_sha256([Record("", image)])


def _data_digest(
    contrasts: Sequence[Contrast], scored: CaptionScores, pictures: Sequence[str]
) -> str:
    """Hash of what is said about which pictures; the order of the contrasts does not matter."""
    said = sorted(
        json.dumps([own.id, own.subset, own.kind, own.captions, [pictures[i] for i in shown]])
        for own, shown in zip(contrasts, scored.shown, strict=True)
    )
    return hashlib.sha256("\n".join(said).encode()).hexdigest()
