"""Exported towers: run by onnxruntime alone, beside this library and beside the reference."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from sightline.cli.program import program
from sightline.core.errors import CheckpointError, ConfigError, MissingDependencyError
from sightline.hub.convert import convert
from sightline.hub.layouts import onnx as onnx_layout
from sightline.hub.layouts import onnx_graph, onnx_towers
from sightline.hub.load import load_checkpoint
from sightline.hub.save import save_checkpoint
from sightline.inputs.preprocessing import ImageSpec
from sightline.inputs.processors import Processor, image_processor
from tests.hub.tiny import randomise, tiny, tiny_folder

slow = pytest.mark.slow
DUAL = ["clip", "siglip", "vision_text", pytest.param("clip_resnet", marks=slow),
        pytest.param("unicl", marks=slow), pytest.param("lit", marks=slow)]  # fmt: skip
NEEDS_MASK = {"vision_text", "lit", "bert"}


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def shallow(name: str, folder: Path) -> None:
    """A tiny model with one block a tower, since what an export costs is its operations."""
    entry, config, _, processor = tiny(name)
    for part in ("image", "text"):
        if has_depth(getattr(config, part, None)):
            config = replace(config, **{part: replace(getattr(config, part), depth=1)})
    if has_depth(config):
        config = replace(config, depth=1)
    save_checkpoint(randomise(entry.build(config)), processor, config, entry, folder)


def has_depth(config: Any) -> bool:
    """As a field that can be chosen; Swin's is the sum of its stages."""
    return is_dataclass(config) and "depth" in {field.name for field in fields(config)}


def run(file: Path, **inputs: Any) -> list[np.ndarray]:
    return session(file).run(None, {name: np.asarray(value) for name, value in inputs.items()})


def close(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return one.shape == other.shape and bool(
        np.abs(one - other).max() <= 1e-5 * max(1.0, np.abs(other).max())
    )


def describe(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "onnx.json").read_text())


@pytest.mark.parametrize("name", DUAL)
def test_both_towers_answer_as_the_network_does(name: str, tmp_path: Path) -> None:
    shallow(name, tmp_path / "m")
    proof = convert(tmp_path / "m", "onnx", tmp_path / "out")
    assert proof.holds and proof.tokens == "equal" and len(proof.differences) == 6
    model = load_checkpoint(tmp_path / "m", device="cpu", dtype="float32")
    about = describe(tmp_path / "out")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 50, 70, 3), np.uint8)
    pixels = model.processor.images(list(pictures))
    words = model.processor.texts(["a red ball on the grass", "a tree", "a blue car beside a tree"])
    assert about["text"]["inputs"] == (["ids", "mask"] if name in NEEDS_MASK else ["ids"])
    feeds = {key: getattr(words, key).numpy() for key in about["text"]["inputs"]}
    with torch.no_grad():
        expected = model.network(pixels, *words)
    (images,) = run(tmp_path / "out" / "image.onnx", pixels=pixels)
    (texts,) = run(tmp_path / "out" / "text.onnx", **feeds)
    assert close(images, expected.image_embeddings) and close(texts, expected.text_embeddings)
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    logits = about["scale"] * images @ texts.T + about["bias"]
    assert close(logits, expected.logits)
    assert (about["score"], about["template"]) == (
        model.system.score, model.system.default_template
    )  # fmt: skip


@pytest.mark.parametrize("name", ["resnet", pytest.param("swin", marks=slow), "vit"])
def test_image_encoders_give_unit_vectors(name: str, tmp_path: Path) -> None:
    shallow(name, tmp_path / "m")
    assert convert(tmp_path / "m", "onnx", tmp_path / "out").holds
    model = load_checkpoint(tmp_path / "m", device="cpu", dtype="float32")
    spec = model.processor.image.spec
    pixels = torch.randn(4, 3, spec.height, spec.width)
    with torch.no_grad():
        pooled = model.network(pixels).pooled
    (vectors,) = run(tmp_path / "out" / "image.onnx", pixels=pixels)
    assert close(vectors, torch.nn.functional.normalize(pooled))
    assert "text" not in describe(tmp_path / "out")


def test_text_encoders_leave_padding_out(tmp_path: Path) -> None:
    shallow("bert", tmp_path / "m")
    assert convert(tmp_path / "m", "onnx", tmp_path / "out").holds
    ids = np.array([[5, 6, 7, 8], [5, 6, 9, 9]])
    mask = np.array([[True] * 4, [True, True, False, False]])
    file = tmp_path / "out" / "text.onnx"
    (both,) = run(file, ids=ids, mask=mask)
    (alone,) = run(file, ids=ids[1:, :2], mask=mask[1:, :2])
    assert close(both[1:], alone)
    (seen,) = run(file, ids=ids, mask=np.ones_like(mask))
    assert not close(both[1], seen[1])


