"""Runs of the classifier: small ones for seconds, handwriting, and what can start from a tower."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from sightline.core.errors import ConfigError, DataError
from sightline.data.digits import write_digits
from sightline.recipes.classifier import (
    ClassifierRecipe,
    classification_loss,
    start_classifier,
    train_classifier,
)
from sightline.recipes.dual_encoder import DualEncoderRecipe
from sightline.recipes.run import train_dual_encoder
from sightline.recipes.splits import splits
from sightline.recipes.table import find_recipe
from sightline.recipes.towers import start_from
from tests.hub.tiny import tiny_folder

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 220)}
SMALL = ClassifierRecipe(
    image_size=16, patch_size=8, width=16, depth=1, num_heads=2, batch_size=9, steps=12,
    eval_every=12, lr=5e-3, workers=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> str:
    """Noisy squares of one colour: twelve of each, a folder per class."""
    root = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(12):
            noise = generator.normal(0, 12, (16, 16, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}-{number}.png")
    return str(root)


@pytest.fixture(scope="module", params=["vit", "resnet"])
def run(request, squares, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / request.param
    return train_classifier(replace(SMALL, tower=request.param, data=squares), out)


def test_a_run_leaves_a_classifier_that_loads_and_answers(run):
    assert run.summary.steps == 12
    assert set(run.after) == {"top1"}  # three labels have no top-5
    model = sightline.load(run.model, device="cpu", dtype="float32")
    assert model.config.labels == ("blue", "green", "red")
    assert model.tasks == ("embed", "classify", "explain")
    answers = model.classify([np.full((16, 16, 3), c, np.uint8) for c in COLOURS.values()])
    assert [answer[0].label for answer in answers] == list(COLOURS)
    page = run.report.read_text()
    assert "Before and after" in page and "Answers" in page and "true: red" in page
    assert "--labels" not in page


def test_transformers_loads_what_was_trained(run):
    transformers = pytest.importorskip("transformers")
    model = sightline.load(run.model, device="cpu", dtype="float32")
    kind = json.loads((run.model / "config.json").read_text())["architectures"][0]
    back, found = getattr(transformers, kind).from_pretrained(run.model, output_loading_info=True)
    assert not any(found[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert back.config.id2label == {0: "blue", 1: "green", 2: "red"}
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ours = model.network.class_logits(model.network(pixels).pooled)
    assert torch.allclose(back.eval()(pixels).logits, ours, atol=1e-5)


def test_a_new_label_keeps_the_tower_and_the_rows_of_the_known_ones(run):
    old = sightline.load(run.model, device="cpu", dtype="float32")
    recipe = replace(SMALL, tower=old.system.name, init=str(run.model))
    new = start_classifier(recipe, ("black", "blue", "green", "red")).network.state_dict()
    for name, tensor in old.network.state_dict().items():
        kept = new[name][1:] if name.startswith("classifier.") else new[name]
        assert torch.equal(kept, tensor), name


def test_the_tower_starts_a_dual_encoder_and_stays_locked(run, squares, tmp_path):
    """LiT: the text learns, and no value of the picture's side moves."""
    tower = sightline.load(run.model, device="cpu", dtype="float32").network
    recipe = DualEncoderRecipe(
        system="vision_text", data=squares, init_image=str(run.model), freeze=("image.*",),
        text_width=16, text_depth=1, text_heads=2, vocab_size=200, batch_size=6, steps=2,
        eval_every=2, eval_limit=4, workers=0,
    )  # fmt: skip
    begun = start_from(recipe, COLOURS).network.text.state_dict()
    text = {name: tensor.clone() for name, tensor in begun.items()}
    trained = sightline.load(train_dual_encoder(recipe, tmp_path / "lit").model, dtype="float32")
    own = trained.network.image.state_dict()
    kept = {n: t for n, t in tower.state_dict().items() if not n.startswith("classifier.")}
    assert all(torch.equal(own[name], tensor) for name, tensor in kept.items())
    moved = trained.network.text.state_dict()
    assert any(moved[n].shape != t.shape or not torch.equal(moved[n], t) for n, t in text.items())


def test_the_loss_of_micro_batches_is_a_sum_over_pictures():
    with pytest.raises(ConfigError, match="label_smoothing is 1"):
        classification_loss(1)


def test_drawn_parks_are_scenes_of_one_thing_named_by_its_kind():
    training, validation, test = splits(
        replace(SMALL, data="park", image_size=32, eval_limit=3), park="kinds"
    )
    kinds = {record.label for part in (validation, test) for record in part}
    assert kinds and all(" " not in str(kind) for kind in kinds)
    assert training[0].label is not None and " " not in training[0].label


def test_settings_and_data_that_do_not_fit_are_refused(squares, tmp_path):
    with pytest.raises(ConfigError, match="unknown tower 'swim'"):
        replace(SMALL, tower="swim")
    with pytest.raises(ConfigError, match="unknown variant 'B/17'"):
        start_classifier(replace(SMALL, variant="B/17"), ("a", "b"))
    tiny_folder("resnet", tmp_path / "resnet")
    tiny_folder("siglip", tmp_path / "siglip")
    with pytest.raises(ConfigError, match="is a resnet: train it with tower=resnet"):
        start_classifier(replace(SMALL, init=str(tmp_path / "resnet")), ("a", "b"))
    with pytest.raises(ConfigError, match="a classifier starts from a vit or a resnet"):
        start_classifier(replace(SMALL, init=str(tmp_path / "siglip")), ("a", "b"))
    with pytest.raises(DataError, match=r"have 0 class\(es\): a classifier needs at least two"):
        train_classifier(replace(SMALL, data=f"{squares}/red"), tmp_path / "run")


def test_a_small_network_sees_the_border_and_a_published_size_is_cropped():
    small = start_classifier(replace(SMALL, tower="resnet"), ("a", "b"))
    assert small.processor.image.spec.shortest == 16
    published = start_classifier(replace(SMALL, tower="resnet", variant="18"), ("a", "b"))
    assert published.config.image_size == (16, 16)
    assert published.processor.image.spec.shortest == 18


def test_it_stands_in_the_table_of_recipes():
    assert find_recipe("classifier").recipe() == ClassifierRecipe()


@pytest.mark.slow
@pytest.mark.parametrize(("tower", "steps"), [("vit", 1000), ("resnet", 250)])
def test_handwritten_digits_are_learned(tower, steps, tmp_path):
    data = write_digits(tmp_path / "digits")
    recipe = ClassifierRecipe(tower=tower, data=str(data), steps=steps)
    outcome = train_classifier(recipe, tmp_path / "run")
    assert outcome.before["top1"] < 0.3
    assert outcome.after["top1"] >= 0.95
