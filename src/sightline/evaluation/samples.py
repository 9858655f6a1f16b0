"""One line of `samples.jsonl`: what was asked, what was answered, and whether that is right."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Sample:
    """What one sample came to."""

    id: str
    kind: str
    """What was asked ("zeroshot", "image_to_text"), or the metric that `score` is of ("anls")."""
    target: tuple[str, ...]
    """Right answers: label names, ids of captions or pictures, or what people wrote."""
    ranking: tuple[tuple[str, float], ...]
    """The model's best answers with their raw scores, best first, ties against the model."""
    rank: float
    """Rank of the best right answer; infinity where there is none."""
    score: float
    """1 where the first answer is right, else 0; for words what the metric gives them."""
    prompt: str | None = None
    """The text that was asked, where there is one."""
    group: str = ""
    """Samples with the same group stand or fall together (captions of one picture)."""
    status: str = "ok"
    """"ok", "missing" (the picture could not be read) or "invalid" (a score is not finite, or the
    model cannot be asked this)."""
    raw: str | None = None
    """The model's words as they came; None where it was not asked or writes none."""
    parsed: str | None = None
    """What was read out of them; None where nothing could be."""
    blind: str | None = None
    """The model's words without a picture."""
    blind_score: float | None = None
    """What these score; None where nobody asked without a picture."""
    choices: tuple[str, ...] = ()
    """What there was to choose from, in the order in which it was shown."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What results are told apart by, such as the type of a question."""
    key: str = ""
    """Hash of the model, the pictures, the words and the options: with the same one the model need
    not be asked again."""


def write_line(sample: Sample) -> bytes:
    """The line of a sample, with its end. What no UTF-8 can hold is escaped as JSON does."""
    document = {f.name: getattr(sample, f.name) for f in fields(sample)}
    text = json.dumps(finite(document), ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def read_lines(data: bytes) -> Iterator[Sample]:
    """The samples of a file.

    Raises:
        ValueError, KeyError, TypeError: a line that is none; so does a last line without its end,
            as a run that was killed can leave it.
    """
    for line in data.decode("utf-8").split("\n"):  # an answer may hold U+2028 and other line ends
        if line:
            yield read_line(line)


def read_line(line: str) -> Sample:
    """
    Raises:
        ValueError, KeyError, TypeError: this is no line of `write_line`.
    """
    document = json.loads(line)
    ranking = tuple((name, number(score)) for name, score in document["ranking"])
    rank = math.inf if document["rank"] is None else document["rank"]
    changed = {"target": tuple(document["target"]), "ranking": ranking, "rank": rank,
               "choices": tuple(document.get("choices", ()))}  # fmt: skip
    return Sample(**{**document, **changed})


def number(value: float | None) -> float:
    """A number of a document, where null is NaN."""
    return math.nan if value is None else float(value)


def finite(value: Any) -> Any:
    """The same document with null for numbers that JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
