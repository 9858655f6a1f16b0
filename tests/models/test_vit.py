"""ViT's classification layer against transformers, and the heads that files have or lack."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline.core.errors import CheckpointError
from sightline.hub.load import load_checkpoint
from sightline.hub.save import save_checkpoint
from sightline.inputs.preprocessing import ImageProcessor
from sightline.inputs.processors import Processor
from sightline.models import vit
from sightline.models.vit import SYSTEM, VARIANTS
from sightline.nn.meta import without_memory
from tests.models.test_parity import VISION, agree, randomise

transformers = pytest.importorskip("transformers")

LABELS = ("tench", "goldfish", "crane", "crane", "great white shark")
"""One name twice, as in ImageNet."""


@pytest.fixture
def both(tmp_path):
    config = transformers.ViTConfig(
        **{**VISION, "image_size": (24, 40)}, id2label=dict(enumerate(LABELS))
    )
    reference = randomise(transformers.ViTForImageClassification(config))
    reference.save_pretrained(tmp_path / "theirs")
    return reference, load_checkpoint(tmp_path / "theirs", device="cpu", dtype="float32")


def pixels():
    return torch.randn(3, 3, 24, 40, generator=torch.Generator().manual_seed(5))


def logits(network):
    return network.class_logits(network(pixels()).pooled)


def test_logits_and_labels_are_the_reference_s(both):
    reference, loaded = both
    assert loaded.config.labels == LABELS and not loaded.config.pooler
    assert agree(logits(loaded.network), reference(pixels()).logits)


def test_gradients_agree(both):
    reference, loaded = both
    weights = torch.randn(3, len(LABELS), generator=torch.Generator().manual_seed(9))
    network = loaded.network.requires_grad_(True)
    (reference(pixels()).logits * weights).sum().backward()
    (logits(network) * weights).sum().backward()
    mine = {name: p.grad for name, p in network.named_parameters()}
    for own, theirs in (("weight", "weight"), ("bias", "bias")):
        assert agree(mine[f"classifier.{own}"], getattr(reference.classifier, theirs).grad)
    # transformers renames ViT's parameters in memory: the rest is compared by value
    all_mine = torch.cat([g.flatten() for g in mine.values()]).sort().values
    theirs = [p.grad.flatten() for p in reference.parameters()]
    assert agree(all_mine, torch.cat(theirs).sort().values)


def test_what_is_saved_here_loads_there_with_its_labels(both, tmp_path):
    reference, loaded = both
    processor = Processor(ImageProcessor(SYSTEM.preprocessing(loaded.config)), None)
    save_checkpoint(loaded.network, processor, loaded.config, SYSTEM, tmp_path / "ours")
    theirs, written = (load_file(tmp_path / w / "model.safetensors") for w in ("theirs", "ours"))
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[name], theirs[name]) for name in theirs)
    back, found = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(found[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(back.eval()(pixels()).logits, reference(pixels()).logits)
    assert back.config.id2label == reference.config.id2label
    assert back.config.label2id == {name: n for n, name in enumerate(LABELS)}


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
@pytest.mark.parametrize("pooler", [True, False])
def test_the_tensors_decide_which_heads_there_are(pooler, kind, tmp_path):
    """Trunks are published under either class, with and without the tanh layer."""
    config = transformers.ViTConfig(**VISION)
    randomise(transformers.ViTModel(config, add_pooling_layer=pooler)).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": [kind]}))
    loaded = load_checkpoint(tmp_path, device="cpu", dtype="float32")
    assert (loaded.config.pooler, loaded.config.labels) == (pooler, ())
    assert loaded.network.classifier is None
    save_checkpoint(loaded.network, None, loaded.config, SYSTEM, tmp_path / "ours")
    _, found = transformers.ViTModel.from_pretrained(
        tmp_path / "ours", add_pooling_layer=pooler, output_loading_info=True
    )
    assert not any(found[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_layer_under_the_trunk_s_name_is_kept_with_numbered_labels(both, tmp_path):
    file = tmp_path / "theirs/config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "architectures": ["ViTModel"]}))
    loaded = load_checkpoint(tmp_path / "theirs", device="cpu", dtype="float32")
    assert loaded.config.labels == tuple(f"LABEL_{n}" for n in range(5))


def test_labels_that_do_not_fit_the_layer_are_named(both, tmp_path):
    state = load_file(tmp_path / "theirs/model.safetensors")
    state["classifier.bias"] = torch.zeros(4)
    save_file(state, tmp_path / "theirs/model.safetensors")
    with pytest.raises(CheckpointError, match=r"classifier.bias: float32\[4\] in the file"):
        load_checkpoint(tmp_path / "theirs", device="cpu", dtype="float32")


def test_labels_that_are_not_numbered_are_refused():
    config = {"architectures": ["ViTForImageClassification"], "id2label": {"1": "a", "2": "b"}}
    with pytest.raises(CheckpointError, match="'id2label' does not number its 2 labels from 0 on"):
        SYSTEM.read_config(config)


@pytest.mark.parametrize(("name", "count"), [("B/16", 86_567_656), ("L/16", 304_326_632)])
def test_full_size_parameter_counts_with_1000_labels(name, count):
    config = replace(VARIANTS[name], pooler=False, labels=tuple(map(str, range(1000))))
    with without_memory():
        ours = SYSTEM.build(config)
    assert sum(p.numel() for p in ours.parameters()) == count


# --- Known mistakes.


def tanh_in_front(network, monkeypatch):
    own = vit.ViT.class_logits
    monkeypatch.setattr(vit.ViT, "class_logits", lambda self, pooled: own(self, pooled.tanh()))


def mean_of_the_patches(network, monkeypatch):
    def forward(self, x, own=vit.ViT.forward):
        encoded = own(self, x)
        return encoded._replace(pooled=encoded.tokens[:, 1:].mean(dim=1))

    monkeypatch.setattr(vit.ViT, "forward", forward)


def coarse_epsilon(network, monkeypatch):
    network.norm.eps = 1e-3


def rows_in_another_order(network, monkeypatch):
    network.classifier.weight.data = network.classifier.weight.data.flip(0)


@pytest.mark.parametrize(
    "mistake",
    [tanh_in_front, mean_of_the_patches, coarse_epsilon, rows_in_another_order],
    ids=lambda mistake: mistake.__name__,
)
def test_the_comparison_notices(mistake, both, monkeypatch):
    reference, loaded = both
    mistake(loaded.network, monkeypatch)
    assert not agree(logits(loaded.network), reference(pixels()).logits)
