"""How likely answers are, against a pass through the whole network without a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sightline.core.errors import ConfigError, InputError
from sightline.core.interfaces import Prompt, TextBatch
from sightline.tasks.ask import score_choices
from sightline.tasks.model import Model
from sightline.tasks.writing import read_task_options, write_each
from tests.tasks.writers import SCALE, WORDS, random_writer, scripted

DICE = np.random.default_rng(0)
PICTURES = [DICE.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((20, 31), (9, 9))]


@pytest.fixture(scope="module")
def writer() -> Model:
    return random_writer()


def by_hand(model: Model, picture: np.ndarray, prompt: str, text: str) -> float:
    """log p of text and end, in one pass and with nothing of the tasks."""
    ids = WORDS.encode(f"<bos>{prompt}\n", trusted=True)
    suffix = torch.tensor([[*WORDS.encode(text, trusted=True), WORDS.eos_id]])
    pixels = model.processor.images([picture])[0]
    row = torch.tensor([ids])
    prompts = Prompt(row, torch.ones_like(row, dtype=torch.bool), ((pixels,),))
    with torch.no_grad():
        logits = model.network(
            prompts, TextBatch(suffix, torch.ones_like(suffix, dtype=torch.bool))
        ).logits
    return float(logits.log_softmax(-1).gather(2, suffix[..., None]).sum())


TEXTS = ["a", "red ball", "<loc0001><loc0002> cat", ""]


def test_logprob_counts_every_token_and_the_end(writer: Model) -> None:
    rows = writer.logprob(PICTURES, "answer en what?", TEXTS)
    assert [row.shape for row in rows] == [(4,), (4,)]
    assert rows[0].dtype == torch.float32
    for picture, row in zip(PICTURES, rows, strict=True):
        expected = [by_hand(writer, picture, "answer en what?", text) for text in TEXTS]
        assert row.tolist() == pytest.approx(expected, abs=1e-4)
    assert writer.logprob(PICTURES[0], "a", "b").shape == (1,)
    assert torch.allclose(writer.logprob(PICTURES[0], "<image>answer en what?", TEXTS), rows[0])


def test_logprob_needs_a_text(writer: Model) -> None:
    with pytest.raises(InputError, match="no texts arrived: give at least one to score"):
        writer.logprob(PICTURES[0], "caption en", [])


def test_choices_and_labels_are_shares_of_likelihood(writer: Model) -> None:
    names = ["red", "a blue ball", "c"]
    for prompt, ranked in (
        ("answer en what is this?", writer.classify(PICTURES[0], names)),
        ("answer en which?", next(iter(score_choices(writer, PICTURES[0], "which?", names)))),
    ):
        logs = torch.tensor([by_hand(writer, PICTURES[0], prompt, name) for name in names])
        expected = dict(zip(names, logs.softmax(0).tolist(), strict=True))
        assert {label.label: label.score for label in ranked} == pytest.approx(expected, abs=1e-4)
        assert [label.score for label in ranked] == sorted(expected.values(), reverse=True) or (
            pytest.approx(sorted(expected.values(), reverse=True), abs=1e-4)
            == [label.score for label in ranked]
        )
    assert writer.ask(PICTURES[0], "which?", names) == ranked[0].label
    assert writer.ask(PICTURES, "which?", choices=names)[0] == ranked[0].label


def test_a_text_is_not_likelier_for_beginning_another() -> None:
    model = scripted("red ball")
    assert model.ask(PICTURES[0], "what?", choices=["red", "red ball", "r"]) == "red ball"
    first, *_ = model.classify(PICTURES[0], ["red", "red ball"])
    assert first.label == "red ball" and first.score > 0.99


def test_given_answers_stay_text() -> None:
    # It writes the token of a place; an answer that spells the token is letters, and unlikely.
    model = scripted("<loc0001>")
    assert model.ask(PICTURES[0], "where?", choices=["<loc0001>", "x"]) == "x"
    assert model.classify(PICTURES[0], ["<loc0001>", "x"])[0].label == "x"
    place, letter = model.logprob(PICTURES[0], "answer en where?", ["<loc0001>", "x"]).tolist()
    assert place > letter  # where the caller wrote it, it is the token


def test_match_is_yes_against_no() -> None:
    def answer(words: str, pictures: Any) -> str:
        return "yes" if '"a red ball"' in words else "no"

    model = scripted(answer)
    texts = ["a red ball", "a car", "a red ball"]
    scores = model.match(PICTURES[0], texts)
    assert scores.shape == (3,) and scores.dtype == torch.float32
    assert model.network.asked[0] == (
        '<bos>answer en does this figure show "a red ball"? please answer yes or no.\n'
    )
    # Three tokens of "yes" and its end stand against two of "no" and its end.
    likely, odd = SCALE, 0.0
    share = 1 / (1 + np.exp(-3 * (likely - odd)))
    assert float(scores[0]) == float(scores[2]) == pytest.approx(share, abs=0.01)
    assert float(scores[1]) < 0.01
    alone = model.match(PICTURES, ["a car"])
    assert [float(row[0]) for row in alone] == [pytest.approx(float(scores[1]))] * 2


def test_a_picture_is_looked_at_once_for_many_texts_and_questions(
    writer: Model, monkeypatch
) -> None:
    texts = ["a red ball", "a car", "two cats"]
    alone = torch.stack([writer.match(PICTURES[0], text)[0] for text in texts])
    looked = []
    look = writer.network.image_tokens

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        looked.append(len(pixels))
        return look(pixels)

    monkeypatch.setattr(writer.network, "image_tokens", counted)
    torch.testing.assert_close(writer.match(PICTURES[0], texts), alone)
    writer.match(PICTURES, texts)
    assert looked == [1, 2]
    ids = [WORDS.encode(f"<bos>answer en {text}\n", trusted=True) for text in texts]
    rows = [(PICTURES[0],)] * 3
    answers = list(write_each(writer, rows, ids, read_task_options({}, 4)))
    assert looked == [1, 2, 1] and len(answers) == 3


def test_templates_are_none_of_a_model_that_asks(writer: Model) -> None:
    with pytest.raises(ConfigError, match="asks in its own words: leave the templates out"):
        writer.classify(PICTURES[0], ["a"], templates="a {}")
    with pytest.raises(ConfigError, match="has a template of its own"):
        score_choices(writer, PICTURES[0], "which?", ["a"], template="{choice} {question}")
    with pytest.raises(InputError, match="reads words and has no labels of its own"):
        writer.classify(PICTURES[0])
