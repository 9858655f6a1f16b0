"""Every word that fits: tagging, where each tag is scored on its own.

A tag's score never depends on the other words of the vocabulary (see `scores`): adding a word
changes no score.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ConfigError, InputError
from sightline.core.outputs import Label
from sightline.tasks.batching import Failed, OnError, as_sources
from sightline.tasks.embed import embed_each
from sightline.tasks.prompted import checked_labels, checked_templates
from sightline.tasks.scores import best_first, independent

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model

THRESHOLDS = {"sigmoid": 0.1, "softmax": 0.95}
"""Least score of a tag that is reported, by how the system scores.

Starting points, not calibrated on anybody's pictures: a sigmoid system was trained with one right
text among thousands and keeps its probabilities low; a softmax system's score is the share against
a prompt that claims nothing, and 0.95 asks for a logit three above it. Calibrate on your own.
"""


@cache
def default_vocabulary() -> tuple[str, ...]:
    """Some 600 everyday English words: things, animals, food, places, activities, weather."""
    text = files("sightline.tasks").joinpath("tag_vocabulary.txt").read_text(encoding="utf-8")
    return tuple(_words(text))


def read_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """A vocabulary from a text file: one tag a line; empty lines and lines with # are skipped.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or holds no word.
    """
    try:
        words = _words(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"vocabulary {os.fspath(path)!r} cannot be read: {error}") from None
    if not words:
        raise InputError(f"vocabulary {os.fspath(path)!r} holds no word: write one tag a line")
    return words


def tag_each(
    model: Model,
    images: Any,
    vocabulary: Iterable[str] | None = None,
    threshold: float | None = None,
    batch_size: int = 32,
    on_error: OnError = "raise",
) -> Iterator[list[Label] | Failed]:
    """The tags of each picture in order, best first, that reach the threshold.

    Raises:
        UnsupportedTaskError: the model reads no text.
        InputError: a vocabulary that cannot be used.
        ConfigError: a threshold outside 0 to 1.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    model.require_role("dual encoder", "tag", "tag with words")
    names = list(default_vocabulary()) if vocabulary is None else checked_labels(vocabulary, "tags")
    least = THRESHOLDS[model.system.score] if threshold is None else threshold
    if not 0 <= least <= 1:
        raise ConfigError(f"threshold must lie between 0 and 1, not {threshold!r}")
    texts = model.prompts.embeddings(model, names, checked_templates(model, None))
    rows = embed_each(model, as_sources(images), batch_size, on_error)
    return _answers(model, rows, names, texts, least)


def _answers(
    model: Model,
    rows: Iterable[Tensor | Failed],
    names: Sequence[str],
    texts: Tensor,
    least: float,
) -> Iterator[list[Label] | Failed]:
    for row in rows:
        if isinstance(row, Failed):
            yield row
            continue
        tags = best_first(names, independent(model, row, texts))
        yield [tag for tag in tags if tag.score >= least]


def _words(text: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))
