"""The parts of a decoder: rotary positions, masks, the cache, rows of several sequences, heads that
share keys."""

import gc
import weakref

import pytest
import torch
from torch import Tensor

from sightline.core.errors import ConfigError, InputError
from sightline.nn.attention import Attention, attend, written_out
from sightline.nn.linear import TokenTable
from sightline.nn.masks import prefix_causal
from sightline.nn.memory import KeyValueCache
from sightline.nn.norms import RMSNorm
from sightline.nn.rotary import rotate, turns
from sightline.nn.sequences import lay_out


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shown(mask: Tensor) -> list[str]:
    return ["".join("1" if seen else "." for seen in row) for row in mask.tolist()]


# -- rotary positions --------------------------------------------------------------------------


def test_a_pair_is_turned_as_a_complex_number() -> None:
    x, positions = drawn(2, 3, 5, 8), torch.tensor([[0, 1, 2, 3, 4], [7, 9, 11, 20, 400]])
    turned = rotate(x, turns(positions, 8, base=100.0))
    angles = positions[:, None, :, None] * 100.0 ** (-torch.arange(0, 8, 2) / 8)
    expected = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(()), angles)
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], -1))


def test_only_differences_of_positions_matter() -> None:
    q, k = drawn(1, 1, 6, 8), drawn(1, 1, 6, 8, seed=1)
    places = torch.arange(6)[None]

    def scores(offset: int) -> Tensor:
        by = turns(places + offset, 8)
        return rotate(q, by) @ rotate(k, by).transpose(-1, -2)

    torch.testing.assert_close(scores(0), scores(13), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scores(0), q @ k.transpose(-1, -2), atol=1e-2)


def test_a_share_of_the_components_can_stay() -> None:
    x = drawn(1, 1, 3, 8)
    turned = rotate(x, turns(torch.tensor([[5, 6, 7]]), 8, share=0.5))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert not torch.allclose(turned[..., :4], x[..., :4])
    with pytest.raises(ConfigError, match="3 of 8 components cannot be turned in pairs"):
        turns(torch.tensor([[0]]), 8, share=0.375)


# -- norms and tables --------------------------------------------------------------------------


def test_rms_norm_multiplies_by_one_and_its_weight() -> None:
    norm, x = RMSNorm(6, eps=1e-3, offset=1.0), drawn(2, 6)
    assert torch.equal(norm.weight, torch.zeros(6))
    norm.weight.data = drawn(6, seed=1)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * (1 + norm.weight)
    torch.testing.assert_close(norm(x), expected)
    assert norm(x.bfloat16()).dtype == torch.float32


def test_the_factor_of_a_table_is_rounded_to_its_type() -> None:
    table = TokenTable(9, 2048, scale=2048**0.5)
    exact = table.look_up(torch.tensor([3]))
    torch.testing.assert_close(exact, table.weight[3:4] * 2048**0.5)
    low = table.bfloat16().look_up(torch.tensor([3]))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, table.weight[3:4].float() * 45.25)


# -- masks -------------------------------------------------------------------------------------


def test_a_prefix_sees_itself_and_the_rest_is_causal() -> None:
    places = torch.arange(4)[None]
    seen = prefix_causal(places, places, torch.tensor([[2]]))
    assert shown(seen[0, 0]) == ["11..", "11..", "111.", "1111"]
    near = prefix_causal(places, places, torch.tensor([[2]]), window=2)
    assert shown(near[0, 0]) == ["11..", "11..", ".11.", "..11"]
    assert shown(prefix_causal(places, places)[0, 0]) == ["1...", "11..", "111.", "1111"]


def test_windows_do_not_bound_the_prefix() -> None:
    places = torch.arange(5)[None]
    seen = prefix_causal(places, places, torch.tensor([[3]]), window=1)
    assert shown(seen[0, 0]) == ["111..", "111..", "111..", "...1.", "....1"]


# -- rows of several sequences -----------------------------------------------------------------


def test_the_layout_of_the_docstring() -> None:
    layout = lay_out([3, 2], [3, 2], rows=[0, 0], slots=10)
    assert layout.owners is not None
    assert layout.owners.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, -1, -1]]
    assert layout.positions[0, :8].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert layout.prefix[0, :8].tolist() == [3, 3, 3, 3, 3, 2, 2, 2]
    assert layout.predicting.tolist() == [2, 3, 4, 6, 7]
    vectors = drawn(8, 4)
    rows = layout.place(vectors)
    assert torch.equal(rows[0, :8], vectors) and not rows[0, 8:].any()
    found = layout.predictions(rows, torch.tensor([[True] * 3, [True, True, False]]))
    assert torch.equal(found[0], vectors[[2, 3, 4]])
    assert torch.equal(found[1, :2], vectors[[6, 7]]) and not found[1, 2].any()


def test_a_row_that_is_too_long_and_a_prompt_of_nothing() -> None:
    with pytest.raises(InputError, match="a row of 8 vectors does not fit into 7 slots"):
        lay_out([3, 2], [3, 2], rows=[0, 0], slots=7)
    with pytest.raises(InputError, match="prompt 2 holds nothing to go on from"):
        lay_out([3, 0], [1, 1])


