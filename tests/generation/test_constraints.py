"""Only what is allowed is written: choices among answers, and rules of one's own."""

import pytest
import torch

from sightline.core.errors import ConfigError, InputError
from sightline.generation import Choices, GenerationOptions, beam_search, generate, score, stream
from tests.generation.stand_ins import Recurrent, behind_the_protocol, prompt_of, theirs, tiny_llama

PROMPT = prompt_of([[1, 4, 5], [6], [7, 8, 9, 10]])
END = 2
WORDS = [[3], [3, 4], [5, 6, 7], [5, 6, 8]]


class Even:
    """Even tokens, at most three of them."""

    def allowed(self, ids):
        mask = torch.zeros(11, dtype=torch.bool)
        mask[::2] = len(ids) < 3
        return mask


def test_a_choice_is_one_of_them_and_then_the_end():
    choices = Choices(WORDS, 11, [END])

    def following(ids):
        return choices.allowed(ids).nonzero()[:, 0].tolist()

    assert following([]) == [3, 5]
    assert following([3]) == [END, 4]
    assert following([3, 4]) == [END]
    assert following([5, 6]) == [7, 8]
    assert following([5, 6, 7]) == [END]
    assert following([3, 4, END]) == [] and following([9]) == []


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_only_choices_are_written(temperature):
    written = set()
    for seed in range(12):
        options = GenerationOptions(6, temperature=temperature, seed=seed)
        for answer in generate(Recurrent(seed=seed), PROMPT, options, [END],
                               constraint=Choices(WORDS, 11, [END])):  # fmt: skip
            assert answer.reason == "end" and answer.ids[-1] == END
            written.add(tuple(answer.ids[:-1]))
    assert written == set(map(tuple, WORDS))


def test_enough_beams_choose_the_likeliest_answer():
    for seed in range(5):
        network, choices = Recurrent(seed=seed), Choices(WORDS, 11, [END])
        options = GenerationOptions(6, beams=8, length_penalty=0.0)
        answers = generate(network, PROMPT, options, [END], constraint=choices)
        for answer, scored in zip(answers, score(network, PROMPT, [WORDS] * 3, END), strict=True):
            totals = [one.total for one in scored]
            best = totals.index(max(totals))
            assert answer.ids == [*WORDS[best], END]
            assert sum(answer.logprobs) == pytest.approx(totals[best], abs=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_constrained_answers_are_those_of_transformers(beams):
    choices, prompt = Choices([*WORDS, [9, 9], [10]], 17, [END]), prompt_of([[1, 4, 5]])
    for seed in range(5):
        network = tiny_llama(seed)
        expected = theirs(
            network, prompt, max_new_tokens=6, num_beams=beams, do_sample=False, eos_token_id=END,
            prefix_allowed_tokens_fn=lambda _, ids: choices.allowed(ids[3:].tolist())
            .nonzero()[:, 0].tolist() or [END],
        )  # fmt: skip
        options = GenerationOptions(6, beams=beams)
        answer = generate(behind_the_protocol(network), prompt, options, [END],
                          constraint=choices)[0]  # fmt: skip
        ids = expected.sequences[0, 3:].tolist()
        assert answer.ids == ids[: ids.index(END) + 1]


def test_each_row_may_have_a_rule_of_its_own():
    rules = [Choices([[3]], 11, [END]), None, Even()]
    options = GenerationOptions(6)
    free = generate(Recurrent(), PROMPT, options, [END])
    bound = generate(Recurrent(), PROMPT, options, [END], constraint=rules)
    assert bound[0].ids == [3, END]
    assert bound[1].ids == free[1].ids
    assert all(token % 2 == 0 for token in bound[2].ids)


@pytest.mark.parametrize("beams", [1, 2])
def test_where_nothing_is_allowed_the_answer_is_complete(beams):
    options = GenerationOptions(9, beams=beams)
    for answer in generate(Recurrent(), PROMPT, options, (), constraint=Even()):
        assert answer.reason == "end" and len(answer.ids) == len(answer.logprobs) == 3
    closed = Choices([[3, 4]], 11, [])
    found = beam_search(Recurrent(), PROMPT, options, (), constraint=closed)
    assert [[beam.answer.ids for beam in row] for row in found] == [[[3, 4]]] * 3


def test_a_stream_ends_without_a_token_where_nothing_is_allowed():
    pieces = list(stream(Recurrent(), prompt_of([[1]]), GenerationOptions(9), (),
                         lambda ids: "x" * len(ids), Even()))  # fmt: skip
    assert [piece.text for piece in pieces] == ["x", "x", "x", ""]
    assert pieces[-1][1:] == (None, 0.0, "", "end")


def test_tokens_behind_the_rules_vocabulary_are_not_allowed():
    """A network may know more tokens than its tokenizer: the rest of its table is filling."""

    class Narrow:
        def allowed(self, ids):
            return torch.ones(2, dtype=torch.bool)

    for answer in generate(Recurrent(), PROMPT, GenerationOptions(5), (), constraint=Narrow()):
        assert set(answer.ids) <= {0, 1}


def test_what_does_not_fit_is_told():
    class Wrong:
        def __init__(self, mask):
            self.mask = mask

        def allowed(self, ids):
            return self.mask

    options = GenerationOptions(3)
    for mask in (torch.ones(11), torch.ones(12, dtype=torch.bool), torch.ones(1, 11) > 0):
        with pytest.raises(InputError, match=r"a constraint allows torch.* at most the 11 tokens"):
            generate(Recurrent(), PROMPT, options, (), constraint=Wrong(mask))
    with pytest.raises(ConfigError, match="2 constraints for 3 prompts"):
        generate(Recurrent(), PROMPT, options, (), constraint=[None, None])
    for choices, ends, message in [
        ([], [2], "no choices"),
        ([[]], [2], "a choice without tokens"),
        ([[3, 2]], [2], r"the choice \[3, 2\] holds an end token"),
        ([[3, 11]], [2], "token 11 is not in the vocabulary of 11"),
        ([[3], [3, 4]], [], r"the choice \[3\] begins another one: .* pass end_ids"),
        ([[3, 4], [3]], [], r"the choice \[3\] begins another one: .* pass end_ids"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Choices(choices, 11, ends)
