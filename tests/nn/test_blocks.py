"""Blocks against their formulas, written out plainly."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sightline.core.errors import ConfigError
from sightline.nn.attention import Attention, attend
from sightline.nn.blocks import Block, Transformer
from sightline.nn.linear import Conv2d, Linear, product_type
from sightline.nn.masks import causal, key_padding
from sightline.nn.meta import without_memory
from sightline.nn.mlp import ACTIVATIONS, MLP, activation, quick_gelu
from sightline.nn.norms import LayerNorm, unit_length
from sightline.nn.patches import PatchEmbedding
from sightline.nn.pooling import AttentionPool, at_index
from sightline.nn.positions import GridPositions, resample_grid, sincos_grid
from sightline.nn.precision import lower


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_patches_are_unfolded_pixels_through_one_linear_map():
    """In (channel, row, column) order, patches in raster order."""
    embed = PatchEmbedding((4, 2), 3, 5, bias=True)
    pixels = torch.randn(2, 3, 8, 6)
    got = embed(pixels)
    assert got.shape == (2, 6, 5)
    weight = embed.projection.weight.flatten(1)
    for row in range(2):
        for column in range(3):
            patch = pixels[:, :, 4 * row : 4 * row + 4, 2 * column : 2 * column + 2].flatten(1)
            expected = patch @ weight.T + embed.projection.bias
            assert torch.allclose(got[:, 3 * row + column], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "patch", "count"),
    [(224, 16, 196), (224, 14, 256), (448, 14, 1024), (896, 14, 4096), (336, 14, 576)],
)
def test_patch_counts(side, patch, count):
    rows, columns = PatchEmbedding((patch, patch), 3, 1, bias=False).grid(side, side)
    assert rows * columns == count


def test_what_is_left_over_is_not_seen():
    embed = PatchEmbedding((14, 14), 1, 2, bias=False)
    pixels = torch.randn(1, 1, 30, 30)
    changed = pixels.clone()
    changed[..., 28:, :] = changed[..., :, 28:] = 9.0
    assert torch.equal(embed(pixels), embed(changed))


def test_a_picture_smaller_than_a_patch_is_refused():
    with pytest.raises(ConfigError, match="of 3x9 pixels is smaller than one patch of 4x4"):
        PatchEmbedding((4, 4), 3, 2, bias=False)(torch.zeros(1, 3, 3, 9))


@pytest.mark.parametrize("cross", [False, True])
def test_attention_is_softmax_of_scaled_products(cross):
    attention = Attention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    context = torch.randn(2, 7, 12, dtype=torch.float64) if cross else x
    mask = torch.rand(5, context.shape[1]) > 0.3
    mask[:, 0] = True
    expected = torch.zeros_like(x)
    for b in range(2):
        heads = []
        for h in range(3):
            part = slice(4 * h, 4 * h + 4)
            q, k, v = attention.q(x[b])[:, part], attention.k(context[b])[:, part], None
            v = attention.v(context[b])[:, part]
            scores = (q @ k.T / math.sqrt(4)).masked_fill(~mask, -math.inf)
            heads.append(scores.softmax(dim=-1) @ v)
        expected[b] = attention.out(torch.cat(heads, dim=-1))
    got = attention(x, context if cross else None, mask)
    assert torch.allclose(got, expected, atol=1e-12)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="width 10 is not a multiple of the 3 attention heads"):
        Attention(10, 3)


def test_without_positions_patches_can_be_permuted():
    network = Transformer(
        Block(8, 2, 16, activation="gelu", norm_eps=1e-6) for _ in range(2)
    ).double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    order = torch.randperm(6)
    assert torch.allclose(network(x)[:, order], network(x[:, order]), atol=1e-10)


def test_a_block_adds_to_its_input():
    block = Block(8, 2, 16, activation="gelu", norm_eps=1e-6)
    x = torch.randn(2, 3, 8)
    middle = x + block.attention(block.norm1(x))
    assert torch.equal(block(x), middle + block.mlp(block.norm2(middle)))


def test_a_post_norm_block_ends_in_its_norm():
    block = Block(8, 2, 16, activation="gelu", norm_eps=1e-6, post_norm=True)
    x, mask = torch.randn(2, 3, 8), key_padding(torch.tensor([3, 2]), 3)
    middle = block.norm1(x + block.attention(x, mask=mask))
    assert torch.equal(block(x, mask), block.norm2(middle + block.mlp(middle)))
    assert torch.allclose(block(100 * x).mean(-1), torch.zeros(2, 3), atol=1e-5)


def test_dropout_of_attention_weights_falls_in_training_alone():
    block = Block(8, 2, 16, activation="gelu", norm_eps=1e-6, attention_dropout=0.9)
    x = torch.randn(2, 3, 8)
    assert not torch.equal(block(x), block.eval()(x))
    assert torch.equal(block(x), block(x))


def test_causal_mask_hides_what_comes_after():
    assert causal(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_key_padding_hides_what_is_behind_each_sequence():
    mask = key_padding(torch.tensor([3, 1]), 4)
    assert mask.shape == (2, 1, 1, 4)
    assert mask.flatten(1).tolist() == [[True, True, True, False], [True, False, False, False]]


def test_positions_of_their_own_grid_are_the_table_itself():
    positions = GridPositions((3, 4), 5, prefix=1)
    nn.init.normal_(positions.table)
    assert positions((3, 4)) is positions.table
    assert torch.allclose(resample_grid(positions.table[1:], (3, 4), (3, 4)), positions.table[1:])


def test_resampling_keeps_the_prefix_and_the_axes():
    """At twice the grid, each two new rows stand around the old one, and columns likewise.

    Torch's bicubic kernel (a = -0.75) does not give a slope back exactly, but symmetrically.
    """
    positions = GridPositions((8, 8), 2, prefix=1)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    table = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    positions.table.data = torch.cat([torch.tensor([[7.0, 9.0]]), table])
    moved = positions((16, 16)).detach()
    assert moved[0].tolist() == [7.0, 9.0]
    inner = moved[1:].unflatten(0, (16, 16))[4:12, 4:12]
    old = torch.arange(2.0, 6.0)
    assert torch.allclose(inner[:, 0, 0].unflatten(0, (4, 2)).mean(dim=1), old, atol=1e-4)
    assert torch.allclose(inner[0, :, 1].unflatten(0, (4, 2)).mean(dim=1), old, atol=1e-4)
    assert (inner[:, 0, 0].diff() > 0.3).all() and (inner[0, :, 1].diff() > 0.3).all()


def test_sincos_positions_by_hand():
    table = sincos_grid((2, 3), 8, longest=100.0).numpy()
    omega = np.array([1.0, 0.01])
    for place in range(6):
        y, x = divmod(place, 3)
        expected = np.concatenate([f(v * omega) for v in (x, y) for f in (np.sin, np.cos)])
        assert np.allclose(table[place], expected, atol=1e-6)


def test_sincos_positions_need_a_width_of_fours():
    with pytest.raises(ConfigError, match="width 10: sine and cosine positions"):
        sincos_grid((2, 2), 10)


def test_the_pool_has_no_residual_around_its_attention():
    pool = AttentionPool(8, 2, 12, activation="gelu", norm_eps=1e-6).double()
    nn.init.normal_(pool.probe)
    tokens = torch.randn(3, 5, 8, dtype=torch.float64)
    reference = nn.MultiheadAttention(8, 2, batch_first=True).double()
    reference.in_proj_weight.data = torch.cat([pool.q.weight, pool.kv.weight])
    reference.in_proj_bias.data = torch.cat([pool.q.bias, pool.kv.bias])
    reference.out_proj.load_state_dict(pool.out.state_dict())
    probe = pool.probe.expand(3, 1, 8)
    mixed = reference(probe, tokens, tokens)[0]
    assert torch.allclose(pool.attend(tokens), mixed, atol=1e-12)
    assert torch.allclose(pool(tokens), (mixed + pool.mlp(pool.norm(mixed)))[:, 0], atol=1e-12)


def test_each_sequence_is_taken_at_its_own_index():
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert at_index(tokens, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_activations_by_name():
    x = torch.linspace(-3, 3, 31)
    assert torch.allclose(quick_gelu(x), x / (1 + torch.exp(-1.702 * x)), atol=1e-6)
    assert torch.equal(activation("gelu_new")(x), F.gelu(x, approximate="tanh"))
    assert set(ACTIVATIONS) >= {"gelu", "gelu_pytorch_tanh", "quick_gelu"}
    with pytest.raises(ConfigError, match="unknown activation 'geluu': did you mean 'gelu'"):
        activation("geluu")


def test_norms_stay_float32_and_linears_follow_their_weights():
    network = nn.Sequential(LayerNorm(8), MLP(8, 16, "gelu"), LayerNorm(8))
    lower(network, torch.bfloat16)
    x = torch.randn(4, 8)
    assert network[0](x).dtype == torch.float32
    assert network[1](network[0](x)).dtype == torch.bfloat16
    assert network(x).dtype == torch.float32
    assert {p.dtype for m in (network[0], network[2]) for p in m.parameters()} == {torch.float32}
    lower(network, torch.float32)
    assert network[1](x).dtype == torch.float32


def test_a_type_that_networks_do_not_compute_in_is_refused():
    with pytest.raises(ConfigError, match=r"dtype torch.int8 is not one"):
        lower(nn.Sequential(Linear(2, 2)), torch.int8)


def test_float64_stays_float64():
    x = torch.randn(3, 4, dtype=torch.float64)
    assert LayerNorm(4).double()(x).dtype == torch.float64
    assert unit_length(x).dtype == torch.float64


def test_a_zero_vector_has_no_direction():
    assert unit_length(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_building_without_memory_keeps_shapes_and_loads_no_compiler():
    import subprocess
    import sys

    code = (
        "import sys, torch\nfrom sightline.models.clip import CLIP, VARIANTS\n"
        "from sightline.nn.meta import without_memory\n"
        "with without_memory():\n    n = CLIP(VARIANTS['B/32'])\n"
        "assert all(p.is_meta for p in n.parameters())\n"
        "print(sum(p.numel() for p in n.parameters()), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["151277313", "False"]
    with without_memory():
        assert Conv2d(3, 4, 2).weight.is_meta


@pytest.mark.parametrize("mask", [None, "causal", "padding", "offset"])
def test_both_ways_back_through_attention_agree(mask):
    """With gradients short bfloat16 attention on a CPU writes its scores out; torch's does not."""
    q, k, v = (torch.randn(2, 3, length, 8) for length in (5, 7, 7))
    allowed = {
        None: None,
        "causal": torch.ones(5, 7, dtype=torch.bool).tril(2),
        "padding": torch.arange(7) < torch.tensor([7, 4])[:, None, None, None],
        "offset": torch.randn(3, 5, 7).bfloat16(),
    }[mask]
    low = [part.bfloat16().requires_grad_() for part in (q, k, v)]
    wide = [part.detach().float().requires_grad_() for part in low]
    written = attend(*low, allowed)
    kernel = F.scaled_dot_product_attention(*wide, allowed.float() if mask == "offset" else allowed)
    weights = torch.randn(kernel.shape)
    (written * weights.bfloat16()).sum().backward()
    (kernel * weights).sum().backward()
    assert written.dtype == torch.bfloat16
    for got, expected in [
        (written, kernel),
        *((a.grad, b.grad) for a, b in zip(low, wide, strict=True)),
    ]:
        assert (got.float() - expected).abs().max() <= 0.02 * max(1.0, expected.abs().max())
    with torch.no_grad():
        assert (attend(*low, allowed).float() - kernel).abs().max() <= 0.02


