"""How likely texts are: the sums over a whole forward pass, however they are cut into batches."""

import math

import pytest
import torch

from sightline.core.errors import InputError, SightlineError
from sightline.generation import GenerationOptions, generate, score
from tests.generation.stand_ins import (
    Recomputing,
    Recurrent,
    behind_the_protocol,
    prompt_of,
    tiny_llama,
)

ROWS = [[1, 4, 5], [6], [7, 8, 9, 10]]
PROMPT = prompt_of(ROWS)
TEXTS = [[[3, 4, 5], [8], [3, 4, 5, 9, 11, 3]], [], [[5, 5], [], [12, 1, 4, 4]]]


def by_hand(network, row, text):
    """Every token's log-probability from one forward pass of transformers' network."""
    with torch.no_grad():
        logprobs = network(torch.tensor([[*row, *text]])).logits[0].log_softmax(dim=1)
    return [float(logprobs[len(row) - 1 + place, token]) for place, token in enumerate(text)]


@pytest.mark.parametrize("limits", [{}, {"rows": 1}, {"rows": 2}, {"scores": 60}, {"scores": 1}])
@pytest.mark.parametrize("end_id", [None, 2])
def test_scores_are_the_sums_of_a_whole_pass(end_id, limits):
    network = tiny_llama(0)
    found = score(behind_the_protocol(network), PROMPT, TEXTS, end_id, **limits)
    for row, texts, own in zip(ROWS, TEXTS, found, strict=True):
        assert len(own) == len(texts)
        for text, scored in zip(texts, own, strict=True):
            expected = by_hand(network, row, [*text, *([] if end_id is None else [end_id])])
            assert scored.logprobs == pytest.approx(expected, abs=1e-5)
            assert scored.total == pytest.approx(sum(expected), abs=1e-5)


def test_probabilities_of_all_texts_sum_to_one():
    network = Recurrent(vocabulary=5)
    pairs = [[a, b] for a in range(5) for b in range(5)]
    found = score(network, prompt_of([[1, 2]]), [pairs])[0]
    assert sum(math.exp(scored.total) for scored in found) == pytest.approx(1, abs=1e-5)


def test_a_prompt_is_read_once_and_memory_is_bounded():
    network = behind_the_protocol(tiny_llama(0))
    texts = [[[3, 4]] * 10, [[5]] * 3, []]
    score(network, PROMPT, texts, end_id=2, rows=4)
    assert network.rows_read[0] == 3  # the prompts, once
    assert sum(network.rows_read[1:]) == 13
    assert max(network.rows_read[1:]) == 4


def test_texts_of_one_token_need_no_more_than_the_prompt():
    network = behind_the_protocol(tiny_llama(0))
    score(network, PROMPT, [[[3], [4]]] * 3)
    assert network.rows_read == [3]


def test_what_was_written_scores_as_it_was_written():
    network = Recurrent()
    answers = generate(network, PROMPT, GenerationOptions(7, temperature=1.2), [2])
    found = score(network, PROMPT, [[answer.ids] for answer in answers])
    for answer, (scored,) in zip(answers, found, strict=True):
        assert scored.logprobs == pytest.approx(answer.logprobs, abs=1e-5)


def test_what_does_not_fit_is_told():
    with pytest.raises(InputError, match="texts for 2 prompts, but there are 3"):
        score(Recurrent(), PROMPT, [[[1]], [[1]]])
    with pytest.raises(InputError, match="token 11 is not among the 11 that the network knows"):
        score(Recurrent(), PROMPT, [[[1, 11]], [], []])
    broken = Recomputing(lambda ids: torch.full((*ids.shape, 17), math.nan))
    with pytest.raises(SightlineError, match="scores are not numbers"):
        score(broken, PROMPT, TEXTS)
    assert score(Recurrent(), prompt_of([]), []) == []