def test_classifiers_give_logits_and_their_labels(tmp_path: Path) -> None:
    entry, config, _, processor = tiny("resnet")
    config = replace(config, labels=("cat", "dog", "fish"))
    network = randomise(entry.build(config))
    save_checkpoint(network, processor, config, entry, tmp_path / "m")
    proof = convert(tmp_path / "m", "onnx", tmp_path / "out")
    assert "image logits, batch of 3" in proof.differences
    model = load_checkpoint(tmp_path / "m", device="cpu", dtype="float32")
    spec = model.processor.image.spec
    pixels = torch.randn(2, 3, spec.height, spec.width)
    with torch.no_grad():
        expected = model.network.class_logits(model.network(pixels).pooled)
    _, logits = run(tmp_path / "out" / "image.onnx", pixels=pixels)
    assert close(logits, expected)
    assert describe(tmp_path / "out")["labels"] == ["cat", "dog", "fish"]


def test_a_clip_of_transformers_answers_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tower = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    reference = randomise(
        transformers.CLIPModel(
            transformers.CLIPConfig(
                vision_config={**tower, "hidden_size": 24, "image_size": 24, "patch_size": 8},
                text_config={**tower, "hidden_size": 20, "vocab_size": 99, "eos_token_id": 98,
                             "bos_token_id": 97, "max_position_embeddings": 9},
                projection_dim=16,
            )
        )
    )  # fmt: skip
    reference.save_pretrained(tmp_path / "m")
    assert convert(tmp_path / "m", "onnx", tmp_path / "out").tokens == "no tokenizer"
    pixels, ids = torch.randn(3, 3, 24, 24), torch.randint(0, 97, (4, 7))
    ids[:, -1] = 98
    with torch.no_grad():
        expected = reference(input_ids=ids, pixel_values=pixels)
    (images,) = run(tmp_path / "out" / "image.onnx", pixels=pixels)
    (texts,) = run(tmp_path / "out" / "text.onnx", ids=ids)
    assert close(images, expected.image_embeds) and close(texts, expected.text_embeds)
    about = describe(tmp_path / "out")
    assert close(about["scale"] * images @ texts.T + about["bias"], expected.logits_per_image)


