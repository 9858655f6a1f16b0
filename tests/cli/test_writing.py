"""Captions, answers, conversations, boxes and masks from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.cli import loading
from sightline.cli.output import Call
from sightline.inputs import run_lengths
from sightline.inputs.images import read_image
from sightline.tasks.model import Model
from tests.cli.conftest import Run
from tests.tasks.writers import scripted

BOX = "<loc0256><loc0000><loc0512><loc1023>"
CODES = "".join(f"<seg{n:03d}>" for n in range(16))

Use = Callable[..., Model]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Let every command be answered by a model that writes this."""

    def chosen(answer: Any, **changes: Any) -> Model:
        model = scripted(answer, **changes)
        monkeypatch.setattr("sightline.tasks.model.load", lambda *a, **k: model)
        return model

    return chosen


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sits before standard output."""
    monkeypatch.setattr(Call, "drawn", property(lambda call: not call.json))


def test_captions_of_a_folder_are_rows(run: Run, use: Use, parks: Path) -> None:
    use("a park")
    answer = run("caption", parks, "--model", "m")
    assert answer.code == 0 and answer.err == ""
    assert answer.out.splitlines() == [f"{parks / f'00000{n}.png'}\ta park" for n in range(4)]
    assert run("caption", parks / "000000.png", "--model", "m").out == "a park\n"


def test_options_reach_the_writing(run: Run, use: Use, parks: Path) -> None:
    model = use("a park in spring")
    picture = parks / "000000.png"
    document = run("caption", picture, "--model", "m", "--detail", "long", "--stop", "in", "--json")
    assert document.json["results"] == [{"file": str(picture), "caption": "a park"}]
    assert run("caption", picture, "--model", "m", "--prompt", "go", "--max-new-tokens", 3).out == (
        "a p\n"
    )
    assert model.network.asked == ["<bos>describe en\n", "<bos>go\n"]
    for wrong, told in (
        (("--detail", "short", "--prompt", "a"), "leave it out beside a prompt"),
        (("--temperature", "-1"), "temperature is -1.0: it must be"),
        (("--top-k", "3"), "top_k is 3 but temperature is 0"),
        (("--beams", "0"), "0 is not in the range"),
    ):
        answer = run("caption", picture, "--model", "m", *wrong)
        assert answer.code == 2 and told in answer.err


def test_one_answer_appears_as_it_is_written(
    run: Run, use: Use, parks: Path, terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("red \x1b[2J ball")
    pieces: list[str] = []
    speak = Call.pieces

    def listened(call: Call, given: Sequence[str]) -> str:
        kept = list(given)
        pieces.extend(kept)
        return speak(call, kept)

    monkeypatch.setattr(Call, "pieces", listened)
    answer = run("ask", parks / "000000.png", "what is it?", "--model", "m")
    assert answer.out == "red \ufffd[2J ball\n"  # nothing that a terminal would obey
    assert len(pieces) > 5
    pieces.clear()
    assert run("ask", parks / "000000.png", "what?", "--model", "m", "--json").json["results"]
    assert run("ask", parks / "000000.png", "what?", "--model", "m", "--beams", 2).code == 0
    assert not pieces


def test_ask_names_what_failed(run: Run, use: Use, parks: Path, tmp_path: Path) -> None:
    use("two")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    answer = run("ask", parks / "000000.png", bad, "how many?", "--model", "m", "--json")
    assert answer.code == 3
    assert [row["answer"] for row in answer.json["results"]] == ["two"]
    assert [row["file"] for row in answer.json["failed"]] == [str(bad)]
    chosen = run("ask", parks / "000000.png", "?", "--choices", "one,two", "--model", "m", "--json")
    assert chosen.json["results"][0]["answer"] == "two"


def test_chat_takes_standard_input_as_one_turn(
    run: Run, use: Use, parks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = use("a bench")
    answer = run("chat", parks / "000000.png", "--say", "what\nis it?", "--model", "m", "--json")
    said = answer.json["messages"]
    assert [message["role"] for message in said] == ["user", "assistant"]
    assert said[1]["content"] == "a bench" and answer.code == 0
    assert model.network.asked == ["<bos>answer en what is it?\n"]
    assert model.network.pictures == [1]
    empty = run("chat", "--model", "m")  # nothing on standard input
    assert empty.code == 2 and "the last turn must be a sentence" in empty.err


def test_at_a_terminal_a_conversation_goes_on(
    run: Run, use: Use, parks: Path, terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = use("yes")
    typed = iter(["what is it?", "sure?", ""])
    monkeypatch.setattr("sightline.cli.chat._at_a_terminal", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *a, **k: next(typed))
    assert run("chat", parks / "000000.png", "--model", "m").out == "yes\nyes\n"
    assert model.network.asked[1] == "<bos>what is it?\nyes\nanswer en sure?\n"
    assert model.network.pictures == [1, 1]


def test_boxes_are_rows_and_pictures(run: Run, use: Use, tmp_path: Path) -> None:
    use(f"{BOX} ball")
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    arguments = ("detect", tmp_path / "a.png", "--queries", "ball", "--model", "m")
    (row,) = run(*arguments).out.splitlines()
    name, label, score, box = row.split("\t")
    assert (name, label, box) == (str(tmp_path / "a.png"), "ball", "0.0,10.0,80.0,20.0")
    assert 0 < float(score) <= 1
    document = run(*arguments, "--score", "product", "--out", out, "--json").json
    (found,) = document["results"][0]["detections"]
    assert found["label"] == "ball" and found["box"] == pytest.approx([0, 10, 80, 20], abs=0.1)
    assert found["score"] < float(score)
    assert read_image(out / "a.png").shape[1] >= 80
    page = (out / "report.html").read_text()
    assert "1 in 1 pictures" in page and "a.png" in page
    # onto no original, also where it lies in the folder of the answers
    again = run(
        "detect", tmp_path / "a.png", "--queries", "ball", "--model", "m", "--out", tmp_path
    )
    assert again.code == 0 and (tmp_path / "a-2.png").is_file()
    assert read_image(tmp_path / "a.png").shape == (40, 80, 3)


def test_nothing_found_is_a_row_too(run: Run, use: Use, tmp_path: Path) -> None:
    use("no boxes")
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "a.png")
    answer = run("detect", tmp_path / "a.png", "--queries", "ball", "--model", "m")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'a.png'}\t-\n")
    unasked = run("detect", tmp_path / "a.png", "--model", "m")
    assert unasked.code == 2 and "give queries (--queries cat,dog" in unasked.err


def test_masks_are_run_lengths(run: Run, use: Use, tmp_path: Path, codec: Path) -> None:
    use(f"{BOX}{CODES} ball")
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "a.png")
    arguments = ("segment", tmp_path / "a.png", "--queries", "ball", "--model", "m")
    lost = run(*arguments)
    assert lost.code == 1 and "has no mask codec beside it" in lost.err
    out = tmp_path / "out"
    document = run(*arguments, "--codec", codec, "--json", "--out", out).json
    (found,) = document["results"][0]["segments"]
    mask = run_lengths.decode(found["mask"])
    assert mask.shape == (40, 80) and not mask[20:].any() and not mask[:10].any()
    assert (out / "a.png").is_file()


def test_without_a_name_the_bundled_writer_answers_and_says_so(
    run: Run, use: Use, parks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("a park", bundled=True, domain="drawn parks")
    monkeypatch.setattr("sightline.hub.catalogue.offline_substitute", lambda task: "park-paligemma")
    for command in (("caption", parks / "000000.png"), ("ask", parks / "000000.png", "what?")):
        answer = run(*command)
        assert answer.code == 0 and answer.out == "a park\n"
        assert answer.err.startswith(f"sightline: {loading.PARK_WARNING}")
    assert run("caption", parks / "000000.png", "--json").json["domain"] == "drawn parks"
    monkeypatch.setattr("sightline.hub.catalogue.offline_substitute", lambda task: None)
    for command in (("caption", parks / "000000.png"), ("detect", parks / "000000.png")):
        answer = run(*command)
        assert answer.code == 1 and answer.err.startswith("sightline: no model ")
    json.loads(run("caption", parks / "000000.png", "--json").out)
