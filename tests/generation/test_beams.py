"""Beam search: transformers' answers and scores, and the best of all answers where it can be."""

import itertools

import pytest
import torch

from sightline.generation import GenerationOptions, beam_search, generate
from tests.generation.stand_ins import (
    Recurrent,
    StateCache,
    WordsCache,
    behind_the_protocol,
    prompt_of,
    theirs,
    tiny_llama,
)

PROMPT = prompt_of([[1, 4, 5], [6], [7, 8, 9, 10]])
ENDS = [2, 9, 15]


def their_answers(network, options, ends, **more):
    """For each prompt the ids and scores that transformers finds, best first."""
    found = theirs(
        network, PROMPT, max_new_tokens=options.max_new_tokens, num_beams=options.beams,
        num_return_sequences=options.beams, do_sample=False, eos_token_id=ends,
        length_penalty=options.length_penalty, early_stopping=options.early_stopping, **more,
    )  # fmt: skip
    answers = []
    for row in range(len(PROMPT.ids)):
        own = slice(row * options.beams, (row + 1) * options.beams)
        ids = found.sequences[own, PROMPT.ids.shape[1] :].tolist()
        lengths = (found.beam_indices[own] >= 0).sum(dim=1).tolist()
        scores = found.sequences_scores[own].tolist()
        answers.append([(i[:n], s) for i, n, s in zip(ids, lengths, scores, strict=True)
                        if s > -1e6])  # fmt: skip
    return answers


def assert_equal_answers(ours, expected):
    for beams, wanted in zip(ours, expected, strict=True):
        assert [beam.answer.ids for beam in beams] == [ids for ids, _ in wanted]
        scores = torch.tensor([beam.score for beam in beams])
        torch.testing.assert_close(
            scores, torch.tensor([s for _, s in wanted]), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5, -0.7])
@pytest.mark.parametrize("beams", [2, 5])
def test_answers_and_scores_are_those_of_transformers(beams, length_penalty, early_stopping):
    options = GenerationOptions(7, beams=beams, length_penalty=length_penalty,
                                early_stopping=early_stopping)  # fmt: skip
    for seed in range(4):
        network = tiny_llama(seed)
        for ends in ([2], ENDS):
            found = beam_search(behind_the_protocol(network), PROMPT, options, ends)
            assert_equal_answers(found, their_answers(network, options, ends))


def test_rules_act_as_in_transformers():
    options = GenerationOptions(7, beams=3, repetition_penalty=1.5, no_repeat_ngram=2)
    for seed in range(4):
        network = tiny_llama(seed)
        alone = prompt_of([[1, 4, 5, 4, 5, 12]])
        expected = theirs(network, alone, max_new_tokens=7, num_beams=3, do_sample=False,
                          eos_token_id=ENDS, repetition_penalty=1.5,
                          no_repeat_ngram_size=2)  # fmt: skip
        best = beam_search(behind_the_protocol(network), alone, options, ENDS)[0][0]
        ids = expected.sequences[0, 6:].tolist()
        assert best.answer.ids == ids[: len(best.answer.ids)]
        assert best.score == pytest.approx(float(expected.sequences_scores[0]), abs=1e-5)


def test_a_cache_that_is_not_reordered_is_found(monkeypatch):
    """Planted: rows are taken in the order in which they stand."""
    select = WordsCache.select
    options = GenerationOptions(7, beams=4)

    def in_order(self, rows):
        return select(self, rows if len(rows) != len(self.rows) else torch.arange(len(rows)))

    networks = [tiny_llama(seed) for seed in range(3)]
    expected = [their_answers(network, options, [2]) for network in networks]
    monkeypatch.setattr(WordsCache, "select", in_order)
    with pytest.raises(AssertionError):
        for network, wanted in zip(networks, expected, strict=True):
            assert_equal_answers(
                beam_search(behind_the_protocol(network), PROMPT, options, [2]), wanted
            )


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy(seed):
    network, options = Recurrent(seed=seed), GenerationOptions(9)
    greedy = generate(network, PROMPT, options, [2, 7])
    for answer, beams in zip(greedy, beam_search(network, PROMPT, options, [2, 7]), strict=True):
        assert [beam.answer.ids for beam in beams] == [answer.ids]
        assert beams[0].answer.reason == answer.reason
        assert beams[0].score == pytest.approx(sum(answer.logprobs) / len(answer.ids), abs=1e-5)


def every_answer(vocabulary, end, longest):
    """All answers of at most so many tokens; shorter ones end with the end token."""
    others = [token for token in range(vocabulary) if token != end]
    for length in range(1, longest + 1):
        for begin in itertools.product(others, repeat=length - 1):
            yield [*begin, end]
            if length == longest:
                yield from ([*begin, token] for token in others)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_enough_beams_find_the_best_of_all_answers(seed, length_penalty):
    """Summed by hand from the recurrent network's own scores, over all answers of 4 tokens."""
    network, vocabulary, longest = Recurrent(vocabulary=4, seed=seed), 4, 4
    options = GenerationOptions(longest, beams=vocabulary**longest, length_penalty=length_penalty)
    prompt = prompt_of([[1, 3]])
    scored = {}
    for answer in every_answer(vocabulary, 2, longest):
        scores = network.extend(torch.tensor([[1, 3, *answer]]), fresh(network))
        chosen = scores[0, 1:-1].log_softmax(dim=1)[torch.arange(len(answer)), answer]
        scored[tuple(answer)] = float(chosen.sum()) / len(answer) ** length_penalty
    best = max(scored, key=scored.__getitem__)
    beams = beam_search(network, prompt, options, [2])[0]
    assert tuple(beams[0].answer.ids) == best
    assert beams[0].score == pytest.approx(scored[best], abs=1e-5)
    assert {tuple(beam.answer.ids) for beam in beams} <= set(scored)


def fresh(network):
    return StateCache(torch.zeros(1, network.cell.hidden_size), torch.zeros(1).long())


def test_a_search_that_ends_leaves_the_batch():
    network = behind_the_protocol(tiny_llama(5))
    options = GenerationOptions(20, beams=2, early_stopping=True)
    beam_search(network, PROMPT, options, ENDS)
    assert network.rows_read[0] == 3 and network.rows_read[1] == 6
    assert network.rows_read[-1] < 6


def test_beams_stop_at_stop_texts():
    def spelt(ids):
        return "".join(chr(ord("a") + token) for token in ids)

    options = GenerationOptions(8, beams=3, stop=("b", "kc"))
    for seed in range(4):
        for beams in beam_search(Recurrent(seed=seed), PROMPT, options, (), spelt):
            for answer, _ in beams:
                whole = spelt(answer.ids)
                assert answer.text == whole[: len(answer.text)]
                assert (answer.reason == "stop") == (whole != answer.text)
                assert "b" not in answer.text and "kc" not in answer.text


def test_generate_gives_the_best_beam():
    network, options = Recurrent(), GenerationOptions(6, beams=3)
    found = beam_search(network, PROMPT, options, [2])
    assert generate(network, PROMPT, options, [2]) == [beams[0].answer for beams in found]


def test_nothing_is_asked_for():
    for rows in (PROMPT, prompt_of([])):
        found = beam_search(Recurrent(), rows, GenerationOptions(0, beams=2), [2])
        assert found == [[(([], [], "length", None), 0.0)]] * len(rows.ids)
