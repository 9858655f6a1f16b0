"""What is tested for bias: rankings of prompts, associations of words, choices among labels.

Each finding is one hypothesis with its p-value; `evaluation.bias` corrects them for being several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.data.annotations import WordLists
from sightline.evaluation.results import Metric
from sightline.metrics.association import association
from sightline.metrics.bias import (
    Target,
    ndkl,
    order_of,
    share_test,
    skew_at_k,
    skews,
    target_shares,
    top_counts,
)
from sightline.metrics.classification import UNDECIDED, predict
from sightline.metrics.group_gaps import (
    demographic_parity,
    difference_interval,
    equalised_odds,
    gap,
    gap_test,
    group_rates,
)
from sightline.metrics.intervals import bootstrap, wilson


@dataclass(frozen=True)
class Finding:
    """One hypothesis that there is no bias, and what speaks against it."""

    name: str
    """"a bench", "accuracy", "label crime"."""
    what: str
    """The measure: "max_skew", "effect" or "gap"."""
    value: Metric
    p_value: float
    more: Mapping[str, Metric] = field(default_factory=dict)
    """Further numbers of the same hypothesis, by the name of their group in the result."""
    shares: Mapping[str, Metric] = field(default_factory=dict)
    """Share, accuracy or rate of each group."""
    tied: int = 0
    """Items that only their place in the data kept out of the first k."""


@dataclass(frozen=True)
class Grouped:
    """Pictures with the group that somebody wrote down for each."""

    vectors: Float[Tensor, "N D"]
    groups: Int[Tensor, " N"]
    names: tuple[str, ...]
    """Of the groups."""

    @property
    def sizes(self) -> list[int]:
        """How many pictures each group has."""
        return self.groups.bincount(minlength=len(self.names)).tolist()


def ranking_findings(
    pictures: Grouped,
    prompts: Sequence[str],
    embedded: Float[Tensor, "P D"],
    k: int,
    target: Target,
    seed: int,
    resamples: int,
) -> tuple[list[Finding], Metric]:
    """A finding for each prompt, and the mean MaxSkew over them with its interval.

    The interval draws pictures with replacement and ranks each draw anew.
    """
    count = len(pictures.names)
    scores = (pictures.vectors.double() @ embedded.double().T).float()  # [N P]
    order = order_of(scores)

    def largest(drawn: Int[Tensor, " N"]) -> Float[Tensor, " M"]:
        draws = drawn.bincount(minlength=len(order))
        shares = top_counts(order, pictures.groups, count, k, draws).double() / k  # [P G]
        found = skews(shares, target_shares(pictures.groups[drawn], count, target), k)
        found = found.nan_to_num(nan=-torch.inf).amax(dim=1)
        return torch.cat([found.mean()[None], found])

    rows = torch.arange(len(order))
    values, (low, high) = largest(rows), bootstrap(rows, largest, None, resamples, seed=seed)
    ends = list(zip(low.tolist(), high.tolist(), strict=True))
    findings = []
    for place, prompt in enumerate(prompts):
        column = scores[:, place]
        skew = skew_at_k(column, pictures.groups, count, k, target)
        kept = (skew.shares * k).round().long()
        p_value = share_test(kept, torch.tensor(pictures.sizes), target, seed=seed)
        spread = ndkl(column, pictures.groups, count, target)
        findings.append(Finding(
            prompt, "max_skew", Metric(skew.largest, ends[place + 1], k), p_value,
            more={"min_skew": Metric(skew.smallest, None, k),
                  "ndkl": Metric(spread, None, len(column))},
            shares={name: Metric(number / k, wilson(number, k), k)
                    for name, number in zip(pictures.names, kept.tolist(), strict=True)},
            tied=skew.tied,
        ))  # fmt: skip
    return findings, Metric(values[0].item(), ends[0], len(prompts))


def association_findings(
    pictures: Grouped,
    lists: WordLists,
    vectors: Mapping[str, Float[Tensor, " D"]],
    seed: int,
) -> list[Finding]:
    """WEAT of the words alone where they have targets, else of every two groups of pictures.

    Two-sided: which of two groups is called X is arbitrary.
    """
    a, b = (torch.stack([vectors[word] for word in words]) for words in lists.attributes)
    if lists.targets is not None:
        x, y = (torch.stack([vectors[word] for word in words]) for words in lists.targets)
        sets = {lists.name: (x, y)}
    else:
        finite = torch.isfinite(pictures.vectors).all(dim=1)
        members = [
            pictures.vectors[(pictures.groups == g) & finite] for g in range(len(pictures.names))
        ]
        sets = {
            f"{lists.name}: {pictures.names[i]} and {pictures.names[j]}": (members[i], members[j])
            for i, j in combinations(range(len(members)), 2)
        }
    findings = []
    for name, (x, y) in sets.items():
        found = association(x, y, a, b, seed=seed, sides="two")
        effect = Metric(found.effect, None, len(x) + len(y))
        findings.append(Finding(name, "effect", effect, found.p_value))
    return findings


def label_findings(
    pictures: Grouped,
    labels: Sequence[str],
    classes: Float[Tensor, "C D"],
    truth: Int[Tensor, " N"],
    seed: int,
    resamples: int,
) -> tuple[list[Finding], dict[str, Metric]]:
    """Whether accuracy differs between groups; without a truth, whether choices do.

    With a truth the shares of choices differ already where the groups show different things, so
    they are reported but not tested. A tie for the first place is a wrong answer.

    Args:
        truth: the right label of each picture, `UNDECIDED` where there is none.
    """
    predicted = predict((pictures.vectors.double() @ classes.double().T).float())
    count = len(pictures.names)
    parity = [
        demographic_parity(predicted == c, pictures.groups, count) for c in range(len(labels))
    ]
    metrics = {"demographic_parity": Metric(max(p.difference for p in parity), None, len(truth))}
    known = truth != UNDECIDED
    if known.any():
        right = predicted == truth
        finding = _gap_finding("accuracy", pictures, right, known, seed, resamples)
        odds = [
            equalised_odds(predicted[known] == c, truth[known] == c, pictures.groups[known], count)
            for c in range(len(labels))
        ]
        worst = gap(torch.tensor([share.value for share in finding.shares.values()])).worst
        metrics["equalised_odds"] = Metric(max(odds), None, int(known.sum()))
        metrics["worst_group_accuracy"] = Metric(worst, None, int(known.sum()))
        return [finding], metrics
    everyone = torch.ones_like(known)
    findings = [
        _gap_finding(f"label {label}", pictures, predicted == place, everyone, seed, resamples)
        for place, label in enumerate(labels)
    ]
    return findings, metrics


def _gap_finding(
    name: str,
    pictures: Grouped,
    hits: Bool[Tensor, " N"],
    counted: Bool[Tensor, " N"],
    seed: int,
    resamples: int,
) -> Finding:
    """How far the share of hits differs between groups, among the pictures that are counted."""
    count = len(pictures.names)
    values, groups = hits[counted].double(), pictures.groups[counted]

    def spread(drawn: Float[Tensor, "N 2"]) -> Float[Tensor, ""]:
        rates = group_rates(drawn[:, 0], drawn[:, 1].long(), count)
        return torch.tensor(gap(rates).difference, dtype=torch.float64)

    rows = torch.stack([values, groups.double()], dim=1)
    low, high = bootstrap(rows, spread, None, resamples, seed=seed)
    shares, ends = _shares(pictures, hits, counted), (low.item(), high.item())
    if ends[0] == ends[1]:  # all shares are 0 or 1: every set drawn is the same
        sizes = {(round(share.value * share.n), share.n) for share in shares.values()}
        ordered = sorted(sizes, key=lambda hits: hits[0] / hits[1])
        ends = difference_interval(ordered[-1], ordered[0])
    value = Metric(spread(rows).item(), ends, len(values))
    return Finding(name, "gap", value, gap_test(values, groups, count, seed=seed), shares=shares)


def _shares(
    pictures: Grouped, hits: Bool[Tensor, " N"], counted: Bool[Tensor, " N"]
) -> dict[str, Metric]:
    """Share of hits in each group that has pictures."""
    found = {}
    for place, name in enumerate(pictures.names):
        own = counted & (pictures.groups == place)
        number, total = int((hits & own).sum()), int(own.sum())
        if total:
            found[name] = Metric(number / total, wilson(number, total), total)
    return found
