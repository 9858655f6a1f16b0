"""Attention that is listened to: the same answers, all of the weights, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from sightline.core.devices import fast_bfloat16
from sightline.nn.attention import Attention, recording
from sightline.nn.blocks import Block, Transformer
from sightline.nn.copies import float32_copy
from sightline.nn.linear import Linear
from sightline.nn.lora import LoRALinear
from sightline.nn.masks import present_keys
from sightline.nn.packed import PackedLinear, pack
from sightline.nn.pooling import AttentionPool
from sightline.nn.precision import lower
from sightline.nn.relevance import spoke_for, weighted_by_gradient
from sightline.nn.windows import WindowBlock


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def blocks(count=2):
    made = (Block(12, 3, 20, activation="gelu", norm_eps=1e-6) for _ in range(count))
    return Transformer(made).eval()


def test_every_layer_is_heard_in_order_and_answers_stay():
    network, x = blocks(), torch.randn(2, 5, 12)
    with recording(network) as record:
        heard = network(x)
    assert torch.allclose(heard, network(x), atol=1e-6)
    first, second = record.weights
    assert first.shape == second.shape == (2, 3, 5, 5) and not torch.equal(first, second)
    with recording(network.blocks[0]) as alone:
        network(x)
    assert len(alone.weights) == 1 and torch.equal(alone.weights[0], first)
    for weights in record.weights:
        assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 3, 5), atol=1e-6)


def test_nothing_is_heard_afterwards_also_behind_an_error():
    network, x = blocks(), torch.randn(1, 4, 12)
    with pytest.raises(RuntimeError), recording(network) as record:
        network(torch.randn(1, 4, 7))
    network(x)
    assert record.weights == []
    with recording(network) as outer:
        with recording(network) as inner:
            network(x)
        network(x)
    assert len(outer.weights) == len(inner.weights) == 2
    assert all(module.recorder is None for module in network.modules() if hasattr(module, "q"))


def test_padding_has_no_weight_in_blocks_and_pool():
    network, x = blocks(1), torch.randn(2, 5, 12)
    pool = AttentionPool(12, 3, 20, activation="gelu", norm_eps=1e-6).eval()
    torch.nn.init.normal_(pool.probe)
    present = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with recording(network) as record, recording(pool) as pooled:
        tokens = network(x, present_keys(present))
        answer = pool(tokens, present)
    assert torch.allclose(answer, pool(tokens, present), atol=1e-6)
    assert pooled.weights[0].shape == (2, 3, 1, 5)
    for weights in (*record.weights, *pooled.weights):
        assert (weights[1, ..., 3:] == 0).all() and (weights[0] > 0).all()


def test_attention_to_a_context_is_heard_too():
    attention = Attention(12, 3)
    with recording(attention) as record:
        attention(torch.randn(2, 4, 12), torch.randn(2, 7, 12))
    assert record.weights[0].shape == (2, 3, 4, 7)


def test_windows_are_heard_window_by_window_with_their_bias():
    block = WindowBlock(12, 3, 20, side=2, shifted=False, activation="gelu", norm_eps=1e-6).eval()
    torch.nn.init.normal_(block.position_bias.table, std=3.0)
    x = torch.randn(1, 4, 6, 12)
    with recording(block) as record:
        heard = block(x)
    assert record.weights[0].shape == (6, 3, 4, 4)
    assert torch.allclose(heard, block(x), atol=1e-6)


def test_weights_carry_gradients_where_these_are_on():
    network, x = blocks(), torch.randn(1, 4, 12, requires_grad=True)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    with recording(network) as record:
        score = network(x)[0, 0, 0]
    slopes = torch.autograd.grad(score, record.weights)
    assert all(slope.abs().max() > 0 for slope in slopes)
    assert (slopes[1][0, :, 1:] == 0).all()  # the last layer's other rows cannot matter
    with torch.no_grad(), recording(network) as silent:
        network(x)
    assert not any(weights.requires_grad for weights in silent.weights)


def test_what_spoke_against_does_not_cancel_what_spoke_for():
    weights = torch.tensor([[[[0.5, 0.5]], [[0.2, 0.8]]]])  # two heads, one row, two tokens
    slopes = torch.tensor([[[[2.0, -9.0]], [[-5.0, 1.0]]]])
    assert torch.allclose(spoke_for(weights, slopes), torch.tensor([[[0.5, 0.4]]]))


def test_layers_are_followed_from_bottom_to_top():
    """Below, the second token takes from the first; above, the first from the second."""
    below, above = torch.tensor([[0.0, 0], [1, 0]]), torch.tensor([[0.0, 1], [0, 0]])
    layers = [below[None, None], above[None, None]]
    total = weighted_by_gradient(layers, [torch.ones(1, 1, 2, 2)] * 2)
    assert total[0].tolist() == [[2.0, 1.0], [1.0, 1.0]]  # the other order: [[1, 1], [1, 2]]


def test_a_float32_copy_shares_what_it_can_and_changes_nothing():
    network = blocks()
    copied = float32_copy(network)
    assert copied.blocks[0].attention is not network.blocks[0].attention
    pairs = zip(copied.parameters(), network.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)
    with recording(copied) as record:
        network(torch.randn(1, 4, 12))
    assert record.weights == []


@pytest.mark.parametrize("packed", [False] + [True] * fast_bfloat16("cpu"))
def test_a_float32_copy_of_lowered_weights_is_theirs_widened(packed):
    network, x = lower(blocks(), torch.bfloat16).requires_grad_(False), torch.randn(1, 4, 12)
    if packed:
        pack(network)
    before = network(x)
    copied = float32_copy(network)
    assert {type(m) for m in copied.modules()}.isdisjoint({PackedLinear})
    linears = [m for m in copied.modules() if isinstance(m, Linear)]
    assert linears and all(m.weight.dtype == torch.float32 for m in linears)
    assert torch.allclose(copied(x), before, atol=0.1)
    x.requires_grad_()
    assert torch.autograd.grad(copied(x).sum(), x)[0].abs().max() > 0
    assert torch.equal(network(x.detach()), before)


def test_a_float32_copy_keeps_low_rank_additions():
    network, x = lower(blocks(), torch.bfloat16).requires_grad_(False), torch.randn(1, 4, 12)
    for block in network.blocks:
        block.attention.q = LoRALinear(block.attention.q, rank=2)
        torch.nn.init.normal_(block.attention.q.lora_B)
    plain = float32_copy(network)
    assert torch.allclose(plain(x), network(x), atol=0.1)
    for block in network.blocks:
        block.attention.q = block.attention.q.base
    assert not torch.allclose(plain(x), network(x), atol=0.1)


def test_a_copy_can_leave_parts_out():
    network = torch.nn.ModuleDict({"image": blocks(1), "text": blocks(3)})
    copied = float32_copy(network, without=["text"])
    assert isinstance(copied["text"], torch.nn.Identity)
    assert len(network["text"].blocks) == 3 and copied["image"].blocks[0] is not None
