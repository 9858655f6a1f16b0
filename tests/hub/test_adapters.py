"""Adapters against PEFT on transformers' classes: theirs here, ours there, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sightline
from sightline.core.errors import (
    CheckpointError,
    ConfigError,
    HubNotFoundError,
    HubOfflineError,
    UnsafeCheckpointError,
    UnsupportedTaskError,
)
from sightline.hub.adapters import Origin, find_adapter, put_on, save_adapter
from sightline.models.table import system
from sightline.nn import lora
from tests.hub.false_hub import false_hub
from tests.hub.tiny import WORDS, tiny_folder
from tests.models.test_parity import (
    CASES,
    TEXT,
    VISION,
    agree,
    our_outputs,
    outputs,
    randomise,
)

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")  # the references; part of the test extra

# PEFT 0.21 asks transformers 5.23 for a name that is to go
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

SYSTEMS = ("clip", "siglip")
EVERYTHING = {
    "clip": ("*.attention.*", "*.mlp.*", "*_projection"),
    "siglip": ("*.attention.*", "*.mlp.*", "text.head"),
}
Pair = tuple[nn.Module, nn.Module, Any, Any]


def pair(case: str, folder: Path, dtype: torch.dtype = torch.float32) -> Pair:
    """The reference and ours with the same weights drawn anew, our system and config."""
    reference = randomise(CASES[case].reference())
    reference.save_pretrained(folder)
    entry = system(case)
    config = entry.read_config(json.loads((folder / "config.json").read_text()))
    ours = entry.build(config)
    ours.load_state_dict(entry.read_state(load_file(folder / "model.safetensors")))
    return reference.to(dtype), ours.eval().to(dtype), entry, config


def learned(network: nn.Module, seed: int = 1) -> nn.Module:
    """Every addition drawn anew, B too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def differing(expected: dict[str, Tensor], got: dict[str, Tensor]) -> set[str]:
    return {name for name in expected if not agree(got[name], expected[name])}


def peft_outputs(adapted: nn.Module, case: str) -> dict[str, Tensor]:
    """Of PEFT's model, whose inner model carries the additions."""
    return outputs(adapted.get_base_model(), case)


# -- ours there ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SYSTEMS)
@pytest.mark.parametrize("few", [True, False], ids=["queries and values", "everything"])
@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_what_is_saved_here_is_put_on_by_peft(case, few, rslora, tmp_path):
    reference, ours, entry, config = pair(case, tmp_path / "base")
    targets = lora.QUERIES_AND_VALUES if few else EVERYTHING[case]
    before = our_outputs(ours, reference, case)
    lora.add(ours, 3, 5.0, targets, dropout=0.1, rslora=rslora)
    assert differing(before, our_outputs(ours, reference, case)) == set()
    learned(ours)
    save_adapter(ours, entry, config, tmp_path / "adapter", Origin("org/base"))
    adapted = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter")
    expected = peft_outputs(adapted, case)
    got = our_outputs(ours, reference, case)
    assert differing(expected, got) == set()
    assert len(differing(before, got)) == 6  # the adapter changes everything
    assert adapted.peft_config["default"].base_model_name_or_path == "org/base"
    merged = adapted.merge_and_unload()
    assert differing(outputs(merged, case), our_outputs(lora.merge(ours), reference, case)) == set()


@pytest.mark.parametrize("case", SYSTEMS)
def test_ranks_and_alphas_of_single_layers_travel(case, tmp_path):
    reference, ours, entry, config = pair(case, tmp_path / "base")
    lora.add(ours, 3, 5.0, ["image.*.attention.[qv]"])
    lora.add(ours, 2, 5.0, ["text.*.1.attention.q"])
    lora.add(ours, 3, 7.0, ["text.*.0.mlp.fc1"])
    learned(ours)
    save_adapter(ours, entry, config, tmp_path / "adapter", Origin(None))
    adapted = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter")
    expected = peft_outputs(adapted, case)
    assert differing(expected, our_outputs(ours, reference, case)) == set()
    again = copy.deepcopy(lora.remove(ours))
    put_on(again, find_adapter(tmp_path / "adapter"), entry, config)
    assert differing(expected, our_outputs(again, reference, case)) == set()
    told = [(x.rank, x.alpha) for x in lora.layers(again).values()]
    assert set(told) == {(3, 5.0), (2, 5.0), (3, 7.0)}


def vision_text() -> nn.Module:
    words = {**TEXT, "hidden_size": 20, "type_vocab_size": 2}
    return transformers.VisionTextDualEncoderModel(
        vision_model=transformers.ViTModel(transformers.ViTConfig(**VISION)),
        text_model=transformers.BertModel(transformers.BertConfig(**words)),
    )