# -- the cache ---------------------------------------------------------------------------------


def test_rows_of_unequal_lengths_keep_their_own_slots() -> None:
    cache = KeyValueCache(1, [0, 0], room=3)
    first, second = drawn(2, 1, 3, 2), drawn(2, 1, 2, 2, seed=1)
    keys, _ = cache.memories[0].append(first, first)
    cache.advance([3, 1])
    keys, values = cache.memories[0].append(second, 2 * second)
    assert keys.shape == (2, 1, 5, 2), "more than the room: it grows"
    assert torch.equal(keys[0, 0], torch.cat([first[0, 0], second[0, 0]]))
    assert torch.equal(keys[1, 0, :3], torch.cat([first[1, 0, :1], second[1, 0]]))
    assert torch.equal(values[1, 0, 1:3], 2 * second[1, 0])
    cache.advance([2, 2])
    assert cache.lengths.tolist() == [5, 3] and not cache.even


def test_a_selection_is_a_cache_of_its_own() -> None:
    cache = KeyValueCache(1, [0, 0], room=4)
    first = drawn(2, 1, 2, 2)
    cache.memories[0].append(first, first)
    cache.advance([2, 1])
    other = cache.select(torch.tensor([1, 1, 0]))
    assert other.lengths.tolist() == [1, 1, 2]
    more = drawn(3, 1, 1, 2, seed=1)
    other.memories[0].append(more, more)
    kept = cache.memories[0].keys
    assert kept is not None and torch.equal(kept[:, :, :2], first), "the first one is untouched"


# -- heads that share keys ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("own_masks", [False, True])
def test_shared_heads_are_repeated_ones(length: int, cap: float | None, own_masks: bool) -> None:
    q, k, v = drawn(2, 6, length, 4), drawn(2, 2, 7, 4, seed=1), drawn(2, 2, 7, 4, seed=2)
    mask = drawn(2, 6 if own_masks else 1, length, 7, seed=3) > -0.8
    mask[..., 0] = True
    scores = q @ k.repeat_interleave(3, 1).transpose(-1, -2) * 0.3
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    expected = weights @ v.repeat_interleave(3, 1)
    torch.testing.assert_close(attend(q, k, v, mask, scale=0.3, cap=cap), expected)
    mixed, kept = written_out(q, k, v, mask, 0.3, cap)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(kept, weights)


@pytest.mark.parametrize("heads", [2, 4, 6])
def test_shared_heads_in_bfloat16(heads: int) -> None:
    q, k, v = (drawn(2, n, length, 8, seed=n) for n, length in ((heads, 1), (2, 7), (2, 7)))
    q, k, v = (part.bfloat16() for part in (q, k, v))
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])[:, None, None]
    wide = [part.float().repeat_interleave(heads // 2, 1) for part in (k, v)]
    weights = (q.float() @ wide[0].transpose(-1, -2) * 8**-0.5).masked_fill(~mask, -torch.inf)
    expected = weights.softmax(-1) @ wide[1]
    found = attend(q, k, v, mask).float()
    torch.testing.assert_close(found, expected, rtol=2**-6, atol=2**-6)


def test_masks_of_heads_need_no_batch() -> None:
    q, k, v = drawn(2, 4, 1, 8), drawn(2, 1, 5, 8, seed=1), drawn(2, 1, 5, 8, seed=2)
    allowed = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    allowed = allowed.bool()[:, None]  # [N 1 S]
    torch.testing.assert_close(attend(q, k, v, allowed), written_out(q, k, v, allowed)[0])


def test_heads_that_cannot_share() -> None:
    with pytest.raises(ConfigError, match="6 attention heads cannot share 4 heads of keys"):
        Attention(12, 6, kv_heads=4)
    wide = Attention(10, 4, kv_heads=2, head_size=6, bias=False, out_bias=False)
    assert wide.q.weight.shape == (24, 10) and wide.k.weight.shape == (12, 10)
    assert wide.out.weight.shape == (10, 24) and wide.out.bias is None


def test_dropout_of_capped_scores() -> None:
    q, k = drawn(1, 1, 1, 4), drawn(1, 1, 50, 4, seed=1)
    v = torch.ones(1, 1, 50, 4)
    torch.manual_seed(0)
    dropped = attend(q, k, v, dropout=0.5, cap=3.0)
    assert not torch.allclose(dropped, torch.ones(1, 1, 1, 4), atol=1e-3)
    assert torch.allclose(attend(q, k, v, cap=3.0), torch.ones(1, 1, 1, 4))


def test_a_dropped_cache_gives_its_memory_back_at_once():
    cache = KeyValueCache(2, [0, 0], 4)
    keys, _ = cache.memories[1].append(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
    kept = weakref.ref(cache.memories[1].keys)
    gc.disable()  # nobody breaks circles
    try:
        del cache, keys
        assert kept() is None
    finally:
        gc.enable()
