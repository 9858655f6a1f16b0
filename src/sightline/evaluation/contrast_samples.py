"""Scores of captions to right and wrong, and to the lines of a result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.data.contrasts import Contrast
from sightline.evaluation.caption_scores import CaptionScores
from sightline.evaluation.results import Sample
from sightline.metrics.compositionality import choices, quadruples

QUESTIONS = ("text", "image", "group")
"""Of a quadruple."""


def choose(matrices: Sequence[Float[Tensor, "C 1"]]) -> Bool[Tensor, " N"]:
    """Whether the first caption of each scores above all others, however many there are."""
    longest = max(len(matrix) for matrix in matrices)
    padded = matrices[0].new_zeros(len(matrices), longest)
    present = torch.zeros(len(matrices), longest, dtype=torch.bool)
    for row, matrix in enumerate(matrices):
        padded[row, : len(matrix)] = matrix[:, 0]
        present[row, : len(matrix)] = True
    return choices(padded[:, 0], padded[:, 1:], present[:, 1:])


def contrast_samples(contrasts: Sequence[Contrast], scored: CaptionScores) -> tuple[Sample, ...]:
    """A line a choice, and three a quadruple: which caption, which picture, both."""
    samples: list[Sample] = []
    for place, contrast in enumerate(contrasts):
        matrix = scored.scores[place]
        read = bool(scored.read[place])
        status = "missing" if not read else "ok" if torch.isfinite(matrix).all() else "invalid"
        group = scored.pictures[scored.shown[place][0]].id
        if len(contrast.images) == 1:
            right = {contrast.subset: bool(choose([matrix])[0])}
        else:
            answers = quadruples(matrix[None])
            right = {name: bool(getattr(answers, name)[0]) for name in QUESTIONS}
        for kind, hit in right.items():
            samples.append(Sample(
                id=contrast.id, kind=kind, target=_target(contrast),
                ranking=_ranking(contrast, matrix) if read else (),
                rank=1.0 if hit else _rank(matrix), score=float(hit), group=group, status=status,
            ))  # fmt: skip
    return tuple(samples)


def _target(contrast: Contrast) -> tuple[str, ...]:
    return contrast.captions[: len(contrast.images)]


def _ranking(contrast: Contrast, matrix: Float[Tensor, "C I"]) -> tuple[tuple[str, float], ...]:
    """Captions with their scores, best first, the true one last among equals."""
    several = len(contrast.images) > 1
    entries = [
        (f"{caption} (picture {picture})" if several else caption, value)
        for caption, row in zip(contrast.captions, matrix.tolist(), strict=True)
        for picture, value in enumerate(row)
    ]
    return tuple(sorted(reversed(entries), key=lambda entry: _sortable(entry[1])))


def _sortable(value: float) -> float:
    return -value if math.isfinite(value) else -math.inf


def _rank(matrix: Float[Tensor, "C I"]) -> float:
    """Of the true caption of a choice; a quadruple that is wrong has none."""
    if matrix.shape[1] > 1 or not torch.isfinite(matrix[0]).all():
        return math.inf
    column = matrix[:, 0]
    above = (column[1:] >= column[0]) | ~torch.isfinite(column[1:])
    return 1.0 + float(above.sum())
