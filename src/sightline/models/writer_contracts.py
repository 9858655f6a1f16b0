"""What a network that writes promises beside what every system does; part of `contracts`.

Each check looks at the roles "language model" and "vision-language model" and passes by others.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from sightline.core.interfaces import WRITING_ROLES, Prompt, System, TextBatch, TextGenerator
from sightline.models.tiny_inputs import Written, tiny_network, written_of


@torch.no_grad()
def padding_is_never_read(system: System) -> None:
    """More padding, with ids in it that mean something, moves no logit (within 1e-5)."""
    if system.role not in WRITING_ROLES:
        return
    network, batch = _network(system), written_of(system)
    prompt, suffix = batch
    wider = Written(
        Prompt(*_padded(prompt.ids, prompt.mask), prompt.pictures),
        TextBatch(*_padded(suffix.ids, suffix.mask)),
    )
    expected, found = _logits(network, batch), _logits(network, wider)
    _near(found, expected, "padding")


@torch.no_grad()
def cached_equals_uncached(system: System) -> None:
    """`prefill` and one token after the other give the logits of `forward` (within 1e-5)."""
    if system.role not in WRITING_ROLES:
        return
    network, (prompt, suffix) = _network(system), written_of(system)
    expected = network(prompt, suffix).logits  # [B M V]
    logits, cache = network.prefill(prompt, suffix.ids.shape[1])
    _near(logits, expected[:, 0], "the first token")
    length = cache.lengths
    for step in range(suffix.ids.shape[1] - 1):
        own = suffix.mask[:, step : step + 1]
        logits = network.extend(suffix.ids[:, step : step + 1], cache, own)
        goes_on = suffix.mask[:, step + 1]
        _near(logits[goes_on, 0], expected[goes_on, step + 1], f"token {step + 2}")
    grown = (cache.lengths - length).tolist()
    written = (suffix.mask[:, :-1].sum(dim=1)).tolist()
    assert grown == written, f"{written} tokens were written, and the cache grew by {grown}"


@torch.no_grad()
def many_tokens_at_once_equal_one_by_one(system: System) -> None:
    """`extend` by several tokens, unequally many a row, gives the logits of `forward`."""
    if system.role not in WRITING_ROLES:
        return
    network, (prompt, suffix) = _network(system), written_of(system)
    expected = network(prompt, suffix).logits  # [B M V]
    _, cache = network.prefill(prompt, 0)  # no room: the cache grows
    found = network.extend(suffix.ids[:, :-1], cache, suffix.mask[:, :-1])
    _near(found[suffix.mask[:, 1:]], expected[:, 1:][suffix.mask[:, 1:]], "tokens at once")


@torch.no_grad()
def selected_rows_are_their_own(system: System) -> None:
    """`select` copies: rows in the order asked for, and what one cache writes no other sees."""
    if system.role not in WRITING_ROLES:
        return
    network, (prompt, suffix) = _network(system), written_of(system)
    _, cache = network.prefill(prompt, 4)
    order = torch.tensor([2, 0, 0])
    chosen = cache.select(order)
    assert torch.equal(chosen.lengths, cache.lengths[order]), "select moves the wrong rows"
    ids = suffix.ids[:, :2].clone()
    ids[2] = ids[0]  # whose suffix is one token long
    other = ids[order]
    other[1] = other[1].flip(0) + 1
    mixed = network.extend(other, chosen)
    expected = network.extend(ids, cache)
    _near(mixed[0], expected[2], "a selected row")
    _near(mixed[2], expected[0], "a row that was taken twice")
    assert not torch.allclose(mixed[1], expected[0], atol=1e-4), "two rows share their tokens"


@torch.no_grad()
def rows_that_share_equal_rows_alone(system: System) -> None:
    """Several sequences in one row (`rows=`) do not see each other (within 1e-5)."""
    if system.role not in WRITING_ROLES:
        return
    network, (prompt, suffix) = _network(system), written_of(system)
    expected = network(prompt, suffix).logits[suffix.mask]
    for rows in ((0, 0, 1, 1), (0, 0, 0, 0), (0, 1, 1, 2)):
        found = network(prompt, suffix, rows=rows).logits[suffix.mask]
        _near(found, expected, f"sharing rows {rows}")


@torch.no_grad()
def what_is_written_later_is_not_seen(system: System) -> None:
    """Another token in a suffix leaves the logits up to its own place alike in every bit."""
    if system.role not in WRITING_ROLES:
        return
    network, (prompt, suffix) = _network(system), written_of(system)
    place = 1
    other = suffix.ids.clone()
    other[:, place] = other[:, place] % 90 + 4
    before = network(prompt, suffix).logits
    after = network(prompt, suffix._replace(ids=other)).logits
    assert torch.equal(before[:, : place + 1], after[:, : place + 1]), "a later token is seen"
    longer = suffix.mask[:, place + 1]
    moved = (before - after)[longer, place + 1].abs().amax(dim=1)
    assert bool((moved > 1e-4).all()), "a token behind it does not see the changed one"


@torch.no_grad()
def a_prompt_is_read_as_promised(system: System) -> None:
    """Where the prompt ends and the answer begins matters to a prefix-LM, and to no causal model.

    The last word of each prompt is taken for the first of the answer instead. A network whose
    prompt sees itself in both directions says so with `prefix_lm`.
    """
    if system.role not in WRITING_ROLES:
        return
    network, (prompt, suffix) = _network(system), written_of(system)
    shorter, longer = _boundary_moved(prompt, suffix)
    expected = network(prompt, suffix).logits[suffix.mask]
    behind = longer.mask.clone()
    behind[:, 0] = False
    found = network(shorter, longer).logits[behind]
    gap = float((found - expected).abs().max())
    if getattr(network, "prefix_lm", False):
        assert gap > 1e-3, f"the prompt does not see its last word (logits differ by {gap:.2g})"
    else:
        _near(found, expected, "another end of the prompt")


WRITER_CONTRACTS: tuple[Callable[[System], None], ...] = (
    padding_is_never_read,
    cached_equals_uncached,
    many_tokens_at_once_equal_one_by_one,
    selected_rows_are_their_own,
    rows_that_share_equal_rows_alone,
    what_is_written_later_is_not_seen,
    a_prompt_is_read_as_promised,
)


def _network(system: System) -> Any:
    """The tiny network, which plays `TextGenerator`."""
    network = tiny_network(system)
    assert isinstance(network, TextGenerator), f"{type(network).__name__} cannot write"
    return network


def _logits(network: Any, batch: Written) -> Tensor:
    """Of the tokens that are there, [W V]."""
    return cast(Tensor, network(*batch).logits[batch.suffix.mask])


def _padded(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Two more slots of padding, and a word in every slot of it."""
    wider = torch.cat([ids.masked_fill(~mask, 5), ids.new_full((len(ids), 2), 7)], dim=1)
    return wider, torch.cat([mask, mask.new_zeros(len(mask), 2)], dim=1)


def _boundary_moved(prompt: Prompt, suffix: TextBatch) -> tuple[Prompt, TextBatch]:
    """The prompts without their last word, which the suffixes begin with."""
    lengths = prompt.mask.sum(dim=1)  # [B]
    last = prompt.ids.gather(1, lengths[:, None] - 1)  # [B 1]
    mask = prompt.mask & (torch.arange(prompt.ids.shape[1]) < lengths[:, None] - 1)
    return (
        prompt._replace(mask=mask),
        TextBatch(
            torch.cat([last, suffix.ids], dim=1),
            torch.cat([torch.ones_like(last, dtype=torch.bool), suffix.mask], dim=1),
        ),
    )


def _near(found: Tensor, expected: Tensor, what: str) -> None:
    gap = float((found - expected).abs().max())
    limit = 1e-5 * max(1.0, float(expected.abs().max()))
    assert gap <= limit, f"{what}: logits differ by {gap:.2g}"
