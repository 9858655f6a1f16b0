"""Answers that are kept: killed runs go on, and nobody else's answer is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.core.outputs import Detection, Segment
from sightline.data.park.records import ParkRecords
from sightline.data.records import Dataset
from sightline.evaluation import choice_scores
from sightline.evaluation.detect import detect
from sightline.evaluation.grounding import grounding
from sightline.evaluation.judged import Measuring
from sightline.evaluation.kept import FILE, Answers, remembering
from sightline.evaluation.mcq import mcq
from sightline.evaluation.results import Result
from sightline.evaluation.segment import segment
from sightline.tasks.model import Model
from tests.evaluation.answering import asked_data
from tests.tasks.writers import random_writer

QUICK = Measuring(resamples=3)
SIDE = 20


class Killed(BaseException):
    """No error that anybody catches."""


class Finds:
    """A model that finds a square that depends on pixels and words, and can be killed."""

    def __init__(self, model: Model, most: int = 10**6) -> None:
        self.model, self.most, self.asked = model, most, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _box(self, image: Any, queries: Any) -> tuple[str, float, tuple[float, ...]]:
        if self.asked == self.most:
            raise Killed
        self.asked += 1
        (words,) = queries
        x = float(int(np.asarray(image).sum()) % 40)
        return words, (x + len(words) / 7) / 47, (x, 3.0, x + SIDE, 3.0 + SIDE)

    def detect(self, image: Any, queries: Any = None) -> list[Detection]:
        return [Detection(*self._box(image, queries))]

    def segment(self, image: Any, queries: Any = None) -> list[Segment]:
        label, score, box = self._box(image, queries)
        mask = np.zeros(np.asarray(image).shape[:2], bool)
        mask[3 : 3 + SIDE, int(box[0]) : int(box[0]) + SIDE] = True
        return [Segment(label, score, box, mask)]


@pytest.fixture(scope="module")
def writer() -> Model:
    return random_writer()


@pytest.fixture(scope="module")
def parks() -> Dataset:
    return Dataset(list(ParkRecords("test", 0, 5, 64, spoken=True)), "parks")


def measure(task: str, model: Any, data: Dataset, folder: Path | None) -> Result:
    if task == "grounding":
        return grounding(model, data, resamples=3, folder=folder)
    how = replace(QUICK, folder=folder)
    return detect(model, data, how, "single") if task == "detect" else segment(model, data, how)


def same(one: Result, other: Result) -> bool:
    """To the last bit, where NaN is NaN."""
    parts = [(r.samples, r.metrics, r.groups, r.tests, r.signature) for r in (one, other)]
    return repr(parts[0]) == repr(parts[1])


@pytest.mark.parametrize("task", ["detect", "segment", "grounding"])
def test_a_killed_run_goes_on_and_comes_to_the_same(task, writer, parks, tmp_path, monkeypatch):
    monkeypatch.setattr("sightline.evaluation.kept.mask_codec_of", lambda model: model.network)
    plain, whole = Finds(writer), Finds(writer)
    expected = measure(task, plain, parks, None)
    assert same(measure(task, whole, parks, tmp_path / "whole"), expected)
    assert 8 < whole.asked < plain.asked  # grey pictures of one size are one picture
    half = whole.asked // 2
    with pytest.raises(Killed):
        measure(task, Finds(writer, half), parks, tmp_path)
    again, idle = Finds(writer), Finds(writer)
    assert same(measure(task, again, parks, tmp_path), expected)
    assert again.asked == whole.asked - half
    assert same(measure(task, idle, parks, tmp_path), expected) and idle.asked == 0


def test_other_weights_pixels_and_words_are_asked(writer, tmp_path):
    grey = np.full((9, 9, 3), 7, np.uint8)

    def asked(model: Model, image: Any, words: str) -> int:
        finder = Finds(model)
        with remembering(finder, tmp_path) as remembered:
            remembered.detect(image, [words])
        return finder.asked

    assert [asked(writer, grey, "cat") for _ in range(2)] == [1, 0]
    assert asked(writer, grey, "dog") == 1 and asked(writer, grey + 1, "cat") == 1
    assert asked(writer, grey.reshape(3, 27, 3), "cat") == 1
    assert asked(random_writer(1), grey, "cat") == 1
    assert asked(writer, grey, "cat") == 0


HOSTILE = [
    b"", b"{", b"[1, 2]", b"null", b"\xff\xfe", b'{"key": 1}', b"[" * 100_000,
    b'{"key": {"a": []}, "answer": NaN}',
]  # fmt: skip


@pytest.mark.parametrize("damage", HOSTILE, ids=range(len(HOSTILE)))
def test_lines_that_are_no_answers_are_no_answers(damage: bytes, tmp_path: Path):
    with Answers(tmp_path) as answers:
        answers.put("a", [1.5, None])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes() + damage)
    with Answers(tmp_path) as answers:
        assert answers.get("a") == [1.5, None] and answers.get("b") is None
        answers.put("b", "behind a torn line")
    with Answers(tmp_path) as answers:
        assert answers.get("b") == "behind a torn line"


OTHERS = [
    3, [3], {"a": 1}, [["cat", 1, [1, 2, 3, 4]]], [{"label": "cat", "score": 1}],
    [{"label": "cat", "score": 1, "box": [1, 2, 3]}], [{"label": 7, "box": [1, 2, 3, 4]}],
    [{"label": "cat", "score": "x", "box": [1, 2, 3, 4]}],
    [{"label": "cat", "score": None, "box": [1, 2, 3, None]}],
    [{"label": "cat", "score": 1, "box": [1, 2, 3, 4], "mask": {"size": [2, 2], "counts": "?"}}],
]  # fmt: skip


@pytest.mark.parametrize("answer", OTHERS, ids=range(len(OTHERS)))
def test_an_answer_of_another_kind_is_asked_again(answer, writer, tmp_path):
    grey = np.full((9, 9, 3), 7, np.uint8)
    finder = Finds(writer)
    with remembering(finder, tmp_path) as remembered:
        expected = remembered.detect(grey, ["cat"])
    entry = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**entry, "answer": answer}) + "\n")
    with remembering(finder, tmp_path) as remembered:
        assert remembered.detect(grey, ["cat"]) == expected
    assert finder.asked == 2


# -- likelihoods of choices ----------------------------------------------------------------------

CHOICES = ("red", "a blue ball", "green")


def colours(count: int) -> Dataset:
    rows = [(k // 2, f"what is {k % 3}?", ("red",)) for k in range(count)]
    return asked_data(*rows, choices=CHOICES)


def counting(patch: pytest.MonkeyPatch, most: int = 10**6) -> list[int]:
    """Counts the rows that are scored, and is killed behind so many."""
    rows: list[int] = []
    score = choice_scores.score_rows

    def counted(*given: Any) -> Any:
        for row in score(*given):
            if len(rows) == most:
                raise Killed
            rows.append(1)
            yield row

    patch.setattr(choice_scores, "score_rows", counted)
    return rows


def test_likelihoods_are_the_same_in_batches_of_several_pictures(writer):
    data = colours(7)
    alone, together = (mcq(writer, data, replace(QUICK, batch_size=size)) for size in (1, 5))
    for record, one, other in zip(data, alone.samples, together.samples, strict=True):
        likely = writer.logprob(record.image, f"answer en {record.question}", CHOICES)
        expected = dict(zip(CHOICES, likely.tolist(), strict=True))
        assert dict(one.ranking) == pytest.approx(expected, abs=1e-4)
        assert dict(other.ranking) == pytest.approx(expected, abs=1e-4)


def test_a_killed_run_by_likelihood_goes_on(writer, tmp_path, monkeypatch):
    data, how = colours(8), replace(QUICK, batch_size=2)
    with monkeypatch.context() as patch:
        rows = counting(patch)
        expected = mcq(writer, data, how)
        assert len(rows) == 8 + 3  # equal questions are asked once without a picture
    with monkeypatch.context() as patch:
        counting(patch, 7)
        with pytest.raises(Killed):
            mcq(writer, data, replace(how, folder=tmp_path))
    with monkeypatch.context() as patch:
        rows = counting(patch)
        again = mcq(writer, data, replace(how, folder=tmp_path))
        assert len(rows) == 8 + 3 - 7
    for one, other in zip(again.samples, expected.samples, strict=True):
        assert dict(one.ranking) == pytest.approx(dict(other.ranking), abs=1e-4)
        assert one.score == other.score


@pytest.mark.parametrize("wrong", [[1.0], [[1.0, 2.0, 3.0]], ["a", "b", "c"], "abc", None])
def test_likelihoods_of_other_choices_are_no_answers(wrong, writer, tmp_path):
    how = replace(QUICK, folder=tmp_path)
    expected = mcq(writer, colours(2), how)
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    text = "".join(json.dumps({**line, "answer": wrong}) + "\n" for line in lines)
    (tmp_path / FILE).write_text(text)
    assert same(mcq(writer, colours(2), how), expected)
