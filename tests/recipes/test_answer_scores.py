"""Scores of a model that speaks, on answers that are known."""

import pytest
import torch
from torch import nn

from sightline.core.interfaces import Prompt, TextBatch
from sightline.data.park.records import ParkRecords
from sightline.models import paligemma
from sightline.recipes import answer_scores as scoring
from sightline.recipes.answer_data import ParkExamples, Speller
from sightline.recipes.answer_scores import answer_scores
from sightline.recipes.paligemma import start_of
from tests.recipes.speaking_runs import small

LENGTH = 200


@pytest.fixture(scope="module")
def examples():
    return list(ParkExamples(ParkRecords("test", 0, 6, 32, spoken=True), ("ask", "caption"), 0))


@pytest.fixture(scope="module")
def model(examples):
    recipe = small("park")
    start = start_of(recipe, recipe.chosen()[0], examples)
    for parameter in start.network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(0))
    start.network.eval()
    return start.as_model("small")


def test_scores_are_those_of_each_answer_alone(model, examples, monkeypatch):
    speller = Speller(model.processor, paligemma.instructions(model.config), LENGTH)
    likely, right, exact = [], [], []
    for example in examples:
        spoken = speller(example)
        ids, suffix = torch.tensor([spoken.prompt]), torch.tensor([spoken.suffix])
        prompt = Prompt(ids, torch.ones_like(ids, dtype=torch.bool), (spoken.pixels,))
        with torch.no_grad():
            (logits,) = model.network(prompt, TextBatch(suffix, suffix > -1)).logits
        likely.extend(logits.log_softmax(dim=1)[range(len(spoken.suffix)), spoken.suffix].tolist())
        hits = (logits.argmax(dim=1) == suffix[0]).tolist()
        right.extend(hits)
        exact.append(all(hits))
    for chunk in (scoring.CHUNK, 3):
        monkeypatch.setattr(scoring, "CHUNK", chunk)
        found = answer_scores(model, examples, LENGTH, len(examples))
        assert found["logprob"] == pytest.approx(sum(likely) / len(likely), abs=1e-4)
        assert found["tokens"] == pytest.approx(sum(right) / len(right))
        assert found["exact"] == pytest.approx(sum(exact) / len(exact))


def test_no_more_tokens_are_scored_than_answers_have(model, examples, monkeypatch):
    """Nor at a time: a vocabulary of 257,216 takes a megabyte of scores for each."""
    rows = []
    own = model.network.logits
    monkeypatch.setattr(scoring, "CHUNK", 7)
    monkeypatch.setattr(
        model.network, "logits", lambda x: rows.append(x.shape[:-1].numel()) or own(x)
    )
    answer_scores(model, examples, LENGTH, len(examples))
    speller = Speller(model.processor, paligemma.instructions(model.config), LENGTH)
    assert max(rows) == 7
    assert sum(rows) == sum(len(speller(example).suffix) for example in examples)


def test_what_the_pictures_give_is_seen_beside_other_pictures(model, examples):
    assert "exact, other pictures" not in answer_scores(model, examples, LENGTH, 4)
    assert "exact, other pictures" in answer_scores(model, examples, LENGTH, 4, control=True)
