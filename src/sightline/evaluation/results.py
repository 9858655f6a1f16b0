"""What an evaluation returns and writes: the score, how sure it is, and every sample.

`results.json` has the numbers and everything needed to know whether two of them may be compared;
`samples.jsonl` beside it has one line a sample (`evaluation.samples`). A number that is not finite
is null in JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from sightline.core.errors import DataError
from sightline.core.files import atomic_file, write_json
from sightline.core.version import __version__
from sightline.evaluation.samples import Sample as Sample  # a result's own, for all who make one
from sightline.evaluation.samples import finite, number, read_lines, write_line
from sightline.metrics.intervals import PairedTest

FORMAT = "sightline.result"
VERSION = 1
SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Metric:
    """One number with the interval that other samples of the same kind would spread over."""

    value: float
    ci95: tuple[float, float] | None = None
    n: int = 0
    """Samples in the denominator."""


@dataclass(frozen=True)
class Result:
    """The outcome of one evaluation."""

    task: str
    variant: str
    """Which of several customary definitions was used."""
    headline: str
    """The name of the metric that `value` repeats."""
    metrics: Mapping[str, Metric]
    n: int
    """Pictures in the denominator, the missing ones included."""
    signature: str
    """Scores with different signatures are not comparable."""
    data: str
    data_sha256: str
    n_invalid: int = 0
    """Samples with a score that is not finite, or that the model cannot be asked; they count as
    wrong."""
    n_unparsed: int = 0
    """Answers that could not be read as an answer; 0 for tasks without free text."""
    n_missing: int = 0
    """Pictures that could not be read; they count as wrong."""
    n_excluded: int = 0
    """Records without a truth (no label, no caption); they count for nothing."""
    missing: tuple[str, ...] = ()
    """The id of each missing picture with the reason."""
    groups: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    model: str | None = None
    model_sha256: str | None = None
    prompt_templates: tuple[str, ...] = ()
    """Verbatim."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    seconds: float = 0.0
    counted: str = "pictures"
    """What `n` counts, in the plural."""
    tests: Mapping[str, PairedTest] = field(default_factory=dict)
    """The headline against another way to answer the same samples, such as "blind"."""
    verdict: str = ""
    """What the tests come to, in one line; empty where nothing was tested."""
    partial: bool = False
    """Only part of the data was evaluated: not a score of the data set."""
    samples: tuple[Sample, ...] = field(default=(), repr=False)

    @property
    def value(self) -> float:
        """The headline number."""
        return self.metrics[self.headline].value

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The headline's 95 % interval."""
        return self.metrics[self.headline].ci95

    @property
    def failed(self) -> bool:
        """True where there is no score: nothing to evaluate, or nothing could be read."""
        return self.n == 0 or self.n_missing == self.n or math.isnan(self.value)

    def to_json(self) -> dict[str, Any]:
        """One JSON document, without the samples."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "samples"}
        own["metrics"] = {name: _metric_json(m) for name, m in self.metrics.items()}
        own["groups"] = {
            kind: {name: _metric_json(m) for name, m in group.items()}
            for kind, group in self.groups.items()
        }
        own["tests"] = {name: test._asdict() for name, test in self.tests.items()}
        head = {"format": FORMAT, "version": VERSION, "task": own.pop("task")}
        value = {"value": self.value, "ci95": self.ci95}
        document: dict[str, Any] = finite({**head, "variant": own.pop("variant"), **value, **own})
        return document

    def summary_rows(self) -> list[tuple[str, str]]:
        """What a person reads: names and formatted values, the headline first."""
        rows = [("task", f"{self.task} on {self.data}" + (" (PARTIAL)" if self.partial else ""))]
        rest = [name for name in self.metrics if name != self.headline]
        rows += [(name, _metric_text(self.metrics[name])) for name in [self.headline, *rest]]
        rows += [("verdict", self.verdict)] if self.verdict else []
        counts = [("missing", self.n_missing), ("invalid", self.n_invalid)]
        counts += [("unparsed", self.n_unparsed), ("excluded", self.n_excluded)]
        remarks = ", ".join(f"{count} {name}" for name, count in counts if count)
        rows.append((self.counted, f"{self.n}" + (f" ({remarks})" if remarks else "")))
        rows += [("missing", line) for line in self.missing[:10]]
        if len(self.missing) > 10:
            rows.append(("missing", f"and {len(self.missing) - 10} more, named in results.json"))
        rows.append(("signature", self.signature))
        return rows

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write `samples.jsonl`, then `results.json` that names its hash; returns the latter.

        Other files of the folder are left alone.
        """
        target = Path(folder)
        with atomic_file(target / SAMPLES) as temporary:
            temporary.write_bytes(b"".join(map(write_line, self.samples)))
        digest = hashlib.sha256((target / SAMPLES).read_bytes()).hexdigest()
        write_json(target / "results.json", {**self.to_json(), "samples_sha256": digest})
        return target / "results.json"


