"""Weights of 4 bits against the paper's table and an independent arithmetic in numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.models.paligemma import TINY
from sightline.models.paligemma import VARIANTS as PALIGEMMA
from sightline.models.table import system
from sightline.models.tiny_inputs import tiny_network, written_of
from sightline.nn import four_bit, lora
from sightline.nn.four_bit import FourBitLinear, dequantise, pack, quantise, stored_bytes, unpack
from sightline.nn.linear import Linear
from sightline.nn.meta import without_memory

# Appendix E of the paper, as printed.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def by_hand(weight: np.ndarray) -> np.ndarray:
    """Blocks of 64, their magnitudes in groups of 256 as 8-bit steps around the mean, NF4."""
    flat = weight.astype(np.float64).ravel()
    blocks = np.concatenate([flat, np.zeros(-len(flat) % 64)]).reshape(-1, 64)
    largest = np.abs(blocks).max(axis=1)
    mean = largest.mean()
    read = np.empty_like(largest)
    for start in range(0, len(largest), 256):
        spread = largest[start : start + 256] - mean
        step = max(np.abs(spread).max(), 1e-12) / 127
        read[start : start + 256] = np.round(spread / step) * step + mean
    shares = blocks / np.maximum(read, 1e-12)[:, None]
    nearest = np.abs(shares[:, :, None] - np.array(NF4)).argmin(axis=2)
    return (np.array(NF4)[nearest] * read[:, None]).ravel()[: flat.size].reshape(weight.shape)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_levels_are_those_of_the_paper():
    assert np.abs(np.array(four_bit.levels()) - NF4).max() < 1e-6
    assert four_bit.levels()[7] == 0.0


@pytest.mark.parametrize("shape", [(64, 64), (7, 13), (300, 257), (1, 1)], ids=str)
def test_a_tensor_comes_back_as_computed_by_hand(shape):
    weight = drawn(*shape)
    found = unpack(pack(weight), shape, torch.float64).numpy()
    expected = by_hand(weight.numpy())
    # a share within float32's rounding of the middle of two levels may fall on either
    apart = np.abs(found - expected) > 1e-5
    assert apart.sum() <= weight.numel() // 1000
    assert np.abs(found - expected)[~apart].max(initial=0.0) <= 1e-5


def test_the_error_is_that_of_normal_weights_in_sixteen_levels():
    """8.6 % of the spread where the magnitude is that of 64 normal weights; even steps do worse."""
    weight = drawn(512, 512)
    error = float((unpack(pack(weight), weight.shape, torch.float32) - weight).pow(2).mean().sqrt())
    blocks = weight.unflatten(1, (-1, 64))
    step = blocks.abs().amax(dim=-1, keepdim=True) / 7
    even = float(((blocks / step).round() * step - blocks).pow(2).mean().sqrt())
    assert error < 0.1 < even


def test_zeros_stay_zeros_and_the_scale_does_not_matter():
    assert not unpack(pack(torch.zeros(3, 50)), (3, 50), torch.float32).any()
    weight = drawn(64, 64)
    one, two = (unpack(pack(w), w.shape, torch.float32) for w in (weight, 1024 * weight))
    assert torch.allclose(1024 * one, two, rtol=1e-5)


def test_four_bits_and_an_eighth_for_each_weight():
    """4 bits, 8 for 64 weights and 32 for 256 x 64: 4.127 bits (section 3)."""
    base = Linear(1024, 1024, bias=False)
    bits = 8 * stored_bytes(FourBitLinear(base)) / base.weight.numel()
    assert abs(bits - 4.127) < 0.001


def test_a_base_of_three_billion_weights_fits_in_a_seventh():
    """The matrices of the published size, on the meta device; norms and tables stay float32."""
    with without_memory():
        network = system("paligemma").build(PALIGEMMA["3B-224"])
        before = stored_bytes(network)
        layers = sum(
            4 * module.weight.numel()
            for module in network.modules()
            if type(module) is Linear
        )  # fmt: skip
        names = quantise(network)
    saved = before - stored_bytes(network)
    assert len(names) == 27 * 6 + 18 * 7 + 1
    assert before == 4 * 2_923_466_480
    assert abs(saved / layers - (1 - 4.127 / 32)) < 0.001


def test_the_answer_is_that_of_the_weights_it_stands_for():
    base = Linear(70, 30)
    layer, x = FourBitLinear(base), drawn(4, 5, 70)
    expected = torch.nn.functional.linear(x, layer.weight, base.bias)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert torch.equal(layer.plain()(x), expected)


def test_gradients_reach_what_lies_in_front_and_no_weight():
    layer, x = FourBitLinear(Linear(70, 30)), drawn(4, 70).requires_grad_()
    out = layer(x)
    out.pow(2).sum().backward()
    expected = 2 * out.detach() @ layer.weight
    assert torch.allclose(x.grad, expected, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_the_state_returns_bit_for_bit():
    one, two = FourBitLinear(Linear(70, 30)), FourBitLinear(Linear(70, 30))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.weight, two.weight)
    assert one.state_dict().keys() == {"codes", "magnitudes", "scales", "mean", "bias"}
    copied = copy.deepcopy(one)
    assert torch.equal(copied.weight, one.weight)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ConfigError, match="weights that are not finite cannot be stored in 4 bits"):
        pack(torch.tensor([1.0, float("nan")]))


# -- a whole network -------------------------------------------------------------------------------


def logits(network: nn.Module) -> torch.Tensor:
    batch = written_of(system("paligemma"))
    return network(*batch).logits[batch.suffix.mask]


ADAPTED = ["image.*.attention.[qv]", "projector", "decoder.*.attention.*", "decoder.*.mlp.*"]


def test_a_network_of_four_bits_learns_by_its_additions_alone():
    network = tiny_network(system("paligemma"))
    full = logits(network).detach()
    names = quantise(network)
    assert "decoder.table" not in names and "decoder.blocks.0.mlp.down" in names
    assert not any(parameter.requires_grad for parameter in network.parameters())
    added = lora.add(network, 2, 4.0, ADAPTED)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start = logits(network).detach()
    assert float((start - full).abs().max()) > 1e-3  # 4 bits are not 32
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(12):
        loss = logits(network).pow(2).mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.9 * losses[0]
    moved = {name for name, value in network.state_dict().items()
             if not torch.equal(value, before[name])}  # fmt: skip
    assert moved == {f"{name}.lora_{half}" for name in added for half in "AB"}


def test_what_it_is_saved_as_is_a_network_of_real_numbers():
    network = tiny_network(system("paligemma"))
    plain = network.state_dict().keys()
    quantise(network)
    lora.add(network, 2, 4.0, ADAPTED)
    for layer in lora.layers(network).values():
        nn.init.normal_(layer.lora_B, std=0.1)
    state = lora.merged_state(network)
    assert state.keys() == plain == lora.base_state(network).keys()
    merged = system("paligemma").build(TINY).eval()
    merged.load_state_dict(state)
    assert torch.allclose(logits(merged), logits(network), atol=1e-4)
    bare = dequantise(lora.remove(copy.deepcopy(network)))
    assert {n: v.shape for n, v in bare.state_dict().items()} == {n: state[n].shape for n in plain}
    assert lora.base_state(network, values=False)["projector.weight"].is_meta


def test_merging_into_four_bits_is_refused():
    network = tiny_network(system("paligemma"))
    quantise(network)
    lora.add(network, 2, 4.0, ADAPTED)
    with pytest.raises(ConfigError, match="is stored in 4 bits, which a merged one would not fit"):
        lora.merge(network)


def test_a_layer_with_an_addition_is_not_stored_afterwards():
    network = tiny_network(system("paligemma"))
    lora.add(network, 2, 4.0, ["projector"])
    with pytest.raises(ConfigError, match="projector has an addition already: store the base in 4"):
        quantise(network)


def test_a_pattern_that_fits_nothing_is_told():
    network = tiny_network(system("paligemma"))
    with pytest.raises(ConfigError, match=r"4-bit targets: no linear layer fits the pattern 'tex"):
        quantise(network, ["text.*"])
