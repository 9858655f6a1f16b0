"""Records put to models whose answers are known: order, failures, blind answers, going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.core.errors import ConfigError, UnsupportedTaskError
from sightline.data.records import Record
from sightline.evaluation.asked import Asked, Question, ask_all, caption_way, question_way
from sightline.evaluation.samples import read_line
from sightline.tasks import writing
from tests.ended import ends
from tests.evaluation.answering import BROKEN, always, asked_data, seen, shade, told
from tests.tasks.writers import random_writer


def questions(data: Any) -> list[Question]:
    return [Question(record, record.answers, record.question) for record in data]


def ask(model: Any, data: Any, **options: Any) -> Asked:
    return ask_all(model, questions(data), question_way(model, batch_size=2), **options)


DATA = asked_data(
    (1, "how many?", ("one",)), (2, "how many?", ("two",)), (1, "which?", ("this",)),
    (3, "how many?", ("three",)),
)  # fmt: skip
ANSWERS = {
    (1, "how many?"): "one", (2, "how many?"): "two", (1, "which?"): "this",
    (3, "how many?"): "three", (None, "how many?"): "seven", (None, "which?"): "any",
}  # fmt: skip


def test_answers_stand_in_the_order_of_the_records_with_those_without_a_picture() -> None:
    model = told(ANSWERS)
    found = ask(model, DATA)
    assert [s.raw for s in found.samples] == ["one", "two", "this", "three"]
    assert [s.blind for s in found.samples] == ["seven", "seven", "any", "seven"]
    assert [s.prompt for s in found.samples] == ["how many?", "how many?", "which?", "how many?"]
    assert found.samples[0].group == found.samples[2].group != found.samples[1].group
    # every question once with its picture; without one, equal questions once
    assert sorted(model.network.pictures) == [0, 0, 1, 1, 1, 1]


def test_nobody_asks_blind_where_that_is_switched_off() -> None:
    model = told(ANSWERS)
    assert [s.blind for s in ask(model, DATA, blind=False).samples] == [None] * 4
    assert model.network.pictures == [1] * 4


def test_a_picture_of_several_questions_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(source: Any, *rest: Any) -> np.ndarray:
        read.append(source)
        return original(source, *rest)

    original = writing.read_named
    monkeypatch.setattr(writing, "read_named", counted)
    ask(told(ANSWERS), DATA)
    assert len(read) == 3


def test_a_broken_picture_is_named_and_loses_nobody_elses_answer() -> None:
    data = [*DATA, Record("torn", BROKEN, question="how many?", answers=("seven",))]
    found = ask(told(ANSWERS), data)
    assert [s.raw for s in found.samples] == ["one", "two", "this", "three", None]
    assert found.samples[-1].status == "missing"
    assert found.samples[-1].blind == "seven"
    (line,) = found.missing
    assert line.startswith("torn: ")


def test_a_question_that_cannot_be_asked_is_named() -> None:
    data = asked_data((1, "   ", ("one",)), (1, "long " * 400, ("one",)), (1, "which?", ("this",)))
    found = ask(told(ANSWERS), data)
    assert [s.status for s in found.samples] == ["invalid", "invalid", "ok"]
    assert [s.raw for s in found.samples] == [None, None, "this"]
    assert [line.split(": ")[0] for line in found.refused] == ["q0", "q1"]
    assert "reads at most" in found.refused[1]


def test_what_is_wrong_with_the_model_or_its_options_ends_everything() -> None:
    with pytest.raises(ConfigError, match="max_new_token"):
        question_way(always("yes"), {"max_new_tokes": 3})
    silent = replace_system(always("yes"))
    with pytest.raises(UnsupportedTaskError, match="cannot"):
        question_way(silent)


def replace_system(model: Any) -> Any:
    model.system = replace(model.system, role="image encoder")
    return model


def test_a_caption_has_one_blind_answer() -> None:
    model = always(lambda words, pictures: f"a shade of {seen(pictures)}")
    data = [Question(Record(f"r{k}", shade(k)), ("grey",)) for k in (3, 4)]
    found = ask_all(model, data, caption_way(model))
    assert [s.raw for s in found.samples] == ["a shade of 3", "a shade of 4"]
    assert {s.blind for s in found.samples} == {"a shade of None"}
    assert model.network.pictures.count(0) == 1
    assert caption_way(model, "caption de").template == "caption de"


class _Killed(Exception):
    pass


def _killed_after(count: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise _Killed

    return progress


def test_a_killed_run_goes_on_from_its_samples(tmp_path: Path) -> None:
    first = told(ANSWERS)
    with pytest.raises(_Killed):
        ask(first, DATA, folder=tmp_path, batch_size=2, progress=_killed_after(2))
    assert ends("decode")
    file = tmp_path / "samples.jsonl"
    kept = [read_line(line) for line in file.read_text().splitlines()]
    assert [(s.id, s.raw, s.blind) for s in kept] == [("q0", "one", "seven"), ("q2", "this", "any")]
    with file.open("ab") as torn:
        torn.write(b'{"id": "q1", "raw": "to')
    again = told(ANSWERS)
    found = ask(again, DATA, folder=tmp_path)
    assert [s.raw for s in found.samples] == ["one", "two", "this", "three"]
    assert again.network.pictures == [1, 1]
    assert [replace(s, key="") for s in found.samples] == ask(told(ANSWERS), DATA).samples


@pytest.mark.parametrize("change", ["model", "picture", "question", "options"])
def test_an_answer_to_something_else_is_no_answer(tmp_path: Path, change: str) -> None:
    data = asked_data((1, "how many?", ("one",)))
    ask(told(ANSWERS), data, folder=tmp_path)
    model = told(ANSWERS, name="another" if change == "model" else "writer")
    if change == "picture":
        data = [replace(data[0], image=shade(2))]
    if change == "question":
        data = [replace(data[0], question="which?")]
    way = question_way(model, {"max_new_tokens": 3} if change == "options" else {})
    ask_all(model, questions(data), way, folder=tmp_path)
    assert 1 in model.network.pictures


def test_the_same_weights_are_told_from_others(tmp_path: Path) -> None:
    data = asked_data((1, "how many?", ("one",)))
    keys = []
    for place, model in enumerate(map(random_writer, (0, 0, 1))):
        way = question_way(model, {"max_new_tokens": 2})
        keys.append(
            ask_all(model, questions(data), way, folder=tmp_path / str(place)).samples[0].key
        )
    assert keys[0] == keys[1] != keys[2]


def test_a_blind_run_can_be_added_later(tmp_path: Path) -> None:
    ask(told(ANSWERS), DATA, blind=False, folder=tmp_path)
    model = told(ANSWERS)
    found = ask(model, DATA, folder=tmp_path)
    assert [s.blind for s in found.samples] == ["seven", "seven", "any", "seven"]
    assert model.network.pictures == [0, 0]
