"""Kept answers by another metric, without the model that wrote them."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from sightline.core.errors import DataError
from sightline.evaluation import results
from sightline.evaluation.answer_metrics import METRICS, fitting, require_fit, with_objects
from sightline.evaluation.judged import judge
from sightline.evaluation.results import SAMPLES, Metric, Result, read_result
from sightline.evaluation.samples import read_lines
from sightline.metrics.chair import ObjectList
from sightline.metrics.intervals import RESAMPLES


def read_answers(path: str | os.PathLike[str]) -> Result:
    """The result that a `samples.jsonl` belongs to.

    A file that stands alone is a result too, marked partial: nobody knows what is not in it.

    Args:
        path: the file, or the folder that it is in.

    Raises:
        DataError: no such file, or not one of an evaluation that ended.
    """
    file = Path(path) / SAMPLES if Path(path).is_dir() else Path(path)
    if file.name == SAMPLES and (file.parent / "results.json").is_file():
        return read_result(file.parent)
    try:
        data = file.read_bytes()
        samples = tuple(read_lines(data))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}: give the samples of an evaluation") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} holds lines that are no samples: {error!r}") from None
    kinds = {sample.kind for sample in samples}
    if not samples or "" in kinds:
        raise DataError(
            f"{file} is of an evaluation that did not end: run it again, it goes on from there"
        )
    digest = hashlib.sha256(data).hexdigest()
    headline = samples[0].kind
    mean = sum(sample.score for sample in samples) / len(samples)
    return Result(
        task="rescore", variant="samples alone", headline=headline,
        metrics={headline: Metric(mean, None, len(samples))}, n=len(samples),
        signature=results.signature("rescore", 1, metric=headline, samples=digest[:12]),
        data=file.name, data_sha256=digest,
        n_invalid=sum(sample.status == "invalid" for sample in samples),
        n_missing=sum(sample.status == "missing" for sample in samples),
        versions=results.versions(), counted="samples", partial=True, samples=samples,
    )  # fmt: skip


def rescore(
    result: Result, name: str, resamples: int = RESAMPLES, objects: ObjectList | None = None
) -> Result:
    """The same answers with another headline; metrics that it had are computed again beside it.

    Args:
        objects: which words name a thing, for metrics of CHAIR.

    Raises:
        DataError: no answers were written, or such as the metric cannot be had of.
        ConfigError: no such metric, or one of other answers, the message lists those that fit; or
            one that needs an object list.
    """
    kinds = {sample.kind for sample in result.samples}
    families = {METRICS[kind].family for kind in kinds if kind in METRICS}
    if len(families) != 1 or not kinds <= METRICS.keys():
        raise DataError(
            f"{result.data} holds no written answers to score again (it has "
            f"{', '.join(sorted(kinds)) or 'no samples'}): take those of eval caption, vqa, "
            "docvqa, chartqa, hallucination or mcq --by letter"
        )
    (family,) = families
    require_fit(name, family, [(sample.id, sample.target) for sample in result.samples])
    others = [n for n in fitting(family) if n in result.metrics and n != name]
    table = METRICS if objects is None else with_objects(objects)
    judged = judge(result.samples, [name, *others], result.seed, resamples, table)
    signature = result.signature.replace(f"|metric:{result.headline}|", f"|metric:{name}|", 1)
    settings = dict(result.settings)
    if objects is not None and "objects" in settings:
        signature = re.sub(r"\|objects:\w+", f"|objects:{objects.sha256[:12]}", signature)
        settings["objects"] = objects.sha256
    return replace(
        result, variant="rescored", headline=name, signature=signature, settings=settings,
        **judged._asdict(),
    )  # fmt: skip
