"""Packed decoders: the same answers, the same files, and back again."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.core.interfaces import Prompt, TextBatch
from sightline.generation.contracts import CONTRACTS
from sightline.models import gemma, gemma2
from sightline.nn import lora
from sightline.nn.linear import Linear
from sightline.nn.mlp import GatedMLP
from sightline.nn.norms import RMSNorm
from sightline.nn.packed import (
    PackedAttention,
    PackedDecoderBlock,
    PackedGatedMLP,
    PackedLinear,
    PackedRMSNorm,
    PackedTable,
    pack,
    unpack,
)
from sightline.nn.packed_linear import gated_product
from sightline.nn.precision import lower
from sightline.nn.writer import Writer

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
SYSTEMS = {"gemma": (gemma.Gemma, gemma.TINY), "gemma2": (gemma2.Gemma2, gemma2.TINY)}
PROMPT = Prompt(
    torch.tensor([[2, 5, 6, 7, 8], [2, 9, 10, 0, 0]]),
    torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
)
SUFFIX = TextBatch(
    torch.tensor([[11, 12, 1], [13, 1, 0]]), torch.tensor([[True] * 3, [True] * 2 + [False]])
)


def network(name: str = "gemma", dtype: torch.dtype = torch.float32) -> Writer:
    build, config = SYSTEMS[name]
    torch.manual_seed(0)
    made = build(config)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    lower(made, dtype)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_a_packed_decoder_answers_as_a_plain_one(
    name: str, dtype: torch.dtype, near: float
) -> None:
    plain = network(name, dtype)
    packed = pack(copy.deepcopy(plain))
    assert isinstance(packed, Writer)
    kinds = {PackedDecoderBlock, PackedAttention, PackedGatedMLP, PackedRMSNorm, PackedTable}
    assert kinds <= {type(module) for module in packed.modules()}
    a, b = plain(PROMPT, SUFFIX).logits, packed(PROMPT, SUFFIX).logits
    assert (a - b).abs().max() <= near * max(1.0, float(a.abs().max()))
    first, cache = plain.prefill(PROMPT, 1)
    also, packed_cache = packed.prefill(PROMPT, 1)
    ids = torch.tensor([[11], [13]])
    for one, other in ((first, also), (plain.extend(ids, cache), packed.extend(ids, packed_cache))):
        assert (one - other).abs().max() <= near * max(1.0, float(one.abs().max()))


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("check", CONTRACTS, ids=lambda check: check.__name__)
def test_a_packed_decoder_keeps_the_contracts(name: str, check) -> None:
    check(pack(network(name)), PROMPT)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_packed_norm_divides_by_the_root_of_the_mean_square(offset: float, size: float) -> None:
    torch.manual_seed(0)
    holder = nn.ModuleList([RMSNorm(48, 1e-6, offset)])
    holder[0].weight.data.normal_()
    x, weight = size * torch.randn(3, 5, 48), holder[0].weight.detach().double() + offset
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    with torch.no_grad():
        found = pack(holder)[0](x)
    assert type(holder[0]) is PackedRMSNorm
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_packed_gate_is_a_plain_one(activation: str, rows: int) -> None:
    torch.manual_seed(0)
    holder = nn.ModuleList([GatedMLP(24, 40, activation)]).requires_grad_(False)
    x = 2 * torch.randn(rows, 24)
    expected = holder[0](x)
    pack(holder)
    assert type(holder[0]) is PackedGatedMLP
    torch.testing.assert_close(holder[0](x), expected, rtol=1e-5, atol=1e-5)
    assert type(unpack(holder)[0]) is GatedMLP
    assert torch.equal(holder[0](x), expected)


def test_an_activation_that_no_product_knows_stays_outside() -> None:
    torch.manual_seed(0)
    holder = nn.ModuleList([GatedMLP(24, 40, "quick_gelu")]).requires_grad_(False)
    x = torch.randn(2, 24)
    expected = holder[0](x)
    pack(holder)
    assert type(holder[0]) is GatedMLP and type(holder[0].up) is PackedLinear
    torch.testing.assert_close(holder[0](x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_files_do_not_know_of_packing(name: str) -> None:
    plain = network(name, torch.bfloat16)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    packed = pack(plain)
    state = packed.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], value) for key, value in before.items())
    kinds = {key: type(m) for key, m in network(name).named_modules()}
    unpack(packed)
    assert {key: type(m) for key, m in packed.named_modules()} == kinds
    assert all(torch.equal(packed.state_dict()[key], value) for key, value in before.items())


def test_other_weights_can_be_loaded_into_a_packed_decoder() -> None:
    one, other = pack(network()), network()
    for parameter in other.parameters():
        parameter.data.mul_(0.9)
    one.load_state_dict(other.state_dict())
    a, b = one(PROMPT, SUFFIX).logits, other(PROMPT, SUFFIX).logits
    assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()))
    state = other.state_dict()
    del state["decoder.blocks.0.attention.k.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*attention\.k\.weight"):
        one.load_state_dict(state)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_packed_decoder_can_be_copied(again) -> None:
    packed = pack(network())
    other = again(packed)
    assert torch.equal(other(PROMPT, SUFFIX).logits, packed(PROMPT, SUFFIX).logits)


def test_layers_with_an_addition_stay_apart() -> None:
    adapted = network()
    lora.add(adapted, rank=2)
    for layer in lora.layers(adapted).values():
        nn.init.normal_(layer.lora_B)
    before = adapted.requires_grad_(False)(PROMPT, SUFFIX).logits
    pack(adapted)
    kinds = [type(module) for module in adapted.modules()]
    assert PackedAttention not in kinds and PackedGatedMLP in kinds and Linear not in kinds
    after = adapted(PROMPT, SUFFIX).logits
    assert torch.allclose(after, before, atol=1e-5 * float(before.abs().max()))


def test_packed_weights_stay_where_they_are() -> None:
    with pytest.raises(ConfigError, match="packed for the CPU"):
        pack(network()).to(torch.float64)
    packed = pack(network())
    with torch.enable_grad(), pytest.raises(ConfigError, match="answers and no gradients"):
        packed.decoder(torch.randn(1, 3, 20, requires_grad=True))
    with torch.enable_grad(), pytest.raises(ConfigError, match="answers and no gradients"):
        packed_up = PackedLinear(torch.randn(8, 20), None)
        gated_product(torch.randn(1, 20, requires_grad=True), packed_up.weight, torch.ones(1, 8))
