"""Eight bits: exact integer products, scales that are found, and answers that stay close."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sightline.core.errors import ConfigError
from sightline.nn import quantised
from sightline.nn.blocks import Block, Transformer
from sightline.nn.packed import PackedTransformer, pack
from sightline.nn.precision import lower
from sightline.nn.quantised import Grid, Int8Product, on_grid, quantise

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")),
    reason="this build of torch has no 8-bit products of oneDNN",
)
REAL = Grid(1.0, 0, torch.float32)
WIDTH = 24


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Tower(nn.Module):
    """Blocks as a tower holds them."""

    def __init__(self, activation: str = "quick_gelu", qkv_bias: bool = True) -> None:
        super().__init__()
        self.transformer = Transformer(
            Block(WIDTH, 3, 48, activation=activation, norm_eps=1e-5, qkv_bias=qkv_bias)
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.transformer(x, mask)


def tower(outlier: float = 1.0, dtype: torch.dtype = torch.float32, **options: object) -> Tower:
    """Random weights; `outlier` makes one channel of every norm so many times as large."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Tower(**options)  # type: ignore[arg-type]
        for name, parameter in made.named_parameters():
            nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
            if name.endswith(("norm1.weight", "norm2.weight")):
                parameter.data[5] *= outlier
    lower(made, dtype)
    return made.eval().requires_grad_(False)


def in_8_bits(made: Tower) -> Tower:
    quantise(made, lambda network: network(drawn(16, 9, WIDTH, seed=3)))
    return made


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Least cosine of centred rows."""
    a, b = (part.float().flatten(0, 1) for part in (a, b))
    return float(F.cosine_similarity(a - a.mean(0), b - b.mean(0)).min())


@pytest.mark.parametrize("zero", [0, 37])
def test_products_are_those_of_integers(zero: int) -> None:
    """The sum in whole numbers, in numpy, then one scale for each output."""
    weight, bias = drawn(7, WIDTH, seed=1), drawn(7, seed=2)
    kind = torch.uint8 if zero else torch.int8
    high = 256 if zero else 128
    x = torch.randint(0, high, (5, WIDTH), generator=torch.Generator().manual_seed(4)).to(kind)
    answer = Int8Product(weight, bias, Grid(0.03, zero, kind))(x, REAL)

    scales = weight.abs().amax(dim=1).double().numpy() / quantised.largest_weight()
    rounded = np.rint(weight.double().numpy() / scales[:, None]).astype(np.int64)
    sums = (x.numpy().astype(np.int64) - zero) @ rounded.T
    expected = sums * (0.03 * scales) + bias.double().numpy()
    assert np.abs(answer.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    forgotten = x.numpy().astype(np.int64) @ rounded.T * (0.03 * scales) + bias.numpy()
    assert zero == 0 or np.abs(answer.numpy() - forgotten).max() > 0.1


def test_numbers_go_to_the_nearest_step_and_stop_at_the_end() -> None:
    found = on_grid(torch.tensor([0.4, 0.6, -0.6, 126.7, 500.0, -500.0]))
    assert found.tolist() == [0, 1, -1, 127, 127, -127]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh", "relu"])
def test_answers_stay_close(activation: str, dtype: torch.dtype) -> None:
    plain = tower(activation=activation)
    small = in_8_bits(tower(activation=activation, dtype=dtype))
    x = drawn(6, 9, WIDTH, seed=5)
    before = x.clone()
    assert isinstance(small.transformer, PackedTransformer)
    assert cosine(small(x), plain(x)) > 0.99
    assert torch.equal(x, before)
    mask = torch.arange(9) < torch.tensor([9, 4, 6, 9, 2, 9])[:, None, None, None]
    assert cosine(small(x, mask), plain(x, mask)) > 0.99
    assert cosine(small(x, mask), plain(x)) < 0.99


def test_a_tower_without_biases_is_quantised_too() -> None:
    plain = tower(qkv_bias=False)
    x = drawn(6, 9, WIDTH, seed=5)
    assert cosine(in_8_bits(tower(qkv_bias=False))(x), plain(x)) > 0.99


def test_one_large_channel_is_moved_into_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(6, 9, WIDTH, seed=5)
    expected = tower(outlier=20.0)(x)
    smoothed = cosine(in_8_bits(tower(outlier=20.0))(x), expected)

    def unsmoothed(seen: quantised.Range, layers: object) -> tuple[torch.Tensor, float]:
        return torch.ones(len(seen.largest)), float(seen.largest.max()) / 127

    monkeypatch.setattr(quantised, "_smoothing", unsmoothed)
    plain = cosine(in_8_bits(tower(outlier=20.0))(x), expected)
    assert smoothed > 0.96  # also with weights of 7 bits
    assert 1 - plain > 2 * (1 - smoothed)


def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    small = in_8_bits(tower())
    x = drawn(6, 9, WIDTH, seed=5)
    loud = torch.cat([x[:1], 100 * x[1:]])
    assert (small(loud)[0] - small(x[:1])[0]).abs().max() <= 1e-5


def test_what_was_not_shown_stays_as_it_is() -> None:
    both = nn.ModuleDict({"image": tower(), "text": tower()})
    quantise(both, lambda network: network["image"](drawn(4, 9, WIDTH)))
    assert isinstance(both["image"].transformer, PackedTransformer)
    assert type(both["text"].transformer) is Transformer
    hooks = [module._forward_pre_hooks for module in both.modules()]
    assert not any(hooks)  # nothing that measures is left behind


def test_a_network_with_nothing_to_quantise_says_so() -> None:
    with pytest.raises(ConfigError, match="8 bits are for vision transformers with norms in front"):
        quantise(nn.Sequential(nn.Linear(3, 3)), lambda network: network(torch.zeros(1, 3)))


def test_a_network_in_8_bits_is_not_saved_as_if_it_were_whole() -> None:
    with pytest.raises(ConfigError, match="load the model without quantize to save it"):
        in_8_bits(tower()).state_dict()


def test_packing_afterwards_changes_nothing() -> None:
    small = in_8_bits(tower())
    x = drawn(3, 9, WIDTH, seed=5)
    assert torch.equal(pack(copy.copy(small))(x), small(x))


def test_smoothing_makes_inputs_and_weights_equally_wide() -> None:
    """The square root of the ratio (SmoothQuant with alpha 1/2) leaves both ranges equal."""
    layers = [quantised.Linear(WIDTH, out).requires_grad_(False) for out in (7, 5)]
    largest = drawn(WIDTH, seed=7).abs() + 0.1
    seen = quantised.Range(largest=largest, low=0.0, high=1.0)
    smooth, scale = quantised._smoothing(seen, layers)
    weights = torch.cat([layer.weight for layer in layers]).abs().amax(dim=0)
    assert torch.allclose(largest / smooth, weights * smooth, rtol=1e-5)
    assert scale == pytest.approx((largest / smooth).max().item() / 127)


def test_the_grid_between_the_products_reaches_from_the_least_to_the_most_that_was_seen() -> None:
    made = tower(activation="gelu")
    inputs = drawn(16, 9, WIDTH, seed=3)
    with quantised.measured(made) as ranges:
        made(inputs)
    for block in made.transformer.blocks:
        seen = ranges[block.mlp.fc2]
        grid = quantised.Int8Block(block, ranges).hidden
        assert -grid.zero * grid.scale == pytest.approx(seen.low, abs=grid.scale)
        assert (255 - grid.zero) * grid.scale == pytest.approx(seen.high, abs=grid.scale)
