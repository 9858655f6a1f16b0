"""What a data set is worth: its pictures, its captions, its balance, its copies, its licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.data.curation.captions_alike import normalised
from sightline.data.curation.duplicates import Duplicates
from sightline.data.curation.fingerprints import FLAT_CONTRAST, Fingerprints
from sightline.data.inspect import quantiles
from sightline.data.records import Dataset, DatasetReport, Record

DOCUMENT_FORMAT = "sightline.quality"
DOCUMENT_VERSION = 1
LICENCE_NAMES = (
    "license", "licence", "licenses", "licences", "licensename", "licencename", "licenseurl",
    "licenceurl", "rights",
)  # fmt: skip
UNKNOWN = "unknown"
WIDE_ASPECT = 3.0
BLURRED = 20.0
"""Variance of the Laplacian. Drawn parks lie above 200, their copies under a Gaussian of radius 3
near 3. Photographs depend on their motif, so the least sharp are listed in any case."""
_LISTED = 12
_NEIGHBOURS_OF = 2000


@dataclass(frozen=True)
class CaptionDiversity:
    """How differently the pictures are described."""

    captions: int
    different: int
    """After normalisation: lower case, letters and digits only."""
    words: int
    vocabulary: int
    """Different words."""
    once: int
    """Words that occur once."""
    length: Mapping[str, float]
    """Quantiles of the words a caption."""
    commonest_words: tuple[tuple[str, int], ...]
    commonest_captions: tuple[tuple[str, int], ...]
    """Those that occur more than once."""


@dataclass(frozen=True)
class Balance:
    """How evenly records are spread over labels."""

    counts: Mapping[str, int]
    """Most frequent first."""
    unlabelled: int
    evenness: float
    """Entropy of the labels over its largest value (Pielou 1966): 1 where all are equal."""


@dataclass(frozen=True)
class Spread:
    """How far the embeddings of the pictures lie apart."""

    pictures: int
    mean_cosine: float
    """Of two different pictures."""
    nearest_cosine: Mapping[str, float]
    """Quantiles of the cosine between a picture and its nearest neighbour."""
    effective_dimensions: float
    """exp of the entropy of the covariance's spectrum (Roy and Vetterli 2007): 1 to D."""


class Measured(NamedTuple):
    """A picture and what makes it stand out."""

    id: str
    value: float


@dataclass(frozen=True)
class Quality:
    """What `examine` found."""

    name: str
    report: DatasetReport
    captions: CaptionDiversity | None
    """None where there is no caption."""
    labels: Balance | None
    """None where there is no label."""
    spread: Spread | None
    """None where no embeddings were given."""
    widths: Mapping[str, float]
    heights: Mapping[str, float]
    aspects: Mapping[str, float]
    """Longer side over shorter."""
    sharpness: Mapping[str, float]
    wide: int
    """Pictures with an aspect ratio above 3."""
    blurred: int
    least_sharp: tuple[Measured, ...]
    """The least sharp of the pictures that show something, whether or not they count as blurred."""
    flat: tuple[Measured, ...]
    """Pictures of one colour, as good as, with the deviation of their grey levels."""
    licences: Mapping[str, int]
    """Licence to records, most frequent first; "unknown" where a record names none."""
    licence_column: str | None
    duplicates: Duplicates

    def to_json(self) -> dict[str, Any]:
        """The same as one JSON document with `format` and `version`."""
        document = asdict(self)
        document["report"] = self.report.to_json()
        document["duplicates"] = self.duplicates.to_json()
        for name in ("least_sharp", "flat"):
            document[name] = [item._asdict() for item in getattr(self, name)]
        return {"format": DOCUMENT_FORMAT, "version": DOCUMENT_VERSION, **document}