def swin() -> nn.Module:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4
    )
    return transformers.SwinModel(config)


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**VISION)),
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**TEXT)),
    "swin": swin,
    "siglip2-naflex": lambda: transformers.Siglip2Model(
        transformers.Siglip2Config(
            vision_config={**VISION, "num_patches": 16}, text_config={**TEXT, "projection_size": 24}
        )
    ),
    "vision_text": vision_text,
}


@pytest.mark.parametrize("case", OTHERS)
def test_modules_have_the_names_of_every_class(case, tmp_path):
    """Ours on theirs and theirs on ours, merged: the same weights."""
    reference = randomise(OTHERS[case]())
    reference.save_pretrained(tmp_path / "base")
    entry = system(case)
    published = json.loads((tmp_path / "base/config.json").read_text())
    config = entry.read_config(published)
    bound = entry.for_config(config)
    ours = entry.build(config)
    ours.load_state_dict(bound.read_state(load_file(tmp_path / "base/model.safetensors")))
    lora.add(ours, 2, 3.0, ["*.attention.*", "*.mlp.*"])
    learned(ours)
    save_adapter(ours, entry, config, tmp_path / "adapter", Origin(None))
    adapted = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter")
    adapted.save_pretrained(tmp_path / "theirs")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    expected = bound.read_state(load_file(tmp_path / "merged/model.safetensors"))
    for network in (ours, lora.remove(copy.deepcopy(ours))):
        if not lora.layers(network):
            put_on(network, find_adapter(tmp_path / "theirs"), entry, config)
        assert differing(expected, lora.merged_state(network)) == set()


# -- theirs here -----------------------------------------------------------------------------------

QV, KO = ["q_proj", "v_proj"], ["q_proj", "k_proj", "fc2"]
THEIRS: dict[str, dict[str, Any]] = {
    "list": {"r": 3, "lora_alpha": 6, "target_modules": QV},
    "one tower": {"r": 3, "target_modules": r"vision_model\.encoder.*\.(q_proj|fc1)"},
    "all linear": {"r": 2, "lora_alpha": 3, "target_modules": "all-linear"},
    "rslora": {"r": 4, "lora_alpha": 8, "target_modules": KO, "use_rslora": True},
    "patterns": {
        "r": 3,
        "lora_alpha": 6,
        "target_modules": KO,
        "rank_pattern": {"k_proj": 2, "text_model.encoder.layers.1.mlp.fc2": 5},
        "alpha_pattern": {"q_proj": 4, "^vision_model.encoder.layers.0.self_attn.k_proj": 9},
    },
}


def theirs(
    case: str, folder: Path, zero: tuple[str, ...] = ("head.attention",), **options: Any
) -> tuple[nn.Module, nn.Module, Any, Any]:
    """PEFT's model with additions drawn anew and written into a folder, and our bare network."""
    reference, ours, entry, config = pair(case, folder / "base")
    adapted = learned(peft.get_peft_model(reference, peft.LoraConfig(**options))).eval()
    for name, parameter in adapted.named_parameters():
        if any(part in name for part in zero) and "lora_B" in name:
            parameter.data.zero_()
    adapted.save_pretrained(folder / "adapter")
    return adapted, ours, entry, config


@pytest.mark.parametrize("case", SYSTEMS)
@pytest.mark.parametrize("options", THEIRS.values(), ids=list(THEIRS))
def test_what_peft_wrote_goes_on_here(case, options, tmp_path):
    adapted, ours, entry, config = theirs(case, tmp_path, **options)
    expected = peft_outputs(adapted, case)
    reference = adapted.get_base_model()
    assert differing(expected, our_outputs(ours, reference, case))
    put_on(ours, find_adapter(tmp_path / "adapter"), entry, config)
    assert differing(expected, our_outputs(ours, reference, case)) == set()
    assert differing(expected, our_outputs(lora.merge(ours), reference, case)) == set()


@pytest.mark.parametrize("case", SYSTEMS)
def test_in_float64_both_agree_to_1e_9(case, tmp_path):
    reference, ours, entry, config = pair(case, tmp_path / "base", torch.float64)
    options = THEIRS["patterns"]
    adapted = peft.get_peft_model(
        reference, peft.LoraConfig(**options), autocast_adapter_dtype=False
    )
    learned(adapted.eval()).double()
    adapted.save_pretrained(tmp_path / "adapter")
    put_on(ours, find_adapter(tmp_path / "adapter"), entry, config)
    expected = _double_outputs(adapted.get_base_model(), case)
    for network in (ours, lora.merge(ours)):
        got = _double_outputs(reference, case, network)
        worst = max(float((got[name] - expected[name]).detach().abs().max()) for name in expected)
        assert worst < 1e-9


