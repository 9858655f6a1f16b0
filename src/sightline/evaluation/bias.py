"""Whether a model treats groups of pictures differently, and whether that could be chance.

Three questions, any of which may be asked: does a search for a prompt show one group more often
(skew, NDKL), do words stand nearer to one group (WEAT), is one group labelled worse or otherwise
(gaps)? Groups come from an annotation file (`data.annotations`), never from pixels.

The verdict counts a bias as shown only where a hypothesis is rejected at 5 % after Holm's
correction over all that were tested in the run. "Not shown" is not "absent": with few pictures
little can be shown.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sightline.core.errors import ConfigError, DataError
from sightline.data.annotations import WordLists
from sightline.evaluation import results
from sightline.evaluation.bias_findings import (
    Finding,
    Grouped,
    association_findings,
    label_findings,
    ranking_findings,
)
from sightline.evaluation.bias_verdict import LEVEL, finding_sample, finding_tables, verdict
from sightline.evaluation.interfaces import DatasetLike, EmbeddingModel, RecordLike
from sightline.evaluation.label_prompts import class_embeddings, own_templates
from sightline.evaluation.records import (
    Progress,
    data_sha256,
    drawn_part,
    embed_captions,
    embed_pictures,
)
from sightline.evaluation.results import Metric, Result
from sightline.metrics.bias import Target, holm
from sightline.metrics.classification import UNDECIDED
from sightline.metrics.group_gaps import SMALL
from sightline.metrics.intervals import RESAMPLES

VERSION = 1
"""Raised when the same model and data would score differently than before."""


@dataclass(frozen=True)
class Questions:
    """What is asked; at least one of prompts, labels and words."""

    prompts: Sequence[str] = ()
    """Searches, taken as they are; `k` is needed with them."""
    k: int | None = None
    """How many of the first hits are looked at."""
    target: Target = "population"
    """What shares are compared with: those of the data, or "equal" ones."""
    labels: Sequence[str] | None = None
    """Names to choose among. The accuracy of groups is compared where the data has these labels,
    else how often each is chosen."""
    words: WordLists | None = None
    """Of an association test."""
    templates: Sequence[str] | None = None
    """Sentences that `labels` are put into; by default the model's own."""

    def check(self) -> None:
        """Raises `ConfigError` where nothing is asked, or something is left open."""
        if not self.prompts and self.labels is None and self.words is None:
            raise ConfigError("nothing to test: give prompts, labels or word lists")
        if self.prompts and self.k is None:
            raise ConfigError(
                "k is missing: say how many of the first hits of a prompt are looked at"
            )
        if len(set(self.prompts)) != len(self.prompts):
            raise ConfigError("a prompt is given twice: every prompt is a test of its own")
        if self.labels is not None and len(set(self.labels)) < 2:
            raise ConfigError(f"labels are {list(self.labels)}: give at least two to choose from")

    def signature(self) -> dict[str, object]:
        """What decides whether two answers can be compared."""
        parts: dict[str, object] = {"target": self.target}
        if self.prompts:
            hashed = results.short_hash(sorted(self.prompts))
            parts |= {"k": self.k, "prompts": f"{len(self.prompts)}-{hashed}"}
        if self.labels is not None:
            parts["labels"] = f"{len(self.labels)}-{results.short_hash(sorted(self.labels))}"
            parts["templates"] = results.short_hash(self.templates or ("own",))
        if self.words is not None:
            lists = (*self.words.attributes, *(self.words.targets or ()))
            parts["words"] = results.short_hash([json.dumps(part) for part in lists])
        return parts


