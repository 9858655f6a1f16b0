"""UniCL against the authors' own code, whose answers are a fixture, and plain numpy.

The known mistakes are planted one at a time, and each must be noticed.
"""

import json
import pathlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sightline.core.errors import CheckpointError, UnsafeCheckpointError
from sightline.models import clip
from sightline.models.clip import TextTowerConfig
from sightline.models.swin import SwinConfig
from sightline.models.unicl import SYSTEM, TINY, VARIANTS, UniCL, UniCLConfig, read_config
from sightline.nn import windows
from sightline.nn.blocks import Block
from sightline.nn.meta import without_memory
from sightline.nn.mlp import MLP
from sightline.nn.windows import WindowBlock
from tests.hub.tiny import tiny_folder
from tests.models.test_parity import agree

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "unicl.safetensors"


class Reference:
    """The fixture: weights under the repository's names, everything else by its own."""

    def __init__(self):
        with safe_open(FIXTURE, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            self.made = json.loads(file.metadata()["config"])
        self.weights = {
            k.removeprefix("weights/"): v.float() if v.is_floating_point() else v
            for k, v in tensors.items()
            if k.startswith("weights/")
        }
        self.rest = {k: v for k, v in tensors.items() if not k.startswith("weights/")}
        self.pixels = (self.rest["in/pictures"].float() / 255 * 4 - 2).permute(0, 3, 1, 2)
        self.ids = self.rest["in/ids"]

    def part(self, kind):
        return {k.removeprefix(kind): v for k, v in self.rest.items() if k.startswith(kind)}

    def config(self):
        made = self.made
        return UniCLConfig(
            SwinConfig(
                first_width=made["embed_dim"],
                depths=tuple(made["depths"]),
                num_heads=tuple(made["num_heads"]),
                window=made["window_size"],
                image_size=tuple(made["image_size"]),
                mlp_ratio=made["mlp_ratio"],
            ),
            TextTowerConfig(
                width=made["text_width"],
                depth=made["text_layers"],
                num_heads=made["text_heads"],
                mlp_width=4 * made["text_width"],
                vocab_size=made["vocab_size"],
                context_length=made["context_length"],
                norm_eps=1e-12,
                eos_id=2,
            ),
            made["dim_projection"],
        )


@pytest.fixture
def reference():
    return Reference()


@pytest.fixture
def ours(reference):
    network = UniCL(reference.config())
    network.load_state_dict(SYSTEM.read_state(reference.weights), strict=True)
    return network.eval()


def outputs(ours, reference):
    scores = ours(reference.pixels, reference.ids)
    features = ours.image_projection(ours.image(reference.pixels).pooled)
    return {
        "image": scores.image_embeddings,
        "text": scores.text_embeddings,
        "logits": scores.logits,
        "image_features": features,
    }


def disagreeing(ours, reference):
    expected, got = reference.part("out/"), outputs(ours, reference)
    assert expected.keys() == got.keys()
    return {name for name in expected if not agree(got[name], expected[name])}


def test_outputs_agree(ours, reference):
    assert disagreeing(ours, reference) == set()


def test_every_intermediate_state_agrees(ours, reference):
    got = {"image": [], "text": []}
    for module in ours.modules():
        if isinstance(module, WindowBlock):
            module.register_forward_hook(lambda m, i, o: got["image"].append(o.flatten(1, 2)))
        elif isinstance(module, Block):
            module.register_forward_hook(lambda m, i, o: got["text"].append(o))
    ours(reference.pixels, reference.ids)
    for tower, count in (("image", 5), ("text", 2)):
        expected = [v for _, v in sorted(reference.part(f"state/{tower}.").items())]
        assert len(expected) == len(got[tower]) == count
        assert all(agree(a, b) for a, b in zip(got[tower], expected, strict=True))


def test_gradients_agree(ours, reference):
    weights = torch.linspace(-1, 1, 6).reshape(2, 3)
    (ours(reference.pixels, reference.ids).logits * weights).sum().backward()
    got = SYSTEM.write_state({name: p.grad for name, p in ours.named_parameters()})
    expected = reference.part("grad/")
    assert len(expected) == 8
    assert [name for name in expected if not agree(got[name], expected[name])] == []


def test_what_is_written_is_what_was_read(ours, reference):
    """Bit for bit, and all of it but the buffers that the repository's constructor computes."""
    written = SYSTEM.write_state(ours.state_dict())
    computed = {
        n for n in reference.weights if n.endswith(("relative_position_index", "attn_mask"))
    }
    assert written.keys() == reference.weights.keys() - computed
    assert len(computed) == 6
    assert all(torch.equal(written[name], reference.weights[name]) for name in written)


@pytest.mark.parametrize(
    ("image", "text", "projection"),
    [("visual.", "text.", "vision_projection"), ("image_encoder.", "lang_encoder.", ""),
     ("visual.", "text_encoder.", "image_projection")],
)  # fmt: skip
def test_spellings_of_every_age_are_read(ours, reference, image, text, projection):
    old = {}
    for name, tensor in reference.weights.items():
        name = name.replace("image_encoder.", image).replace("text_encoder.", text)
        old[projection or name if name == "image_projection" else name] = tensor
    own = SYSTEM.read_state(old)
    assert own.keys() == ours.state_dict().keys()
    assert all(torch.equal(own[name], value) for name, value in ours.state_dict().items())


def test_an_unknown_name_is_passed_on_for_the_loader_to_report(reference):
    assert "optimizer.step" in SYSTEM.read_state({"optimizer.step": torch.zeros(1)})


def test_a_folder_returns_with_its_weights_and_its_words(tmp_path):
    import sightline

    network = tiny_folder("unicl", tmp_path / "m")
    model = sightline.load(tmp_path / "m", dtype="float32")
    assert model.system.name == "unicl"
    for name, value in network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value)
    picture = np.full((50, 40, 3), 90, np.uint8)
    answers = model.classify(picture, ["ball", "car"])
    assert sum(label.score for label in answers) == pytest.approx(1, abs=1e-5)


