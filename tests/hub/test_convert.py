"""Models in the layouts of other projects: read as those projects wrote them, and written back."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sightline.cli.program import program
from sightline.core.errors import CheckpointError, ConfigError, UnsafeCheckpointError
from sightline.hub import proof as proving
from sightline.hub.convert import convert
from sightline.hub.layouts import npz, open_clip_config
from sightline.hub.load import Loaded, load_checkpoint
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.models import clip, siglip
from sightline.models.table import system
from tests.hub.tiny import randomise, tiny, tiny_folder, with_vocabulary

FIXTURES = Path(__file__).parents[1] / "fixtures"


def load(path: Path, **options: Any) -> Loaded:
    return load_checkpoint(path, device="cpu", dtype="float32", **options)


def close(ours: Tensor, reference: Tensor) -> bool:
    limit = 1e-5 * max(1.0, reference.abs().max().item())
    return (ours - reference).abs().max().item() <= limit


def fixture(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Weights in float32 and everything else of one fixture, with its configuration."""
    file = FIXTURES / f"{name}.safetensors"
    everything = load_file(file)
    weights = {k.removeprefix("weights/"): v.float() for k, v in everything.items()
               if k.startswith("weights/")}  # fmt: skip
    with safe_open(file, framework="pt") as opened:
        return weights, everything, json.loads(opened.metadata()["config"])


def pixels_of(everything: dict[str, Tensor]) -> Tensor:
    return everything["in/pixels"].float() / 255 * 4 - 2


def openai_like(folder: Path) -> nn.Module:
    """A CLIP model that OpenAI's layout can hold."""
    entry, _, _, processor = tiny("clip")
    assert processor.text is not None
    tower = {"width": 64, "depth": 2, "num_heads": 1, "mlp_width": 256}
    config = clip.CLIPConfig(
        clip.ImageTowerConfig(**tower, patch_size=(8, 8), image_size=(24, 24)),
        with_vocabulary(clip.TextTowerConfig(**tower, context_length=11), processor.text),
        embedding_width=16,
    )
    network = randomise(entry.build(config))
    images = image_processor(entry.preprocessing(config))
    save_checkpoint(network, Processor(images, processor.text), config, entry, folder)
    return network


@pytest.mark.parametrize("path", [
    ("clip", "open_clip"), ("openai", "openai"), ("openai", "open_clip"), ("siglip", "open_clip"),
    ("openai", "openai", "open_clip"),
])  # fmt: skip
def test_round_trips_are_equal_in_every_bit(path: tuple[str, ...], tmp_path: Path) -> None:
    kind, *layouts = path
    openai_like(tmp_path / "0") if kind == "openai" else tiny_folder(kind, tmp_path / "0")
    for number, layout in enumerate([*layouts, "transformers"]):
        proof = convert(tmp_path / str(number), layout, tmp_path / str(number + 1))
        assert proof.holds and proof.tokens == "equal" and not proof.rounding
        assert set(proof.differences.values()) == {0.0}
        assert proof.tensors == proof.equal_tensors
    last = tmp_path / str(len(layouts) + 1)
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "0", last))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load(last).config == load(tmp_path / "0").config


def test_open_clips_own_siglip_answers_the_same_here(tmp_path: Path) -> None:
    weights, everything, cfg = fixture("open_clip_siglip")
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    description = {"model_cfg": cfg, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(description))
    ours = load(tmp_path)
    assert (ours.config.image.activation, ours.config.text.activation) == (
        "gelu", "gelu_pytorch_tanh",
    )  # fmt: skip
    assert ours.processor.image is not None and ours.processor.image.spec.fit == "square"
    with torch.no_grad():
        scores = ours.network(pixels_of(everything), everything["in/ids"].long())
    assert close(scores.image_embeddings, everything["out/image"])
    assert close(scores.text_embeddings, everything["out/text"])
    assert close(scores.logits, everything["out/logits"])
    convert(tmp_path, "open_clip", tmp_path / "again")
    again = load_file(tmp_path / "again" / "open_clip_model.safetensors")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[n], t) and again[n].shape == t.shape for n, t in weights.items())
    written = json.loads((tmp_path / "again" / "open_clip_config.json").read_text())["model_cfg"]
    assert open_clip_config.read_siglip(written) == open_clip_config.read_siglip(cfg)


