"""Windows against plain loops over places."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError
from sightline.nn.attention import Attention
from sightline.nn.stochastic_depth import drop_branch, linear_rates
from sightline.nn.windows import (
    PatchMerging,
    RelativePositionBias,
    WindowBlock,
    merge,
    partition,
    shifted_windows,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def block(side=3, shifted=True, width=6, heads=2):
    made = WindowBlock(
        width, heads, 8, side=side, shifted=shifted, activation="gelu", norm_eps=1e-6
    ).double()
    for parameter in made.parameters():
        parameter.data = parameter.data + 0.5 * torch.randn_like(parameter)
    return made


def test_windows_are_cut_picture_by_picture_and_in_raster_order():
    x = torch.arange(2 * 4 * 6).reshape(2, 4, 6, 1).float()
    windows = partition(x, 2)
    assert windows.shape == (12, 4, 1)
    for number, window in enumerate(windows):
        picture, row, column = number // 6, number % 6 // 3, number % 3
        expected = x[picture, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
        assert torch.equal(window.flatten(), expected)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_merging_windows_gives_the_map_back(batch, side, rows, columns):
    x = torch.randn(batch, side * rows, side * columns, 2)
    assert torch.equal(merge(partition(x, side), side, side * rows, side * columns), x)


@pytest.mark.parametrize(
    ("size", "side", "shift"), [((6, 9), 3, 1), ((8, 4), 4, 2), ((7, 7), 7, 3)]
)
def test_after_a_roll_only_true_neighbours_see_each_other(size, side, shift):
    """Two places meet when the moved grid of windows, laid over the map itself, holds both."""
    height, width = size
    mask = shifted_windows(height, width, side, shift)
    places = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1
    )
    from_where = partition(places.roll((-shift, -shift), (0, 1))[None].float(), side).int()
    assert mask.shape == (height * width // side**2, 1, side**2, side**2)
    for window, allowed in zip(from_where, mask[:, 0], strict=True):
        for i, a in enumerate(window.tolist()):
            for j, b in enumerate(window.tolist()):
                near = [(p - shift) // side for p in a] == [(p - shift) // side for p in b]
                assert bool(allowed[i, j]) == near, (a, b)


def test_the_step_between_two_places_chooses_the_bias():
    bias = RelativePositionBias(3, 2)
    torch.nn.init.normal_(bias.table)
    found = bias(3)
    assert found.shape == (1, 2, 9, 9)
    for query in range(9):
        for key in range(9):
            down, right = query // 3 - key // 3, query % 3 - key % 3
            expected = bias.table[(down + 2) * 5 + right + 2]
            assert torch.equal(found[0, :, query, key], expected)


def test_a_smaller_window_reads_the_shorter_steps_of_the_same_table():
    bias = RelativePositionBias(4, 3)
    torch.nn.init.normal_(bias.table)
    places = [r * 4 + c for r in range(2) for c in range(2)]
    assert torch.equal(bias(2), bias(4)[:, :, places][..., places])


def test_a_larger_window_than_the_table_is_refused():
    with pytest.raises(ConfigError, match="a window of 4x4: this table knows the steps of 3x3"):
        RelativePositionBias(3, 1)(4)


def naive_attention(made, x):
    """Place by place: who is in the window, what is added, the softmax, the mix."""
    height, width, _ = x.shape
    side = min(made.side, height, width)
    shift = made.shift if min(height, width) > made.side else 0
    high, wide = (-(-size // side) * side for size in (height, width))
    full = torch.zeros(high, wide, x.shape[2], dtype=x.dtype)
    full[:height, :width] = x
    attention, bias = made.attention, made.position_bias
    out = torch.zeros_like(full)
    heads, size = attention.num_heads, x.shape[2] // attention.num_heads
    q, k, v = (layer(full) for layer in (attention.q, attention.k, attention.v))
    for r in range(high):
        for c in range(wide):
            top, left = ((p - shift) // side * side + shift for p in (r, c))
            seen = [
                (i, j)
                for i in range(max(0, top), min(high, top + side))
                for j in range(max(0, left), min(wide, left + side))
            ]
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                logits = torch.stack([
                    q[r, c, part] @ k[i, j, part] / math.sqrt(size)
                    + bias.table[(r - i + bias.side - 1) * (2 * bias.side - 1)
                                 + c - j + bias.side - 1, head]
                    for i, j in seen
                ])  # fmt: skip
                values = torch.stack([v[i, j, part] for i, j in seen])
                out[r, c, part] = logits.softmax(0) @ values
    return attention.out(out)[:height, :width]


@pytest.mark.parametrize("size", [(6, 6), (5, 7), (9, 4), (3, 5), (3, 3), (2, 5), (1, 4)])
@pytest.mark.parametrize("shifted", [True, False])
def test_a_block_is_attention_within_windows_place_by_place(size, shifted):
    """Sizes that windows cover exactly, that they do not, and that are no larger than one."""
    made = block(shifted=shifted)
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    expected = torch.stack([naive_attention(made, made.norm1(one)) for one in x]) + x
    expected = expected + made.mlp(made.norm2(expected))
    assert torch.allclose(made(x), expected, atol=1e-10)


def test_what_is_far_is_not_seen_and_the_shift_moves_the_border():
    x = torch.randn(1, 6, 6, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, 0, 0] = torch.randn(6)
    for shifted, reach in ((False, 3), (True, 1)):
        made = block(shifted=shifted)
        moved = (made(x) != made(changed)).any(-1)[0]
        expected = torch.zeros(6, 6, dtype=torch.bool)
        expected[:reach, :reach] = True
        assert torch.equal(moved, expected)


def test_gradients_reach_the_table_and_are_those_of_small_steps():
    made = block()
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    inputs = (x, made.position_bias.table)
    assert torch.autograd.gradcheck(lambda x, _: made(x), inputs, fast_mode=True)


def test_four_neighbours_are_joined_down_the_columns():
    merging = PatchMerging(2).double()
    x = torch.randn(1, 3, 4, 2, dtype=torch.float64)
    found = merging(x)
    assert found.shape == (1, 2, 2, 4)
    padded = torch.cat([x, torch.zeros(1, 1, 4, 2, dtype=torch.float64)], dim=1)
    joined = torch.cat([padded[0, r, c] for r, c in ((2, 2), (3, 2), (2, 3), (3, 3))])
    assert torch.allclose(found[0, 1, 1], merging.reduction(merging.norm(joined)), atol=1e-12)


def test_an_offset_is_added_to_the_products_and_a_mask_still_hides():
    attention = Attention(6, 2).double()
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    mask, offset = torch.ones(4, 4).tril().bool(), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    hidden = offset.masked_fill(~mask, -1e9)
    assert torch.allclose(attention(x, mask=mask, offset=offset), attention(x, offset=hidden))
    assert torch.allclose(attention(x, mask=mask, offset=0 * offset), attention(x, mask=mask))
    q, k, v = (p(x).unflatten(-1, (2, 3)).transpose(1, 2)
               for p in (attention.q, attention.k, attention.v))  # fmt: skip
    mixed = (q @ k.mT / math.sqrt(3) + offset).softmax(-1) @ v
    expected = attention.out(mixed.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x, offset=offset), expected, atol=1e-12)


def test_branches_are_dropped_for_whole_examples_in_training_alone():
    x = torch.ones(4000, 2, 3)
    assert drop_branch(x, 0.3, training=False) is x
    dropped = drop_branch(x, 0.3, training=True)
    kept = dropped[:, 0, 0] != 0
    assert torch.equal(dropped, torch.where(kept[:, None, None], x / 0.7, 0))
    assert 0.65 < kept.float().mean() < 0.75  # three deviations are 0.022
    assert drop_branch(x, 1.0, training=True).sum() == 0


@pytest.mark.parametrize(
    ("depth", "expected"), [(1, [0.0]), (3, [0.0, 0.1, 0.2]), (5, [0.0, 0.05, 0.1, 0.15, 0.2])]
)
def test_rates_grow_from_nothing_to_the_largest(depth, expected):
    assert linear_rates(0.2, depth) == pytest.approx(expected)


def test_a_whole_block_can_be_skipped():
    made = block().train()
    made.branch_drop = 1.0
    x = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    assert torch.equal(made(x), x)