def read_result(folder: str | os.PathLike[str]) -> Result:
    """A result as `Result.write` left it, samples included.

    Raises:
        DataError: the files are missing, damaged, do not belong together, or of a newer version.
    """
    path = Path(folder) / "results.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        lines = (Path(folder) / SAMPLES).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} does not exist: give the folder of a result") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): run the evaluation again") from None
    _check_format(path, document)
    if hashlib.sha256(lines).hexdigest() != document.get("samples_sha256"):
        raise DataError(
            f"{path.with_name(SAMPLES)} is not the file that results.json was written "
            "with: run the evaluation again"
        )
    try:
        return _from_json(document, lines)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} lacks or misspells a field ({error}): run the evaluation again"
        ) from None


def build(
    model: object,
    task: str,
    version: int,
    headline: str,
    digest: str,
    signed: Mapping[str, object],
    started: float,
    **found: Any,
) -> Result:
    """The result of an evaluation, with what every one says of its model, data and making.

    Args:
        model: what was measured.
        version: of the evaluation.
        digest: hash of the data.
        signed: what else decides whether two scores can be compared, in the order of the signature.
        started: what `time.monotonic` said before.
        found: the other fields of `Result`.
    """
    return Result(
        task=task,
        headline=headline,
        signature=signature(task, version, **{"metric": headline, **signed, "data": digest[:12]}),
        data_sha256=digest,
        model=getattr(model, "name", None),
        model_sha256=getattr(model, "sha256", None),
        versions=versions(),
        seconds=time.monotonic() - started,
        **found,
    )


def signature(task: str, version: int, **parts: object) -> str:
    """A short stable line of everything that decides whether two scores can be compared."""
    return "|".join([task, *(f"{name}:{value}" for name, value in parts.items()), f"v:{version}"])


def short_hash(texts: Iterable[str]) -> str:
    """Eight hexadecimal digits of a list of texts, in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:8]


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    return {
        "sightline": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _check_format(path: Path, document: Any) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path} is not a result of Sightline: its format is not {FORMAT!r}")
    if document.get("version") != VERSION:
        raise DataError(
            f"{path} has version {document.get('version')!r} of {FORMAT!r}, this Sightline reads "
            f"{VERSION}: update Sightline, or run the evaluation again"
        )


def _from_json(document: Mapping[str, Any], lines: bytes) -> Result:
    names = {f.name for f in fields(Result)} - {"samples", "metrics", "groups", "tests"}
    own = {name: value for name, value in document.items() if name in names and name != "version"}
    for name in ("missing", "prompt_templates"):
        own[name] = tuple(own[name])
    metrics = {name: _metric(m) for name, m in document["metrics"].items()}
    groups = {
        kind: {name: _metric(m) for name, m in group.items()}
        for kind, group in document["groups"].items()
    }
    tests = {name: _test(test) for name, test in document.get("tests", {}).items()}
    samples = tuple(read_lines(lines))
    return Result(**own, metrics=metrics, groups=groups, tests=tests, samples=samples)


def _metric(document: Mapping[str, Any]) -> Metric:
    ci95 = document["ci95"]
    ends = None if ci95 is None else (number(ci95[0]), number(ci95[1]))
    return Metric(number(document["value"]), ends, document["n"])


def _test(document: Mapping[str, Any]) -> PairedTest:
    # a bootstrap of nothing has no ends
    known: dict[str, Any] = {key: math.nan if v is None else v for key, v in document.items()}
    return PairedTest(**known)


def _metric_json(metric: Metric) -> dict[str, Any]:
    return {"value": metric.value, "ci95": metric.ci95, "n": metric.n}


def _metric_text(metric: Metric) -> str:
    if math.isnan(metric.value):
        return "no score"
    text = f"{metric.value:.4g}" if abs(metric.value) > 1 else f"{metric.value:.4f}"
    if metric.ci95 is None or math.isnan(metric.ci95[0]):
        return text
    return f"{text} (95 % interval {metric.ci95[0]:.4g} to {metric.ci95[1]:.4g})"