def test_a_file_of_the_repositorys_training_loop_loads_as_it_is(
    tmp_path, reference, ours, monkeypatch
):
    """Its `save_checkpoint` puts the weights one level down, in a pickle."""
    import sightline

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    (tmp_path / "config.json").write_text(json.dumps(SYSTEM.write_config(reference.config())))
    torch.save({"model": reference.weights, "epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsafeCheckpointError, match=r"pytorch_model\.bin, a pickle"):
        sightline.load(tmp_path)
    network = sightline.load(tmp_path, dtype="float32", device="cpu", allow_pickle=True).network
    for name, value in ours.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_swin_b_is_said_in_three_fields():
    fields = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}
    config = read_config({"model_type": "unicl", "vision_config": fields})
    assert replace(config.image, branch_drop=0.5) == VARIANTS["Swin-B"].image
    assert config.text == VARIANTS["Swin-B"].text


def test_padding_behind_the_end_changes_nothing(ours, reference):
    ids = reference.ids.clone()
    end = int(ids[1].argmax())
    ids[1, end + 1 :] = 5
    assert torch.equal(ours.encode_texts(ids)[1], ours.encode_texts(reference.ids)[1])
    short = ours.encode_texts(reference.ids[1:2, : end + 1])
    assert agree(short[0], ours.encode_texts(reference.ids)[1])


def numpy_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def test_the_text_tower_is_that_of_plain_numpy(ours, reference):
    """From the repository's tensors alone: no mask or pooling of ours, in float64."""
    w = {k.removeprefix("text_encoder."): v.double().numpy() for k, v in reference.weights.items()}
    ids, heads = reference.ids.numpy(), reference.made["text_heads"]
    for row, expected in zip(ids, ours.encode_texts(reference.ids), strict=True):
        x = w["token_embedding.weight"][row] + w["positional_embedding"]
        for layer in range(reference.made["text_layers"]):
            at = {k.removeprefix(f"resblocks.{layer}."): v for k, v in w.items()}
            y = numpy_norm(x, at["ln_1.weight"], at["ln_1.bias"], 1e-12)
            fused = y @ at["attn.in_proj_weight"].T + at["attn.in_proj_bias"]
            q, k, v = (p.reshape(len(row), heads, -1) for p in np.split(fused, 3, axis=-1))
            mixed = np.zeros_like(q)
            for i in range(len(row)):
                for h in range(heads):
                    logits = k[: i + 1, h] @ q[i, h] / np.sqrt(q.shape[-1])
                    chance = np.exp(logits - logits.max())
                    mixed[i, h] = chance / chance.sum() @ v[: i + 1, h]
            x = x + mixed.reshape(len(row), -1) @ at["attn.out_proj.weight"].T
            x = x + at["attn.out_proj.bias"]
            y = numpy_norm(x, at["ln_2.weight"], at["ln_2.bias"], 1e-12)
            y = y @ at["mlp.c_fc.weight"].T + at["mlp.c_fc.bias"]
            y = y / (1 + np.exp(-1.702 * y))
            x = x + y @ at["mlp.c_proj.weight"].T + at["mlp.c_proj.bias"]
        x = numpy_norm(x, w["ln_final.weight"], w["ln_final.bias"], 1e-12)
        vector = x[row.argmax()] @ w["text_projection"]
        assert agree(expected.double(), torch.from_numpy(vector / np.linalg.norm(vector)))


@pytest.mark.parametrize(("variant", "towers"), [("Swin-T", 27_519_354), ("Swin-B", 86_743_224)])
def test_full_size_parameter_counts(variant, towers):
    """Swin's own count, CLIP's text tower (B/32's without the image half), two projections."""
    with without_memory():
        network = UniCL(VARIANTS[variant])
        words = clip.TextTower(clip.VARIANTS["B/32"].text)
    text = sum(p.numel() for p in words.parameters())
    width = VARIANTS[variant].image.width
    expected = towers + text + 512 * 512 + 512 * width + 1
    assert sum(p.numel() for p in network.parameters()) == expected


def test_the_scale_begins_at_e():
    scale, bias = UniCL(TINY).pair_scale()
    assert scale.item() == pytest.approx(np.e) and bias.item() == 0


def test_an_empty_configuration_is_the_released_swin_t():
    assert read_config({"model_type": "unicl"}) == VARIANTS["Swin-T"]
    assert all(read_config(SYSTEM.write_config(c)) == c for c in VARIANTS.values())


def test_pictures_are_prepared_as_the_repository_does():
    spec = SYSTEM.preprocessing(VARIANTS["Swin-T"])
    assert (spec.shortest, spec.height, spec.width, spec.filter) == (256, 224, 224, "bicubic")
    assert spec.mean == (0.485, 0.456, 0.406) and spec.std == (0.229, 0.224, 0.225)
    assert SYSTEM.text(VARIANTS["Swin-T"]).max_length == 77


@pytest.mark.parametrize(("config", "message"), [
    ({"vision_config": 3}, "'vision_config' is 3, where a table"),
    ({"vision_config": {"depths": [1, 1]}}, "a depth for each stage is expected"),
    ({"text_config": {"vocab_size": -4}}, "'vocab_size' is -4"),
    ({"projection_dim": "wide"}, "'projection_dim' is 'wide'"),
])  # fmt: skip
def test_configurations_that_fit_no_network_are_refused(config, message):
    with pytest.raises(CheckpointError, match=message):
        read_config({"model_type": "unicl", **config})


# Known mistakes.


def transposed_projection(ours, monkeypatch):
    """x @ P.T where the file means x @ P; here the text tower's, made square."""
    wide = ours.text_projection.weight.data
    ours.text_projection.weight.data = torch.nn.functional.pad(wide, (0, 0, 0, 8)).T[:16]


def exact_gelu_in_the_text_tower(ours, monkeypatch):
    for module in ours.text.modules():
        if isinstance(module, MLP):
            module.activation = torch.nn.functional.gelu


def quick_gelu_in_the_image_tower(ours, monkeypatch):
    for module in ours.image.modules():
        if isinstance(module, MLP):
            module.activation = lambda x: x * torch.sigmoid(1.702 * x)


def every_word_sees_all(ours, monkeypatch):
    monkeypatch.setattr(clip, "causal", lambda length, device: torch.ones(length, length).bool())


def pooled_at_the_last_place(ours, monkeypatch):
    monkeypatch.setattr(ours.text, "_end_of_text", lambda ids: torch.full((len(ids),), 10))


def scale_of_clip(ours, monkeypatch):
    ours.logit_scale.data.fill_(np.log(1 / 0.07))


def scale_without_exponential(ours, monkeypatch):
    monkeypatch.setattr(ours, "pair_scale", lambda: (ours.logit_scale, torch.tensor(0.0)))


def values_first(ours, monkeypatch):
    """The fused matrix read as keys, queries, values."""
    for module in ours.image.modules():
        if isinstance(module, WindowBlock):
            attention = module.attention
            attention.q, attention.k = attention.k, attention.q


def no_mask_between_borders(ours, monkeypatch):
    real = windows.shifted_windows
    monkeypatch.setattr(windows, "shifted_windows", lambda *a: torch.ones_like(real(*a)))


def not_unit_length(ours, monkeypatch):
    monkeypatch.setattr("sightline.models.clip.unit_length", lambda x: x)


@pytest.mark.parametrize("mistake", [
    transposed_projection, exact_gelu_in_the_text_tower, quick_gelu_in_the_image_tower,
    every_word_sees_all, pooled_at_the_last_place, scale_of_clip, scale_without_exponential,
    values_first, no_mask_between_borders, not_unit_length,
], ids=lambda mistake: mistake.__name__)  # fmt: skip
def test_the_comparison_notices(ours, reference, mistake, monkeypatch):
    assert disagreeing(ours, reference) == set()
    mistake(ours, monkeypatch)
    assert disagreeing(ours, reference)