def bias(
    model: EmbeddingModel,
    dataset: DatasetLike,
    groups: Sequence[str | None],
    questions: Questions,
    limit: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """Skew of searches, associations of words and gaps of labels between groups.

    A picture that cannot be read belongs to no ranking and is counted as missing; one without a
    group counts as excluded.

    Args:
        model: a dual encoder, what `sightline.load` returns.
        dataset: pictures; their labels are the truth of the labels that are asked for.
        groups: the group of each record, None where nobody wrote one down.
        questions: what is asked.
        limit: evaluate only a seeded sample of so many pictures; the result is marked partial.
        batch_size: pictures embedded at a time.
        progress: called with pictures done and their total.
        seed: of the sample, of drawn p-values and of the intervals.
        resamples: draws of the intervals; 0 leaves them out.

    Raises:
        ConfigError: nothing to test, prompts without a k that fits, or fewer than two labels.
        DataError: groups of another number than the records, or fewer than two different ones.
    """
    started = time.monotonic()
    questions.check()
    chosen, named = _chosen(dataset, groups, questions, limit, seed)
    records = [record for record, _ in chosen]
    found = embed_pictures(model, records, batch_size, progress)
    read = [pair for pair, there in zip(chosen, found.read.tolist(), strict=True) if there]
    pictures = _grouped(found.embeddings[found.read], [group for _, group in read], dataset.name)
    asked = _Asked(model, pictures, [record for record, _ in read], seed, resamples)
    findings, metrics = _answers(asked, questions)
    adjusted = holm([finding.p_value for finding in findings])
    digest = _digest(records, [group for _, group in chosen])
    headline = next(iter(metrics))
    return results.build(
        model, "bias", VERSION, headline, digest,
        {**questions.signature(),
         "groups": f"{len(pictures.names)}-{results.short_hash(pictures.names)}",
         "ties": "data order", "correction": "holm", "n": len(records)},
        started,
        variant=f"target {questions.target}",
        metrics=metrics,
        n=len(records),
        data=dataset.name,
        n_invalid=int((~torch.isfinite(pictures.vectors).all(dim=1)).sum()),
        n_missing=len(found.missing),
        n_excluded=len(groups) - named,
        missing=found.missing,
        groups=finding_tables(findings, adjusted, pictures),
        prompt_templates=tuple(questions.prompts),
        settings={"limit": limit, "batch_size": batch_size, "k": questions.k,
                  "target": questions.target, "labels": list(questions.labels or ()),
                  "level": LEVEL, "small_groups": _small(pictures),
                  "tied": {f.name: f.tied for f in findings if f.tied}},
        seed=seed,
        verdict=verdict(findings, adjusted),
        partial=len(chosen) < named,
        samples=tuple(finding_sample(finding) for finding in findings),
    )  # fmt: skip


def _chosen(
    dataset: DatasetLike,
    groups: Sequence[str | None],
    questions: Questions,
    limit: int | None,
    seed: int,
) -> tuple[list[tuple[RecordLike, str]], int]:
    """Records with their groups, and how many have one; refused before any picture is read."""
    if len(groups) != len(dataset):
        raise DataError(f"{len(groups)} groups for {len(dataset)} records: give one each, or None")
    named = [(dataset[i], group) for i, group in enumerate(groups) if group is not None]
    chosen = drawn_part(named, limit, seed)
    _group_names([group for _, group in chosen], dataset.name)
    if questions.prompts and questions.k is not None:
        _check_k(questions.k, len(chosen))
    return chosen, len(named)


class _Asked(NamedTuple):
    """Who is asked, about what."""

    model: EmbeddingModel
    pictures: Grouped
    records: list[RecordLike]
    """Those that could be read."""
    seed: int
    resamples: int


def _answers(asked: _Asked, questions: Questions) -> tuple[list[Finding], dict[str, Metric]]:
    """Findings of all questions in order, and the numbers that sum them up."""
    model, pictures, records, seed, resamples = asked
    findings: list[Finding] = []
    metrics: dict[str, Metric] = {}
    if questions.prompts and questions.k is not None:
        _check_k(questions.k, len(records))
        told, mean = ranking_findings(
            pictures, questions.prompts, embed_captions(model, questions.prompts), questions.k,
            questions.target, seed, resamples,
        )  # fmt: skip
        findings += told
        metrics |= {"max_skew": mean, **_means(told)}
    if questions.words is not None:
        told = association_findings(
            pictures, questions.words, _vectors(model, questions.words), seed
        )
        findings += told
        metrics["association"] = _farthest(told)
    if questions.labels is not None:
        templates = own_templates(model, questions.templates)
        classes = class_embeddings(model, questions.labels, templates)
        truth = _truth(records, questions.labels)
        told, numbers = label_findings(pictures, questions.labels, classes, truth, seed, resamples)
        findings += told
        metrics |= {"label_gap": _farthest(told), **numbers}
    return findings, metrics


def _check_k(k: int, readable: int) -> None:
    if not 1 <= k <= readable:
        raise ConfigError(
            f"k is {k}: it must be 1 to {readable}, the number of pictures with a group"
        )


def _group_names(own: Sequence[str], name: str) -> tuple[str, ...]:
    names = tuple(sorted(set(own)))
    if len(names) < 2:
        raise DataError(
            f"{name!r} has pictures of {len(names)} group(s) {list(names)}: at least two are "
            "needed to compare"
        )
    return names


def _grouped(vectors: torch.Tensor, own: Sequence[str], name: str) -> Grouped:
    names = _group_names(own, name)
    places = {group: place for place, group in enumerate(names)}
    return Grouped(vectors, torch.tensor([places[group] for group in own]), names)


def _means(findings: Sequence[Finding]) -> dict[str, Metric]:
    """Mean MinSkew and NDKL over the prompts."""
    return {
        name: Metric(sum(f.more[name].value for f in findings) / len(findings), None, len(findings))
        for name in ("min_skew", "ndkl")
    }


def _vectors(model: EmbeddingModel, words: WordLists) -> dict[str, torch.Tensor]:
    lists = (*words.attributes, *(words.targets or ()))
    texts = list(dict.fromkeys(text for listed in lists for text in listed))
    return dict(zip(texts, embed_captions(model, texts), strict=True))


def _farthest(findings: Sequence[Finding]) -> Metric:
    """The value that is farthest from 0."""
    sized = [f.value for f in findings if not math.isnan(f.value.value)]
    return max(sized, key=lambda metric: abs(metric.value), default=findings[0].value)


def _truth(records: Sequence[RecordLike], labels: Sequence[str]) -> torch.Tensor:
    places = {label: place for place, label in enumerate(labels)}
    return torch.tensor([places.get(record.label or "", UNDECIDED) for record in records])


def _small(pictures: Grouped) -> dict[str, int]:
    """Groups whose numbers mean little."""
    sized = zip(pictures.names, pictures.sizes, strict=True)
    return {name: size for name, size in sized if size < SMALL}


def _digest(records: Sequence[RecordLike], groups: Sequence[str]) -> str:
    """Hash of the pictures and of what was written down about them."""
    written = sorted(json.dumps([r.id, g]) for r, g in zip(records, groups, strict=True))
    return hashlib.sha256("\n".join([data_sha256(records), *written]).encode()).hexdigest()
