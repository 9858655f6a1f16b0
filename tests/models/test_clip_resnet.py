"""CLIP's ResNet towers against OpenAI's own code, whose answers are a fixture, and plain numpy.

The known mistakes are planted one at a time, and each must be noticed.
"""

import json
import pathlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from sightline.core.errors import CheckpointError, ConfigError
from sightline.models import clip, clip_resnet, openai_layout
from sightline.models.clip_resnet import SYSTEM, TINY, VARIANTS, CLIPResNetConfig, MeanQueryPool
from sightline.nn.convolutions import Bottleneck
from sightline.nn.meta import without_memory
from tests.models.test_parity import agree

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"


class Reference:
    """A fixture: `weights` in OpenAI's layout, everything else by its own name."""

    def __init__(self, name):
        with safe_open(FIXTURES / f"{name}.safetensors", framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            self.config = json.loads(file.metadata()["config"])
        self.stored = {k.removeprefix("weights/"): v for k, v in tensors.items() if "weights/" in k}
        self.weights = {
            k: v.float() if v.is_floating_point() else v for k, v in self.stored.items()
        }
        self.rest = {k: v for k, v in tensors.items() if "weights/" not in k}
        self.pixels = self.rest["in/pixels"].float() / 255 * 4 - 2
        self.ids = self.rest["in/ids"]

    def part(self, kind):
        return {k.removeprefix(kind): v for k, v in self.rest.items() if k.startswith(kind)}

    def text(self):
        width = self.config["transformer_width"]
        return clip.TextTowerConfig(
            width=width,
            depth=self.config["transformer_layers"],
            num_heads=self.config["transformer_heads"],
            mlp_width=4 * width,
            vocab_size=50,
            context_length=9,
            eos_id=49,
            bos_id=48,
            pad_id=0,
        )


@pytest.fixture
def reference():
    return Reference("clip_resnet")


@pytest.fixture
def ours(reference):
    made = reference.config
    config = CLIPResNetConfig(
        clip_resnet.ImageTowerConfig(made["vision_width"], tuple(made["vision_layers"]), (96, 96)),
        reference.text(),
        made["embed_dim"],
    )
    network = SYSTEM.build(config)
    network.load_state_dict(SYSTEM.read_state(reference.weights), strict=True)
    return network.eval()


def answers(network, reference):
    maps = network.image.stages(reference.pixels)
    scores = network(reference.pixels, reference.ids)
    return {
        "layer1_row": maps[0][:, :, 7],
        "layer2_row": maps[1][:, :, 4],
        "layer3_row": maps[2][:, :, 2],
        "layer4": maps[3],
        "image_features": network.image_projection(network.image(reference.pixels).pooled),
        "text_features": network.text_projection(network.text(reference.ids).pooled),
        "logits": scores.logits,
    }


def disagreeing(network, reference):
    expected = reference.part("out/")
    del expected["stem_row"]
    got = answers(network, reference)
    return {name for name, value in expected.items() if not agree(got[name], value)}


def test_every_output_and_every_stage_agree_with_openais_code(reference, ours):
    assert disagreeing(ours, reference) == set()
    stem = torch.nn.functional.avg_pool2d(ours.image.stem(reference.pixels), 2)
    assert agree(stem[:, :, 5], reference.rest["out/stem_row"])


def test_gradients_agree_with_openais_code(reference, ours):
    # In float64, so that only the reference's own rounding counts: it is 0.4 of the limit for a
    # convolution's weight, and what float32 adds here differs from one processor to the next.
    ours.double()
    weights = torch.linspace(-1, 1, 6).reshape(2, 3)
    (ours(reference.pixels.double(), reference.ids).logits * weights).sum().backward()
    state = {name: p.grad for name, p in ours.named_parameters()}
    written = SYSTEM.write_state(state)
    expected = reference.part("grad/")
    assert len(expected) == 9
    assert {name for name, grad in expected.items() if not agree(written[name], grad)} == set()


def test_training_mode_uses_the_batch_and_moves_the_statistics_alike(reference, ours):
    ours.train()
    with torch.no_grad():
        features = ours.image_projection(ours.image(reference.pixels).pooled)
    moved = SYSTEM.write_state(ours.state_dict())
    for name, expected in reference.part("train/").items():
        got = features if name == "image_features" else moved[name]
        assert agree(got, expected), name
    assert not agree(features, reference.rest["out/image_features"])


def test_the_layout_returns_bit_for_bit(reference, ours):
    written = SYSTEM.write_state(ours.state_dict())
    assert written.keys() == reference.weights.keys()
    assert all(torch.equal(written[name], value) for name, value in reference.weights.items())


def test_numbers_that_the_archives_store_beside_the_weights_are_left_out(reference, ours):
    extra = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    assert SYSTEM.read_state({**reference.weights, **extra}).keys() == ours.state_dict().keys()


# --- The attention pool, in plain numpy.


def numpy_pool(x, positions, q, k, v, heads):
    """One picture: x [P D]; every (weight, bias) as a linear layer holds it."""
    x = np.concatenate([x.mean(axis=0, keepdims=True), x]) + positions
    size = x.shape[1] // heads
    found = []
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        query = q[0][rows] @ x[0] + q[1][rows]
        keys = x @ k[0][rows].T + k[1][rows]
        values = x @ v[0][rows].T + v[1][rows]
        weights = np.exp(keys @ query / np.sqrt(size))
        found.append((weights / weights.sum()) @ values)
    return np.concatenate(found)


def test_the_attention_pool_is_its_formula():
    torch.manual_seed(0)
    pool = MeanQueryPool(12, 3, (2, 5)).double()
    nn.init.normal_(pool.positions.table)
    tokens = torch.randn(4, 10, 12, dtype=torch.float64)
    linear = [
        (m.weight.detach().numpy(), m.bias.detach().numpy()) for m in (pool.q, pool.k, pool.v)
    ]
    table = pool.positions.table.detach().numpy()
    expected = np.stack([numpy_pool(row.numpy(), table, *linear, heads=3) for row in tokens])
    got = pool(tokens, (2, 5)).detach().numpy()
    assert np.abs(got - expected).max() <= 1e-12


# --- Known mistakes.


def pool_with(query, keys_from=0):
    """The attention pool with another query, and without the first rows of the keys."""

    def forward(self, tokens, grid):
        mean = tokens.mean(dim=1, keepdim=True)
        x = torch.cat([mean, tokens], dim=1) + self.positions(grid)
        places = x[:, keys_from:]
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.q(query(x)), self.k(places), self.v(places))
        )
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).flatten(1)

    return forward


