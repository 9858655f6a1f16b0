"""LiT beside big_vision on flaxformer's BERT, and beside the same arithmetic in plain numpy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError
from sightline.hub.contents import read_contents
from sightline.hub.load import Loaded, load_checkpoint
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.models import bert, clip, lit, resnet, siglip, vit
from sightline.models.lit import SYSTEM, TINY, LiT, LiTConfig
from sightline.models.towers import without_pooler
from sightline.nn.meta import without_memory
from tests.models.test_vision_text import randomise

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lit.safetensors"
KINDS = ("locked", "sigmoid", "headed")
"""Of the fixture: no image head; the same with a bias; heads over both towers."""
BERT, LAYER = "txt/BertEncoder_0", "txt/BertEncoder_0/encoder_block/layer_sequence/layers_{}"


def agree(ours: Tensor, reference: Tensor | np.ndarray, limit: float = 1e-5) -> bool:
    reference = torch.as_tensor(reference)
    gap = (ours.detach() - reference).abs().max().item()
    return gap <= limit * max(1.0, reference.abs().max().item())


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return load_file(FIXTURE)


def drawn(kind: str) -> dict[str, np.ndarray]:
    """The weights that the reference was given: its own names and shapes, a frozen generator."""
    with safe_open(FIXTURE, framework="pt") as opened:
        shapes = json.loads(opened.metadata()[kind])
    dice = np.random.RandomState(2022)
    tree = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        noise = dice.standard_normal(shape)
        if name.endswith("scale"):
            value = 1 + 0.3 * noise
        elif name.endswith("kernel") and len(shape) > 1:
            inputs = shape[:1] if name.split("/")[-2] in ("query", "key", "value") else shape[:-1]
            value = noise * np.prod(inputs) ** -0.5
        else:
            value = 0.3 * noise
        tree[name] = value.astype(np.float32)
    return tree


def saved(tree: dict[str, np.ndarray], file: Path, prefix: str = "") -> Path:
    np.savez(file, **{prefix + name: array for name, array in tree.items()})
    return file


def load(path: Path) -> Loaded:
    return load_checkpoint(path, device="cpu", dtype="float32")


def outputs(network: Any, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    scores = network(numbers["in/pixels"], numbers["in/ids"])
    return {"image": scores.image_embeddings, "text": scores.text_embeddings,
            "logits": scores.logits}  # fmt: skip


def disagreeing(network: Any, numbers: dict[str, Tensor], kind: str) -> set[str]:
    found = outputs(network, numbers)
    return {name for name, value in found.items() if not agree(value, numbers[f"{kind}/{name}"])}


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_answers_the_same(kind: str, numbers: dict[str, Tensor], tmp_path: Path):
    loaded = load(saved(drawn(kind), tmp_path / "lit.npz", prefix="params/"))
    assert disagreeing(loaded.network, numbers, kind) == set()
    assert loaded.system.name == "lit"
    assert loaded.system.score == ("sigmoid" if kind == "sigmoid" else "softmax")
    assert loaded.config.image_head == (20 if kind == "headed" else 0)
    assert (loaded.config.text.num_heads, loaded.config.max_tokens) == (2, 12)


def test_what_lies_behind_the_towers_agrees(numbers: dict[str, Tensor], tmp_path: Path):
    network: Any = load(saved(drawn("locked"), tmp_path / "lit.npz")).network
    ids = numbers["in/ids"][:1]
    tokens = network.text(ids, ids != 0).tokens[0]
    seen = ids[0] != 0  # what lies on padding means nothing; the reference masks its rows too
    assert agree(tokens[seen], numbers["locked/tokens"][seen])
    assert agree(network.image(numbers["in/pixels"][:1]).tokens[0], numbers["locked/image_tokens"])


def gradients(network: Any, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the logits weighted from -1 to 1, under the reference's names."""
    network.requires_grad_(True).zero_grad()
    weight = torch.linspace(-1, 1, 12).reshape(3, 4)
    (outputs(network, numbers)["logits"] * weight).sum().backward()
    block, image = network.text.transformer.blocks, network.image.transformer.blocks
    layers = {
        "t": network.logit_scale,
        "b": network.logit_bias,
        "img/cls": network.image.class_token,
        "img/head/bias": getattr(network.image_head, "bias", None),
        "txt/head/bias": network.text_head.bias,
        f"{BERT}/layer_norm/scale": network.text.norm_in.weight,
        f"{LAYER.format(0)}/attention_block/attention_layer/query/bias":
            block[0].attention.q.bias,
        f"{LAYER.format(1)}/mlp_block/mlp/dense_layer/bias": block[1].mlp.fc1.bias,
        "img/Transformer/encoderblock_1/MultiHeadDotProductAttention_0/value/bias":
            image[1].attention.v.bias,
    }  # fmt: skip
    return {name: layer.grad for name, layer in layers.items() if layer is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_reference(kind, numbers, tmp_path):
    found = gradients(load(saved(drawn(kind), tmp_path / "lit.npz")).network, numbers)
    expected = {n.removeprefix(f"{kind}/grad/"): g for n, g in numbers.items()
                if n.startswith(f"{kind}/grad/")}  # fmt: skip
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert agree(found[name].flatten(), gradient.flatten()), name


# -- the same arithmetic once more, in plain numpy -----------------------------------------------


def norm(x, tree, name, eps):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * tree[f"{name}/scale"] + tree[f"{name}/bias"]


def dense(x, tree, name):
    return x @ tree[f"{name}/kernel"] + tree[f"{name}/bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attended(q, k, v, seen=None):
    """[B T N K] each, and which keys are seen [B T]."""
    scores = np.einsum("bqnk,btnk->bnqt", q, k) / np.sqrt(q.shape[-1])
    if seen is not None:
        scores = np.where(seen[:, None, None], scores, -1e30)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bnqt,btnk->bqnk", weights, v)


def numpy_image(tree, pixels):
    """[B H W C] to the class token behind the last norm [B D]."""
    patch = tree["img/embedding/kernel"].shape[0]
    count, height, width, channels = pixels.shape
    grid = pixels.reshape(count, height // patch, patch, width // patch, patch, channels)
    rows = grid.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, patch * patch * channels)
    kernel = tree["img/embedding/kernel"].reshape(-1, tree["img/embedding/kernel"].shape[-1])
    x = rows @ kernel + tree["img/embedding/bias"] + tree["img/pos_embedding"]
    x = np.concatenate([np.repeat(tree["img/cls"], count, axis=0), x], axis=1)
    for number in range(2):
        block = f"img/Transformer/encoderblock_{number}"
        heads = f"{block}/MultiHeadDotProductAttention_0"
        y = norm(x, tree, f"{block}/LayerNorm_0", 1e-6)
        q, k, v = (
            np.einsum("btd,dnk->btnk", y, tree[f"{heads}/{part}/kernel"])
            + tree[f"{heads}/{part}/bias"]
            for part in ("query", "key", "value")
        )
        mixed = np.einsum("btnk,nkd->btd", attended(q, k, v), tree[f"{heads}/out/kernel"])
        x = x + mixed + tree[f"{heads}/out/bias"]
        y = gelu(dense(norm(x, tree, f"{block}/LayerNorm_1", 1e-6), tree,
                       f"{block}/MlpBlock_0/Dense_0"))  # fmt: skip
        x = x + dense(y, tree, f"{block}/MlpBlock_0/Dense_1")
    return norm(x, tree, "img/Transformer/encoder_norm", 1e-6)[:, 0]


def numpy_text(tree, ids):
    """[B T] to [CLS] behind the last norm [B D]."""
    tables = {what: tree[f"{BERT}/embedder/embedders_{what}_ids/embedding"]
              for what in ("token", "position", "segment")}  # fmt: skip
    x = tables["token"][ids] + tables["position"][: ids.shape[1]] + tables["segment"][0]
    x = norm(x, tree, f"{BERT}/layer_norm", 1e-12)
    for number in range(2):
        attention, mlp = (f"{LAYER.format(number)}/{part}_block" for part in ("attention", "mlp"))
        split = (*ids.shape, 2, 64)
        q, k, v = (dense(x, tree, f"{attention}/attention_layer/{part}").reshape(split)
                   for part in ("query", "key", "value"))  # fmt: skip
        mixed = attended(q, k, v, ids != 0).reshape(x.shape)
        x = norm(x + dense(mixed, tree, f"{attention}/dense_layer"), tree,
                 f"{attention}/layer_norm", 1e-12)  # fmt: skip
        y = dense(gelu(dense(x, tree, f"{mlp}/mlp/dense_layer")), tree, f"{mlp}/dense_layer")
        x = norm(x + y, tree, f"{mlp}/layer_norm", 1e-12)
    return x[:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_numpy_in_float64_agrees(kind: str, numbers: dict[str, Tensor], tmp_path: Path):
    tree = {name: array.astype(np.float64) for name, array in drawn(kind).items()}
    images = numpy_image(tree, numbers["in/pixels"].numpy().transpose(0, 2, 3, 1))
    if kind == "headed":
        images = dense(images, tree, "img/head")
    texts = dense(numpy_text(tree, numbers["in/ids"].numpy()), tree, "txt/head")
    images, texts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, texts))
    logits = images @ texts.T * np.exp(tree["t"]) + tree.get("b", 0.0)
    network = load(saved(drawn(kind), tmp_path / "lit.npz")).network.double()
    scores = network(numbers["in/pixels"].double(), numbers["in/ids"])
    assert agree(scores.logits, logits, 1e-6)  # unit length and scale come in float32
    found = outputs(network.float(), numbers)
    for name, expected in (("image", images), ("text", texts), ("logits", logits)):
        assert agree(found[name], expected.astype(np.float32)), name


# -- files ---------------------------------------------------------------------------------------


def as_tree(network: Any, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's weights in big_vision's names and shapes, written from its own side."""
    arrays: dict[str, Tensor] = {}

    def put(name: str, layer: nn.Module) -> None:
        weight = layer.weight.detach()
        arrays[name + ("/scale" if weight.ndim == 1 else "/kernel")] = weight.t()
        arrays[f"{name}/bias"] = layer.bias.detach()

    image, text = network.image, network.text
    arrays["img/embedding/kernel"] = image.patches.projection.weight.detach().permute(2, 3, 1, 0)
    arrays["img/embedding/bias"] = image.patches.projection.bias.detach()
    table = image.positions.table.detach()
    arrays["img/pos_embedding"] = table[1:]
    arrays["img/cls"] = image.class_token.detach() + table[0]
    put("img/Transformer/encoder_norm", image.norm)
    for number, block in enumerate(image.transformer.blocks):
        at = f"img/Transformer/encoderblock_{number}"
        put(f"{at}/LayerNorm_0", block.norm1)
        put(f"{at}/LayerNorm_1", block.norm2)
        put(f"{at}/MlpBlock_0/Dense_0", block.mlp.fc1)
        put(f"{at}/MlpBlock_0/Dense_1", block.mlp.fc2)
        for part, name in zip(
            ("q", "k", "v", "out"), ("query", "key", "value", "out"), strict=True
        ):
            put(f"{at}/MultiHeadDotProductAttention_0/{name}", getattr(block.attention, part))
    arrays[f"{BERT}/embedder/embedders_token_ids/embedding"] = text.embedding.weight.detach()
    arrays[f"{BERT}/embedder/embedders_position_ids/embedding"] = text.positions.detach()
    arrays[f"{BERT}/embedder/embedders_segment_ids/embedding"] = text.segments.weight.detach()
    put(f"{BERT}/layer_norm", text.norm_in)
    for number, block in enumerate(text.transformer.blocks):
        at = LAYER.format(number)
        for part, name in zip("qkv", ("query", "key", "value"), strict=True):
            put(f"{at}/attention_block/attention_layer/{name}", getattr(block.attention, part))
        put(f"{at}/attention_block/dense_layer", block.attention.out)
        put(f"{at}/attention_block/layer_norm", block.norm1)
        put(f"{at}/mlp_block/mlp/dense_layer", block.mlp.fc1)
        put(f"{at}/mlp_block/dense_layer", block.mlp.fc2)
        put(f"{at}/mlp_block/layer_norm", block.norm2)
    put("txt/head", network.text_head)
    if network.image_head is not None:
        put("img/head", network.image_head)
    arrays["t"] = network.logit_scale.detach()
    if network.logit_bias is not None:
        arrays["b"] = network.logit_bias.detach()
    assert arrays.keys() == like.keys()
    return {name: array.numpy().reshape(like[name].shape) for name, array in arrays.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_array_comes_back_through_our_own_layout(kind: str, tmp_path: Path):
    tree = drawn(kind)
    first = load(saved(tree, tmp_path / "lit.npz"))
    save_checkpoint(first.network, first.processor, first.config, first.system, tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.config == first.config and again.system.score == first.system.score
    back = as_tree(again.network, tree)
    assert all(np.array_equal(back[name], array) for name, array in tree.items())


def test_the_older_spelling_of_the_release_is_read(numbers: dict[str, Tensor], tmp_path: Path):
    """vit_jax keeps the class token's position in the table, and numbers a block's parts."""
    tree = drawn("locked")
    older = {
        "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
        "LayerNorm_1": "LayerNorm_2",
        "MlpBlock_0": "MlpBlock_3",
        "img/pos_embedding": "img/Transformer/posembed_input/pos_embedding",
    }
    place = np.random.RandomState(3).standard_normal((1, 1, 24)).astype(np.float32)
    tree["img/pos_embedding"] = np.concatenate([place, tree["img/pos_embedding"]], axis=1)
    tree["img/cls"] = tree["img/cls"] - place
    for new, old in older.items():
        tree = {name.replace(new, old): array for name, array in tree.items()}
    network = load(saved(tree, tmp_path / "LiT-B16B_2.npz")).network
    assert disagreeing(network, numbers, "locked") == set()


WORDS = ["[PAD]", "[UNK]", "more", "than", "one", "[CLS]", "[SEP]", "##ly"]


def test_a_sentence_is_cls_and_its_pieces_and_no_sep(tmp_path: Path):
    """The example of big_vision's own test (pp/proj/flaxformer/bert_ops_test.py), cut to 5."""
    (tmp_path / "lit.txt").write_text("\n".join(WORDS))
    loaded = load(saved(drawn("locked"), tmp_path / "lit.npz"))
    spec = replace(loaded.processor.text.spec, max_length=5, padding="max_length")
    words = type(loaded.processor.text)(loaded.processor.text.backend,
                                        loaded.processor.text.files, spec)  # fmt: skip
    batch = words(["one more", "More than ONE", "", "one one one one one one"])
    assert batch.ids.tolist() == [
        [5, 4, 2, 0, 0], [5, 2, 3, 4, 0], [5, 0, 0, 0, 0], [5, 4, 4, 4, 4],
    ]  # fmt: skip
    save_checkpoint(loaded.network, loaded.processor, loaded.config, loaded.system, tmp_path / "m")
    again = load(tmp_path / "m").processor.text(["one more", "one onely"])
    assert again.ids.tolist() == [[5, 4, 2, 0], [5, 4, 4, 7]]
    assert again.mask.tolist() == [[True, True, True, False], [True] * 4]


def test_a_vocabulary_of_another_name_yields_to_a_tokenizer(tmp_path: Path):
    (tmp_path / "lit.txt").write_text("\n".join(WORDS))
    (tmp_path / "vocab.txt").write_text("\n".join(reversed(WORDS)))
    loaded = load(saved(drawn("locked"), tmp_path / "lit.npz"))
    assert loaded.processor.text(["one"]).ids.tolist() == [[2, 3]]


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("txt/head/kernel"), r"text_head\.weight"),
    (lambda t: t.pop("img/cls"), "no class token"),
    (lambda t: t.update({"img/pre_logits/kernel": np.zeros((24, 24), np.float32)}),
     "a tanh layer over the class token"),
    (lambda t: t.update({n: a[..., :100] for n, a in t.items() if "embedders" in n}),
     "a BERT of width 100: its heads have 64 numbers each"),
    (lambda t: t.pop(f"{BERT}/embedder/embedders_position_ids/embedding"),
     "no array 'txt/BertEncoder_0/embedder/embedders_position_ids/embedding'"),
    (lambda t: [t.pop(n) for n in list(t) if "BertEncoder" in n],
     r"others are not read here, but for LiT with BERT \(txt/BertEncoder_0\)"),
])  # fmt: skip
def test_trees_that_are_no_lit_are_refused(change: Any, message: str, tmp_path: Path):
    tree = drawn("locked")
    change(tree)
    with pytest.raises(CheckpointError, match=message):
        read_contents(saved(tree, tmp_path / "lit.npz"))


