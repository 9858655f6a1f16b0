"""Records about one-coloured pictures, and models that answer by what they see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sightline.data.records import Dataset, Record
from sightline.tasks.model import Model
from tests.tasks.writers import scripted

BROKEN = b"no picture"


def shade(number: int) -> np.ndarray:
    """A picture that `seen` tells from others."""
    return np.full((8, 8, 3), 10 * number, np.uint8)


def seen(pictures: tuple[Any, ...]) -> int | None:
    """Which shade a model is shown; None without a picture."""
    return round((float(pictures[0].mean()) / 2 + 0.5) * 25.5) if pictures else None


def question_of(words: str) -> str:
    """What was asked, out of PaliGemma's prompt."""
    return words.removeprefix("<bos>").removeprefix("answer en ").rstrip("\n")


def told(answers: Mapping[tuple[int | None, str], str], **changes: Any) -> Model:
    """A model that knows what to say to which shade and question, and nothing otherwise."""
    return scripted(
        lambda words, pictures: answers.get((seen(pictures), question_of(words)), ""), **changes
    )


def always(answer: str | Callable[[str, tuple[Any, ...]], str]) -> Model:
    return scripted(answer)


def asked_data(*rows: tuple[Any, str, tuple[str, ...]], **fields: Any) -> Dataset:
    """Records of a picture (or the number of its shade), a question and answers."""
    shades: dict[int, np.ndarray] = {}
    return Dataset([
        Record(
            f"q{place}",
            shades.setdefault(picture, shade(picture)) if isinstance(picture, int) else picture,
            question=question, answers=answers, **fields,
        )
        for place, (picture, question, answers) in enumerate(rows)
    ])  # fmt: skip
