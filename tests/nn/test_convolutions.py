"""Convolutions with batch normalisation against their formulas, written out in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.nn.convolutions import BasicBlock, BatchNorm, Bottleneck, ConvNorm, raster
from sightline.nn.precision import lower


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randomised(module):
    for norm in module.modules():
        if isinstance(norm, BatchNorm):
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.3, 2)
    return module.double().eval()


def normed(x, norm):
    """x [B C H W] with the running statistics."""
    scale, shift, mean, variance = (
        t.detach().numpy()[:, None, None]
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def correlated(x, conv):
    """Every kernel over every place, zeros around: three loops and a sum."""
    kernel = conv.weight.detach().numpy()
    stride, border = conv.stride[0], kernel.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (border, border), (border, border)))
    rows, columns = (-(-side // stride) for side in x.shape[2:])
    out = np.zeros((len(x), len(kernel), rows, columns))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            window = padded[:, :, top : top + kernel.shape[2], left : left + kernel.shape[3]]
            out[:, :, row, column] = np.einsum("bchw,echw->be", window, kernel)
    return out


def relu(x):
    return np.maximum(x, 0)


def layer(x, module):
    return normed(correlated(x, module.conv), module.norm)


def pooled(x):
    rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = x[:, :, :rows, :columns]
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def close(got, expected):
    got = got.detach().numpy()
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-10


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_a_layer_is_a_correlation_a_norm_and_an_activation(kernel, stride):
    module = randomised(ConvNorm(3, 5, kernel, stride=stride, activation="relu"))
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    close(module(x), relu(layer(x.numpy(), module)))
    module.activation = None
    assert module(x).min() < 0


def test_a_single_point_returns_the_flipped_kernel():
    """The printed formula of a convolution would return the kernel itself."""
    module = ConvNorm(1, 1, 3)
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    assert torch.equal(module.conv(x)[0, 0, 1:4, 1:4], module.conv.weight[0, 0].flip(0, 1))


@pytest.mark.parametrize(("channels", "stride"), [(6, 1), (4, 1), (6, 2)])
def test_a_basic_block_adds_what_two_convolutions_found(channels, stride):
    block = randomised(BasicBlock(channels, 6, stride=stride))
    x = torch.randn(2, channels, 7, 6, dtype=torch.float64)
    first, second = block.layers
    passed = x.numpy() if block.shortcut is None else layer(x.numpy(), block.shortcut)
    assert (block.shortcut is None) is (channels == 6 and stride == 1)
    close(block(x), relu(layer(relu(layer(x.numpy(), first)), second) + passed))


@pytest.mark.parametrize("downsampling", ["first", "middle", "pooled"])
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (5, 1), (8, 2), (5, 2)])
def test_a_bottleneck_adds_what_three_convolutions_found(downsampling, channels, stride):
    block = randomised(Bottleneck(channels, 4, 8, stride=stride, downsampling=downsampling))
    x = torch.randn(2, channels, 8, 6, dtype=torch.float64)
    first, middle, last = block.layers
    shrink = pooled if downsampling == "pooled" and stride == 2 else lambda y: y
    found = relu(layer(relu(layer(x.numpy(), first)), middle))
    passed = x.numpy()
    if block.shortcut is not None:
        passed = layer(shrink(passed), block.shortcut)
    close(block(x), relu(layer(shrink(found), last) + passed))
    assert block(x).shape == (2, 8, 8 // stride, 6 // stride)


def test_the_stride_sits_where_it_was_asked_for():
    strides = {
        where: [m.conv.stride[0] for m in Bottleneck(4, 4, 8, stride=2, downsampling=where).layers]
        for where in ("first", "middle", "pooled")
    }
    assert strides == {"first": [2, 1, 1], "middle": [1, 2, 1], "pooled": [1, 1, 1]}


def test_training_uses_the_batch_and_moves_the_running_statistics_a_tenth_of_the_way():
    norm = BatchNorm(3).double()
    x = 2 + 3 * torch.randn(4, 3, 5, 2, dtype=torch.float64)
    rows = x.numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    mean, biased = rows.mean(axis=1), rows.var(axis=1)
    expected = (x.numpy() - mean[:, None, None]) / np.sqrt(biased + 1e-5)[:, None, None]
    close(norm(x), expected)
    close(norm.running_mean, 0.1 * mean)
    close(norm.running_var, 0.9 + 0.1 * rows.var(axis=1, ddof=1))  # the unbiased one is kept
    assert norm.num_batches_tracked == 1


def test_frozen_weights_do_not_keep_statistics_still_but_evaluation_mode_does():
    norm = BatchNorm(3).requires_grad_(False)
    norm(torch.randn(4, 3, 2, 2))
    assert norm.running_mean.abs().max() > 0
    before = norm.running_mean.clone()
    norm.eval()(torch.randn(4, 3, 2, 2))
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lowered_convolutions_leave_the_maps_between_them_in_float32(dtype):
    block = Bottleneck(8, 4, 8, stride=2, downsampling="pooled").eval()
    x = torch.randn(2, 8, 6, 6)
    full = block(x)
    lower(block, dtype)
    assert {m.conv.weight.dtype for m in block.layers} == {dtype}
    assert {m.norm.weight.dtype for m in block.layers} == {torch.float32}
    assert {m.norm.running_var.dtype for m in block.layers} == {torch.float32}
    assert block(x).dtype == torch.float32
    assert torch.allclose(block(x), full, atol=0.05)


def test_statistics_are_taken_in_float32_from_narrow_maps():
    norm = BatchNorm(2)
    x = (100 + torch.randn(8, 2, 16, 16)).to(torch.bfloat16)
    out = norm(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, BatchNorm(2)(x.float()))


def test_a_map_is_read_row_by_row():
    maps = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert raster(maps).flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_what_no_block_can_be_is_refused():
    with pytest.raises(ConfigError, match="a kernel of 4x4 has no middle: use an odd side"):
        ConvNorm(3, 4, 4)
    with pytest.raises(ConfigError, match="unknown activation 'rellu': did you mean 'relu'"):
        ConvNorm(3, 4, 3, activation="rellu")