def test_a_forgotten_mask_or_scale_would_show():
    q, k, v = (torch.randn(1, 2, 5, 8).bfloat16().requires_grad_() for _ in range(3))
    allowed = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), allowed)
    assert (attend(q, k, v).float() - expected).abs().max() > 0.1
    assert (attend(q * 8**0.5, k, v, allowed).float() - expected).abs().max() > 0.1


def test_products_take_autocasts_type_and_no_detour():
    layer = Linear(4, 4)
    x = torch.randn(2, 4).bfloat16()
    assert layer(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert product_type(layer.weight) == torch.bfloat16
        assert layer(x).dtype == torch.bfloat16
    assert product_type(torch.empty(1, device="meta")) == torch.float32


def test_projections_have_biases_unless_told_otherwise():
    for bias in ({}, {"bias": True}, {"bias": False}):
        layer = Attention(8, 2, **bias)
        found = [part.bias is not None for part in (layer.q, layer.k, layer.v, layer.out)]
        assert found == [bias.get("bias", True)] * 3 + [True]


def test_a_grid_shrinks_without_a_wider_filter_unless_told_otherwise():
    table = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    image = table.T.reshape(1, 5, 8, 8)
    for given, antialias in (({}, False), ({"antialias": True}, True)):
        expected = F.interpolate(
            image, size=(3, 4), mode="bicubic", align_corners=False, antialias=antialias
        )
        found = resample_grid(table, (8, 8), (3, 4), **given)
        assert torch.allclose(found, expected[0].flatten(1).T, atol=1e-5)