def _double_outputs(reference: nn.Module, case: str, ours: nn.Module | None = None) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the pictures of the comparison are drawn in it
    try:
        return outputs(reference, case) if ours is None else our_outputs(ours, reference, case)
    finally:
        torch.set_default_dtype(before)


def test_modules_that_learned_whole_come_along_and_go_back(tmp_path):
    options = {"r": 2, "target_modules": QV, "modules_to_save": ["visual_projection"]}
    adapted, ours, entry, config = theirs("clip", tmp_path, **options)
    for name, parameter in adapted.named_parameters():
        if "visual_projection.modules_to_save" in name:
            parameter.data = torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(8)
            )
    adapted.save_pretrained(tmp_path / "adapter")
    whole = put_on(ours, find_adapter(tmp_path / "adapter"), entry, config)
    assert whole == ("image_projection.weight",)
    reference = adapted.get_base_model()
    expected = peft_outputs(adapted, "clip")
    assert differing(expected, our_outputs(ours, reference, "clip")) == set()
    save_adapter(ours, entry, config, tmp_path / "again", Origin(None, whole=whole))
    first, second = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "again")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("mistake", ["no scale", "halves swapped", "merged twice"])
@pytest.mark.parametrize("case", SYSTEMS)
def test_the_comparison_notices(case, mistake, tmp_path):
    adapted, ours, entry, config = theirs(case, tmp_path, **THEIRS["list"])
    put_on(ours, find_adapter(tmp_path / "adapter"), entry, config)
    expected, reference = peft_outputs(adapted, case), adapted.get_base_model()
    assert differing(expected, our_outputs(ours, reference, case)) == set()
    for layer in lora.layers(ours).values():
        if mistake == "no scale":
            layer.alpha = float(layer.rank)
        elif mistake == "halves swapped":
            halves = layer.lora_B.data.T.clone(), layer.lora_A.data.T.clone()
            layer.lora_A.data, layer.lora_B.data = halves
        else:
            layer.base.weight.data = layer.sum()
            layer.base.weight.data = layer.sum()
    assert len(differing(expected, our_outputs(ours, reference, case))) == 6


def test_merging_twice_is_merging_once(tmp_path):
    adapted, ours, entry, config = theirs("clip", tmp_path, **THEIRS["list"])
    put_on(ours, find_adapter(tmp_path / "adapter"), entry, config)
    lora.merge(lora.merge(ours))
    expected, reference = peft_outputs(adapted, "clip"), adapted.get_base_model()
    assert differing(expected, our_outputs(ours, reference, "clip")) == set()