def test_openais_own_names_are_read_and_written(tmp_path: Path) -> None:
    network = openai_like(tmp_path / "m")
    convert(tmp_path / "m", "openai", tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    theirs = {k.removeprefix("weights/"): v for k, v in load_file(
        FIXTURES / "clip_openai_vit.safetensors").items() if k.startswith("weights/")}  # fmt: skip
    shared = {name: tensor for name, tensor in theirs.items() if "resblocks.0." in name}
    shared |= {name: tensor for name, tensor in theirs.items() if "resblocks" not in name}
    bookkeeping = {"input_resolution", "context_length", "vocab_size"}
    assert set(shared) - bookkeeping <= set(written)
    assert {n for n in written if "resblocks" not in n or ".0." in n} <= set(shared)
    assert all(written[n].ndim == shared[n].ndim for n in shared if n not in bookkeeping)
    state = network.state_dict()
    assert torch.equal(written["visual.proj"], state["image_projection.weight"].T)
    parts = [state[f"text.transformer.blocks.1.attention.{part}.weight"] for part in "qkv"]
    assert torch.equal(written["transformer.resblocks.1.attn.in_proj_weight"], torch.cat(parts))
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "any-name.safetensors"
    alone.write_bytes((tmp_path / "out" / "model.safetensors").read_bytes())
    assert torch.equal(load(alone).network.logit_scale, state["logit_scale"])
    mark = tmp_path / "out" / "openai_layout.json"
    mark.write_text(mark.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(CheckpointError, match=r"version 2, this Sightline reads .* version 1"):
        load(tmp_path / "out")


def test_timms_own_vit_answers_the_same_here(tmp_path: Path) -> None:
    weights, everything, config = fixture("timm_vit")
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    assert ours.config.labels == tuple(f"LABEL_{n}" for n in range(5))
    with torch.no_grad():
        encoded = ours.network(pixels_of(everything))
        assert close(encoded.tokens, everything["out/tokens"])
        assert close(ours.network.class_logits(encoded.pooled), everything["out/logits"])
    proof = convert(tmp_path, "transformers", tmp_path / "out")
    assert proof.holds and "class logits" in proof.differences
    square = replace(ours.config, image_size=(24, 24))
    from sightline.hub.layouts.timm import image_spec

    prepared = image_processor(image_spec(config, square))([everything["in/picture"].numpy()])
    assert isinstance(prepared, Tensor)
    # One level of 255, at a deviation of one half.
    assert (prepared[0] - everything["out/prepared_24"]).abs().max() <= 2 / 255 + 1e-6


def dense(tree: dict[str, np.ndarray], name: str, layer: Any) -> None:
    tree[f"{name}/kernel"] = layer.weight.detach().numpy().T
    tree[f"{name}/bias"] = layer.bias.detach().numpy()


def norm(tree: dict[str, np.ndarray], name: str, layer: Any) -> None:
    tree[f"{name}/scale"] = layer.weight.detach().numpy()
    tree[f"{name}/bias"] = layer.bias.detach().numpy()


def heads(
    tree: dict[str, np.ndarray], name: str, layers: dict[str, tuple[Tensor, Tensor]], n: int
) -> None:
    """Flax's attention: [in, heads, size] for three of them, [heads, size, out] for the last."""
    for part, (weight, bias) in layers.items():
        matrix, width = weight.detach().numpy().T, len(bias)
        if part == "out":
            tree[f"{name}/out/kernel"] = matrix.reshape(n, width // n, width)
            tree[f"{name}/out/bias"] = bias.detach().numpy()
        else:
            tree[f"{name}/{part}/kernel"] = matrix.reshape(width, n, width // n)
            tree[f"{name}/{part}/bias"] = bias.detach().numpy().reshape(n, width // n)


def siglip_tree(model: Any) -> dict[str, np.ndarray]:
    """A transformers SigLIP as big_vision's tree, by the shapes that Flax gives its layers."""
    tree: dict[str, np.ndarray] = {}
    vision, words = model.vision_model, model.text_model
    patch = vision.embeddings.patch_embedding
    tree["img/embedding/kernel"] = patch.weight.detach().numpy().transpose(2, 3, 1, 0)
    tree["img/embedding/bias"] = patch.bias.detach().numpy()
    tree["img/pos_embedding"] = vision.embeddings.position_embedding.weight.detach().numpy()[None]
    tree["txt/Embed_0/embedding"] = words.embeddings.token_embedding.weight.detach().numpy()
    tree["txt/pos_embedding"] = words.embeddings.position_embedding.weight.detach().numpy()[None]
    for tower, name, count in ((vision, "img/Transformer", 3), (words, "txt/Encoder_0", 2)):
        for number, layer in enumerate(tower.encoder.layers):
            block, attention = f"{name}/encoderblock_{number}", layer.self_attn
            norm(tree, f"{block}/LayerNorm_0", layer.layer_norm1)
            norm(tree, f"{block}/LayerNorm_1", layer.layer_norm2)
            dense(tree, f"{block}/MlpBlock_0/Dense_0", layer.mlp.fc1)
            dense(tree, f"{block}/MlpBlock_0/Dense_1", layer.mlp.fc2)
            parts = {"query": attention.q_proj, "key": attention.k_proj,
                     "value": attention.v_proj, "out": attention.out_proj}  # fmt: skip
            heads(tree, f"{block}/MultiHeadDotProductAttention_0",
                  {part: (one.weight, one.bias) for part, one in parts.items()}, count)  # fmt: skip
    norm(tree, "img/Transformer/encoder_norm", vision.post_layernorm)
    norm(tree, "txt/Encoder_0/encoder_norm", words.final_layer_norm)
    dense(tree, "txt/head", words.head)
    head = vision.head
    tree["img/MAPHead_0/probe"] = head.probe.detach().numpy()
    fused = zip(head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3),
                strict=True)  # fmt: skip
    parts = dict(zip(("query", "key", "value"), fused, strict=True))
    parts["out"] = (head.attention.out_proj.weight, head.attention.out_proj.bias)
    heads(tree, "img/MAPHead_0/MultiHeadDotProductAttention_0", parts, 3)
    norm(tree, "img/MAPHead_0/LayerNorm_0", head.layernorm)
    dense(tree, "img/MAPHead_0/MlpBlock_0/Dense_0", head.mlp.fc1)
    dense(tree, "img/MAPHead_0/MlpBlock_0/Dense_1", head.mlp.fc2)
    tree["t"], tree["b"] = model.logit_scale.detach().numpy(), model.logit_bias.detach().numpy()
    return {f"params/{name}": array for name, array in tree.items()}


def scanned(tree: dict[str, np.ndarray], depth: int) -> dict[str, np.ndarray]:
    """The same with all blocks stacked, as big_vision's `scan` keeps them."""
    stacked = {n: a for n, a in tree.items() if "encoderblock_" not in n}
    for name in tree:
        if "encoderblock_0/" in name:
            parts = [tree[name.replace("block_0/", f"block_{n}/")] for n in range(depth)]
            stacked[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(parts)
    return stacked


@pytest.mark.parametrize("scan", [False, True])
def test_a_siglip_of_big_vision_answers_as_transformers_does(scan: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tower = {"num_hidden_layers": 3, "hidden_size": 24, "intermediate_size": 40}
    reference = randomise(
        transformers.SiglipModel(
            transformers.SiglipConfig(
                vision_config={**tower, "num_attention_heads": 3, "image_size": 24,
                               "patch_size": 8},
                text_config={**tower, "num_attention_heads": 2, "vocab_size": 99,
                             "max_position_embeddings": 9, "pad_token_id": 1, "bos_token_id": 1,
                             "eos_token_id": 1},
            )
        )
    )  # fmt: skip
    tree = siglip_tree(reference)
    np.savez(tmp_path / "siglip.npz", **(scanned(tree, 3) if scan else tree))
    ours = load(tmp_path / "siglip.npz")
    pixels, ids = torch.randn(2, 3, 24, 24), torch.randint(0, 99, (3, 9))
    with torch.no_grad():
        theirs = reference(input_ids=ids, pixel_values=pixels).logits_per_image
        assert close(ours.network(pixels, ids).logits, theirs)
    proof = convert(tmp_path / "siglip.npz", "transformers", tmp_path / "out")
    assert proof.tokens == "no tokenizer" and set(proof.differences.values()) == {0.0}
    kept = {f"params/{n}": a for n, a in tree.items() if "txt/head/bias" not in n}
    np.savez(tmp_path / "less.npz", **kept)
    with pytest.raises(CheckpointError, match=r"less\.npz"):
        load(tmp_path / "less.npz")


@pytest.mark.parametrize("older", [False, True])
def test_a_vit_of_big_vision_answers_as_transformers_does(older: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    reference = randomise(
        transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
                image_size=24, patch_size=8, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6,
                num_labels=4,
            )
        )
    )  # fmt: skip
    state = {k.removeprefix("vit."): v.numpy() for k, v in reference.state_dict().items()}
    second = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3") if older else (
        "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")  # fmt: skip
    patch = state["embeddings.patch_embeddings.projection.weight"]
    positions = "Transformer/posembed_input/pos_embedding" if older else "pos_embedding"
    tree = {
        "embedding/kernel": patch.transpose(2, 3, 1, 0),
        "embedding/bias": state["embeddings.patch_embeddings.projection.bias"],
        "cls": state["embeddings.cls_token"],
        positions: state["embeddings.position_embeddings"],
        "Transformer/encoder_norm/scale": state["layernorm.weight"],
        "Transformer/encoder_norm/bias": state["layernorm.bias"],
        "head/kernel": state["classifier.weight"].T,
        "head/bias": state["classifier.bias"],
    }
    for n, layer in enumerate(m for m in reference.modules() if type(m).__name__ == "ViTLayer"):
        names = dict(layer.named_modules())
        linears = [m for m in names.values() if isinstance(m, nn.Linear)]
        norms = [m for m in names.values() if isinstance(m, nn.LayerNorm)]
        block = f"Transformer/encoderblock_{n}"
        parts = ("query", "key", "value", "out")
        attention = {p: (m.weight, m.bias) for p, m in zip(parts, linears[:4], strict=True)}
        heads(tree, f"{block}/{second[0]}", attention, 3)
        norm(tree, f"{block}/LayerNorm_0", norms[0])
        norm(tree, f"{block}/{second[1]}", norms[1])
        dense(tree, f"{block}/{second[2]}/Dense_0", linears[4])
        dense(tree, f"{block}/{second[2]}/Dense_1", linears[5])
    if not older:  # today the class token has no position: its row is in the token itself
        tree["cls"] = tree["cls"] + tree["pos_embedding"][:, :1]
        tree["pos_embedding"] = tree["pos_embedding"][:, 1:]
    prefix = "opt/target/" if older else "params/"
    np.savez(tmp_path / "vit.npz", **{prefix + name: array for name, array in tree.items()})
    ours, pixels = load(tmp_path / "vit.npz"), torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        logits = ours.network.class_logits(ours.network(pixels).pooled)
        assert close(logits, reference(pixels).logits)


def test_bfloat16_arrays_of_numpy_are_read(tmp_path: Path) -> None:
    value = torch.randn(3, 4).bfloat16()
    np.savez(tmp_path / "a.npz", w=value.view(torch.int16).numpy().view("V2"))
    assert torch.equal(npz.read_npz(tmp_path / "a.npz")["w"], value)


def test_hostile_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", w=np.array([{}], dtype=object))
    with pytest.raises(UnsafeCheckpointError, match="holds objects, which are pickles"):
        load(tmp_path / "o.npz")
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(npz.SMALL // 4 + 1000, np.float32))
    with pytest.raises(CheckpointError, match=r"would unpack to \d+ bytes, more than"):
        load(tmp_path / "bomb.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    )
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("w.npy", header.getvalue() + b"1234")
    with pytest.raises(CheckpointError, match=r"of shape \[1099511627776\] is truncated"):
        load(tmp_path / "claims.npz")
    (tmp_path / "no.npz").write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match=r"not a readable \.npz file"):
        load(tmp_path / "no.npz")
    np.savez(tmp_path / "other.npz", w=np.zeros(3, np.float32))
    with pytest.raises(CheckpointError, match="no class token"):
        load(tmp_path / "other.npz")


@pytest.mark.parametrize(("name", "to", "reason"), [
    ("clip", "openai", r"it has always 64 channels in a head, the text tower has 10; transformers"),
    ("siglip", "openai", r"the openai layout cannot hold .* it holds CLIP and no siglip"),
    ("vit", "open_clip", r"fixed parts, and vit is none of them; transformers can"),
    ("clip_resnet", "transformers", r"transformers has no class for CLIP with ResNet towers"),
    ("lit", "transformers", r"transformers has no class for LiT"),
    ("clip", "timm", r"timm is only read here: choose one of transformers, openai, open_clip"),
    ("clip", "openclip", r"unknown layout 'openclip': did you mean 'open_clip'"),
])  # fmt: skip
def test_what_a_layout_cannot_hold_is_refused_with_the_reason(
    name: str, to: str, reason: str, tmp_path: Path
) -> None:
    tiny_folder(name, tmp_path / "m")
    with pytest.raises(ConfigError, match=reason):
        convert(tmp_path / "m", to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("change", "reason"), [
    ({"activation": "gelu"}, "always computes quick_gelu, the image tower gelu"),
    ({"norm_eps": 1e-6}, "epsilon of 1e-05, those of the image tower 1e-06"),
    ({"mlp_width": 128}, "always 4 times the width in its MLP, the image tower has 2"),
    ({"image_size": (24, 32)}, "it knows square pictures only"),
])  # fmt: skip
def test_openais_layout_refuses_what_its_code_would_compute_otherwise(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    openai_like(tmp_path / "m")
    loaded = load(tmp_path / "m")
    config = replace(loaded.config, image=replace(loaded.config.image, **change))
    entry = system("clip")
    images = image_processor(entry.preprocessing(config))
    network = randomise(entry.build(config))
    save_checkpoint(
        network, Processor(images, loaded.processor.text), config, entry, tmp_path / "n"
    )
    with pytest.raises(ConfigError, match=reason):
        convert(tmp_path / "n", "openai", tmp_path / "out")


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_result_that_is_not_the_same_takes_no_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.hub.layouts import files

    tiny_folder(name, tmp_path / "m")

    def swapped(state: dict[str, Tensor], file: Path) -> None:
        """Queries for keys, where the file has them fused: every shape still fits."""
        wrong = {n: t.roll(len(t) // 3, 0) if "in_proj_weight" in n else t
                 for n, t in state.items()}  # fmt: skip
        right(wrong, file)

    right = files.write_tensors
    monkeypatch.setattr(files, "write_tensors", swapped)
    with pytest.raises(CheckpointError, match=r"is not the same: .* differ by .*nothing was writ"):
        convert(tmp_path / "m", "open_clip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_proof_is_about_the_numbers_that_are_stored(tmp_path: Path) -> None:
    tiny_folder("siglip", tmp_path / "m")
    proof = convert(tmp_path / "m", "open_clip", tmp_path / "out", dtype="bfloat16")
    assert proof.holds and set(proof.differences.values()) == {0.0}
    assert 0 < max(proof.rounding.values()) < 0.1
    header = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert {tensor.dtype for tensor in header.values()} == {torch.bfloat16}
    again = convert(tmp_path / "m", "open_clip", tmp_path / "out")  # a model folder is replaced
    assert not again.rounding and again.bytes > proof.bytes
    assert not proving.Proof({"x": float("nan")}, {"x": 1.0}, 1, 1, 1, 1, "equal", {}).holds


@pytest.mark.parametrize(("where", "change", "match"), [
    ("text_cfg", {"pool_type": "first"}, r"text_cfg has 'pool_type' = 'first'"),
    ("vision_cfg", {"no_ln_pre": True}, r"vision_cfg has 'no_ln_pre' = 'True', a network that no"),
    ("vision_cfg", {"ls_init_value": 0.1}, "ls_init_value"),
    ("text_cfg", {"hf_model_name": "roberta-base"}, "hf_model_name"),
])  # fmt: skip
def test_flags_of_open_clip_that_change_the_network_are_refused_by_name(
    where: str, change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    tiny_folder("clip", tmp_path / "m")
    convert(tmp_path / "m", "open_clip", tmp_path / "out")
    file = tmp_path / "out" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"][where] |= change
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=match):
        load(tmp_path / "out")


def test_pickled_weights_of_open_clip_need_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    tiny_folder("clip", tmp_path / "m")
    convert(tmp_path / "m", "open_clip", tmp_path / "out")
    file = tmp_path / "out" / "open_clip_model.safetensors"
    torch.save(load_file(file), tmp_path / "out" / "open_clip_pytorch_model.bin")
    file.unlink()
    with pytest.raises(UnsafeCheckpointError, match="a pickle, which can run code"):
        load(tmp_path / "out")
    ours, before = load(tmp_path / "out", allow_pickle=True), load(tmp_path / "m")
    one, two = ours.network.state_dict(), before.network.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize("variant", siglip.VARIANTS)
def test_every_published_siglip_survives_open_clips_configuration(variant: str) -> None:
    config = siglip.VARIANTS[variant]
    written = open_clip_config.write_siglip(config)
    back = open_clip_config.read_siglip(json.loads(json.dumps(written)))
    assert back.image == config.image
    ids = {name: getattr(config.text, name) for name in ("pad_id", "bos_id", "eos_id")}
    assert replace(back.text, **ids) == config.text
    changed = written["vision_cfg"].get("timm_model_kwargs", {})
    assert set(changed) <= {"act_layer", "mlp_ratio"}, "a published size has a name of its own"


@pytest.mark.parametrize("variant", clip.VARIANTS)
def test_every_published_clip_survives_open_clips_configuration(variant: str) -> None:
    config = clip.VARIANTS[variant]
    back = open_clip_config.read_clip(json.loads(json.dumps(open_clip_config.write_clip(config))))
    assert replace(back, text=replace(back.text, pad_id=config.text.pad_id)) == config


def test_the_command_prints_its_proof(tmp_path: Path) -> None:
    tiny_folder("siglip", tmp_path / "m")
    order = ["convert", str(tmp_path / "m"), "--to", "open_clip", "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(program, order)
    assert shown.exit_code == 0, shown.output
    assert "largest difference of the logits\t0, equal in every bit" in shown.stdout
    assert "tensors equal\t122 of 122" in shown.stdout
    document = json.loads(CliRunner().invoke(program, [*order, "--json"]).stdout)
    assert document["proof"]["holds"] and document["to"] == "open_clip"
    assert document["model"] == str(tmp_path / "m")
