"""The loop that writes: transformers' tokens, rows that end when they like, and streams."""

import itertools
import math

import pytest
import torch

from sightline.core.errors import ConfigError, InputError, SightlineError
from sightline.core.interfaces import Prompt
from sightline.generation import GenerationOptions, generate, stream
from tests.generation.stand_ins import (
    Recomputing,
    Recurrent,
    behind_the_protocol,
    prompt_of,
    steps,
    theirs,
    tiny_llama,
)

PROMPT = prompt_of([[1, 4, 5], [6], [7, 8, 9, 10]])
ENDS = [2, 9, 15]


def spelt(ids):
    return "".join(chr(ord("a") + token) for token in ids)


def until_end(row, ends=ENDS):
    """A row of transformers' output up to its end token."""
    cut = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return row[:cut]


@pytest.mark.parametrize("seed", range(6))
def test_greedy_tokens_and_probabilities_are_those_of_transformers(seed):
    network = tiny_llama(seed)
    answers = generate(behind_the_protocol(network), PROMPT, GenerationOptions(9), ENDS)
    expected = theirs(network, PROMPT, max_new_tokens=9, do_sample=False, eos_token_id=ENDS,
                      output_logits=True)  # fmt: skip
    logprobs = torch.stack(expected.logits, dim=1).log_softmax(dim=2)
    for row, answer in enumerate(answers):
        ids = until_end(expected.sequences[row, PROMPT.ids.shape[1] :].tolist())
        assert answer.ids == ids
        own = logprobs[row, torch.arange(len(ids)), ids]
        torch.testing.assert_close(torch.tensor(answer.logprobs), own, rtol=0, atol=1e-5)
        assert answer.reason == ("end" if ids[-1] in ENDS else "length")
        assert answer.text is None


@pytest.mark.parametrize("seed", range(4))
def test_penalties_give_the_tokens_of_transformers(seed):
    network, prompt = tiny_llama(seed), prompt_of([[1, 4, 5, 4, 5, 12]])
    options = GenerationOptions(12, repetition_penalty=1.4, no_repeat_ngram=2)
    expected = theirs(network, prompt, max_new_tokens=12, do_sample=False, eos_token_id=2,
                      repetition_penalty=1.4, no_repeat_ngram_size=2)  # fmt: skip
    answer = generate(behind_the_protocol(network), prompt, options, [2])[0]
    assert answer.ids == until_end(expected.sequences[0, 6:].tolist(), [2])
    plain = generate(behind_the_protocol(network), prompt, GenerationOptions(12), [2])[0]
    assert plain.ids != answer.ids
    # Log-probabilities stay the network's own: the first is so whatever was penalised.
    first = network(prompt.ids).logits.detach()[0, -1].log_softmax(dim=0)
    assert answer.logprobs[0] == pytest.approx(float(first[answer.ids[0]]), abs=1e-5)


def test_rules_read_each_row_to_its_own_end():
    options = GenerationOptions(8, repetition_penalty=1.6, no_repeat_ngram=2)
    network = behind_the_protocol(tiny_llama(3))
    together = generate(network, PROMPT, options, [2])
    for row in range(3):
        own = prompt_of([PROMPT.ids[row][PROMPT.mask[row]].tolist()])
        assert generate(network, own, options, [2])[0].ids == together[row].ids