# -- through the public door -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "siglip"
    tiny_folder("siglip", folder)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter of the tiny model, trained nowhere."""
    model = sightline.load(base, dtype="float32")
    lora.add(model.network, 2, 6.0)
    learned(model.network)
    model.save_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


def edit(adapter: Path, **changes: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(adapter: Path, **changes: Any) -> None:
    """Rename, replace or (None) drop the tensors whose name ends so; names have no dots here."""
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    for ending, change in changes.items():
        name = next(n for n in tensors if n.endswith(ending.replace("__", ".")))
        old = tensors.pop(name)
        if isinstance(change, str):
            tensors[change] = old
        elif change is not None:
            tensors[name] = change
    save_file(tensors, file)


def texts(model: Any) -> Tensor:
    return model.embed_texts(WORDS)


def test_a_loaded_adapter_answers_merged_and_saved_again(base, adapter, tmp_path):
    bare = sightline.load(base, dtype="float32")
    model = sightline.load(base, dtype="float32", adapter=adapter)
    assert model.name == f"{base} + {adapter}"
    assert not agree(texts(model), texts(bare))
    model.save(tmp_path / "merged")
    whole = sightline.load(tmp_path / "merged", dtype="float32")
    assert agree(texts(whole), texts(model))
    assert whole.network.state_dict().keys() == bare.network.state_dict().keys()
    model.save_adapter(tmp_path / "again")
    assert json.loads((tmp_path / "again/adapter_config.json").read_text()) == json.loads(
        (adapter / "adapter_config.json").read_text()
    )
    first, second = (
        load_file(folder / "adapter_model.safetensors") for folder in (adapter, tmp_path / "again")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(a, b) for a, b in zip(
        lora.base_state(model.network).values(), bare.network.state_dict().values(), strict=True
    ))  # fmt: skip


def test_a_lowered_base_keeps_its_additions_in_float32(base, adapter):
    full = sightline.load(base, dtype="float32", adapter=adapter)
    half = sightline.load(base, dtype="bfloat16", adapter=adapter)
    layer = next(iter(lora.layers(half.network).values()))
    assert layer.weight.dtype == torch.bfloat16 and layer.lora_A.dtype == torch.float32
    assert bool((texts(full) * texts(half)).sum(1).min() > 0.9995)
    assert not any(p.requires_grad for p in half.network.parameters())


def test_without_additions_there_is_no_adapter_to_save(base, tmp_path):
    with pytest.raises(UnsupportedTaskError, match="carries no additions"):
        sightline.load(base).save_adapter(tmp_path / "none")


def test_what_no_other_program_could_put_on_is_not_saved_as_an_adapter(base, tmp_path):
    for target in ("image.pool.kv", "image.pool.out"):
        model = sightline.load(base, dtype="float32")
        lora.add(model.network, 2, targets=[target])
        with pytest.raises(UnsupportedTaskError, match=rf"{target} is no linear layer of its own"):
            model.save_adapter(tmp_path / "adapter")


def test_another_folder_is_not_replaced(adapter, base):
    model = sightline.load(base, adapter=adapter)
    with pytest.raises(ConfigError, match="is not empty and no adapter folder"):
        model.save_adapter(base)
    with pytest.raises(ConfigError, match="is not empty and no model folder"):
        model.save(adapter)


def test_the_base_is_compared(base, adapter, tmp_path):
    other = tmp_path / "other"
    tiny_folder("siglip", other)
    with pytest.raises(ConfigError, match=rf"was trained on {base} and would be put on {other}"):
        sightline.load(other, adapter=adapter)
    edit(adapter, base_model_name_or_path="google/siglip-base-patch16-224")
    sightline.load(base, adapter=adapter)  # of a folder nobody knows
    with pytest.raises(ConfigError, match="and would be put on google/siglip2-base-patch16-224"):
        sightline.load("google/siglip2-base-patch16-224", adapter=adapter)
    for unknown in (None, "/somewhere/else"):
        edit(adapter, base_model_name_or_path=unknown)
        sightline.load(other, adapter=adapter)


UNSUPPORTED = {
    "use_dora": True,
    "bias": "all",
    "lora_bias": True,
    "fan_in_fan_out": True,
    "layer_replication": [[0, 2]],
    "target_parameters": ["x"],
    "trainable_token_indices": [1],
    "init_lora_weights": "pissa_niter_16",
    "something_new": {"a": 1},
}


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED.items())
def test_features_that_are_not_there_are_refused_by_name(base, adapter, name, value):
    edit(adapter, **{name: value})
    with pytest.raises(CheckpointError, match=rf"{name} = .* is not supported: merge the adapter"):
        sightline.load(base, adapter=adapter)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "type": ({"peft_type": "IA3"}, "an adapter of type 'IA3'; this version reads LORA"),
    "rank": ({"r": 0}, "'r' is 0.0, which no addition has"),
    "huge": ({"r": 10**12}, "'r' is .*, which no addition has"),
    "broken rank": ({"r": 1.5}, "'r' is 1.5, where a whole number"),
    "words": ({"r": "8"}, "'r' is '8', where a value like 8"),
    "alpha": ({"lora_alpha": 0}, "'lora_alpha' is 0.0, which no addition has"),
    "dropout": ({"lora_dropout": 1.0}, "'lora_dropout' is 1.0, where a share"),
    "regex": ({"alpha_pattern": {"(a+)+$": 1}}, "a regular expression; names of modules"),
    "names": ({"modules_to_save": [1]}, "'modules_to_save' is no list of names"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_configuration_is_named(base, adapter, changes, message):
    edit(adapter, **changes)
    with pytest.raises(CheckpointError, match=message):
        sightline.load(base, adapter=adapter)


Q = "vision_model__encoder__layers__0__self_attn__q_proj"
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "shape": (
        {f"{Q}__lora_B__weight": torch.zeros(24, 3)},
        r"! image\.transformer\.blocks\.0\.attention\.q\.lora_B: float32\[24, 3\] in the file, "
        r"float32\[24, 2\] in the network",
    ),
    "missing": ({f"{Q}__lora_B__weight": None}, r"- image.*attention\.q\.lora_B float32\[24, 2\]"),
    "unknown": (
        {f"{Q}__lora_A__weight": "base_model.model.vision_model.elsewhere.lora_A.weight"},
        r"\+ vision_model\.elsewhere\.lora_A float32\[2, 24\]",
    ),
    "stranger": ({f"{Q}__lora_A__weight": "a.b.weight"}, r"\+ a\.b\.weight float32"),
    "dora": (
        {f"{Q}__lora_A__weight": f"{Q.replace('__', '.')}.lora_magnitude_vector"},
        r"\+ .*lora_magnitude_vector",
    ),
    "integers": ({f"{Q}__lora_B__weight": torch.zeros(24, 2, dtype=torch.int8)}, r"int8\[24, 2\]"),
}


@pytest.mark.parametrize(("changes", "message"), HOSTILE.values(), ids=list(HOSTILE))
def test_tensors_that_do_not_fit_are_listed(base, adapter, changes, message):
    edit_tensors(adapter, **changes)
    with pytest.raises(CheckpointError, match=message):
        sightline.load(base, adapter=adapter)


def test_one_tensor_in_two_spellings_is_refused(base, adapter):
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file({**tensors, name.removeprefix("base_model.model."): tensors[name].clone()}, file)
    with pytest.raises(CheckpointError, match=r"lora_.\.weight a second time, in another spelling"):
        sightline.load(base, adapter=adapter)


def test_an_adapter_of_another_size_is_refused(adapter, tmp_path):
    tiny_folder("clip", tmp_path / "clip")
    edit(adapter, base_model_name_or_path=None, r=3)
    with pytest.raises(CheckpointError, match=r"do not fit clip: .* different \(!\)"):
        sightline.load(tmp_path / "clip", adapter=adapter)


def test_additions_that_peft_never_computes_are_refused_unless_zero(tmp_path):
    options = {"r": 2, "target_modules": ["out_proj"]}
    adapted, ours, entry, config = theirs("siglip", tmp_path / "zero", **options)
    put_on(ours, find_adapter(tmp_path / "zero/adapter"), entry, config)
    got = our_outputs(ours, adapted.get_base_model(), "siglip")
    assert differing(peft_outputs(adapted, "siglip"), got) == set()
    _, ours, entry, config = theirs("siglip", tmp_path / "not", zero=(), **options)
    with pytest.raises(CheckpointError, match=r"head\.attention\.out_proj is not zero, and PEFT"):
        put_on(ours, find_adapter(tmp_path / "not/adapter"), entry, config)


def test_a_truncated_file_and_an_empty_folder_are_named(base, adapter, tmp_path):
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="truncated"):
        sightline.load(base, adapter=adapter)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        sightline.load(base, adapter=adapter)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is not an adapter in PEFT's layout"):
        sightline.load(base, adapter=tmp_path / "empty")
    with pytest.raises(HubNotFoundError, match="no adapter 'nowhere': give the folder"):
        sightline.load(base, adapter="nowhere")


def test_a_pickled_adapter_needs_permission(base, adapter, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    expected = texts(sightline.load(base, dtype="float32", adapter=adapter))
    file = adapter / "adapter_model.safetensors"
    torch.save(load_file(file), adapter / "adapter_model.bin")
    file.unlink()
    with pytest.raises(UnsafeCheckpointError, match=r"adapter_model\.bin, a pickle, .* allow it"):
        sightline.load(base, adapter=adapter)
    model = sightline.load(base, dtype="float32", adapter=adapter, allow_pickle=True)
    assert torch.equal(texts(model), expected)


def test_an_adapter_of_a_newer_version_is_refused(base, adapter):
    file = adapter / "adapter_model.safetensors"
    save_file(load_file(file), file, metadata={"sightline": "sightline-adapter 2"})
    with pytest.raises(CheckpointError, match=r"written as 'sightline-adapter 2', .* upgrade"):
        sightline.load(base, adapter=adapter)


def test_an_adapter_comes_from_the_hub_without_code_and_pickles(adapter, tmp_path, monkeypatch):
    for variable in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    (adapter / "evil.py").write_text("raise SystemExit")
    torch.save({}, adapter / "adapter_model.bin")
    with false_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        hub.publish("org/adapter", adapter)
        found = find_adapter("org/adapter")
        assert {file.name for file in found.folder.iterdir()} == {
            "adapter_config.json", "adapter_model.safetensors"
        }  # fmt: skip
        hub.repos["org/pickled"] = {"adapter_config.json": b"{}", "adapter_model.bin": b"x"}
        with pytest.raises(
            HubNotFoundError, match=r"org/pickled has no adapter_model\.safetensors"
        ):
            find_adapter("org/pickled")
        with pytest.raises(HubNotFoundError, match="the hub has no model 'org/nothing'"):
            find_adapter("org/nothing")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_adapter("org/adapter").config == found.config
    with pytest.raises(HubOfflineError, match="adapter org/other is not in the cache"):
        find_adapter("org/other")
