"""From a folder to a network that answers, and every folder that must be refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sightline.core.errors import (
    CheckpointError,
    ConfigError,
    HubNotFoundError,
    UnsafeCheckpointError,
)
from sightline.core.interfaces import WRITING_ROLES
from sightline.hub import bundled
from sightline.hub.contents import read_contents
from sightline.hub.load import Loaded, load_checkpoint
from sightline.hub.names import resolve
from sightline.hub.proof import seeded_prompts
from sightline.models.table import SYSTEMS, system
from sightline.nn.linear import Conv2d, Linear
from tests.hub.tiny import tiny_folder


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folder("clip", tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def load(folder: Path, **options: Any) -> Loaded:
    return load_checkpoint(folder, device="cpu", **{"dtype": "float32", **options})


@torch.no_grad()  # where a learned offset wants a gradient, torch takes another kernel
def answer(network: nn.Module, loaded: Loaded) -> list[torch.Tensor]:
    if loaded.system.role == "mask codec":
        size = loaded.config.mask_size
        return list(network(torch.randn(2, size, size, generator=torch.Generator().manual_seed(1))))
    if loaded.system.role == "text encoder":
        return list(network(*loaded.processor.texts(["a red ball", "water"])))
    if loaded.system.role in WRITING_ROLES:
        return [network(*seeded_prompts(read_contents(loaded.folder))).logits]
    pixels = loaded.processor.images([np.full((20, 30, 3), 90, np.uint8)])
    if loaded.system.text is None:
        return list(network(pixels))
    words = loaded.processor.texts(["a red ball", "water"])
    return list(network(pixels, words.ids, words.mask))


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_was_saved_answers_the_same(name: str, tmp_path: Path) -> None:
    network = tiny_folder(name, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.system.name == name
    for ours, before in zip(answer(loaded.network, loaded), answer(network, loaded), strict=True):
        assert torch.equal(ours, before)


def test_a_loaded_network_is_frozen_in_evaluation_and_nowhere_meta(folder: Path) -> None:
    loaded = load(folder)
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())
    tensors = [*loaded.network.parameters(), *loaded.network.buffers()]
    assert {t.device.type for t in tensors} == {"cpu"}
    assert (loaded.name, loaded.revision, loaded.folder) == (str(folder), None, folder)
    assert (loaded.bundled, loaded.domain, loaded.dtype) == (False, None, torch.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_only_linears_and_convolutions_are_lowered(folder: Path, dtype: str) -> None:
    network = load(folder, dtype=dtype).network
    lowered = {id(p) for m in network.modules() if isinstance(m, (Linear, Conv2d))
               for p in m.parameters()}  # fmt: skip
    assert lowered
    for name, parameter in network.named_parameters():
        expected = getattr(torch, dtype) if id(parameter) in lowered else torch.float32
        assert parameter.dtype == expected, name


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_a_narrow_file_is_widened(tmp_path: Path, stored: str) -> None:
    network = tiny_folder("siglip", tmp_path / "m", dtype=stored)
    loaded = load(tmp_path / "m").network
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for ours, before in zip(loaded.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, before.to(getattr(torch, stored)).float())


def test_buffers_that_no_file_holds_get_their_computed_values(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = system("clip")

    def build(config: Any) -> nn.Module:
        network = entry.build(config)
        network.image.register_buffer("places", torch.arange(5) * 2, persistent=False)
        return network

    from dataclasses import replace

    monkeypatch.setattr("sightline.hub.contents.system_for", lambda _: replace(entry, build=build))
    places = load(folder).network.get_buffer("image.places")
    assert places.tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("prefix", ["model.", "module."])
def test_names_with_a_level_in_front_are_read(folder: Path, prefix: str) -> None:
    file = folder / "model.safetensors"
    before = load(folder)
    state = {prefix + name: t.clone() for name, t in load_file(file).items()}
    save_file(state, file)
    after = load(folder)
    for one, two in zip(before.network.parameters(), after.network.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = {name: t.clone() for name, t in load_file(file).items()}
    state["visual_projection.weight"] = torch.zeros(3, 3)
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"! image_projection.weight: float32\[3, 3\] in"):
        load(folder)


def test_weights_without_their_text_tower_are_called_half_a_model(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({n: t.clone() for n, t in load_file(file).items() if "text_model" not in n}, file)
    with pytest.raises(CheckpointError, match="nothing of 'text' is in the file"):
        load(folder)


@pytest.mark.parametrize(("part", "word"), [("vision", "picture"), ("text", "text")])
def test_the_configuration_of_half_a_model_says_so(folder: Path, part: str, word: str) -> None:
    edit(folder, model_type=f"clip_{part}_model")
    with pytest.raises(CheckpointError, match=rf"holds only the {word} half of a clip model"):
        load(folder)


def test_code_in_a_repository_is_never_run(folder: Path) -> None:
    song = folder / "sang"
    for name in ("modeling_evil", "configuration_evil", "__init__", "sitecustomize"):
        (folder / f"{name}.py").write_text(f"open({str(song)!r}, 'w').close()\n")
    own = {"AutoModel": "modeling_evil.Evil", "AutoConfig": "configuration_evil.Evil"}
    edit(folder, auto_map=own, trust_remote_code=True)
    load(folder)
    edit(folder, model_type="evil")
    with pytest.raises(CheckpointError, match=r"unknown model_type 'evil'.*\(auto_map\) is never"):
        load(folder)
    assert not song.exists()


def test_pickled_weights_need_permission_and_then_agree(folder: Path) -> None:
    before = load(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError, match="allow_pickle=True"):
        load(folder)
    after = load(folder, allow_pickle=True)
    for one, two in zip(before.network.parameters(), after.network.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "no 'model_type'"),
        ('{"model_type": ["clip"]}', "no 'model_type'"),
        ('{"model_type": "clup"}', "did you mean 'clip'"),
        ('{"model_type": "clip", "vision_config": 3}', "where a table is expected"),
        ('{"model_type": "clip", "vision_config": {"patch_size": 0}}', "'patch_size' is 0, at"),
        ('{"model_type": "clip", "vision_config": {"num_attention_heads": 7}}', "no network"),
        ('{"model_type": "clip", "vision_config": {"hidden_size": 1e99}}', "hidden_size"),
        ('{"model_type": "clip", "vision_config": {"hidden_act": "evil"}}', "evil"),
        ('{"model_type": "clip", "text_config": {"num_hidden_layers": 9999999}}', "at most 1000"),
        ('{"model_type": "vit", "hidden_size": "big"}', "'hidden_size' is 'big'"),
    ],
)
def test_a_hostile_configuration_is_named(folder: Path, text: str, words: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "ours",
    [{"format": "sightline-checkpoint", "version": 2}, {"format": "other", "version": 1}],
)
def test_a_folder_of_a_newer_version_is_refused_by_name(folder: Path, ours: Any) -> None:
    edit(folder, sightline=ours)
    with pytest.raises(CheckpointError, match=rf"written as '{ours['format']}' version "
                       rf"{ours['version']}, this Sightline reads .* 1: upgrade"):  # fmt: skip
        load(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int9"}, "unknown quantize 'int9': did you mean 'int8'"),
        ({"quantize": "int8", "dtype": "float16"}, "goes with float32 or bfloat16, not with torch"),
    ],
)
def test_what_cannot_be_quantised_is_said_before_anything_is_read(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checkpoint("nowhere", device="cpu", **options)


def test_a_revision_belongs_to_the_hub(folder: Path) -> None:
    with pytest.raises(ConfigError, match="revision 'v2' belongs to hub models"):
        load(folder, revision="v2")


def test_an_unknown_device_or_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown dtype 'int3'"):
        load(folder, dtype="int3")
    with pytest.raises(ConfigError, match="unknown device"):
        load_checkpoint(folder, device="abacus")


def test_a_card_narrows_the_domain_and_its_newer_version_is_refused(tmp_path: Path) -> None:
    tiny_folder("vit", tmp_path / "m", metadata={"domain": "drawn parks"})
    assert load(tmp_path / "m").domain == "drawn parks"
    card = {"format": bundled.CARD_FORMAT, "version": 9}
    (tmp_path / "m/card.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="model card version 9, this Sightline reads 1"):
        load(tmp_path / "m")


def test_names_mean_folder_then_bundled_then_known_then_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("ViT-B/32").name == "openai/clip-vit-base-patch32"
    assert resolve("vit-l/14@336PX").name == "openai/clip-vit-large-patch14-336"
    assert resolve("siglip2").name == "google/siglip2-base-patch16-224"
    assert resolve("somebody/something").folder is None
    tiny_folder("vit", tmp_path / "ViT-B/32")
    assert resolve("ViT-B/32").folder == Path("ViT-B/32")
    (tmp_path / "ViT-B/32/config.json").unlink()
    assert resolve("ViT-B/32").folder is None
    (tmp_path / "own").mkdir()
    assert resolve("own").folder == Path("own")


def test_every_known_name_of_every_system_resolves() -> None:
    for name in SYSTEMS:
        for known, hub_id in system(name).known_names.items():
            assert resolve(known).name == hub_id


@pytest.mark.parametrize(
    ("name", "hint"),
    [("ViT-B-32", "did you mean ViT-B/32"), ("siglip22", "did you mean siglip2"),
     ("park-siglyp", "no folder, bundled"), ("", "a hub id is 'organisation/model'"),
     ("a/b/c/d/e/f", "a hub id is"), ("../x", "no folder"), ("x\x00y", "no folder"),
     ("q" * 5000, "no folder"), ("https://x.y/z", "no folder")],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest_ones(name: str, hint: str) -> None:
    with pytest.raises(HubNotFoundError, match=hint):
        resolve(name)


def test_a_file_or_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="is a file: give the folder"):
        load(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no config.json: it is not a model folder"):
        load(tmp_path)


def test_a_bundled_model_is_found_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled.resources, "files", lambda _: tmp_path)
    with pytest.raises(HubNotFoundError, match="'park-siglip' is not part of this installation"):
        load_checkpoint("park-siglip")
    tiny_folder("siglip", tmp_path / "bundled_models/park-siglip", dtype="float16")
    assert bundled.bundled_names() == ["park-siglip"]
    loaded = load_checkpoint("park-siglip", device="cpu", dtype="float32")
    assert (loaded.name, loaded.bundled, loaded.domain) == ("park-siglip", True, "drawn parks")
    with pytest.raises(HubNotFoundError, match="unknown bundled model 'park-siglop'"):
        bundled.bundled_path("park-siglop")


def test_importing_the_room_imports_neither_torch_nor_the_hub_client() -> None:
    code = (
        "import sys, sightline.hub.catalogue, sightline.hub.download, sightline.hub.save\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'huggingface_hub', 'safetensors')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