# What lies in the folder


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small model, cheap to export."""
    folder = tmp_path_factory.mktemp("vit") / "small-vit"
    shallow("vit", folder)
    return folder


def test_the_description_says_what_a_program_must_know(vit_folder: Path, tmp_path: Path) -> None:
    convert(vit_folder, "onnx", tmp_path / "out")
    about = describe(tmp_path / "out")
    assert about["format"] == "sightline-onnx" and about["version"] == 1
    assert about["source"] == "small-vit", "a folder's own name, and not where it lies"
    model = load_checkpoint(vit_folder, device="cpu")
    assert ImageSpec.from_dict(about["image"]["preparation"]) == model.processor.image.spec
    graph = onnx.load(tmp_path / "out" / "image.onnx")
    carried = {prop.key: prop.value for prop in graph.metadata_props}
    assert carried["format"] == "sightline-onnx" and carried["source"] == "small-vit"
    assert json.loads(carried["image"])["preparation"] == about["image"]["preparation"]
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", onnx_graph.OPSET)]
    (entry,) = graph.graph.input
    axes = [axis.dim_param or axis.dim_value for axis in entry.type.tensor_type.shape.dim]
    assert axes == ["batch", 3, 24, 36]
    raw = (tmp_path / "out" / "image.onnx").read_bytes()
    assert b"site-packages" not in raw and str(Path.home()).encode() not in raw
    assert b".py" not in raw, "no traces of the program that exported"


def test_the_bundled_model_says_its_licence(tmp_path: Path, monkeypatch: Any) -> None:
    asked = {}

    def graph(tower: Any, file: Path, about: dict[str, str], half: bool) -> tuple[str, ...]:
        asked[tower.name] = about, half
        raise ConfigError("far enough")

    monkeypatch.setattr(onnx_graph, "write_graph", graph)
    with pytest.raises(ConfigError, match="far enough"):
        convert("park-siglip", "onnx", tmp_path / "out")
    about, half = asked["image"]
    assert (about["source"], about["licence"], half) == ("park-siglip", "Apache-2.0", True)
    assert not (tmp_path / "out").exists()


def test_float16_is_stored_and_float32_computed(vit_folder: Path, tmp_path: Path) -> None:
    proof = convert(vit_folder, "onnx", tmp_path / "half", dtype="float16")
    whole = convert(vit_folder, "onnx", tmp_path / "whole")
    assert proof.holds and 0 < max(proof.rounding.values()) < 0.01 and not whole.rounding
    kinds = {t.data_type for t in onnx.load(tmp_path / "half" / "image.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    sizes = [(tmp_path / n / "image.onnx").stat().st_size for n in ("half", "whole")]
    assert sizes[0] < 0.75 * sizes[1]
    with pytest.raises(ConfigError, match="does not store bfloat16: choose float32 or float16"):
        convert(vit_folder, "onnx", tmp_path / "no", dtype="bfloat16")


def test_weights_too_large_for_one_file_lie_beside_it(
    vit_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 5000)
    assert convert(vit_folder, "onnx", tmp_path / "out").holds
    assert (tmp_path / "out" / "image.onnx.data").stat().st_size > 5000
    assert (tmp_path / "out" / "image.onnx").stat().st_size < 60_000
    (tmp_path / "out").rename(tmp_path / "moved")
    (vectors,) = run(tmp_path / "moved" / "image.onnx", pixels=np.zeros((1, 3, 24, 36), "f"))
    assert np.isfinite(vectors).all()


# What is refused, and what is noticed


def test_a_graph_of_another_network_takes_no_place(
    vit_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    right = onnx_graph.write_graph

    def wrong(tower: Any, *rest: Any) -> tuple[str, ...]:
        with torch.no_grad():
            tower.module.network.norm.weight.mul_(1.01)
            tower.module.network.norm.bias.add_(0.01)
        return right(tower, *rest)

    monkeypatch.setattr(onnx_graph, "write_graph", wrong)
    with pytest.raises(CheckpointError, match=r"is not the same: image embeddings, batch of \d"):
        convert(vit_folder, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_forgotten_mask_is_noticed(tmp_path: Path, monkeypatch: Any) -> None:
    shallow("bert", tmp_path / "m")
    right = onnx_towers.TextGraph.forward
    monkeypatch.setattr(
        onnx_towers.TextGraph,
        "forward",
        lambda self, ids, mask: right(self, ids, mask | True),
    )
    with pytest.raises(CheckpointError, match="text embeddings, batch of 3 differ by"):
        convert(tmp_path / "m", "onnx", tmp_path / "out")


def test_a_wrong_scale_is_noticed(tmp_path: Path, monkeypatch: Any) -> None:
    shallow("siglip", tmp_path / "m")
    right = onnx_layout.describe
    monkeypatch.setattr(
        onnx_layout, "describe", lambda *a: (said := right(*a)) | {"scale": said["scale"] * 1.01}
    )
    with pytest.raises(CheckpointError, match=r"logits, batch of \d differ by"):
        convert(tmp_path / "m", "onnx", tmp_path / "out")


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, vit_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingDependencyError, match=rf"ONNX needs .*'{package}'.*pip install 'sightline\[export\]"
    ):
        convert(vit_folder, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_of_every_shape_are_refused_with_the_reason(tmp_path: Path) -> None:
    tiny_folder("siglip2-naflex", tmp_path / "m")
    with pytest.raises(ConfigError, match=r"onnx layout cannot hold .*its pictures keep their sh"):
        convert(tmp_path / "m", "onnx", tmp_path / "out")
    entry, config, network, processor = tiny("vit")
    spec = replace(processor.image.spec, fit="shortest")
    save_checkpoint(network, Processor(image_processor(spec), None), config, entry, tmp_path / "k")
    with pytest.raises(ConfigError, match="gives every picture a size of its own, and a graph"):
        convert(tmp_path / "k", "onnx", tmp_path / "out")


def test_graphs_are_not_loaded_as_weights(tmp_path: Path) -> None:
    (tmp_path / "onnx.json").write_text('{"source": "openai/clip-vit-base-patch32"}')
    with pytest.raises(CheckpointError, match=r"load the model that they were made from \(openai/"):
        load_checkpoint(tmp_path)


def test_a_network_that_cannot_be_followed_is_named(tmp_path: Path) -> None:
    class Unfollowable(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels if pixels.sum() > 0 else -pixels

    free = {"pixels": {0: "batch"}}
    tower = onnx_towers.Tower(
        "image", Unfollowable(), {"pixels": torch.ones(2, 3)}, ("embeddings",), free
    )
    with pytest.raises(ConfigError, match="torch cannot export the image tower: "):
        onnx_graph.write_graph(tower, tmp_path / "image.onnx", {}, False)


def test_the_command_prints_the_proof_of_the_runtime(vit_folder: Path, tmp_path: Path) -> None:
    order = ["convert", str(vit_folder), "--to", "onnx", "--out", str(tmp_path / "out"), "--json"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "onnx.json").write_text("{}")  # of an older export, which is replaced
    (tmp_path / "out" / "text.onnx.data").touch()
    shown = CliRunner().invoke(program, order)
    assert shown.exit_code == 0, shown.output
    assert not (tmp_path / "out" / "text.onnx.data").exists()
    document = json.loads(shown.stdout)
    assert document["to"] == "onnx" and document["proof"]["holds"]
    assert set(document["proof"]["differences"]) == {
        f"image embeddings, batch of {count}" for count in (1, 3)
    }
