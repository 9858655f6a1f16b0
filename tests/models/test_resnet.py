"""ResNet against transformers: every weight and every running statistic drawn anew.

Outputs, each stage, gradients and files, in evaluation and in training mode; the known mistakes are
planted one at a time, and each must be noticed.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sightline.core.errors import CheckpointError
from sightline.hub.keys import check_state
from sightline.hub.load import load_checkpoint
from sightline.hub.save import save_checkpoint
from sightline.inputs.preprocessing import ImageProcessor
from sightline.inputs.processors import Processor
from sightline.models import resnet
from sightline.models.resnet import SYSTEM, TINY, VARIANTS
from sightline.nn.convolutions import BatchNorm, Bottleneck
from sightline.nn.linear import Conv2d, Linear
from sightline.nn.meta import without_memory
from tests.models.test_parity import agree

transformers = pytest.importorskip("transformers")

BOTTLENECK = {
    "embedding_size": 6, "hidden_sizes": [16, 24, 40], "depths": [2, 1, 3],
    "layer_type": "bottleneck",
}  # fmt: skip
CASES = {
    "bottleneck": BOTTLENECK,
    "stride-on-1x1": {**BOTTLENECK, "downsample_in_bottleneck": True},
    "stride-in-first-stage": {**BOTTLENECK, "downsample_in_first_stage": True},
    "basic": {**BOTTLENECK, "layer_type": "basic", "hidden_sizes": [6, 10, 14]},
    "gelu": {**BOTTLENECK, "hidden_act": "gelu", "num_channels": 3},
}


def randomise(network, seed=0):
    """Parameters and buffers: a mean of 0 and a variance of 1 hide half of the mistakes."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor):
        return torch.randn(tensor.shape, generator=generator)

    for name, parameter in network.named_parameters():
        norm = parameter.ndim == 1 and name.endswith("weight")
        spread = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = float(norm) + spread * noise(parameter)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.data = 0.5 * noise(buffer)
        elif name.endswith("running_var"):
            buffer.data = 0.3 + noise(buffer).square()
        else:
            buffer.data = torch.tensor(11)
    return network.eval()


def pixels(size=(40, 57), batch=3):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(5))


def load_ours(folder):
    config = SYSTEM.read_config(json.loads((folder / "config.json").read_text()))
    ours = SYSTEM.build(config)
    ours.load_state_dict(SYSTEM.read_state(load_file(folder / "model.safetensors")), strict=True)
    return ours.eval()


def pair(case, folder, kind="ResNetModel"):
    config = transformers.ResNetConfig(**CASES[case])
    reference = randomise(getattr(transformers, kind)(config))
    reference.save_pretrained(folder)
    return reference, load_ours(folder)


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    return pair(request.param, tmp_path)


def outputs(reference, picture):
    out = reference(picture, output_hidden_states=True)
    maps = {f"stage {n}": value for n, value in enumerate(out.hidden_states[1:])}
    return {
        "tokens": out.last_hidden_state.flatten(2).transpose(1, 2),
        "pooled": out.pooler_output.flatten(1),
        **maps,
    }


def our_outputs(ours, picture):
    # One pass each, so that in training mode the statistics move as often as the reference's.
    maps = []
    hooks = [stack.register_forward_hook(lambda m, i, o: maps.append(o)) for stack in ours.stacks]
    encoded = ours(picture)
    for hook in hooks:
        hook.remove()
    return {
        "tokens": encoded.tokens,
        "pooled": encoded.pooled,
        **{f"stage {n}": value for n, value in enumerate(maps)},
    }


def disagreeing(reference, ours):
    expected, got = outputs(reference, pixels()), our_outputs(ours, pixels())
    return {name for name in expected if not agree(got[name], expected[name])}


def test_outputs_and_every_stage_agree(both):
    reference, ours = both
    assert disagreeing(reference, ours) == set()
    last = ours.stages(pixels())[-1]
    assert torch.equal(last.flatten(2).transpose(1, 2), ours(pixels()).tokens)


def test_training_mode_agrees_and_moves_the_statistics_alike(both):
    reference, ours = both
    for network in (reference, ours):
        network.train()
    for _ in range(2):
        assert disagreeing(reference, ours) == set()
    moved = SYSTEM.write_state(ours.state_dict())
    theirs = reference.state_dict()
    assert moved.keys() == theirs.keys()
    assert {name for name, value in theirs.items() if not agree(moved[name], value)} == set()
    assert moved["embedder.embedder.normalization.num_batches_tracked"] == 13


