"""Finding the text for a picture and the picture for a text, among all of a data set.

Image to text: a hit if any caption of the picture is among the first k. Text to image: a hit if
the picture is. Both are hit@k as published recall@k of COCO and Flickr30k counts it (Karpathy &
Fei-Fei 2015), over all captions given.

Captions that are equal, after white space is collapsed, are one text that belongs to every
picture that has it: otherwise a generic caption would be wrong for a picture it fits. With
`merge_captions=False` each caption stands alone, as in published tables; equal ones then tie, and
ties count against the model. Equal pictures are not merged.

Finding pictures among many is not `visual_search`, which looks inside one large picture.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError, DataError
from sightline.evaluation import results
from sightline.evaluation.interfaces import DatasetLike, EmbeddingModel, RecordLike
from sightline.evaluation.records import (
    Progress,
    data_sha256,
    embed_captions,
    embed_pictures,
    select,
)
from sightline.evaluation.results import Metric, Result, Sample
from sightline.metrics.intervals import RESAMPLES, bootstrap_counts, mean_of, median_of
from sightline.metrics.retrieval import Ranking, rank_embeddings

VERSION = 1
"""Raised when the same model and data would score differently than before."""
DIRECTIONS = ("image_to_text", "text_to_image")
HEADLINE = "hit@1"


class _Texts(NamedTuple):
    """The texts of a data set and to which pictures they belong."""

    texts: list[str]
    ids: list[str]
    """"<picture id>#<number of the caption>", of the first picture that has the text."""
    owner: Int[Tensor, " M"]
    """The first picture that has the text."""
    pairs: Int[Tensor, "E 2"]
    """(picture, text) for each caption."""


def retrieval(
    model: EmbeddingModel,
    dataset: DatasetLike,
    ks: Sequence[int] = (1, 5, 10),
    merge_captions: bool = True,
    limit: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """hit@k, median rank, MRR and mAP@R in both directions.

    The headline is the mean of hit@1 of the two directions. Intervals draw whole pictures with
    all their captions. A picture that cannot be read is a miss as a query, its captions are
    misses too, and it is not among the candidates.

    Args:
        model: what `sightline.load` returns.
        dataset: records with captions; those without are counted as excluded.
        ks: for hit@k; those that every answer would satisfy are left out.
        merge_captions: equal captions are one text (see the head of this file).
        limit: evaluate only a seeded sample of so many pictures, which makes the task easier; the
            result is marked partial.
        batch_size: pictures embedded at a time.
        progress: called with pictures done and their total.
        seed: of the sample and of the intervals.
        resamples: draws of the intervals that are found by drawing; 0 leaves those out, which is
            quicker where only the value counts.

    Raises:
        DataError: no record has a caption.
        ConfigError: a k below 1.
    """
    started = time.monotonic()
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks is {list(ks)}: give numbers from 1, such as 1, 5, 10")
    records, excluded, partial = select(dataset, limit, seed, lambda r: bool(_captions(r)))
    if not records and len(dataset):
        raise DataError(
            f"no record of {dataset.name!r} has a caption: retrieval needs pictures with captions "
            "(a text file beside each, or a column named caption)"
        )
    texts = _collect(records, merge_captions)
    pictures = embed_pictures(model, records, batch_size, progress)
    embedded = embed_captions(model, texts.texts)
    found = _rank(pictures.embeddings, embedded, texts.pairs, pictures.read)
    metrics = _metrics(found, texts, ks, seed, resamples)
    digest = data_sha256(records)
    variant = "captions merged" if merge_captions else "captions apart"
    return results.build(
        model, "retrieval", VERSION, HEADLINE, digest,
        {"captions": variant.split()[1], "ties": "worst", "images": len(records),
         "texts": len(texts.texts)},
        started,
        variant=variant,
        metrics=metrics,
        n=len(records),
        data=dataset.name,
        n_invalid=_count_invalid(found, pictures.read),
        n_missing=len(pictures.missing),
        n_excluded=excluded,
        missing=pictures.missing,
        settings={"ks": list(ks), "limit": limit, "batch_size": batch_size,
                  "texts": len(texts.texts), "captions": len(texts.pairs)},
        seed=seed,
        partial=partial,
        samples=_samples(records, texts, found, pictures.read),
    )  # fmt: skip


def _captions(record: RecordLike) -> list[tuple[int, str]]:
    """Number and text of each caption, white space collapsed; empty ones fall away."""
    collapsed = ((n, " ".join(caption.split())) for n, caption in enumerate(record.captions))
    return [(n, text) for n, text in collapsed if text]


def _collect(records: Sequence[RecordLike], merge: bool) -> _Texts:
    texts: list[str] = []
    ids: list[str] = []
    owner: list[int] = []
    pairs: list[tuple[int, int]] = []
    places: dict[str, int] = {}
    for picture, record in enumerate(records):
        for number, text in _captions(record):
            if not merge or text not in places:
                places[text] = len(texts)
                texts.append(text)
                ids.append(f"{record.id}#{number}")
                owner.append(picture)
            pairs.append((picture, places[text]))
    pair_tensor = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return _Texts(texts, ids, torch.tensor(owner, dtype=torch.long), pair_tensor)


def _rank(
    images: Float[Tensor, "N D"],
    texts: Float[Tensor, "M D"],
    pairs: Int[Tensor, "E 2"],
    read: Bool[Tensor, " N"],
) -> dict[str, Ranking]:
    """Both directions; a picture that was not read is no candidate and finds nothing."""
    if not read.any():
        images = images.new_full((len(images), texts.shape[1]), torch.nan)
    place = read.cumsum(dim=0) - 1  # [N]: number of the picture among those read
    kept = pairs[read[pairs[:, 0]]]
    backward = torch.stack([kept[:, 1], place[kept[:, 0]]], dim=1)  # [E 2]: (text, picture)
    to_image = rank_embeddings(texts, images[read], backward)
    numbers = read.nonzero()[:, 0]
    return {
        "image_to_text": rank_embeddings(images, texts, pairs),
        "text_to_image": to_image._replace(top=numbers[to_image.top]),
    }


def _metrics(
    found: Mapping[str, Ranking], texts: _Texts, ks: Sequence[int], seed: int, resamples: int
) -> dict[str, Metric]:
    """All numbers from one bootstrap, so that both directions share each draw."""
    to_text, to_image = (found[direction] for direction in DIRECTIONS)
    candidates = {"image_to_text": len(to_image.ranks), "text_to_image": len(to_text.ranks)}
    names = [HEADLINE]
    kept = {d: [k for k in ks if k < candidates[d] or k == 1] for d in DIRECTIONS}
    for direction in DIRECTIONS:
        names += [f"{direction}/hit@{k}" for k in kept[direction]]
        names += [f"{direction}/{name}" for name in ("median_rank", "mrr", "map@r")]
    # A picture is drawn with its captions: the queries of both directions in one row.
    split = len(to_text.ranks)
    groups = torch.cat([torch.arange(split), texts.owner])
    parts = {"image_to_text": slice(split), "text_to_image": slice(split, None)}

    def all_numbers(drawn: Tensor) -> Tensor:
        values: list[Tensor] = []
        first_hits: list[Tensor] = []
        for direction in DIRECTIONS:
            times, ranks = drawn[:, parts[direction]], found[direction].ranks
            hits = [(ranks <= k).double() for k in (1, *kept[direction])]
            columns = [*hits, ranks.double().reciprocal(), found[direction].precision_at_r.double()]
            first, *means = mean_of(torch.stack(columns, dim=1))(times).unbind(dim=1)
            first_hits.append(first)
            values += [*means[:-2], median_of(ranks)(times), *means[-2:]]
        return torch.stack([(first_hits[0] + first_hits[1]) / 2, *values], dim=1)  # [R metrics]

    low, high = bootstrap_counts(all_numbers, len(groups), groups, resamples, seed=seed)
    whole = all_numbers(torch.ones(1, len(groups), dtype=torch.float64))[0]
    counts = {"image_to_text": len(to_text.ranks), "text_to_image": len(to_image.ranks)}
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return {
        name: Metric(value, interval, counts.get(name.split("/")[0], len(to_text.ranks)))
        for name, value, interval in zip(names, whole.tolist(), ends, strict=True)
    }


def _count_invalid(found: Mapping[str, Ranking], read: Bool[Tensor, " N"]) -> int:
    """Queries with a score that is not finite, those of missing pictures apart."""
    to_text = int((found["image_to_text"].invalid & read).sum())
    return to_text + int(found["text_to_image"].invalid.sum())


def _samples(
    records: Sequence[RecordLike],
    texts: _Texts,
    found: Mapping[str, Ranking],
    read: Bool[Tensor, " N"],
) -> tuple[Sample, ...]:
    right_texts: list[list[str]] = [[] for _ in records]
    right_images: list[list[str]] = [[] for _ in texts.texts]
    for picture, text in texts.pairs.unique(dim=0).tolist():
        right_texts[picture].append(texts.ids[text])
        right_images[text].append(records[picture].id)
    image_ids = [record.id for record in records]
    samples = [
        _sample(i, "image_to_text", image_ids[i], right_texts[i], texts.ids, found, bool(read[i]))
        for i in range(len(records))
    ]
    for j, text in enumerate(texts.texts):
        sample = _sample(
            j, "text_to_image", texts.ids[j], right_images[j], image_ids, found, True, text,
            image_ids[int(texts.owner[j])],
        )  # fmt: skip
        samples.append(sample)
    return tuple(samples)


def _sample(
    row: int,
    direction: str,
    own_id: str,
    target: Sequence[str],
    candidate_ids: Sequence[str],
    found: Mapping[str, Ranking],
    read: bool,
    prompt: str | None = None,
    group: str | None = None,
) -> Sample:
    ranking = found[direction]
    best = zip(ranking.top[row].tolist(), ranking.top_scores[row].tolist(), strict=True)
    return Sample(
        id=own_id,
        kind=direction,
        target=tuple(target),
        ranking=tuple((candidate_ids[i], score) for i, score in best) if read else (),
        rank=ranking.ranks[row].item(),
        score=float(ranking.ranks[row] == 1),
        prompt=prompt,
        group=own_id if group is None else group,
        status="missing" if not read else "invalid" if ranking.invalid[row] else "ok",
    )
