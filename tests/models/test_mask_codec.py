"""The mask codec beside an implementation in plain numpy, written from the reference's description.

big_vision has the encoder in TensorFlow and the decoder in Flax, and no package of either is here;
what stands below computes each convolution as the sum that defines it.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sightline.core.errors import CheckpointError
from sightline.hub.contents import read_contents
from sightline.hub.load import load_checkpoint
from sightline.models import mask_codec
from sightline.models.mask_codec import TINY, VARIANTS, MaskCodecConfig, keys, read_config
from sightline.models.table import system
from sightline.nn.meta import without_memory
from tests.hub.tiny import randomise

ENTRY = system("mask_codec")
SMALL = MaskCodecConfig(width=16, code_width=10, codewords=19)
"""As deep as the published one, so that the tensors have its names."""


# The reference, in numpy and float64


def convolution(x, kernel, bias, stride, border):
    """Cross-correlation of [C H W] with [E C k k], the border filled with zeros."""
    x = np.pad(x, ((0, 0), (border, border), (border, border)))
    side = kernel.shape[-1]
    rows = (x.shape[1] - side) // stride + 1
    out = np.zeros((len(kernel), rows, rows))
    for i in range(rows):
        for j in range(rows):
            window = x[:, i * stride : i * stride + side, j * stride : j * stride + side]
            out[:, i, j] = np.tensordot(kernel, window, 3)
    return out + bias[:, None, None]


def transposed(x, kernel, bias, border):
    """Each input adds its kernel [C E k k] to the output, two steps from its neighbour's; then
    `border` rows and columns are cut off all around."""
    channels, side, _ = x.shape
    reach = kernel.shape[-1]
    out = np.zeros((kernel.shape[1], 2 * (side - 1) + reach, 2 * (side - 1) + reach))
    for i in range(side):
        for j in range(side):
            spread = np.tensordot(x[:, i, j], kernel, 1)
            out[:, 2 * i : 2 * i + reach, 2 * j : 2 * j + reach] += spread
    assert channels == len(kernel)
    inner = out[:, border : out.shape[1] - border, border : out.shape[2] - border]
    return inner + bias[:, None, None]


def relu(x):
    return np.maximum(x, 0)


def residual(x, weights, name):
    y = relu(convolution(x, *of(weights, f"{name}.0"), 1, 1))
    y = relu(convolution(y, *of(weights, f"{name}.2"), 1, 1))
    return x + convolution(y, *of(weights, f"{name}.4"), 1, 0)


def of(weights, name):
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def reference_features(weights, mask):
    """float64[16, D] of a mask of 0 to 1."""
    x = 2.0 * (mask[None] - 0.5)
    for layer in (0, 2, 4, 6):
        x = relu(convolution(x, *of(weights, f"encoder.{layer}"), 2, 1))
    for layer in (8, 9):
        x = residual(x, weights, f"encoder.{layer}.net")
    x = convolution(x, *of(weights, "encoder.10"), 1, 0)
    return x.reshape(len(x), -1).T


def reference_indices(weights, features):
    book = weights["_vq_vae._embedding"]
    distances = ((features[:, None] - book[None]) ** 2).sum(axis=-1)
    return distances.argmin(axis=1)


def reference_decoded(weights, indices, border=1):
    x = weights["_vq_vae._embedding"][indices].T.reshape(-1, 4, 4)
    x = relu(convolution(x, *of(weights, "decoder.0"), 1, 0))
    for layer in (2, 3):
        x = residual(x, weights, f"decoder.{layer}.net")
    for layer in (4, 6, 8, 10):
        x = relu(transposed(x, *of(weights, f"decoder.{layer}"), border))
    return convolution(x, *of(weights, "decoder.12"), 1, 0)[0]


def published_shapes(config):
    """Names and shapes as AiT's code builds them, from its own arithmetic."""
    w, d = config.width, config.code_width
    down = {0: (w // 8, 1), 2: (w // 4, w // 8), 4: (w // 2, w // 4), 6: (w, w // 2)}
    up = {4: (w, w), 6: (w, w // 2), 8: (w // 2, w // 4), 10: (w // 4, w // 8)}
    shapes = {f"encoder.{n}": (*pair, 4, 4) for n, pair in down.items()}
    shapes |= {f"decoder.{n}": (*pair, 4, 4) for n, pair in up.items()}
    for part in ("encoder.8", "encoder.9", "decoder.2", "decoder.3"):
        shapes |= {f"{part}.net.{n}": (w, w, k, k) for n, k in ((0, 3), (2, 3), (4, 1))}
    shapes |= {"encoder.10": (d, w, 1, 1), "decoder.0": (w, d, 1, 1)}
    return shapes | {"decoder.12": (1, w // 8, 1, 1)}


def drawn_weights(config=SMALL, seed=0):
    """float32 arrays by the published names; biases are no zeros."""
    dice = np.random.default_rng(seed)
    weights = {}
    for name, shape in published_shapes(config).items():
        turned = name in [f"decoder.{n}" for n in (4, 6, 8, 10)]
        inputs, outputs = (shape[0] / 4, shape[1]) if turned else (shape[1], shape[0])
        spread = np.float32((2 / inputs / shape[2] / shape[3]) ** 0.5)
        weights[f"{name}.weight"] = spread * dice.standard_normal(shape, np.float32)
        weights[f"{name}.bias"] = np.float32(0.1) * dice.standard_normal(outputs, np.float32)
    book = dice.standard_normal((config.codewords, config.code_width), np.float32)
    return {**weights, "_vq_vae._embedding": book}


@pytest.fixture(scope="module")
def weights():
    return drawn_weights()


@pytest.fixture
def codec(weights, tmp_path):
    np.savez(tmp_path / "vae-oid.npz", **weights)
    return load_checkpoint(tmp_path / "vae-oid.npz", device="cpu", dtype="float32").network


def masks(count=2, size=64):
    """Masks with grey borders, as squeezed ones have."""
    dice = np.random.default_rng(5)
    coarse = torch.from_numpy(dice.random((count, 1, 9, 9), np.float32)).round()
    soft = F.interpolate(coarse, size=(size, size), mode="bilinear")
    return soft[:, 0].clamp(0, 1).numpy()


def near(ours, reference):
    limit = 1e-5 * max(1.0, float(np.abs(reference).max()))
    return float(np.abs(np.asarray(ours, np.float64) - reference).max()) <= limit


@torch.no_grad()
def test_the_encoder_agrees_with_the_reference_in_numpy(codec, weights):
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    for mask in masks():
        values = torch.from_numpy(2 * (mask - np.float32(0.5)))[None]
        expected = reference_features(wide, mask.astype(np.float64))
        assert near(codec.encoder(values)[0], expected)
        assert np.array_equal(codec.encode(values)[0], reference_indices(wide, expected))


@torch.no_grad()
def test_the_decoder_agrees_with_the_reference_in_numpy(codec, weights):
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    indices = np.random.default_rng(1).integers(0, SMALL.codewords, (2, 16))
    decoded = codec.decode(torch.from_numpy(indices))
    assert decoded.shape == (2, 64, 64)
    for ours, row in zip(decoded, indices, strict=True):
        assert near(ours, reference_decoded(wide, row))


@torch.no_grad()
def test_in_float64_both_agree_to_a_billionth(codec, weights):
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    mask = masks(1)[0].astype(np.float64)
    features = codec.double().encoder(torch.from_numpy(2 * (mask - 0.5))[None])[0].numpy()
    expected = reference_features(wide, mask)
    assert np.abs(features - expected).max() <= 1e-9 * max(1.0, np.abs(expected).max())
    row = np.arange(16)
    gap = codec.decode(torch.from_numpy(row)[None])[0].numpy() - reference_decoded(wide, row)
    assert np.abs(gap).max() <= 1e-9 * max(1.0, np.abs(reference_decoded(wide, row)).max())


def unpadded(network):
    """The known mistake of a transposed convolution: nothing is cut off, then it is made to fit."""
    for layer in network.decoder.up:
        layer.padding = (0, 0)
    out = network.decoder.out
    network.decoder.out = torch.nn.Sequential(out, Crop())


class Crop(torch.nn.Module):
    def forward(self, x):
        return x[..., :64, :64]


def relu_behind_the_sum(network):
    for block in network.decoder.blocks:
        block.register_forward_hook(lambda module, inputs, output: output.relu())


def column_by_column(network):
    original = network.codebook.look_up
    network.codebook.look_up = lambda i: original(i.unflatten(1, (4, 4)).mT.flatten(1))


def largest_product(network):
    """The nearest codeword taken by the product alone, without the codewords' lengths."""
    vectors = network.codebook.vectors
    network.codebook.nearest = lambda x: (x @ vectors.T).argmax(dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("mistake", [unpadded, relu_behind_the_sum, column_by_column])
def test_mistakes_of_a_decoder_are_noticed(codec, weights, mistake):
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    indices = np.random.default_rng(1).integers(0, SMALL.codewords, (1, 16))
    expected = reference_decoded(wide, indices[0])
    assert near(codec.decode(torch.from_numpy(indices))[0], expected)
    mistake(codec)
    assert not near(codec.decode(torch.from_numpy(indices))[0], expected)


@torch.no_grad()
def test_mistakes_of_an_encoder_are_noticed(codec, weights):
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    mask = masks(1)[0]
    expected = reference_features(wide, mask.astype(np.float64))
    values = torch.from_numpy(2 * (mask - np.float32(0.5)))[None]
    assert not near(codec.encoder(torch.from_numpy(mask)[None])[0], expected)  # from 0 to 1
    largest_product(codec)
    found = codec.encode(values)[0].numpy()
    assert not np.array_equal(found, reference_indices(wide, expected))


# Names, sizes, files


def test_the_published_size_has_the_tensors_and_parameters_of_its_code():
    expected = published_shapes(VARIANTS["oid"])
    with without_memory():
        network = ENTRY.build(VARIANTS["oid"])
    found = {
        n: tuple(t.shape) for n, t in keys(VARIANTS["oid"]).write(network.state_dict()).items()
    }
    assert found.pop("_vq_vae._embedding") == (128, 512)
    assert {n: s for n, s in found.items() if n.endswith("weight")} == {
        f"{name}.weight": shape for name, shape in expected.items()
    }
    assert sum(p.numel() for p in network.parameters()) == 2_050_929


def test_the_park_size_is_well_below_a_megabyte_and_a_half_in_half_precision():
    with without_memory():
        network = ENTRY.build(VARIANTS["park"])
    assert 2 * sum(p.numel() for p in network.parameters()) < 1_200_000


def test_a_model_folder_keeps_the_tensors_and_their_running_averages_are_left_out(
    tmp_path, weights
):
    extra = {"_vq_vae._ema_cluster_size": np.ones(19, np.float32),
             "_vq_vae._ema_w": np.ones((19, 10), np.float32)}  # fmt: skip
    np.savez(tmp_path / "vae.npz", **weights, **extra)
    first = read_contents(tmp_path / "vae.npz")
    assert (first.layout, first.config) == ("ait", SMALL)
    from sightline.tasks.model import load

    load(tmp_path / "vae.npz", device="cpu").save(tmp_path / "folder")
    again = load_checkpoint(tmp_path / "folder", device="cpu", dtype="bfloat16")
    assert again.config == SMALL
    own = {n: t.float() for n, t in first.state.items()}
    assert all(torch.equal(again.network.state_dict()[n], t) for n, t in own.items())


def test_a_config_that_is_no_codec_is_refused():
    with pytest.raises(CheckpointError, match="4 halvings need a multiple of 16 and of 8"):
        read_config({"mask_size": 60})
    with pytest.raises(CheckpointError, match="need a multiple of 16 and of 8"):
        read_config({"hidden_size": 12})
    with pytest.raises(CheckpointError, match="0 halvings and 2 residual blocks"):
        read_config({"num_halvings": 0})
    with pytest.raises(CheckpointError, match="0 codewords of 512 numbers"):
        read_config({"codebook_size": 0})


def test_an_index_is_the_same_whatever_type_the_model_is_loaded_in(tmp_path):
    network = randomise(ENTRY.build(TINY))
    from sightline.hub.save import save_checkpoint

    save_checkpoint(network, None, TINY, ENTRY, tmp_path / "m")
    loaded = load_checkpoint(tmp_path / "m", device="cpu", dtype="bfloat16").network
    values = torch.from_numpy(masks(8, 32))
    assert torch.equal(loaded.encode(values), network.encode(values))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_it_says_what_it_is():
    assert mask_codec.SYSTEM.preprocessing(TINY) is None
    assert (VARIANTS["oid"].tokens, VARIANTS["oid"].widths) == (16, (16, 32, 64, 128))