@pytest.mark.parametrize("training", [False, True])
def test_gradients_agree(both, training):
    reference, ours = both
    for network, answer in ((reference, outputs), (ours, our_outputs)):
        network.train(training)
        out = answer(network, pixels())
        weights = {
            name: torch.randn(value.shape, generator=torch.Generator().manual_seed(9))
            for name, value in out.items()
        }
        # A mean, because the sum over every stage grows beyond what float32 resolves.
        sum((out[name] * weight).mean() for name, weight in weights.items()).backward()
    written = SYSTEM.write_state({name: p.grad for name, p in ours.named_parameters()})
    theirs = {name: p.grad for name, p in reference.named_parameters()}
    assert written.keys() == theirs.keys()
    assert {name for name, grad in theirs.items() if not agree(written[name], grad)} == set()


@pytest.mark.parametrize("kind", ["ResNetModel", "ResNetForImageClassification"])
def test_what_is_saved_here_loads_there_with_no_missing_key(kind, tmp_path):
    reference, ours = pair("bottleneck", tmp_path / "theirs", kind)
    config = SYSTEM.read_config(json.loads((tmp_path / "theirs/config.json").read_text()))
    processor = Processor(ImageProcessor(SYSTEM.preprocessing(config)), None)
    save_checkpoint(ours, processor, config, SYSTEM, tmp_path / "ours")
    theirs, written = (load_file(tmp_path / f"{w}/model.safetensors") for w in ("theirs", "ours"))
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[name], theirs[name]) for name in theirs)
    back, found = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(found[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    back.eval()
    if kind == "ResNetModel":
        assert torch.equal(back(pixels()).pooler_output, reference(pixels()).pooler_output)
    else:
        assert torch.equal(back(pixels()).logits, reference(pixels()).logits)


def test_the_classification_layer_comes_along_with_its_labels(tmp_path):
    config = transformers.ResNetConfig(
        **BOTTLENECK, id2label={0: "tench", 1: "goldfish", 2: "great white shark"}
    )
    reference = randomise(transformers.ResNetForImageClassification(config))
    reference.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path, device="cpu", dtype="float32")
    assert loaded.config.labels == ("tench", "goldfish", "great white shark")
    logits = loaded.network.class_logits(loaded.network(pixels()).pooled)
    assert agree(logits, reference(pixels()).logits)
    written = SYSTEM.write_config(loaded.config)
    back = transformers.ResNetConfig(**written)
    assert back.id2label == config.id2label
    assert back.label2id == {label: number for number, label in config.id2label.items()}


def test_the_tensors_decide_whether_there_is_a_classification_layer(tmp_path):
    """Whatever class the description names: trunks are published under either."""
    _, ours = pair("bottleneck", tmp_path, "ResNetForImageClassification")
    state, file = load_file(tmp_path / "model.safetensors"), tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "architectures": ["ResNetModel"]}))
    loaded = load_checkpoint(tmp_path, device="cpu", dtype="float32")
    assert loaded.config.labels == ("LABEL_0", "LABEL_1")
    assert torch.equal(loaded.network.classifier.weight, ours.classifier.weight)
    trunk = {name: value for name, value in state.items() if "classifier" not in name}
    save_file(trunk, tmp_path / "model.safetensors")
    file.write_text(json.dumps(config))
    loaded = load_checkpoint(tmp_path, device="cpu", dtype="float32")
    assert loaded.config.labels == () and loaded.network.classifier is None


def test_labels_that_are_not_numbered_are_refused():
    config = {"architectures": ["ResNetForImageClassification"], "id2label": {"1": "a", "2": "b"}}
    with pytest.raises(CheckpointError, match="'id2label' does not number its 2 labels from 0 on"):
        SYSTEM.read_config(config)
    assert SYSTEM.read_config({"architectures": config["architectures"]}).labels == (
        "LABEL_0",
        "LABEL_1",
    )


# --- Buffers on their way through files, number types and modes.


@pytest.fixture
def folder(tmp_path):
    network = randomise(SYSTEM.build(TINY))
    processor = Processor(ImageProcessor(SYSTEM.preprocessing(TINY)), None)
    save_checkpoint(network, processor, TINY, SYSTEM, tmp_path / "m")
    return tmp_path / "m", network


