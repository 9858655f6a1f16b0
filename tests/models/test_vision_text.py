"""Two towers joined, beside transformers: every image tower with BERT, and the mistakes planted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError
from sightline.core.interfaces import DualEncoder, System
from sightline.models import bert, clip, resnet, siglip, vision_text, vit
from sightline.models.towers import image_tower, text_tower, trunk
from sightline.models.vision_text import (
    SYSTEM,
    TINY,
    VisionText,
    VisionTextConfig,
    read_config,
    write_config,
)
from sightline.nn.linear import Linear
from sightline.nn.meta import without_memory
from tests.models.test_bert import SHAPE, sentences
from tests.models.test_bert import randomise as randomised_parameters
from tests.models.test_parity import VISION, agree

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

RESNET = {"embedding_size": 6, "hidden_sizes": [16, 24, 40], "depths": [2, 1, 2]}


def randomise(network: nn.Module) -> nn.Module:
    """Parameters as for BERT alone, and running statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(8)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            noise = torch.randn(buffer.shape, generator=generator)
            buffer.copy_(noise.abs() + 0.5 if name.endswith("var") else 0.3 * noise)
    return randomised_parameters(network)


class FlatPooler(nn.Module):
    """ResNet's pooled map as a vector, which the joint class needs and does not make."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.config = network, network.config

    def forward(self, pixel_values: Tensor, **options: object) -> tuple[Tensor, Tensor]:
        out = self.network(pixel_values=pixel_values)
        return out.last_hidden_state, out.pooler_output.flatten(1)


class RawCLS(nn.Module):
    """BERT whose pooled output is the first hidden state, as the printed program takes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.config = network, network.config

    def forward(self, **inputs: object) -> tuple[Tensor, Tensor]:
        tokens = self.network(**inputs).last_hidden_state
        return tokens, tokens[:, 0]


def joined(kind: str) -> nn.Module:
    """A small VisionTextDualEncoderModel with that image tower."""
    vision = {
        "vit": lambda: transformers.ViTConfig(**{**VISION, "image_size": (24, 40)}),
        "clip": lambda: transformers.CLIPVisionConfig(**VISION),
        "siglip": lambda: transformers.SiglipVisionConfig(**VISION),
        "resnet": lambda: transformers.ResNetConfig(**RESNET),
    }[kind]()
    if kind == "resnet":
        vision.hidden_size = 40  # the joint class asks for it, ResNet's configuration lacks it
    words = transformers.BertConfig(**SHAPE)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, words, projection_dim=16
    )
    return randomise(transformers.VisionTextDualEncoderModel(config))


def load_ours(folder: Path, **changes: object) -> tuple[System, VisionText]:
    config = read_config(json.loads((folder / "config.json").read_text()))
    config = replace(config, **changes)
    bound = SYSTEM.for_config(config)
    ours = VisionText(config)
    ours.load_state_dict(bound.read_state(load_file(folder / "model.safetensors")), strict=True)
    assert isinstance(ours, DualEncoder)
    return bound, ours.eval()


@pytest.fixture(params=["vit", "clip", "siglip", "resnet"])
def both(request, tmp_path):
    """(reference, ours, our system bound to its towers, folder the reference wrote)."""
    theirs = joined(request.param)
    theirs.save_pretrained(tmp_path)
    bound, ours = load_ours(tmp_path)
    if request.param == "resnet":
        theirs.vision_model = FlatPooler(theirs.vision_model)
    return theirs, ours, bound, tmp_path


@pytest.fixture
def vit_bert(tmp_path) -> tuple[nn.Module, VisionText]:
    theirs = joined("vit")
    theirs.save_pretrained(tmp_path)
    return theirs, load_ours(tmp_path)[1]


def pixels(theirs: nn.Module) -> Tensor:
    config = theirs.config.vision_config
    size = (40, 56) if config.model_type == "resnet" else config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(5))


def outputs(theirs: nn.Module) -> dict[str, Tensor]:
    ids, mask, _ = sentences()
    out = theirs(input_ids=ids, attention_mask=mask.long(), pixel_values=pixels(theirs))
    return {"image": out.image_embeds, "text": out.text_embeds, "logits": out.logits_per_image}


def our_outputs(ours: VisionText, theirs: nn.Module) -> dict[str, Tensor]:
    ids, mask, _ = sentences()
    out = ours(pixels(theirs), ids, mask)
    return {"image": out.image_embeddings, "text": out.text_embeddings, "logits": out.logits}


def disagreeing(theirs: nn.Module, ours: VisionText) -> set[str]:
    expected, got = outputs(theirs), our_outputs(ours, theirs)
    return {name for name in expected if not agree(got[name], expected[name])}


def test_outputs_agree(both):
    theirs, ours, _, _ = both
    assert disagreeing(theirs, ours) == set()