# -- configs, counts, the other towers -----------------------------------------------------------


@pytest.mark.parametrize(("variant", "count"), [
    # ViT-B/16 without pooler, BERT-base without pooler, a text head of 768 x 768, the scale
    ("LiT-B16B_2", 85_798_656 + 108_891_648 + 590_592 + 1),
    ("LiT-B16B", 85_798_656 + 108_891_648 + 2 * 590_592 + 1),
    ("coco_B16B", 85_798_656 + 108_891_648 + 590_592 + 1),
    ("SigLiT-B16B", 85_798_656 + 108_891_648 + 590_592 + 2),
    # the model card says 638M
    ("LiT-L16L", 303_301_632 + 334_092_288 + 1024 * 1025 + 1),
])  # fmt: skip
def test_full_size_counts_are_those_of_the_parts(variant: str, count: int):
    with without_memory():
        network = LiT(SYSTEM.variants[variant])
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_published_sizes_start_and_prepare_as_the_release_says():
    config = SYSTEM.variants["LiT-B16B_2"]
    spec = SYSTEM.preprocessing(config)
    assert (spec.height, spec.width, spec.fit, spec.mean, spec.std) == (
        224, 224, "square", (0.5,) * 3, (0.5,) * 3,
    )  # fmt: skip
    words = SYSTEM.text(config)
    assert (words.max_length, words.end_token, words.pad_id) == (16, False, 0)
    assert (config.image.norm_eps, config.text.norm_eps) == (1e-6, 1e-12)
    assert config.image.activation == config.text.activation == "gelu_pytorch_tanh"
    scale, bias = LiT(replace(TINY, score="softmax")).pair_scale()
    assert torch.allclose(scale, torch.tensor(10.0)) and bias == 0
    assert LiT(TINY).pair_scale()[1].item() == pytest.approx(-2.71)
    assert lit.bind(config).score == "softmax" and lit.bind(TINY).score == "sigmoid"


