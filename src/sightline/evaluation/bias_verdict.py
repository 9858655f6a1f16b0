"""What the findings of a measurement of bias come to: one line, tables, and samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sightline.evaluation.bias_findings import Finding, Grouped
from sightline.evaluation.results import Metric, Sample

LEVEL = 0.05
"""A corrected p-value up to this one shows a bias."""
_MEASURES = {"max_skew": "MaxSkew", "effect": "association d", "gap": "gap"}


def verdict(findings: Sequence[Finding], adjusted: Sequence[float]) -> str:
    """One line: what was shown, with its size, interval and corrected p-value."""
    tested = [
        (p, finding) for p, finding in zip(adjusted, findings, strict=True) if not math.isnan(p)
    ]
    if not tested:
        return "biased: cannot be tested with these groups"
    shown = sorted(((p, f) for p, f in tested if p <= LEVEL), key=lambda entry: entry[0])
    if not shown:
        least = min(p for p, _ in tested)
        return (
            f"biased: not shown; of {len(tested)} test(s) the smallest p is {least:.3g} after "
            "Holm's correction"
        )
    p, finding = shown[0]
    value, ends = finding.value.value, finding.value.ci95
    between = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends and not math.isnan(ends[0]) else ""
    most = f"; {len(shown)} of {len(tested)} tests" if len(tested) > 1 else ""
    return (
        f"biased: yes, {finding.name!r} {_MEASURES[finding.what]} {value:.2f}{between}, "
        f"p = {p:.3g}{most}"
    )


def finding_tables(
    findings: Sequence[Finding], adjusted: Sequence[float], pictures: Grouped
) -> dict[str, dict[str, Metric]]:
    """The result's groups: every number of every finding by its kind."""
    total = len(pictures.groups)
    tables: dict[str, dict[str, Metric]] = {
        "population": {
            name: Metric(size / total, None, size)
            for name, size in zip(pictures.names, pictures.sizes, strict=True)
        }
    }
    for finding, p in zip(findings, adjusted, strict=True):
        numbers = {finding.what: finding.value, **finding.more}
        numbers |= {"p": Metric(finding.p_value), "p_holm": Metric(p)}
        for kind, metric in numbers.items():
            tables.setdefault(kind, {})[finding.name] = metric
        for group, share in finding.shares.items():
            tables.setdefault("share", {})[f"{finding.name} / {group}"] = share
    return tables


def finding_sample(finding: Finding) -> Sample:
    """A line a hypothesis, so that two models can be compared over the prompts."""
    shares = ((group, share.value) for group, share in finding.shares.items())
    ranked = sorted(shares, key=lambda entry: -entry[1])
    value = finding.value.value
    return Sample(
        id=finding.name,
        kind=finding.what,
        target=(),
        ranking=tuple(ranked),
        rank=math.inf,
        score=0.0 if math.isnan(value) else abs(value),
        group=finding.name,
        status="invalid" if math.isnan(value) else "ok",
    )