def test_gradients_agree_and_reach_both_towers(both):
    theirs, ours, bound, _ = both
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(9))
    (outputs(theirs)["logits"] * weight).sum().backward()
    (our_outputs(ours, theirs)["logits"] * weight).sum().backward()
    silent = {name for name, p in ours.named_parameters() if p.grad is None}
    assert silent == set()
    mine = torch.cat([p.grad.flatten() for p in ours.parameters()]).sort().values
    grads = [p.grad.flatten() for p in theirs.parameters() if p.grad is not None]
    assert agree(mine, torch.cat(grads).sort().values)
    written = bound.write_state({name: p.grad for name, p in ours.named_parameters()})
    for name, parameter in theirs.named_parameters():
        if name.startswith(("text_model", "text_projection", "visual_projection", "logit")):
            assert agree(written[name], parameter.grad), name


def test_files_are_the_same_both_ways(both, tmp_path):
    """What is written here is bit for bit theirs, and loads there with no missing key."""
    theirs, ours, bound, folder = both
    config = read_config(json.loads((folder / "config.json").read_text()))
    out = tmp_path / "ours"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(write_config(config)))
    written = {k: v.contiguous() for k, v in bound.write_state(ours.state_dict()).items()}
    published = load_file(folder / "model.safetensors")
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)
    save_file(written, out / "model.safetensors", metadata={"format": "pt"})
    kind = transformers.VisionTextDualEncoderModel
    back, info = kind.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    if config.image_system == "resnet":
        back.vision_model = FlatPooler(back.vision_model)
    expected, got = outputs(theirs), outputs(back.eval())
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_the_reference_cannot_run_resnet_with_bert_as_it_is():
    """The docs say so; when this fails, they are out of date."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        outputs(joined("resnet"))


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_raw_cls_agrees_with_the_printed_way_of_pooling(kind, tmp_path):
    theirs = joined(kind)
    theirs.save_pretrained(tmp_path)
    config = read_config(json.loads((tmp_path / "config.json").read_text()))
    _, ours = load_ours(tmp_path, text=replace(config.text, pooling="cls"))
    if kind == "resnet":
        theirs.vision_model = FlatPooler(theirs.vision_model)
    assert disagreeing(theirs, ours) == {"text", "logits"}
    theirs.text_model = RawCLS(theirs.text_model)
    assert disagreeing(theirs, ours) == set()


def test_the_trunks_own_vector_is_the_class_token(vit_bert, tmp_path):
    theirs, _ = vit_bert
    _, ours = load_ours(tmp_path, image_pooling="trunk")
    state = theirs.vision_model(pixels(theirs)).last_hidden_state[:, 0]
    assert agree(ours.image_vectors(pixels(theirs)), state)
    expected = torch.nn.functional.normalize(theirs.visual_projection(state), dim=-1)
    assert agree(ours.encode_images(pixels(theirs)), expected)


def test_settings_that_only_we_have_survive_the_file():
    for config in (
        replace(TINY, image_pooling="trunk"),
        replace(TINY, text=replace(TINY.text, pooling="cls")),
        VisionTextConfig("resnet", resnet.TINY, "bert", bert.TINY),
        VisionTextConfig("clip", clip.TINY.image, "bert", bert.TINY),
        VisionTextConfig("siglip", siglip.TINY.image, "bert", bert.TINY),
    ):
        assert read_config(json.loads(json.dumps(write_config(config)))) == config
    assert TINY.text_pooling == "pooler"


def test_what_the_towers_were_cut_from_does_not_matter(tmp_path):
    """Nested `architectures` name the class of the source; the joint class builds whole trunks."""
    joined("vit").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["vision_config"]["architectures"] = ["ViTForImageClassification"]
    config["text_config"]["architectures"] = ["BertForMaskedLM"]
    file.write_text(json.dumps(config))
    assert load_ours(tmp_path)[1].image.pooler is not None


def test_files_of_early_writers_are_read(tmp_path):
    """CLIP's half below a level of its own, its config whole, and ranges stored as buffers."""
    theirs = joined("clip")
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    old = {k.replace("vision_model.", "vision_model.vision_model."): v for k, v in state.items()}
    old["vision_model.vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    old["text_model.embeddings.position_ids"] = torch.arange(11)[None]
    save_file(old, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    nested = {"model_type": "clip", "vision_config": config["vision_config"]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "vision_config": nested}))
    assert disagreeing(theirs, load_ours(tmp_path)[1]) == set()