def no_mistake(network, monkeypatch):
    monkeypatch.setattr(MeanQueryPool, "forward", pool_with(lambda x: x[:, :1]))


def average_without_a_position(network, monkeypatch):
    with torch.no_grad():
        network.image.pool.positions.table[0] = 0


def query_of_the_first_place(network, monkeypatch):
    monkeypatch.setattr(MeanQueryPool, "forward", pool_with(lambda x: x[:, 1:2]))


def average_is_no_key(network, monkeypatch):
    monkeypatch.setattr(MeanQueryPool, "forward", pool_with(lambda x: x[:, :1], keys_from=1))


def average_without_attention(network, monkeypatch):
    monkeypatch.setattr(MeanQueryPool, "forward", lambda self, tokens, grid: tokens.mean(dim=1))


def one_head(network, monkeypatch):
    network.image.pool.num_heads = 1


def stride_without_average(network, monkeypatch):
    monkeypatch.setattr(Bottleneck, "_pool", lambda self, x: x[..., :: self.pooled, :: self.pooled])


def average_before_the_3x3(network, monkeypatch):
    def forward(self, x):
        passed = x if self.shortcut is None else self.shortcut(self._pool(x))
        first, middle, last = self.layers
        return self.activation(last(middle(self._pool(first(x)))) + passed)

    monkeypatch.setattr(Bottleneck, "forward", forward)


def no_activation_behind_the_sum(network, monkeypatch):
    for module in network.modules():
        if isinstance(module, Bottleneck):
            module.activation = nn.Identity()


def statistics_of_the_batch(network, monkeypatch):
    network.image.train()


def coarse_epsilon(network, monkeypatch):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def exact_gelu_in_the_text(network, monkeypatch):
    for block in network.text.transformer.blocks:
        block.mlp.activation = torch.nn.functional.gelu


def unnormalised(network, monkeypatch):
    monkeypatch.setattr("sightline.models.clip.unit_length", lambda x: x)


MISTAKES = [
    average_without_a_position, query_of_the_first_place, average_without_attention,
    average_is_no_key, one_head, stride_without_average, average_before_the_3x3,
    no_activation_behind_the_sum, statistics_of_the_batch, coarse_epsilon, exact_gelu_in_the_text,
    unnormalised,
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_comparison_notices(mistake, reference, ours, monkeypatch):
    mistake(ours, monkeypatch)
    assert disagreeing(ours, reference)


def test_the_pool_of_the_mistakes_is_right_without_one(reference, ours, monkeypatch):
    no_mistake(ours, monkeypatch)
    assert disagreeing(ours, reference) == set()


def test_the_comparison_notices_projections_in_another_order(reference, ours, monkeypatch):
    monkeypatch.setattr(openai_layout, "_PARTS", ("k", "q", "v"))
    ours.load_state_dict(SYSTEM.read_state(reference.weights))
    assert "text_features" in disagreeing(ours, reference)


def test_the_comparison_notices_a_projection_that_was_not_transposed(reference, ours):
    with torch.no_grad():
        square = ours.text_projection.weight[:, :10]
        square.copy_(square.T.clone())
    assert disagreeing(ours, reference) == {"text_features", "logits"}


# --- Sizes and configurations.


# Counted once by building OpenAI's classes on the meta device; the commit is that of the fixture.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("RN50", 102_007_137),
        ("RN101", 119_688_033),
        ("RN50x4", 178_300_601),
        ("RN50x16", 290_979_217),
        ("RN50x64", 623_258_305),
    ],
)
def test_full_size_models_have_openais_counts_and_their_config_is_read_off(name, parameters):
    with without_memory():
        network = SYSTEM.build(VARIANTS[name])
        assert sum(p.numel() for p in network.parameters()) == parameters
        state = SYSTEM.write_state(network.state_dict())
        assert clip_resnet.config_of(state) == VARIANTS[name]
        assert SYSTEM.read_state(state).keys() == network.state_dict().keys()


