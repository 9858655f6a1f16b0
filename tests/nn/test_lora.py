"""Low-rank additions: the equation, what learns, merging, and number types."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.models.table import system
from sightline.nn import lora
from sightline.nn.linear import Linear
from sightline.nn.lora import LoRALinear
from sightline.nn.packed import pack
from sightline.nn.precision import lower


def tiny(name: str = "siglip") -> nn.Module:
    entry = system(name)
    torch.manual_seed(0)
    return entry.build(entry.tiny).eval()


def learned(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for layer in lora.layers(network).values():
        drawn = 0.3 * torch.randn(layer.lora_B.shape, generator=generator)
        layer.lora_B.data = drawn.to(layer.lora_B.dtype)
    return network


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.rand(3, 3, 24, 24, generator=generator),
        torch.randint(3, 90, (3, 9), generator=generator),
    )


def vectors(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        scores = network(*inputs())
    return torch.cat([scores.image_embeddings, scores.text_embeddings])


@pytest.mark.parametrize(("rslora", "scale"), [(False, 6 / 4), (True, 6 / 2)])
def test_the_equation(rslora, scale):
    torch.manual_seed(0)
    base = Linear(5, 7).double()
    layer = LoRALinear(base, 4, 6.0, rslora=rslora)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    expected = x @ base.weight.T + base.bias + scale * (x @ layer.lora_A.T) @ layer.lora_B.T
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)
    assert layer.lora_A.shape == (4, 5) and layer.lora_B.shape == (7, 4)


def test_the_first_answer_is_the_bases_own_and_only_additions_learn():
    network = tiny()
    before, weights = vectors(network), copy.deepcopy(network.state_dict())
    names = lora.add(network, 2, 4.0)
    assert len(names) == 12 and torch.equal(vectors(network), before)
    learning = {n for n, p in network.named_parameters() if p.requires_grad}
    assert learning == {f"{name}.lora_{half}" for name in names for half in "AB"}
    own = lora.base_state(network)
    assert own.keys() == weights.keys() and all(torch.equal(own[n], weights[n]) for n in own)


def test_weights_stay_bit_identical_over_steps_with_decay():
    network = tiny().train()
    weights = copy.deepcopy(network.state_dict())
    lora.add(network, 2, dropout=0.1)
    learning = [p for p in network.parameters() if p.requires_grad]
    descent = torch.optim.AdamW(learning, lr=0.1, weight_decay=0.5)
    before = vectors(network)
    for _ in range(3):
        descent.zero_grad()
        network(*inputs()).logits.square().mean().backward()
        descent.step()
    assert not torch.equal(vectors(network), before)
    assert all(torch.equal(lora.base_state(network)[n], w) for n, w in weights.items())


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_merged_is_unmerged(dtype, limit):
    network = tiny().to(dtype)
    lora.add(network, 2, 4.0, ["*.attention.*", "*.mlp.*"])
    learned(network)
    x, ids = inputs()
    pairs = x.to(dtype), ids
    with torch.no_grad():
        apart = network(*pairs).image_embeddings
        lora.merge(lora.merge(network))  # the second time changes nothing
        together = network(*pairs).image_embeddings
        assert 0 < float((together - apart).abs().max()) < limit
        assert torch.equal(lora.unmerge(network)(*pairs).image_embeddings, apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_merged_comes_back_bit_for_bit(dtype):
    network = lower(tiny(), dtype)
    weights = copy.deepcopy(network.state_dict())
    lora.add(network, 2)
    learned(network)
    merged = lora.merged_state(network)
    lora.merge(network)
    assert not all(torch.equal(merged[n], w) for n, w in weights.items())
    for state in (lora.base_state(network), lora.base_state(lora.unmerge(network))):
        assert all(torch.equal(state[n], w) for n, w in weights.items())
    assert not any(layer.base.weight.requires_grad for layer in lora.layers(network).values())
    lora.remove(lora.merge(network))
    assert all(torch.equal(merged[n], w) for n, w in network.state_dict().items())
    assert lora.layers(network) == {}


def test_a_network_without_additions_is_its_own_state():
    network = tiny()
    for state in (lora.base_state(network), lora.merged_state(network)):
        assert list(state) == list(network.state_dict())
        assert all(torch.equal(state[n], tensor) for n, tensor in network.state_dict().items())


def test_lowering_leaves_additions_alone():
    network = tiny()
    lora.add(network, 2)
    before = vectors(learned(network))
    lower(network, torch.bfloat16)
    layer = next(iter(lora.layers(network).values()))
    assert layer.weight.dtype == torch.bfloat16
    assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
    after = vectors(network)
    assert after.dtype == torch.float32 and float((before * after).sum(1).min()) > 0.9995


def test_packed_weights_carry_additions_and_are_not_merged():
    network = tiny()
    lora.add(network, 2, targets=["*.attention.q", "*.mlp.fc1"])
    before = vectors(learned(network))
    state = lora.merged_state(network)
    pack(network)
    assert torch.allclose(vectors(network), before, atol=1e-5)
    again = lora.merged_state(network)
    assert again.keys() == state.keys() and all(torch.equal(again[n], state[n]) for n in state)
    for deed in (lora.merge, lambda packed: lora.add(packed, 2)):
        with pytest.raises(ConfigError, match=r"the weights are packed .*unpack\(network\)"):
            deed(network)


def test_dropout_drops_in_training_only():
    network = tiny()
    lora.add(network, 2, dropout=0.5)
    learned(network)
    assert torch.equal(vectors(network), vectors(network))
    network.train()
    assert not torch.equal(vectors(network), vectors(network))


def test_additions_start_as_a_linear_layer_would():
    """Kaiming's uniform distribution with a = sqrt(5): within 1 / sqrt(D)."""
    torch.manual_seed(0)
    layer = LoRALinear(Linear(400, 30), 50)
    start = layer.lora_A.detach()
    assert float(start.abs().max()) <= 1 / 20
    assert float(start.std()) == pytest.approx(1 / 20 / math.sqrt(3), rel=0.05)
    assert not layer.lora_B.any() and layer.scale == 1


def test_what_makes_no_sense_is_refused():
    network = tiny()
    for rank, alpha, dropout in ((0, None, 0.0), (2, 0.0, 0.0), (2, math.inf, 0.0), (2, 1.0, 1.0)):
        with pytest.raises(ConfigError, match="use a rank from 1 on, an alpha that is not 0"):
            lora.add(network, rank, alpha, dropout=dropout)
    with pytest.raises(ConfigError, match=r"LoRA targets: no linear layer fits .*'\*\.query'"):
        lora.add(network, 2, targets=["*.query"])
    lora.add(network, 2)
    with pytest.raises(ConfigError, match="no linear layer fits"):  # they carry one already
        lora.add(network, 2)