def test_running_statistics_survive_saving_and_loading(folder):
    path, network = folder
    loaded = load_checkpoint(path, device="cpu", dtype="float32")
    assert dict(loaded.network.named_buffers()).keys() == dict(network.named_buffers()).keys()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    assert torch.equal(loaded.network(pixels()).pooled, network(pixels()).pooled)
    assert loaded.network.stem.norm.num_batches_tracked == 11


def test_lowering_leaves_norms_and_their_statistics_alone(folder):
    path, network = folder
    low = load_checkpoint(path, device="cpu", dtype="bfloat16").network
    for module in low.modules():
        expected = torch.bfloat16 if isinstance(module, Conv2d | Linear) else torch.float32
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        assert {t.dtype for t in own if t.is_floating_point()} <= {expected}
    full, near = network(pixels()).pooled, low(pixels()).pooled
    assert near.dtype == torch.float32
    assert torch.cosine_similarity(full, near).min() > 0.999


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrow_file_keeps_the_counters_whole_and_is_widened(dtype, tmp_path):
    network = randomise(SYSTEM.build(TINY))
    network.stem.norm.num_batches_tracked.fill_(100_001)  # no float16 holds it
    save_checkpoint(network, None, TINY, SYSTEM, tmp_path / "m", dtype=dtype)
    loaded = load_checkpoint(tmp_path / "m", device="cpu", dtype="float32").network
    assert loaded.stem.norm.num_batches_tracked == 100_001
    stored = getattr(torch, dtype)
    assert torch.equal(
        loaded.stem.norm.running_var, network.stem.norm.running_var.to(stored).float()
    )


def test_files_without_counters_are_read_as_if_they_had_counted_nothing(folder):
    path, network = folder
    state = load_file(path / "model.safetensors")
    kept = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    save_file(kept, path / "model.safetensors")
    loaded = load_checkpoint(path, device="cpu", dtype="float32").network
    assert loaded.stem.norm.num_batches_tracked == 0
    assert torch.equal(loaded(pixels()).pooled, network(pixels()).pooled)


def test_missing_statistics_are_named(folder):
    path, _ = folder
    state = load_file(path / "model.safetensors")
    del state["embedder.embedder.normalization.running_mean"]
    save_file(state, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"\n  - stem.norm.running_mean float32\[6\]"):
        load_checkpoint(path, device="cpu", dtype="float32")


def test_statistics_of_another_shape_or_kind_are_named(folder):
    _, network = folder
    state = network.state_dict()
    state["stem.norm.running_var"] = torch.ones(7)
    state["stem.norm.num_batches_tracked"] = torch.tensor(1.5)
    with pytest.raises(CheckpointError) as caught:
        check_state(network, state, "file", "resnet")
    assert "! stem.norm.running_var: float32[7] in the file, float32[6] in" in str(caught.value)
    assert "! stem.norm.num_batches_tracked: float32[] in the file, int64[]" in str(caught.value)


def test_in_evaluation_an_answer_depends_neither_on_the_batch_nor_on_earlier_ones(folder):
    _, network = folder
    before = {name: b.clone() for name, b in network.named_buffers()}
    together, alone = network(pixels()).pooled, network(pixels()[:1]).pooled
    assert agree(together[:1], alone)
    assert all(torch.equal(before[name], b) for name, b in network.named_buffers())


# --- Configurations.