def test_padding_changes_no_text_where_it_is_masked(vit_bert):
    _, ours = vit_bert
    ids, mask, _ = sentences()
    together = ours.encode_texts(ids, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = ours.encode_texts(ids[row : row + 1, :length], mask[row : row + 1, :length])
        assert agree(alone[0], together[row])


def test_without_a_mask_padding_is_told_by_its_id(vit_bert):
    _, ours = vit_bert
    ids, mask, _ = sentences()
    padded = torch.where(mask, ids, 0)
    assert torch.equal(ours.encode_texts(padded), ours.encode_texts(ids, mask))


def test_a_frozen_tower_keeps_its_weights_and_the_rest_learns(vit_bert):
    theirs, ours = vit_bert
    ours.image.requires_grad_(False)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad], lr=0.1)
    our_outputs(ours, theirs)["logits"].square().sum().backward()
    optimiser.step()
    changed = {name for name, value in ours.state_dict().items()
               if not torch.equal(value, before[name])}  # fmt: skip
    assert not any(name.startswith("image.") for name in changed)
    assert {"image_projection.weight", "text_projection.weight", "logit_scale"} <= changed
    assert any(name.startswith("text.transformer") for name in changed)


@pytest.mark.parametrize("variant", ["vit-B/16+bert-base", "resnet-50+bert-base"])
def test_full_size_counts_are_those_of_the_parts(variant):
    config = SYSTEM.variants[variant]
    with without_memory():
        network = VisionText(config)
    count = {"vit": 86_389_248, "resnet": 23_508_032}[config.image_system] + 109_482_240
    count += 512 * (config.image.width + 768) + 1
    assert sum(p.numel() for p in network.parameters()) == count


def test_default_inputs_are_those_of_the_towers():
    config = SYSTEM.variants["resnet-50+bert-base"]
    assert SYSTEM.preprocessing(config) == resnet.preprocessing(config.image)
    assert SYSTEM.text(config) == bert.text(config.text)
    whole = clip.VARIANTS["B/32"]
    half = VisionTextConfig("clip", whole.image, "bert", bert.TINY)
    assert SYSTEM.preprocessing(half) == clip.preprocessing(whole)


def test_a_trunk_leaves_the_heads_of_its_checkpoint_behind():
    labelled = replace(resnet.TINY, labels=("cat", "dog"))
    assert trunk(image_tower("resnet"), labelled) == resnet.TINY
    assert trunk(image_tower("vit"), replace(vit.TINY, pooler=False)) == vit.TINY
    assert trunk(text_tower("bert"), bert.TINY) == bert.TINY


@pytest.mark.parametrize(("call", "message"), [
    (lambda: image_tower("bert"), "unknown image tower 'bert': known are .*clip.*resnet"),
    (lambda: image_tower("resnt"), "unknown image tower 'resnt': did you mean .*'resnet'"),
    (lambda: text_tower("vit"), "unknown text tower 'vit': known are bert"),
    (lambda: replace(TINY, image_pooling="mean"), "unknown image pooling 'mean'"),
    (lambda: SYSTEM.read_state({}), "depend on the towers: ask System.for_config"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(("part", "kind", "message"), [
    ("vision_config", "deit", r"vision_config: unknown model_type 'deit': did you mean .*'vit'"),
    ("text_config", "roberta", r"text_config: unknown model_type 'roberta': did you mean 'bert'"),
    ("text_config", 7, "'model_type' is 7"),
])  # fmt: skip
def test_towers_that_are_not_read_here_are_named(part, kind, message):
    config = write_config(TINY)
    config[part]["model_type"] = kind
    with pytest.raises(CheckpointError, match=message):
        read_config(config)


def raw_cls(ours, monkeypatch):
    ours.text.pooling = "cls"


def raw_class_token(ours, monkeypatch):
    ours.image_pooling = "trunk"


def unnormalised(ours, monkeypatch):
    monkeypatch.setattr(vision_text, "unit_length", lambda x: x)


def scale_not_exponentiated(ours, monkeypatch):
    monkeypatch.setattr(ours, "pair_scale", lambda: (ours.logit_scale, torch.zeros(())))


def projections_with_bias(ours, monkeypatch):
    for projection in (ours.image_projection, ours.text_projection):
        projection.bias = nn.Parameter(torch.full((16,), 0.1))


def mask_forgotten(ours, monkeypatch):
    towers = ours.text.forward
    monkeypatch.setattr(ours.text, "forward", lambda ids, mask: towers(ids, mask | True))


@pytest.mark.parametrize("mistake", [
    raw_cls, raw_class_token, unnormalised, scale_not_exponentiated, projections_with_bias,
    mask_forgotten,
], ids=lambda mistake: mistake.__name__)  # fmt: skip
def test_the_comparison_notices(vit_bert, mistake, monkeypatch):
    theirs, ours = vit_bert
    assert isinstance(ours.image_projection, Linear)
    assert disagreeing(theirs, ours) == set()
    mistake(ours, monkeypatch)
    assert disagreeing(theirs, ours)
