"""Classification by the nearest training samples: no parameter is learned.

Each of the k nearest votes for its class with exp(cosine / temperature) (Wu et al. 2018,
arXiv:1805.01978, section 3.4, with the 0.07 given there), k = 20 as in DINO (Caron et al. 2021,
arXiv:2104.14294). Letters: Q queries, N training samples, D features, C classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError, InputError
from sightline.metrics.retrieval import worst_case_top

K = 20
TEMPERATURE = 0.07


def neighbour_votes(
    queries: Float[Tensor, "Q D"],
    samples: Float[Tensor, "N D"],
    classes_of: Int[Tensor, " N"],
    targets: Int[Tensor, " Q"],
    classes: int,
    k: int = K,
    temperature: float | None = TEMPERATURE,
    chunk: int = 128,
) -> Float[Tensor, "Q C"]:
    """The share of the votes that each class gets from the k nearest training samples.

    Where several samples are equally near and not all are among the k, those of a wrong class
    vote: a model that maps everything to one point is never right by the order of the data.
    Products are summed in float64 and rounded to float32, so that equal features tie exactly.

    Args:
        queries: unit-length features; NaN rows get NaN.
        samples: the same of the training samples, finite.
        classes_of: the class of each training sample.
        targets: the true class of each query; decides ties, and nothing else.
        classes: C.
        k: neighbours that vote; all of them where there are fewer.
        temperature: small values let the nearest decide; None gives each one vote.
        chunk: queries at a time; memory grows with chunk x N.

    Raises:
        InputError: no training sample, one that is not finite, or widths or lengths that differ.
        ConfigError: k below 1, or a temperature that is not above 0.
    """
    _check(queries, samples, classes_of, k, temperature)
    matrix = samples.double().T
    parts = [torch.zeros(0, classes)]
    for first in range(0, len(queries), chunk):
        scores = (queries[first : first + chunk].double() @ matrix).float()  # [q N]
        right = classes_of == targets[first : first + chunk, None]
        near = worst_case_top(scores, right, k)  # [q k]
        votes = torch.ones(near.shape, dtype=torch.float64)
        if temperature is not None:
            closeness = scores.gather(1, near).double()
            votes = ((closeness - closeness[:, :1]) / temperature).exp()  # the nearest: 1
        shares = votes.new_zeros(len(near), classes).scatter_add_(1, classes_of[near], votes)
        shares /= votes.sum(dim=1, keepdim=True)
        broken = ~torch.isfinite(scores).all(dim=1, keepdim=True)
        parts.append(shares.masked_fill(broken, torch.nan).float())
    return torch.cat(parts)


def _check(
    queries: Tensor, samples: Tensor, classes_of: Tensor, k: int, temperature: float | None
) -> None:
    if len(samples) == 0 or len(samples) != len(classes_of):
        raise InputError(
            f"{len(samples)} training samples with {len(classes_of)} classes: give one class "
            "each, and at least one sample"
        )
    if len(queries) and queries.shape[1] != samples.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} features and training samples {samples.shape[1]}"
        )
    if not torch.isfinite(samples).all():
        raise InputError("a training sample is not finite: leave it out first")
    if k < 1:
        raise ConfigError(f"k is {k}: at least 1 neighbour must vote")
    if temperature is not None and not temperature > 0:
        raise ConfigError(f"temperature is {temperature}: it must be above 0, such as 0.07")
