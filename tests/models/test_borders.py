"""The smallest and largest networks that a config.json may describe, and names in memory."""

import json
from dataclasses import replace

import pytest
import torch

from sightline.core.errors import CheckpointError
from sightline.models import resnet, swin
from sightline.models.table import system

transformers = pytest.importorskip("transformers")  # whose names are asked for

STAGES = {
    "resnet": lambda depths: {"hidden_sizes": [8] * len(depths), "depths": depths},
    "swin": lambda depths: {"num_heads": [1] * len(depths), "depths": depths},
    "clip_resnet": lambda depths: {"vision_config": {"depths": depths}},
}


@pytest.mark.parametrize(
    ("name", "depths", "good"),
    [
        ("resnet", [1], True), ("resnet", [400, 600], True), ("resnet", [400, 601], False),
        ("swin", [1], True), ("swin", [400, 600], True), ("swin", [400, 601], False),
        ("clip_resnet", [1, 1, 1, 1], True), ("clip_resnet", [1, 1, 1, 997], True),
        ("clip_resnet", [1, 1, 1, 998], False), ("clip_resnet", [1, 1, 1], False),
    ],
)  # fmt: skip
def test_one_block_to_a_thousand(name, depths, good):
    entry = system(name)
    config = {"model_type": name, **STAGES[name](depths)}
    if good:
        read = entry.read_config(config)
        assert list(getattr(read, "image", read).depths) == depths
    else:
        with pytest.raises(CheckpointError, match="most 1000 in all"):
            entry.read_config(config)


@pytest.mark.parametrize(("side", "good"), [(0, False), (1, True), (64, True), (65, False)])
def test_windows_of_one_to_64_places(side, good):
    if good:
        assert swin.read_config({"window_size": side}).window == side
    else:
        with pytest.raises(CheckpointError, match="1 to 64 patches"):
            swin.read_config({"window_size": side})


@pytest.mark.parametrize(("early", "side"), [(False, 32), (True, 64)])
def test_a_token_of_resnet_stands_for_so_many_pixels(early, side):
    config = resnet.ResNetConfig(stride_in_first_stage=early)
    assert config.patch_size == (side, side)
    shallow = replace(resnet.TINY, stride_in_first_stage=early)
    rows, columns = resnet.ResNet(shallow).stages(torch.zeros(1, 3, 128, 128))[-1].shape[-2:]
    assert (128 // rows, 128 // columns) == shallow.patch_size


SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 16,
         "intermediate_size": 40, "patch_size": 8}  # fmt: skip
TINY_SWIN = {"embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "image_size": 32,
             "window_size": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config", "kind", "options"),
    [("vit", "ViTConfig", "ViTModel", SMALL),
     ("vit", "ViTConfig", "ViTForImageClassification", SMALL),
     ("swin", "SwinConfig", "SwinModel", TINY_SWIN)],
)  # fmt: skip
def test_linear_layers_are_called_as_transformers_calls_them(name, config, kind, options):
    """In memory, where adapters look for them by name."""
    reference = getattr(transformers, kind)(getattr(transformers, config)(**options))
    published = {**json.loads(reference.config.to_json_string()), "architectures": [kind]}
    entry = system(name)
    network = entry.build(entry.read_config(published))
    named = entry.class_names(entry.write_state(network.state_dict()))
    layers = {name: m for name, m in reference.named_modules() if isinstance(m, torch.nn.Linear)}
    assert len(layers) >= 12
    for layer, module in layers.items():
        assert named[f"{layer}.weight"].shape == module.weight.shape


def test_the_towers_of_a_pair_are_called_so_too():
    whole = system("vision_text")
    entry = whole.for_config(whole.tiny)
    state = entry.write_state(entry.build(whole.tiny).state_dict())
    named = entry.class_names(state)
    assert len(named) == len(state)
    for written in state:
        level, _, rest = written.partition(".")
        tower = {"vision_model": "vit", "text_model": "bert"}.get(level)
        if tower and system(tower).class_names:
            (inner,) = system(tower).class_names({rest: state[written]})
            assert named[f"{level}.{inner}"] is state[written]
        else:
            assert named[written] is state[written]