@pytest.mark.parametrize(
    ("name", "trunk", "with_1000_labels"),
    [
        ("18", 11_176_512, 11_689_512),
        ("34", 21_284_672, 21_797_672),
        ("50", 23_508_032, 25_557_032),
        ("101", 42_500_160, 44_549_160),
        ("152", 58_143_808, 60_192_808),
    ],
)
def test_full_size_parameter_counts_are_those_of_the_reference(name, trunk, with_1000_labels):
    labels = tuple(map(str, range(1000)))
    for config, count in [
        (VARIANTS[name], trunk),
        (replace(VARIANTS[name], labels=labels), with_1000_labels),
    ]:
        with without_memory():
            ours = SYSTEM.build(config)
        assert sum(p.numel() for p in ours.parameters()) == count
        read = transformers.ResNetConfig(**SYSTEM.write_config(config))
        kind = SYSTEM.write_config(config)["architectures"][0]
        with torch.device("meta"):
            theirs = getattr(transformers, kind)(read)
        assert sum(p.numel() for p in theirs.parameters()) == count


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depths": [3, 4, 6]}, "'hidden_sizes' has 4 stages and 'depths' is"),
        ({"depths": [3, 4, 6, 9_999_999]}, "at most 1000 in all"),
        ({"depths": [3, 4, 6, 0]}, "'depths' is .* where a list like"),
        ({"depths": [3, 4, 6, "3"]}, "'depths' is .* where a list like"),
        ({"depths": [3, 4, 6, True]}, "'depths' is .* where a list like"),
        ({"hidden_sizes": []}, "'hidden_sizes' is .* where a list like"),
        ({"hidden_sizes": [1 << 40] * 4}, "'hidden_sizes' is .* where a list like"),
        ({"hidden_sizes": 5}, "'hidden_sizes' is 5, where a list like"),
        ({"layer_type": "wide"}, "'layer_type' is 'wide', where 'basic' or 'bottleneck'"),
        ({"id2label": 3, "architectures": ["ResNetForImageClassification"]}, "a table is expected"),
    ],
)
def test_a_configuration_that_no_network_has_is_named(fields, words):
    with pytest.raises(CheckpointError, match=words):
        SYSTEM.read_config({"model_type": "resnet", **fields})


def test_a_published_description_without_our_fields_is_read():
    """The fields of microsoft/resnet-50, as its config.json states them."""
    published = {
        "architectures": ["ResNetModel"], "depths": [3, 4, 6, 3],
        "downsample_in_first_stage": False, "embedding_size": 64, "hidden_act": "relu",
        "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck",
        "model_type": "resnet", "num_channels": 3, "torch_dtype": "float32",
    }  # fmt: skip
    assert SYSTEM.read_config(published) == VARIANTS["50"]


def test_the_crop_is_seven_eighths_of_the_shorter_side():
    spec = SYSTEM.preprocessing(VARIANTS["50"])
    assert (spec.shortest, spec.height, spec.width) == (256, 224, 224)
    assert spec.resized(512, 768) == (256, 384)


# --- Known mistakes.


def stride_on_the_first(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, Bottleneck) and module.layers[1].conv.stride == (2, 2):
            module.layers[0].conv.stride, module.layers[1].conv.stride = (2, 2), (1, 1)


def average_for_maximum(ours, monkeypatch):
    class Functions:
        @staticmethod
        def max_pool2d(x, kernel, stride, padding):
            return torch.nn.functional.avg_pool2d(x, kernel, stride, padding)

    monkeypatch.setattr(resnet, "F", Functions)


def activation_before_the_sum(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, Bottleneck):
            module.layers[2].activation = torch.relu


def no_activation_behind_the_sum(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, Bottleneck):
            module.activation = nn.Identity()


def no_shortcut(ours, monkeypatch):
    monkeypatch.setattr(
        Bottleneck, "forward", lambda self, x: self.activation(nn.Sequential(*self.layers)(x))
    )


def coarse_epsilon(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, BatchNorm):
            module.eps = 1e-3


def statistics_of_the_batch(ours, monkeypatch):
    ours.train()


def no_statistics(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, BatchNorm):
            module.reset_running_stats()


@pytest.mark.parametrize(
    "mistake",
    [
        stride_on_the_first, average_for_maximum, activation_before_the_sum,
        no_activation_behind_the_sum, no_shortcut, coarse_epsilon, statistics_of_the_batch,
        no_statistics,
    ],
    ids=lambda mistake: mistake.__name__,
)  # fmt: skip
def test_the_comparison_notices(mistake, tmp_path, monkeypatch):
    reference, ours = pair("bottleneck", tmp_path)
    assert disagreeing(reference, ours) == set()
    mistake(ours, monkeypatch)
    assert disagreeing(reference, ours)


def test_the_comparison_notices_another_momentum_in_training(tmp_path):
    reference, ours = pair("bottleneck", tmp_path)
    for module in ours.modules():
        if isinstance(module, BatchNorm):
            module.momentum = 0.01  # "1 - 0.99", as other frameworks count
    for network in (reference.train(), ours.train()):
        network(pixels())
    name = "embedder.embedder.normalization.running_var"
    assert not agree(SYSTEM.write_state(ours.state_dict())[name], reference.state_dict()[name])
