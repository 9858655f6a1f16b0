"""Rules that a record must pass to stay, with the definitions of DataComp.

`datacomp_basic` and `image_based_captions` are the basic filter and the caption filter of the
image-based filter of Gadre et al., "DataComp: In search of the next generation of multimodal
datasets" (arXiv 2304.14108), except for the language identifier, which is an argument. The two
count words differently, as the published baselines do.

Rules apply in order, and each removed record is counted under the rule that removed it. A rule
about captions removes captions; a record falls when none of its captions is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, DataError, SightlineError
from sightline.data.curation.clusters import kmeans, nearest_centroid
from sightline.data.curation.language import language_of
from sightline.data.records import Dataset, Record
from sightline.inputs.picture_size import Size, picture_size

DOCUMENT_FORMAT = "sightline.filtered"
DOCUMENT_VERSION = 1
UNREADABLE = "unreadable picture"
"""What records fall to whose size is asked for and cannot be read."""

LanguageOf = Callable[[str], str]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CaptionRule:
    """What a caption must be."""

    name: str
    keeps: Callable[[str], bool]


@dataclass(frozen=True)
class SizeRule:
    """What the size of a picture must be."""

    name: str
    keeps: Callable[[Size], bool]


@dataclass(frozen=True)
class ChoiceRule:
    """Which records stay, decided beforehand."""

    name: str
    keeps: NDArray[np.bool_]
    """bool[N], by the record's number in the data set."""


Rule = CaptionRule | SizeRule | ChoiceRule


@dataclass(frozen=True)
class Filtered:
    """What `filter_records` left, and why the rest fell."""

    name: str
    records: tuple[Record, ...]
    """With the captions that passed."""
    numbers: tuple[int, ...]
    """Their numbers in the data set."""
    total: int
    fell: Mapping[str, int]
    """Rule to the number of records that it removed; sums up to those that are gone."""
    captions_removed: Mapping[str, int]
    broken: Mapping[str, str]
    """Ids of records whose size was asked for and could not be read, to the reason."""

    @property
    def dataset(self) -> Dataset:
        """The records that stay, as a data set."""
        return Dataset(self.records, self.name, "memory", "filtered")

    def to_json(self) -> dict[str, Any]:
        """Counts as one JSON document with `format` and `version`."""
        return {
            "format": DOCUMENT_FORMAT,
            "version": DOCUMENT_VERSION,
            "records": self.total,
            "kept": len(self.records),
            "fell": dict(self.fell),
            "captions_removed": dict(self.captions_removed),
            "broken": dict(self.broken),
        }


def filter_records(
    dataset: Dataset,
    rules: Sequence[Rule],
    size_of: Callable[[Record], Size] = lambda record: picture_size(record.image),
    progress: Progress | None = None,
) -> Filtered:
    """The records that pass every rule.

    Args:
        dataset: what to filter.
        rules: applied in order; sizes are read only of records that come so far.
        size_of: where a size comes from; by default the header of the picture's file.
        progress: called with records done and records in all.

    Raises:
        ConfigError: two rules of one name, or choices for another number of records.
    """
    _check_rules(rules, len(dataset))
    tally = _Tally(
        {rule.name: 0 for rule in rules},
        {rule.name: 0 for rule in rules if isinstance(rule, CaptionRule)},
    )
    kept: dict[int, Record] = {}
    for number, record in enumerate(dataset):
        try:
            left = _after(rules, record, number, size_of, tally)
        except SightlineError as error:
            tally.broken[record.id] = str(error)
            dataset.note_broken(record.id, str(error))
            left = None
        if left is not None:
            kept[number] = left
        if progress is not None:
            progress(number + 1, len(dataset))
    lost = len(dataset) - len(kept) - sum(tally.fell.values())
    fell = {**tally.fell, UNREADABLE: lost} if lost else tally.fell
    return Filtered(
        dataset.name, tuple(kept.values()), tuple(kept), len(dataset), fell,
        tally.captions_removed, tally.broken,
    )  # fmt: skip


def min_words(count: int) -> CaptionRule:
    """At least so many words, split at white space."""
    return CaptionRule(f"at least {count} words", lambda text: len(text.split()) >= count)


def min_characters(count: int) -> CaptionRule:
    """At least so many characters (Unicode code points)."""
    return CaptionRule(f"at least {count} characters", lambda text: len(text) >= count)


def max_characters(count: int) -> CaptionRule:
    """At most so many characters (Unicode code points)."""
    return CaptionRule(f"at most {count} characters", lambda text: len(text) <= count)


def language(wanted: str = "en", detect: LanguageOf = language_of) -> CaptionRule:
    """Captions in one language.

    Args:
        wanted: what `detect` must say.
        detect: a caption, its line ends made blanks, to a language code; by default the guess of
            `sightline.data.curation.language`.
    """
    return CaptionRule(f"language {wanted}", lambda text: detect(text.replace("\n", " ")) == wanted)


def min_side(pixels: int) -> SizeRule:
    """The shorter side has at least so many pixels."""
    return SizeRule(f"shorter side at least {pixels}", lambda size: min(size) >= pixels)


def max_aspect(ratio: float) -> SizeRule:
    """The longer side is at most so many times the shorter one, inclusive."""
    return SizeRule(f"aspect ratio at most {ratio:g}", lambda size: max(size) / min(size) <= ratio)