def test_a_vit_config_is_read_off_too():
    for name in ("B/32", "L/14@336", "L/14-laion2B"):
        config = clip.VARIANTS[name]
        with without_memory():
            state = openai_layout.write_openai(clip.CLIP(config).state_dict())
            found = openai_layout.config_of(state, config.text.activation)
        text = replace(config.text, pad_id=0)
        assert found == replace(config, text=text)


def test_the_openai_layout_of_a_vit_agrees_with_openais_code():
    reference = Reference("clip_openai_vit")
    made = reference.config
    image = clip.ImageTowerConfig(
        width=16, depth=2, num_heads=made["vision_heads"], mlp_width=64, patch_size=(8, 8),
        image_size=(24, 24),
    )  # fmt: skip
    network = clip.CLIP(clip.CLIPConfig(image, reference.text(), made["embed_dim"]))
    state = openai_layout.read_openai(reference.weights)
    network.load_state_dict(state, strict=True)
    network.eval()
    got = {
        "image_features": network.image_projection(network.image(reference.pixels).pooled),
        "text_features": network.text_projection(network.text(reference.ids).pooled),
        "logits": network(reference.pixels, reference.ids).logits,
    }
    assert all(agree(got[name], value) for name, value in reference.part("out/").items())
    written = openai_layout.write_openai(network.state_dict())
    assert written.keys() == reference.weights.keys()
    assert all(torch.equal(written[name], value) for name, value in reference.weights.items())


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


def test_tensors_that_are_no_clip_are_named(reference):
    with pytest.raises(CheckpointError, match=r"no tensor 'visual.layer1.0.conv1.weight': these"):
        clip_resnet.config_of({})
    with pytest.raises(CheckpointError, match="not the weights of a CLIP model in OpenAI's layout"):
        clip_resnet.config_of(without(reference.weights, "token_embedding.weight"))
    with pytest.raises(CheckpointError, match=r"a width of 12 is not made of heads of 64 channels"):
        clip_resnet.config_of(reference.weights)
    name = "visual.attnpool.positional_embedding"
    with pytest.raises(CheckpointError, match=r"has 9 rows: one for the average and a square grid"):
        clip_resnet.config_of({**reference.weights, name: torch.zeros(9, 128)})
    with pytest.raises(CheckpointError, match=r"has shape \[9\], 2 axes are expected"):
        clip_resnet.config_of({**reference.weights, name: torch.zeros(9)})
    vit = Reference("clip_openai_vit").weights
    with pytest.raises(CheckpointError, match=r"has 9 rows: a class token and a square grid"):
        openai_layout.config_of({**vit, "visual.positional_embedding": torch.zeros(9, 16)})


def test_pictures_of_other_sizes_are_taken_and_too_small_ones_refused(ours):
    for size, places in [((96, 96), 9), ((64, 160), 10), ((32, 32), 1), ((100, 70), 6)]:
        encoded = ours.image(torch.randn(2, 3, *size))
        assert encoded.tokens.shape == (2, places, 128)
        assert encoded.pooled.shape == (2, 128)
    with pytest.raises(ConfigError, match="a picture of 31x64 pixels is smaller than 32x32"):
        ours.image(torch.randn(1, 3, 31, 64))


def test_an_image_size_that_the_stride_does_not_divide_is_refused():
    image = replace(TINY.image, image_size=(224, 230))
    with pytest.raises(ConfigError, match="224x230: both sides must be multiples of 32"):
        SYSTEM.build(replace(TINY, image=image))


@pytest.mark.parametrize("depths", [[3, 4, 6], [3, 4, 6, 3, 1], [1, 1, 1, 10_000], [0, 1, 1, 1], 3])
def test_stages_that_no_model_has_are_refused(depths):
    with pytest.raises(CheckpointError, match="'depths' is"):
        clip_resnet.read_config({"vision_config": {"depths": depths}})


def test_a_fresh_network_starts_with_blocks_that_pass_their_input_on():
    network = SYSTEM.build(TINY).eval()
    block = network.image.stacks[0][1]
    x = torch.rand(1, 16, 8, 8)
    assert torch.equal(block(x), x)
