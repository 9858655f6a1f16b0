"""What an evaluation returns and writes: the score, how sure it is, and every sample.

`results.json` has the numbers and everything needed to know whether two of them may be compared;
`samples.jsonl` beside it has one line a sample. A number that is not finite is null in JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from sightline.core.errors import DataError
from sightline.core.files import atomic_file, write_json
from sightline.core.version import __version__

FORMAT = "sightline.result"
VERSION = 1


@dataclass(frozen=True)
class Metric:
    """One number with the interval that other samples of the same kind would spread over."""

    value: float
    ci95: tuple[float, float] | None = None
    n: int = 0
    """Samples in the denominator."""


@dataclass(frozen=True)
class Sample:
    """One line of `samples.jsonl`."""

    id: str
    kind: str
    """What was asked: "zeroshot", "image_to_text" or "text_to_image"."""
    target: tuple[str, ...]
    """Right answers: label names, or ids of captions or pictures."""
    ranking: tuple[tuple[str, float], ...]
    """The model's best answers with their raw scores, best first, ties against the model."""
    rank: float
    """Rank of the best right answer; infinity where there is none."""
    score: float
    """1 where the first answer is right, else 0."""
    prompt: str | None = None
    """The text that was asked, where there is one."""
    group: str = ""
    """Samples with the same group stand or fall together (captions of one picture)."""
    status: str = "ok"
    """"ok", "missing" (the picture could not be read) or "invalid" (a score is not finite)."""


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
    """Samples with a score that is not finite; they count as wrong."""
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
    verdict: str = ""
    """What a test of several hypotheses comes to, in one line; empty where nothing was tested."""
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
        head = {"format": FORMAT, "version": VERSION, "task": own.pop("task")}
        value = {"value": self.value, "ci95": self.ci95}
        document: dict[str, Any] = _finite({**head, "variant": own.pop("variant"), **value, **own})
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
        text = "".join(
            json.dumps(_finite(_sample_json(s)), ensure_ascii=False, allow_nan=False) + "\n"
            for s in self.samples
        )
        with atomic_file(target / "samples.jsonl") as temporary:
            temporary.write_bytes(text.encode("utf-8", errors="surrogateescape"))
        digest = hashlib.sha256((target / "samples.jsonl").read_bytes()).hexdigest()
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
        lines = (Path(folder) / "samples.jsonl").read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} does not exist: give the folder of a result") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): run the evaluation again") from None
    _check_format(path, document)
    if hashlib.sha256(lines).hexdigest() != document.get("samples_sha256"):
        raise DataError(
            f"{path.with_name('samples.jsonl')} is not the file that results.json was written "
            "with: run the evaluation again"
        )
    try:
        return _from_json(document, lines.decode("utf-8"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} lacks or misspells a field ({error}): run the evaluation again"
        ) from None


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


def _from_json(document: Mapping[str, Any], lines: str) -> Result:
    names = {f.name for f in fields(Result)} - {"samples", "metrics", "groups"}
    own = {name: value for name, value in document.items() if name in names and name != "version"}
    for name in ("missing", "prompt_templates"):
        own[name] = tuple(own[name])
    metrics = {name: _metric(m) for name, m in document["metrics"].items()}
    groups = {
        kind: {name: _metric(m) for name, m in group.items()}
        for kind, group in document["groups"].items()
    }
    samples = tuple(_sample(json.loads(line)) for line in lines.splitlines())
    return Result(**own, metrics=metrics, groups=groups, samples=samples)


def _metric(document: Mapping[str, Any]) -> Metric:
    ci95 = document["ci95"]
    ends = None if ci95 is None else (_number(ci95[0]), _number(ci95[1]))
    return Metric(_number(document["value"]), ends, document["n"])


def _sample(document: dict[str, Any]) -> Sample:
    ranking = tuple((name, _number(score)) for name, score in document["ranking"])
    rank = math.inf if document["rank"] is None else document["rank"]
    changed = {"target": tuple(document["target"]), "ranking": ranking, "rank": rank}
    return Sample(**{**document, **changed})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _sample_json(sample: Sample) -> dict[str, Any]:
    return {f.name: getattr(sample, f.name) for f in fields(sample)}


def _metric_json(metric: Metric) -> dict[str, Any]:
    return {"value": metric.value, "ci95": metric.ci95, "n": metric.n}


def _metric_text(metric: Metric) -> str:
    if math.isnan(metric.value):
        return "no score"
    text = f"{metric.value:.4g}" if abs(metric.value) > 1 else f"{metric.value:.4f}"
    if metric.ci95 is None or math.isnan(metric.ci95[0]):
        return text
    return f"{text} (95 % interval {metric.ci95[0]:.4g} to {metric.ci95[1]:.4g})"


def _finite(value: Any) -> Any:
    """The same document with null for numbers that JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