def datacomp_basic(detect: LanguageOf = language_of) -> tuple[Rule, ...]:
    """English, more than 2 words, more than 5 characters, shorter side 200, aspect ratio 3.0."""
    return (language("en", detect), min_words(3), min_characters(6), min_side(200), max_aspect(3.0))


def image_based_captions(detect: LanguageOf = language_of) -> tuple[Rule, ...]:
    """English, more than 1 fastText token and more than 5 characters.

    Not `datacomp_basic`: fewer words, counted as fastText counts them, and no rule for sizes.
    """
    return (
        language("en", detect),
        CaptionRule("at least 2 fastText tokens", lambda text: fasttext_tokens(text) > 1),
        min_characters(6),
    )


def fasttext_tokens(text: str) -> int:
    """Tokens as fastText counts them: split at ASCII blanks and NUL, a line end is one of its own.

    Unlike `str.split`, which also splits at Unicode's blanks.
    """
    return len(re.findall(r"\n|[^ \n\r\t\v\f\0]+", text))


def score_at_least(
    scores: NDArray[np.floating], threshold: float, name: str = "score"
) -> ChoiceRule:
    """Records whose score is the threshold or more; NaN is not."""
    with np.errstate(invalid="ignore"):
        return ChoiceRule(f"{name} at least {threshold:g}", np.asarray(scores) >= threshold)


def score_fraction(
    scores: NDArray[np.floating], fraction: float, name: str = "score"
) -> ChoiceRule:
    """The best fraction f of the records, by the rule of DataComp for ties.

    Sorted from the best, the threshold is the value at index int(n * f), and everything from it
    upward stays: one more than int(n * f) records, and more with ties. NaN counts in n, stands
    last and never stays. f = 1 keeps every score.

    Raises:
        ConfigError: a fraction not above 0 and up to 1.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction {fraction:g}: give a number above 0 and up to 1")
    values = np.where(np.isnan(scores), -np.inf, scores)
    place = min(int(len(values) * fraction), len(values) - 1)
    threshold = np.sort(values)[::-1][place] if len(values) else 0.0
    keeps = (values >= threshold) & (values > -np.inf)
    return ChoiceRule(f"best {fraction:g} by {name}", keeps)


def near_targets(
    vectors: NDArray[np.float32],
    targets: NDArray[np.float32],
    clusters: int | None = None,
    seed: int = 0,
) -> ChoiceRule:
    """Image-based filtering: records in the clusters that the targets' pictures hit.

    k-means over the records' vectors; each record and each target belongs to the centroid with the
    largest product; records whose centroid no target has fall (DataComp, section 4.2).

    Args:
        vectors: float32[N, D], unit length; rows of NaN (no vector) fall.
        targets: float32[M, D], unit length, of the pictures that one would like to have more of.
        clusters: by default the root of N, at least 1; DataComp takes 100,000 for a billion.
        seed: of k-means.

    Raises:
        DataError: no target, or vectors of different lengths.
    """
    present = np.isfinite(vectors).all(axis=1)
    wanted = targets[np.isfinite(targets).all(axis=1)]
    if not len(wanted) or not present.any():
        raise DataError("image-based filtering needs vectors of the records and of some targets")
    if vectors.shape[1] != wanted.shape[1]:
        raise DataError(
            f"records have vectors of {vectors.shape[1]} numbers, targets of {wanted.shape[1]}: "
            "embed both with the same model"
        )
    count = clusters or max(1, round(float(present.sum()) ** 0.5))
    centroids = kmeans(vectors[present], count, seed)
    hit = np.unique(nearest_centroid(wanted, centroids)[0])
    keeps = np.zeros(len(vectors), bool)
    keeps[present] = np.isin(nearest_centroid(vectors[present], centroids)[0], hit)
    return ChoiceRule(f"in one of {len(hit)} target clusters of {count}", keeps)


@dataclass
class _Tally:
    fell: dict[str, int]
    captions_removed: dict[str, int]
    broken: dict[str, str] = field(default_factory=dict)


def _after(
    rules: Sequence[Rule],
    record: Record,
    number: int,
    size_of: Callable[[Record], Size],
    tally: _Tally,
) -> Record | None:
    """The record as the rules leave it; None where one of them removed it, which is counted."""
    size: Size | None = None
    for rule in rules:
        if isinstance(rule, CaptionRule):
            captions = tuple(text for text in record.captions if rule.keeps(text))
            tally.captions_removed[rule.name] += len(record.captions) - len(captions)
            passed = bool(captions)
            if passed and len(captions) < len(record.captions):
                record = replace(record, captions=captions)
        elif isinstance(rule, SizeRule):
            size = size or size_of(record)
            passed = rule.keeps(size)
        else:
            passed = bool(rule.keeps[number])
        if not passed:
            tally.fell[rule.name] += 1
            return None
    return record


def _check_rules(rules: Sequence[Rule], count: int) -> None:
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"rule {twice[0]!r} is there twice: give each once")
    for rule in rules:
        if isinstance(rule, ChoiceRule) and rule.keeps.shape != (count,):
            raise ConfigError(
                f"rule {rule.name!r} decides {rule.keeps.size} records, {count} arrived"
            )
