"""Whether two models differ on the same data: a paired test of their samples."""

from __future__ import annotations

import torch

from sightline.core.errors import DataError
from sightline.evaluation.results import Result, Sample
from sightline.metrics.intervals import PairedTest, paired_test


def compare(first: Result, second: Result, seed: int = 0) -> dict[str, PairedTest]:
    """First minus second for each kind of sample, such as both directions of retrieval.

    The score of a sample is 1 where the first answer is right. Captions of one picture stand
    together. Samples are matched by kind, id and prompt.

    Raises:
        DataError: the results have different signatures or different samples.
    """
    if first.signature != second.signature:
        raise DataError(
            f"the results are not comparable: {first.signature} against {second.signature}; "
            "evaluate both models with the same data and settings"
        )
    ours, theirs = _by_kind(first), _by_kind(second)
    found = {}
    for kind, own in ours.items():
        other = theirs.get(kind, {})
        if own.keys() != other.keys():
            raise DataError(f"the results hold different samples of {kind}: evaluate both again")
        keys = sorted(own)
        numbers = {group: i for i, group in enumerate(sorted({own[k].group for k in keys}))}
        found[kind] = paired_test(
            torch.tensor([own[k].score for k in keys]),
            torch.tensor([other[k].score for k in keys]),
            torch.tensor([numbers[own[k].group] for k in keys]),
            seed=seed,
        )
    return found


def _by_kind(result: Result) -> dict[str, dict[tuple[str, str], Sample]]:
    kinds: dict[str, dict[tuple[str, str], Sample]] = {}
    for sample in result.samples:
        kinds.setdefault(sample.kind, {})[sample.id, sample.prompt or ""] = sample
    return kinds
