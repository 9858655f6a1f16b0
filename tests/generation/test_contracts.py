"""The contracts hold for networks that are right, and each finds a mistake that is planted."""

import pytest
import torch

from sightline.core.interfaces import Cache, TextGenerator
from sightline.generation import contracts
from sightline.generation.contracts import CONTRACTS, cached_equals_recomputed
from tests.generation.stand_ins import (
    Recurrent,
    StateCache,
    behind_the_protocol,
    prompt_of,
    tiny_llama,
)

PROMPT = prompt_of([[1, 4, 5], [6], [7, 8, 9, 10]])


@pytest.fixture(scope="module")
def right():
    return [Recurrent(), behind_the_protocol(tiny_llama(0))]


@pytest.mark.parametrize("check", [*CONTRACTS, cached_equals_recomputed])
def test_right_networks_pass(check, right):
    for network in right:
        assert isinstance(network, TextGenerator)
        assert isinstance(network.prefill(PROMPT, 0)[1], Cache)
        check(network, PROMPT)
        check(network, prompt_of([[5, 6]]))


def test_recomputing_may_be_told():
    """For a network whose prompt sees itself in both directions, the caller says how."""
    network = Recurrent()

    def recompute(prompt, ids):
        rows = [[*row[own].tolist(), *new] for row, own, new in
                zip(prompt.ids, prompt.mask, ids.tolist(), strict=True)]  # fmt: skip
        scores = [network.extend(torch.tensor([row]), StateCache(torch.zeros(1, 16), 0))[0, -5:]
                  for row in rows]  # fmt: skip
        return torch.stack(scores)

    cached_equals_recomputed(network, PROMPT, recompute)
    with pytest.raises(AssertionError, match="with the cache: scores differ"):
        cached_equals_recomputed(network, PROMPT, lambda *given: recompute(*given) + 0.1)


class Half(Recurrent):
    def extend(self, ids, cache, mask=None):
        return super().extend(ids, cache, mask).half()


class Uncounted(Recurrent):
    """Counts calls, not tokens."""

    def extend(self, ids, cache, mask=None):
        before = cache.lengths
        scores = super().extend(ids, cache, mask)
        if mask is None:
            cache.lengths = before + 1
        return scores


class Writing(Recurrent):
    """Takes padding for text."""

    def extend(self, ids, cache, mask=None):
        return super().extend(ids, cache)


class Forgetful(Recurrent):
    """Within one call a token sees those before it, across calls it sees less."""

    def extend(self, ids, cache, mask=None):
        cache.state = cache.state * 0.5
        return super().extend(ids, cache, mask)


class Neighbourly(Recurrent):
    """Normalises over the batch."""

    def prefill(self, prompt, room):
        scores, cache = super().prefill(prompt, room)
        return scores - scores.mean(dim=0) * 0.5, cache


class InOrder(StateCache):
    def select(self, rows):
        return StateCache(self.state[rows.sort().values], self.lengths[rows])


class Shared(StateCache):
    """Copies write into the original."""

    def __init__(self, state, lengths, owner=None):
        super().__init__(state, lengths)
        self.owner = owner

    def select(self, rows):
        return Shared(self.state[rows], self.lengths[rows], self)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "state" and getattr(self, "owner", None) is not None:
            self.owner.state = self.owner.state + 0.1


class Caching(Recurrent):
    """Hands out another kind of cache."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def prefill(self, prompt, room):
        scores, cache = super().prefill(prompt, room)
        return scores, self.kind(cache.state, cache.lengths)


class Twofold(Recurrent):
    """Another network for a prompt than for what follows."""

    def prefill(self, prompt, room):
        scores, cache = super().prefill(prompt, room)
        cache.state = cache.state.flip(1)
        return scores, cache


@pytest.mark.parametrize(
    ("network", "check", "message"),
    [
        (Half(), contracts.scores_are_shaped, "scores are torch.float16"),
        (Uncounted(), contracts.scores_are_shaped, "5 tokens made the rows .*1, 1, 1.* longer"),
        (Forgetful(), contracts.one_by_one_equals_together, "one by one: scores differ"),
        (Writing(), contracts.padding_is_not_written, "padding takes a place"),
        (Neighbourly(), contracts.alone_equals_in_a_batch, "row 0 alone: scores differ"),
        (Caching(InOrder), contracts.select_takes_rows, "a selected row: scores differ"),
        (Caching(Shared), contracts.select_takes_rows, "scores differ"),
        (Twofold(), contracts.cached_equals_recomputed, "with the cache: scores differ"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Recurrent) else None,
)
def test_a_planted_mistake_is_found(network, check, message):
    with pytest.raises(AssertionError, match=message):
        check(network, PROMPT)


def test_a_stream_that_differs_is_found(monkeypatch):
    monkeypatch.setattr(contracts, "stream", lambda *given: iter(()))
    with pytest.raises(AssertionError, match="streamed '', at once"):
        contracts.streamed_equals_at_once(Recurrent(), PROMPT)


def test_a_score_that_differs_is_found(monkeypatch):
    score = contracts.score
    monkeypatch.setattr(contracts, "score", lambda n, p, texts: score(Recurrent(seed=1), p, texts))
    with pytest.raises(AssertionError, match="scored: scores differ"):
        contracts.scores_equal_writing(Recurrent(), PROMPT)
