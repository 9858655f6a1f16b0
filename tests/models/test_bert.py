"""BERT beside transformers: outputs, states, gradients, files of every era, planted mistakes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError, InputError
from sightline.core.interfaces import TextEncoder
from sightline.models import bert
from sightline.models.bert import BERT, SYSTEM, TINY, BERTConfig, read_config, read_state
from sightline.nn.attention import Attention
from sightline.nn.blocks import Block
from sightline.nn.meta import without_memory
from sightline.nn.mlp import MLP, gelu_tanh
from tests.models.test_parity import agree, load_ours

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

SHAPE = {
    "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 20, "intermediate_size": 36,
    "vocab_size": 99, "max_position_embeddings": 11, "type_vocab_size": 3,
}  # fmt: skip


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter anew; norms around 1, whatever their names look like."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        spread = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
        parameter.data = centre + spread * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def reference(**fields: object) -> nn.Module:
    return randomise(transformers.BertModel(transformers.BertConfig(**{**SHAPE, **fields})))


@pytest.fixture
def both(tmp_path: Path) -> tuple[nn.Module, BERT]:
    theirs = reference()
    theirs.save_pretrained(tmp_path)
    ours = load_ours("bert", tmp_path)
    assert isinstance(ours, BERT) and isinstance(ours, TextEncoder)
    return theirs, ours


def sentences() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and segments of four sentences of unequal length, ids in the padding too."""
    generator = torch.Generator().manual_seed(6)
    ids = torch.randint(1, 99, (4, 10), generator=generator)
    mask = torch.arange(10) < torch.tensor([[10], [3], [7], [1]])
    segments = torch.randint(0, 3, (4, 10), generator=generator)
    return ids, mask, segments


def outputs(theirs: nn.Module) -> dict[str, Tensor]:
    ids, mask, segments = sentences()
    full = theirs(ids, attention_mask=mask.long())
    pairs = theirs(ids, attention_mask=mask.long(), token_type_ids=segments)
    return {
        "tokens": full.last_hidden_state, "pooled": full.pooler_output,
        "tokens of pairs": pairs.last_hidden_state, "pooled of pairs": pairs.pooler_output,
    }  # fmt: skip


def our_outputs(ours: nn.Module) -> dict[str, Tensor]:
    ids, mask, segments = sentences()
    full, pairs = ours(ids, mask), ours(ids, mask, segments)
    return {
        "tokens": full.tokens, "pooled": full.pooled,
        "tokens of pairs": pairs.tokens, "pooled of pairs": pairs.pooled,
    }  # fmt: skip


def disagreeing(theirs: nn.Module, ours: nn.Module) -> set[str]:
    expected, got = outputs(theirs), our_outputs(ours)
    return {name for name in expected if not agree(got[name], expected[name])}


def test_outputs_agree(both):
    assert disagreeing(*both) == set()


def test_every_intermediate_state_agrees(both):
    theirs, ours = both
    got: list[Tensor] = []
    for module in ours.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda m, i, o: got.append(o))
    ours.norm_in.register_forward_hook(lambda m, i, o: got.append(o))
    ids, mask, segments = sentences()
    expected = theirs(ids, mask.long(), segments, output_hidden_states=True).hidden_states
    ours(ids, mask, segments)
    assert len(got) == len(expected) == 4
    assert all(agree(a, b) for a, b in zip(got, expected, strict=True))


def test_gradients_agree(both):
    theirs, ours = both
    generator = torch.Generator().manual_seed(9)
    weights = {name: torch.randn(value.shape, generator=generator)
               for name, value in outputs(theirs).items()}  # fmt: skip
    for values in (outputs(theirs), our_outputs(ours)):
        sum((values[name] * weight).sum() for name, weight in weights.items()).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    got = SYSTEM.write_state({name: p.grad for name, p in ours.named_parameters()})
    assert got.keys() == expected.keys()
    assert [name for name in expected if not agree(got[name], expected[name])] == []