WORDLESS = without_pooler(bert.TINY)


@pytest.mark.parametrize("config", [
    LiTConfig("resnet", resnet.TINY, "bert", WORDLESS),
    LiTConfig("clip", clip.TINY.image, "bert", WORDLESS, score="sigmoid"),
    LiTConfig("siglip", siglip.TINY.image, "bert", WORDLESS, image_head=7, max_tokens=4),
    TINY,
], ids=lambda config: config.image_system)  # fmt: skip
def test_any_tower_is_saved_and_loaded_bit_for_bit(config: LiTConfig, tmp_path: Path):
    network = randomise(LiT(config)).eval()
    processor = Processor(image_processor(SYSTEM.preprocessing(config)), None)
    save_checkpoint(network, processor, config, SYSTEM, tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.config == config
    assert all(torch.equal(again.network.state_dict()[n], t)
               for n, t in network.state_dict().items())  # fmt: skip
    assert network.encode_images(torch.rand(1, 3, 48, 48) if config.image_system == "resnet" else
                                 torch.rand(1, 3, *config.image.image_size)).shape == (
        1, config.embedding_width)  # fmt: skip


def test_what_transformers_makes_of_such_a_folder(tmp_path: Path):
    """It refuses the name; forced, it finds the towers, draws the rest, and leaves biases out."""
    transformers = pytest.importorskip("transformers")
    config = replace(TINY, image_head=0)
    network = randomise(LiT(config)).eval()
    processor = Processor(image_processor(SYSTEM.preprocessing(config)), None)
    save_checkpoint(network, processor, config, SYSTEM, tmp_path / "m")
    with pytest.raises((ValueError, KeyError), match="lit"):
        transformers.AutoConfig.from_pretrained(tmp_path / "m")
    kind = transformers.VisionTextDualEncoderModel
    file = tmp_path / "m" / "config.json"
    published = json.loads(file.read_text())
    published |= {"model_type": "vision-text-dual-encoder", "projection_dim": 24}
    file.write_text(json.dumps(published))
    theirs, found = kind.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert set(found["missing_keys"]) == {
        "visual_projection.weight", "vision_model.pooler.dense.weight",
        "vision_model.pooler.dense.bias", "text_model.pooler.dense.weight",
        "text_model.pooler.dense.bias",
    }  # fmt: skip
    assert set(found["unexpected_keys"]) == {"text_projection.bias", "logit_bias"}
    pixels = torch.rand(2, 3, *config.image.image_size)
    state = theirs.eval().vision_model(pixels).last_hidden_state[:, 0]
    assert agree(network.image(pixels).pooled, state)


@pytest.mark.parametrize(("change", "message"), [
    ({"score": "hinge"}, "unknown score 'hinge': known are sigmoid, softmax"),
    ({"max_tokens": 1}, r"max_tokens 1 and image_head 18: a sentence has \[CLS\] and at least"),
    ({"image_head": -1}, "a width is not negative"),
    ({"text": bert.TINY}, "the text tower has pooling 'pooler', expected 'cls'"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)


def test_a_tower_without_a_pooler_is_bare():
    assert without_pooler(vit.TINY) == replace(vit.TINY, pooler=False)
    assert without_pooler(resnet.TINY) == resnet.TINY
    assert WORDLESS.pooling == "cls" and not WORDLESS.pooler


# -- mistakes that the comparison must notice ------------------------------------------------------


def erf_gelu(network, monkeypatch):
    for block in [*network.image.transformer.blocks, *network.text.transformer.blocks]:
        monkeypatch.setattr(block.mlp, "activation", nn.functional.gelu)


def head_without_bias(network, monkeypatch):
    nn.init.zeros_(network.text_head.bias)


def patches_averaged(network, monkeypatch):
    towers = network.image.forward

    def mean(pixels):
        found = towers(pixels)
        return found._replace(pooled=found.tokens[:, 1:].mean(dim=1))

    monkeypatch.setattr(network.image, "forward", mean)


def other_epsilon(network, monkeypatch):
    network.text.norm_in.eps = 1e-2


def unnormalised(network, monkeypatch):
    monkeypatch.setattr(lit, "unit_length", lambda x: x)


def mask_forgotten(network, monkeypatch):
    monkeypatch.setattr(network, "pad_id", -1)


def eight_numbers_a_head(network, monkeypatch):
    for block in network.text.transformer.blocks:
        block.attention.num_heads = block.attention.kv_heads = 16


@pytest.mark.parametrize("mistake", [
    erf_gelu, head_without_bias, patches_averaged, other_epsilon, unnormalised, mask_forgotten,
    eight_numbers_a_head,
], ids=lambda mistake: mistake.__name__)  # fmt: skip
def test_the_comparison_notices(mistake, numbers, tmp_path, monkeypatch):
    network = load(saved(drawn("sigmoid"), tmp_path / "lit.npz")).network
    assert disagreeing(network, numbers, "sigmoid") == set()
    mistake(network, monkeypatch)
    assert disagreeing(network, numbers, "sigmoid")


def test_padding_is_hidden_from_scores_as_from_vectors():
    network = randomise(LiT(TINY)).eval()
    ids = torch.randint(3, 90, (3, 8), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(8) < torch.tensor([8, 3, 5])[:, None]
    scores = network(torch.rand(2, 3, *TINY.image.image_size), ids, mask)
    assert torch.allclose(scores.text_embeddings, network.encode_texts(ids, mask), atol=1e-6)
    assert not torch.allclose(scores.text_embeddings, network.encode_texts(ids), atol=1e-3)