def examine(
    dataset: Dataset,
    prints: Fingerprints,
    duplicates: Duplicates,
    vectors: NDArray[np.float32] | None = None,
) -> Quality:
    """Everything that `Quality` holds; no picture is opened again.

    Args:
        dataset: the records.
        prints: their fingerprints.
        duplicates: what was found among them.
        vectors: float32[N, D] of unit length, rows of NaN where a record has none.
    """
    read = np.flatnonzero(prints.read)
    sizes = prints.sizes[read].astype(np.float64)
    aspects = sizes.max(axis=1) / np.maximum(sizes.min(axis=1), 1)
    flat = read[prints.contrast[read] < FLAT_CONTRAST]
    shown = read[prints.contrast[read] >= FLAT_CONTRAST]
    column, licences = licence_counts(dataset.records)
    return Quality(
        name=dataset.name,
        report=dataset.report,
        captions=caption_diversity(dataset.records),
        labels=label_balance(dataset.records),
        spread=embedding_spread(vectors) if vectors is not None else None,
        widths=quantiles(sizes[:, 0]),
        heights=quantiles(sizes[:, 1]),
        aspects=quantiles(aspects),
        sharpness=quantiles(prints.sharpness[shown]),
        wide=int((aspects > WIDE_ASPECT).sum()),
        blurred=int((prints.sharpness[shown] < BLURRED).sum()),
        least_sharp=_lowest(prints.ids, prints.sharpness, shown, _LISTED),
        flat=_lowest(prints.ids, prints.contrast, flat, len(flat)),
        licences=licences,
        licence_column=column,
        duplicates=duplicates,
    )


def caption_diversity(records: Sequence[Record]) -> CaptionDiversity | None:
    """Counts over all captions; None where there is none."""
    captions = [caption for record in records for caption in record.captions]
    if not captions:
        return None
    texts = Counter(normalised(caption) for caption in captions)
    words: Counter[str] = Counter()
    for text, times in texts.items():
        for word in text.split():
            words[word] += times
    return CaptionDiversity(
        captions=len(captions),
        different=len(texts),
        words=words.total(),
        vocabulary=len(words),
        once=sum(times == 1 for times in words.values()),
        length=quantiles(len(caption.split()) for caption in captions),
        commonest_words=tuple(words.most_common(_LISTED)),
        commonest_captions=tuple(item for item in texts.most_common(_LISTED) if item[1] > 1),
    )


def label_balance(records: Sequence[Record]) -> Balance | None:
    """Counts over the labels; None where there is none."""
    counts = Counter(record.label for record in records if record.label is not None)
    if not counts:
        return None
    shares = np.array(list(counts.values())) / counts.total()
    entropy = float(-(shares * np.log(shares)).sum())
    return Balance(
        counts=dict(counts.most_common()),
        unlabelled=len(records) - counts.total(),
        evenness=entropy / float(np.log(len(counts))) if len(counts) > 1 else 1.0,
    )


def embedding_spread(vectors: NDArray[np.float32]) -> Spread | None:
    """How far unit vectors float32[N, D] lie apart; None for fewer than two.

    Neighbours are sought for 2,000 pictures spread over the set, among all.
    """
    unit = vectors[np.isfinite(vectors).all(axis=1)]
    count = len(unit)
    if count < 2:
        return None
    total = unit.astype(np.float64).sum(axis=0)
    asked = np.unique(np.linspace(0, count - 1, min(count, _NEIGHBOURS_OF)).astype(np.int64))
    nearest = [float(_best_other(unit, int(number))) for number in asked]
    centred = unit.astype(np.float64) - total / count
    spectrum = np.linalg.eigvalsh(centred.T @ centred / count).clip(min=0)
    shares = spectrum[spectrum > 1e-12] / max(spectrum.sum(), 1e-12)
    return Spread(
        pictures=count,
        mean_cosine=float((total @ total - count) / (count * (count - 1))),
        nearest_cosine=quantiles(nearest),
        effective_dimensions=float(np.exp(-(shares * np.log(shares)).sum())),
    )


def licence_counts(records: Sequence[Record]) -> tuple[str | None, dict[str, int]]:
    """The column that names licences and how many records have each; no column: all unknown."""
    names = dict.fromkeys(name for record in records for name in record.extra)
    plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in reversed(names)}
    column = next((plain[name] for name in LICENCE_NAMES if name in plain), None)
    counts = Counter(_licence(record.extra.get(column) if column else None) for record in records)
    return column, dict(counts.most_common())


def _licence(value: Any) -> str:
    if isinstance(value, list | tuple):  # of lines about one picture that differ
        return " and ".join(sorted({_licence(item) for item in value})) or UNKNOWN
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("url")
    return str(value).strip() or UNKNOWN if isinstance(value, str | int) else UNKNOWN


def _best_other(unit: NDArray[np.float32], number: int) -> float:
    products = unit @ unit[number]
    products[number] = -np.inf
    return float(products.max())


def _lowest(
    ids: Sequence[str], values: NDArray[np.float32], among: NDArray[np.int64], count: int
) -> tuple[Measured, ...]:
    order = among[np.argsort(values[among], kind="stable")][:count]
    return tuple(Measured(ids[number], float(values[number])) for number in order)
