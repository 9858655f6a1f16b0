"""Small stores of random unit vectors, and the plain answer to every question about them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from sightline.search.conditions import Among, Both, Compare, Condition, Like, Not
from sightline.search.lance import LanceStore
from sightline.search.store import Fields, Rows

DIM = 16
FIELDS: Fields = {"path": "text", "width": "whole", "missing": "flag", "file": "raw"}
PATHS = (
    "a.png",
    "B.PNG",
    "it's",
    'say "so"',
    "line\nend",
    "100%_x",
    "wild*?[a]",
    "\\back",
    "ü🐈",
    "",
)


def rows(count: int, seed: int = 0, first: int = 0) -> Rows:
    """Rows whose ids are numbers from `first` on."""
    dice = np.random.default_rng(seed)
    vectors = dice.standard_normal((count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = range(first, first + count)
    fields = {
        "path": [PATHS[number % len(PATHS)] for number in numbers],
        "width": [number % 7 for number in numbers],
        "missing": [number % 3 == 0 for number in numbers],
        "file": [bytes([255, number % 256]) for number in numbers],
    }
    return Rows([f"id{number:05d}" for number in numbers], vectors, fields)


def store(folder: Path, *parts: Rows) -> LanceStore:
    """A store with these parts, a commit each."""
    made = LanceStore.create(folder, DIM, FIELDS, {"made": "by a test"})
    for part in parts:
        made.upsert(part)
    return made


def contents(made: Any) -> dict[str, tuple[Any, ...]]:
    """Id to vector and fields of every row; a row that is there twice fails."""
    found: dict[str, tuple[Any, ...]] = {}
    for part in made.scan(FIELDS, vectors=True):
        for place, name in enumerate(part.ids):
            assert name not in found, name
            values = (part.fields[field][place] for field in FIELDS)
            found[name] = (part.vectors[place].tobytes(), *values)
    return found


def expected(*parts: Rows) -> dict[str, tuple[Any, ...]]:
    """What `contents` gives after these parts were added; later ones replace."""
    found: dict[str, tuple[Any, ...]] = {}
    for part in parts:
        for place, name in enumerate(part.ids):
            values = (part.fields[field][place] for field in FIELDS)
            found[name] = (part.vectors[place].tobytes(), *values)
    return found


def holds(condition: Condition, row: dict[str, Any]) -> bool:
    """Whether a condition holds for a row, by Python alone."""
    if isinstance(condition, Both):
        halves = [holds(condition.left, row), holds(condition.right, row)]
        return all(halves) if condition.operator == "and" else any(halves)
    if isinstance(condition, Not):
        return not holds(condition.part, row)
    value = row[condition.field]
    if isinstance(condition, Among):
        return value in condition.values
    if isinstance(condition, Like):
        wild = {"*": ".*", "?": "."}
        text = "".join(wild.get(letter) or re.escape(letter) for letter in condition.pattern)
        whole = any(letter in condition.pattern for letter in wild)
        find = re.fullmatch if whole else re.search
        return find(text, value, re.IGNORECASE | re.DOTALL) is not None
    assert isinstance(condition, Compare)
    other: Any = condition.value
    return {
        "=": value == other, "!=": value != other, "<": value < other, "<=": value <= other,
        ">": value > other, ">=": value >= other,
    }[condition.operator]  # fmt: skip