def test_dropout_falls_where_the_reference_has_it(both):
    """Same generator, same order of draws: training mode agrees too, attention weights aside."""
    theirs, ours = both
    ids, mask, _ = sentences()
    for network in (theirs, ours):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.5
            if isinstance(module, (Block, BERT)):
                module.dropout = 0.5
            if isinstance(module, Attention):
                module.dropout = 0.0
        for module in network.modules():
            if type(module).__name__ == "BertSelfAttention":
                module.dropout.p = 0.0
    torch.manual_seed(3)
    expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
    torch.manual_seed(3)
    assert agree(ours(ids, mask).tokens, expected)


def test_what_is_saved_here_loads_there_with_no_missing_key(both, tmp_path):
    theirs, ours = both
    out = tmp_path / "ours"
    out.mkdir()
    config = read_config(json.loads((tmp_path / "config.json").read_text()))
    (out / "config.json").write_text(json.dumps(SYSTEM.write_config(config)))
    written = SYSTEM.write_state(ours.state_dict())
    published = load_file(tmp_path / "model.safetensors")
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
    back, info = transformers.BertModel.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, got = outputs(theirs), outputs(back.eval())
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForMaskedLM",
                                  "BertForSequenceClassification"])  # fmt: skip
def test_files_of_classes_with_heads_give_their_encoder(kind, tmp_path):
    theirs = randomise(getattr(transformers, kind)(transformers.BertConfig(**SHAPE)))
    theirs.save_pretrained(tmp_path)
    published = load_file(tmp_path / "model.safetensors")
    config = read_config(json.loads((tmp_path / "config.json").read_text()))
    config = bert.match_config(config, published)
    assert config.pooler is ("pooler" in dict(theirs.bert.named_children()) and
                             theirs.bert.pooler is not None)  # fmt: skip
    ours = BERT(config).eval()
    ours.load_state_dict(read_state(published), strict=True)
    ids, mask, _ = sentences()
    expected, got = theirs.bert(ids, attention_mask=mask.long()), ours(ids, mask)
    assert agree(got.tokens, expected.last_hidden_state)
    first = expected.pooler_output if config.pooler else expected.last_hidden_state[:, 0]
    assert agree(got.pooled, first)


def test_names_of_files_converted_from_tensorflow_are_read(both):
    """gamma and beta, a `bert.` level, heads, and ranges that old writers stored."""
    theirs, ours = both
    old = {}
    for name, tensor in theirs.state_dict().items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old["bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    old |= {"bert.embeddings.position_ids": torch.arange(11)[None],
            "cls.predictions.bias": torch.zeros(99),
            "cls.predictions.transform.LayerNorm.gamma": torch.zeros(20),
            "cls.seq_relationship.weight": torch.zeros(2, 20)}  # fmt: skip
    own = read_state(old)
    assert own.keys() == ours.state_dict().keys()
    assert all(torch.equal(own[name], value) for name, value in ours.state_dict().items())


def test_an_unknown_name_is_passed_on_for_the_loader_to_report():
    assert "decoder.weight" in read_state({"decoder.weight": torch.zeros(1)})


def test_raw_cls_is_the_first_state_and_keeps_the_pooler(both):
    theirs, ours = both
    raw = BERT(replace(TINY, pooling="cls")).eval()
    raw.load_state_dict(ours.state_dict(), strict=True)
    ids, mask, _ = sentences()
    assert agree(raw(ids, mask).pooled, theirs(ids, mask.long()).last_hidden_state[:, 0])
    config = replace(TINY, pooling="cls")
    assert read_config(SYSTEM.write_config(config)) == config
    without = replace(config, pooler=False)
    assert read_config(SYSTEM.write_config(without)) == without
    assert bert.match_config(without, {}) == without


def test_a_text_alone_and_beside_longer_ones_is_the_same(both):
    ids, mask, _ = sentences()
    ours = both[1]
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = ours(ids[row : row + 1, :length], mask[row : row + 1, :length])
        assert agree(ours(ids, mask).pooled[row], alone.pooled[0])


def test_the_mask_is_asked_for(both):
    with pytest.raises(TypeError, match="mask"):
        both[1](sentences()[0])