def test_drawn_tokens_follow_the_numbers_of_the_row():
    """The same answer by hand: cumulated probabilities against the generator's numbers."""
    network, options = Recurrent(), GenerationOptions(9, temperature=0.7, seed=11)
    answers = generate(network, PROMPT, options, ())
    numbers = torch.rand(9, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    for row, answer in enumerate(answers):
        own = prompt_of([PROMPT.ids[row][PROMPT.mask[row]].tolist()])
        logits, cache = network.prefill(own, 9)
        for token, logprob, number in zip(answer.ids, answer.logprobs, numbers, strict=True):
            shares = (logits[0].double() / 0.7).softmax(dim=0).cumsum(dim=0)
            assert token == int((shares <= number).sum())
            assert logprob == pytest.approx(float(logits[0].log_softmax(dim=0)[token]), abs=1e-5)
            logits = network.extend(torch.tensor([[token]]), cache)[:, 0]


def test_a_row_does_not_depend_on_its_neighbours():
    network, options = Recurrent(seed=4), GenerationOptions(12, temperature=1.5, seed=3)
    together = generate(network, PROMPT, options, [2, 5])
    assert len({len(answer.ids) for answer in together}) > 1  # some leave the batch earlier
    for row in range(3):
        own = prompt_of([PROMPT.ids[row][PROMPT.mask[row]].tolist()])
        assert generate(network, own, options, [2, 5])[0].ids == together[row].ids
    other = generate(network, PROMPT, GenerationOptions(12, temperature=1.5, seed=4), [2, 5])
    assert [a.ids for a in other] != [a.ids for a in together]
    shorter = generate(network, PROMPT, GenerationOptions(3, temperature=1.5, seed=3), [2, 5])
    assert [a.ids for a in shorter] == [a.ids[:3] for a in together]


def test_top_k_of_1_is_greedy():
    network = Recurrent()
    greedy = generate(network, PROMPT, GenerationOptions(8), ())
    for one in ({"top_k": 1}, {"top_p": 1e-6}):
        drawn = generate(network, PROMPT, GenerationOptions(8, temperature=2.0, **one), ())
        assert [a.ids for a in drawn] == [a.ids for a in greedy]


COUNTDOWN = [(5, 4), (4, 3), (3, 2), (2, 1), (1, 0)]


def test_rows_that_end_leave_the_batch():
    network = steps(*COUNTDOWN, (0, 0), size=6)
    answers = generate(network, prompt_of([[5], [1], [3], [3]]), GenerationOptions(9), [0])
    assert [a.ids for a in answers] == [[4, 3, 2, 1, 0], [0], [2, 1, 0], [2, 1, 0]]
    assert {a.reason for a in answers} == {"end"}
    assert network.rows_read == [4, 3, 3, 1, 1]


def test_the_room_is_used_to_the_last_token_and_not_beyond():
    """The stand-in fails where more is written than was asked room for."""
    network = steps(*COUNTDOWN, (0, 5), size=6)
    answer = generate(network, prompt_of([[5]]), GenerationOptions(8), ())[0]
    assert answer.ids == [4, 3, 2, 1, 0, 5, 4, 3]
    assert answer.reason == "length"


def test_nothing_is_asked_for_and_nothing_done():
    network = steps(*COUNTDOWN, size=6)
    answers = generate(network, prompt_of([[5], [4]]), GenerationOptions(0), [0], spelt)
    assert answers == [([], [], "length", "")] * 2
    assert list(stream(network, prompt_of([[5]]), GenerationOptions(0), [0])) == []
    assert generate(network, prompt_of([]), GenerationOptions(5), [0]) == []
    assert network.rows_read == []


def test_a_prompt_that_cannot_be_continued_is_told():
    network, options = steps(*COUNTDOWN, size=6), GenerationOptions(3)
    with pytest.raises(InputError, match="row 1 of the prompt is empty: it needs a token"):
        generate(network, prompt_of([[5], []]), options, [0])
    ids = torch.tensor([[0, 5]])
    with pytest.raises(
        InputError, match=r"row 0 .* padding before its last token: pad on the right"
    ):
        generate(network, Prompt(ids, torch.tensor([[False, True]])), options, [0])
    with pytest.raises(InputError, match=r"ids are \[1, 2\] and its mask \[2\]"):
        generate(network, Prompt(ids, torch.tensor([True, True])), options, [0])
    with pytest.raises(InputError, match=r"mask .* of torch.int64: .* the mask boolean"):
        stream(network, Prompt(ids, ids), options, [0])
    with pytest.raises(InputError, match="a prompt of 1 rows has pictures for 2 rows"):
        generate(network, Prompt(ids, ids >= 0, ((), ())), options, [0])


def test_a_picture_alone_is_a_prompt():
    class Looking(Recurrent):
        def prefill(self, prompt, room):
            assert len(prompt.pictures[0]) == 1
            return super().prefill(prompt_of([[1]]), room)

    prompt = prompt_of([[]])._replace(pictures=((torch.zeros(3, 4, 4),),))
    assert len(generate(Looking(), prompt, GenerationOptions(3), ())[0].ids) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("more", [{}, {"temperature": 1.0}, {"beams": 2}])
def test_scores_that_are_no_numbers_are_an_error(value, more):
    broken = Recomputing(lambda ids: torch.full((*ids.shape, 6), value))
    with pytest.raises(SightlineError, match=r"scores are not numbers .* try float32"):
        generate(broken, prompt_of([[1]]), GenerationOptions(3, **more), [0])


def pieces_by_row(pieces, rows):
    return [[piece for piece in pieces if piece.row == row] for row in range(rows)]


@pytest.mark.parametrize("stop", [(), ("ba",), ("c", "ddb"), ("kk", "ab", "f")])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_streamed_answer_is_the_answer(stop, temperature):
    for seed in range(8):
        network = Recurrent(seed=seed)
        options = GenerationOptions(12, temperature=temperature, seed=seed, stop=stop)
        answers = generate(network, PROMPT, options, [2], spelt)
        pieces = list(stream(network, PROMPT, options, [2], spelt))
        for answer, own in zip(answers, pieces_by_row(pieces, 3), strict=True):
            assert "".join(piece.text for piece in own) == answer.text
            assert [piece.id for piece in own] == answer.ids
            assert [piece.logprob for piece in own] == answer.logprobs
            assert [piece.reason for piece in own] == [None] * (len(own) - 1) + [answer.reason]
            assert not any(word in answer.text for word in stop)
            whole = spelt(answer.ids[:-1] if answer.reason == "end" else answer.ids)
            assert whole.startswith(answer.text)
            if answer.reason == "stop":
                assert whole[len(answer.text) :] in stop
            else:
                assert whole == answer.text


def test_closing_a_stream_stops_the_work():
    network = steps(*COUNTDOWN, (0, 5), size=6)
    pieces = stream(network, prompt_of([[5]]), GenerationOptions(100), (), spelt)
    assert [piece.text for piece in itertools.islice(pieces, 3)] == ["e", "d", "c"]
    pieces.close()
    assert len(network.rows_read) == 3
    assert list(pieces) == []


def test_a_stream_leaves_the_callers_gradients_alone():
    pieces = stream(Recurrent(), PROMPT, GenerationOptions(3), ())
    next(pieces)
    assert torch.is_grad_enabled()


def test_stop_texts_need_a_way_to_see_text():
    with pytest.raises(ConfigError, match=r"stop is \['x'\] but .* pass decode"):
        generate(Recurrent(), PROMPT, GenerationOptions(3, stop=("x",)), ())


def test_beams_cannot_be_streamed():
    with pytest.raises(ConfigError, match="beams is 2: a search knows its answer only at the end"):
        stream(Recurrent(), PROMPT, GenerationOptions(3, beams=2), ())
