"""What every network that writes promises, as functions that anyone can run on one of their own.

    from sightline.generation.contracts import CONTRACTS
    for check in CONTRACTS: check(network, prompt)

Each takes a network in evaluation mode and a prompt, best of several rows of unequal lengths, and
raises AssertionError, with what was expected and what came, when the promise is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sightline.core.interfaces import Prompt, TextGenerator
from sightline.generation.options import GenerationOptions
from sightline.generation.scoring import score
from sightline.generation.text import generate, stream

_TOKENS = 5
"""How many are written in a check."""


@torch.no_grad()
def scores_are_shaped(network: TextGenerator, prompt: Prompt) -> None:
    """Scores are finite float32 of one width; the cache counts what it holds."""
    logits, cache = network.prefill(prompt, _TOKENS)
    rows = len(prompt.ids)
    assert logits.ndim == 2 and len(logits) == rows, f"prefill gave {list(logits.shape)}"
    before = cache.lengths.clone()
    assert before.shape == (rows,), f"lengths are {list(before.shape)} for {rows} rows"
    assert (before >= prompt.mask.sum(dim=1)).all(), f"the cache holds {before.tolist()} positions"
    ids = _answers(network, prompt)
    extended = network.extend(ids, cache)
    expected = (rows, _TOKENS, logits.shape[1])
    assert extended.shape == expected, f"extend gave {list(extended.shape)}, not {list(expected)}"
    for scores in (logits, extended):
        assert scores.dtype == torch.float32, f"scores are {scores.dtype}"
        assert scores.isfinite().all(), "scores are not finite"
    grown = (cache.lengths - before).tolist()
    assert grown == [_TOKENS] * rows, f"{_TOKENS} tokens made the rows {grown} longer"


@torch.no_grad()
def one_by_one_equals_together(network: TextGenerator, prompt: Prompt) -> None:
    """Tokens appended one at a time get the scores of the same tokens appended at once."""
    ids = _answers(network, prompt)
    _, cache = network.prefill(prompt, _TOKENS)
    together = network.extend(ids, cache)
    _, cache = network.prefill(prompt, _TOKENS)
    singly = torch.cat([network.extend(ids[:, t : t + 1], cache) for t in range(_TOKENS)], dim=1)
    _near(singly, together, "one by one")


@torch.no_grad()
def padding_is_not_written(network: TextGenerator, prompt: Prompt) -> None:
    """Rows that grow unequally: padding changes no score, then or later, and takes no place."""
    ids = _answers(network, prompt)
    rows = len(ids)
    own = torch.arange(rows, device=ids.device) % (_TOKENS - 1) + 1  # 1 to 4 of the 5 tokens
    mask = torch.arange(_TOKENS, device=ids.device) < own[:, None]
    _, cache = network.prefill(prompt, _TOKENS + 1)
    before = cache.lengths.clone()
    padded = network.extend(ids.where(mask, ids.flip(1)), cache, mask)
    assert torch.equal(cache.lengths - before, own), "padding takes a place in the cache"
    after = network.extend(ids[:, -1:], cache)
    for row in range(rows):
        count = int(own[row])
        _, alone = network.prefill(_rows(prompt, [row]), _TOKENS + 1)
        _near(network.extend(ids[row : row + 1, :count], alone)[0], padded[row, :count], "padded")
        _near(network.extend(ids[row : row + 1, -1:], alone)[0], after[row], "behind padding")


@torch.no_grad()
def alone_equals_in_a_batch(network: TextGenerator, prompt: Prompt) -> None:
    """A row gets the same scores alone, and the same tokens, drawn ones too."""
    together, _ = network.prefill(prompt, 0)
    for options in (GenerationOptions(_TOKENS), GenerationOptions(_TOKENS, temperature=1.0)):
        batch = generate(network, prompt, options, ())
        for row, answer in enumerate(batch):
            alone = _rows(prompt, [row])
            _near(network.prefill(alone, 0)[0][0], together[row], f"row {row} alone")
            ids = generate(network, alone, options, ())[0].ids
            assert ids == answer.ids, f"row {row} alone writes {ids}, in the batch {answer.ids}"


@torch.no_grad()
def select_takes_rows(network: TextGenerator, prompt: Prompt) -> None:
    """Selected rows stand in the order that was asked for, and are written to on their own."""
    ids = _answers(network, prompt)
    _, cache = network.prefill(prompt, _TOKENS)
    order = torch.tensor([len(ids) - 1, 0, 0], device=ids.device)
    chosen = cache.select(order)
    assert torch.equal(chosen.lengths, cache.lengths[order]), "select moves the wrong rows"
    other = ids[order].clone()
    other[1] = ids[0].flip(0) if not torch.equal(ids[0].flip(0), ids[0]) else ids[0] ^ 1
    mixed = network.extend(other, chosen)
    expected = network.extend(ids, cache)  # nothing that the copy wrote may be seen here
    _near(mixed[0], expected[-1], "a selected row")
    _near(mixed[2], expected[0], "a row that was taken twice")
    _, fresh = network.prefill(prompt, _TOKENS)
    _near(expected, network.extend(ids, fresh), "a cache whose rows were selected")


@torch.no_grad()
def streamed_equals_at_once(network: TextGenerator, prompt: Prompt) -> None:
    """Pieces joined are the answer."""

    def spelt(ids: Sequence[int]) -> str:
        return "".join(f"{token} " for token in ids)

    options = GenerationOptions(_TOKENS, temperature=1.0, seed=1)
    answers = generate(network, prompt, options, (), spelt)
    pieces = list(stream(network, prompt, options, (), spelt))
    for row, answer in enumerate(answers):
        own = [piece for piece in pieces if piece.row == row]
        text = "".join(piece.text for piece in own)
        assert text == answer.text, f"streamed {text!r}, at once {answer.text!r}"
        assert [piece.id for piece in own] == answer.ids


@torch.no_grad()
def scores_equal_writing(network: TextGenerator, prompt: Prompt) -> None:
    """What was written has, when it is scored, the log-probability with which it was written."""
    answers = generate(network, prompt, GenerationOptions(_TOKENS), ())
    texts = [[answer.ids, answer.ids[:2], answer.ids[::-1]] for answer in answers]
    for answer, scored in zip(answers, score(network, prompt, texts), strict=True):
        for found, count in zip(scored[:2], (_TOKENS, 2), strict=True):
            _near(torch.tensor(found.logprobs), torch.tensor(answer.logprobs[:count]), "scored")


def cached_equals_recomputed(
    network: TextGenerator,
    prompt: Prompt,
    recompute: Callable[[Prompt, Tensor], Tensor] | None = None,
) -> None:
    """With the cache every token gets the scores that it gets without one.

    Args:
        recompute: prompt and answer int64[B, T] to scores float[B, T, V] behind each token of the
            answer, without a cache. By default the answer is read as a part of the prompt, which is
            right for a network whose every token sees only what is before it, and not for one whose
            prompt sees itself in both directions.
    """
    ids = _answers(network, prompt)
    with torch.no_grad():
        _, cache = network.prefill(prompt, _TOKENS)
        cached = network.extend(ids, cache)
        expected = (recompute or _read_again(network))(prompt, ids)
    _near(cached, expected, "with the cache")


CONTRACTS: tuple[Callable[[TextGenerator, Prompt], None], ...] = (
    scores_are_shaped,
    one_by_one_equals_together,
    padding_is_not_written,
    alone_equals_in_a_batch,
    select_takes_rows,
    streamed_equals_at_once,
    scores_equal_writing,
)
"""For every network. `cached_equals_recomputed` is apart: it has to be told how to recompute."""


def _read_again(network: TextGenerator) -> Callable[[Prompt, Tensor], Tensor]:
    def recompute(prompt: Prompt, ids: Tensor) -> Tensor:
        columns = [
            network.prefill(_longer(prompt, ids[:, : count + 1]), 0)[0]
            for count in range(ids.shape[1])
        ]
        return torch.stack(columns, dim=1)  # [B T V]

    return recompute


def _longer(prompt: Prompt, ids: Tensor) -> Prompt:
    """The prompt with these tokens behind each row's own."""
    lengths = prompt.mask.sum(dim=1, keepdim=True)  # [B 1]
    places = lengths + torch.arange(ids.shape[1], device=ids.device)
    room = (0, ids.shape[1])
    grown = torch.nn.functional.pad(prompt.ids, room).scatter(1, places, ids)
    mask = torch.nn.functional.pad(prompt.mask, room).scatter(1, places, True)
    return prompt._replace(ids=grown, mask=mask)


def _rows(prompt: Prompt, rows: Sequence[int]) -> Prompt:
    """These rows of a prompt, without the padding that only the others need."""
    mask = prompt.mask[list(rows)]
    longest = int(mask.sum(dim=1).max())
    pictures = tuple(prompt.pictures[row] for row in rows) if prompt.pictures else ()
    return Prompt(prompt.ids[list(rows), :longest], mask[:, :longest], pictures)


def _answers(network: TextGenerator, prompt: Prompt) -> Tensor:
    """Tokens that the network itself draws behind each row, int64[B, 5]."""
    options = GenerationOptions(_TOKENS, temperature=1.0)
    answers = generate(network, prompt, options, ())
    return torch.tensor([answer.ids for answer in answers], device=prompt.ids.device)


def _near(found: Tensor, expected: Tensor, what: str) -> None:
    gap = float((found - expected).abs().max())
    allowed = 1e-5 * max(1.0, float(expected.abs().max()))
    assert gap <= allowed, f"{what}: scores differ by {gap:.2g}"