def test_a_mask_without_any_text_gives_numbers(both):
    ids, mask, _ = sentences()
    assert both[1](ids, torch.zeros_like(mask)).tokens.isfinite().all()


@pytest.mark.parametrize(
    ("variant", "count"),
    [("base-uncased", 109_482_240), ("large-uncased", 335_141_888), ("base-cased", 108_310_272)],
)
def test_full_size_parameter_counts(variant, count):
    with without_memory():
        network = BERT(SYSTEM.variants[variant])
        theirs = transformers.BertModel(transformers.BertConfig(
            **{name: value for name, value in SYSTEM.write_config(SYSTEM.variants[variant]).items()
               if name not in ("architectures", "model_type")}))  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == count
    assert sum(p.numel() for p in theirs.parameters()) == count


@pytest.mark.parametrize(("fields", "message"), [
    ({"is_decoder": True}, "a BERT that decodes"),
    ({"add_cross_attention": True}, "a BERT that decodes"),
    ({"position_embedding_type": "relative_key"}, "'position_embedding_type' is 'relative_key'"),
    ({"vocab_size": "many"}, "'vocab_size' is 'many'"),
    ({"type_vocab_size": -1}, "'type_vocab_size' is -1"),
])  # fmt: skip
def test_configurations_of_other_networks_are_refused(fields, message):
    with pytest.raises(CheckpointError, match=message):
        read_config({"model_type": "bert", **fields})


def test_pooling_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="unknown pooling 'mean'"):
        read_config({"pooling": "mean"})
    with pytest.raises(ConfigError, match="'pooler' in a network without a pooler: use 'cls'"):
        BERTConfig(8, 1, 1, 8, pooler=False)


def test_a_text_longer_than_the_positions_is_refused(both):
    with pytest.raises(InputError, match="a text of 12 tokens: this network has positions for 11"):
        both[1](torch.ones(1, 12, dtype=torch.int64), torch.ones(1, 12, dtype=torch.bool))


def pre_norm(ours, monkeypatch):
    for block in ours.transformer.blocks:
        block.post_norm = False


def tanh_gelu(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, MLP):
            module.activation = gelu_tanh


def wrong_epsilon(ours, monkeypatch):
    for module in ours.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3


def no_mask(ours, monkeypatch):
    monkeypatch.setattr(bert, "present_keys", lambda mask: None)


def masked_queries(ours, monkeypatch):
    """The mask over rows instead of columns."""
    monkeypatch.setattr(bert, "present_keys", lambda mask: mask[:, None, :, None])


def pooler_without_tanh(ours, monkeypatch):
    monkeypatch.setattr(ours, "pooler_output", lambda first: ours.pooler(first))


def pooled_raw(ours, monkeypatch):
    ours.pooling = "cls"


def no_first_norm(ours, monkeypatch):
    ours.norm_in = nn.Identity()


def positions_of_roberta(ours, monkeypatch):
    """Counted from the padding id + 1, as its successor does."""
    ours.positions.data = ours.positions.data.roll(-1, dims=0)


def no_segments(ours, monkeypatch):
    monkeypatch.setattr(ours, "segments", nn.Embedding(3, 20))
    nn.init.zeros_(ours.segments.weight)


def second_segment(ours, monkeypatch):
    ours.segments.weight.data = ours.segments.weight.data.roll(1, dims=0)


@pytest.mark.parametrize("mistake", [
    pre_norm, tanh_gelu, wrong_epsilon, no_mask, masked_queries, pooler_without_tanh, pooled_raw,
    no_first_norm, positions_of_roberta, no_segments, second_segment,
], ids=lambda mistake: mistake.__name__)  # fmt: skip
def test_the_comparison_notices(both, mistake, monkeypatch):
    theirs, ours = both
    assert disagreeing(theirs, ours) == set()
    mistake(ours, monkeypatch)
    assert disagreeing(theirs, ours)


def test_activations_of_the_two_gelus_differ_enough_to_be_told_apart():
    x = torch.linspace(-4, 4, 99)
    assert not torch.allclose(gelu_tanh(x), F.gelu(x), atol=1e-5)
