"""UniCL's runs: labels beside captions, from the records of a data set to the gradient."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from sightline.core.errors import ConfigError
from sightline.data.digits import write_digits
from sightline.data.formats import open_dataset
from sightline.data.records import Record
from sightline.objectives.unicl import group_labels
from sightline.recipes.dual_encoder import (
    DualEncoderRecipe,
    contrastive_step,
    objective_of,
    pair_loss,
)
from sightline.recipes.pair_data import pair_loader
from sightline.recipes.run import train_dual_encoder
from sightline.recipes.table import find_recipe
from sightline.recipes.towers import start_from

SMALL = DualEncoderRecipe(
    system="unicl", image_size=32, patch_size=8, width=16, depth=3, num_heads=2, text_width=16,
    text_depth=1, text_heads=2, vocab_size=700, batch_size=6, steps=3, eval_limit=8, eval_every=3,
    workers=0,
)  # fmt: skip
CAPTIONS = ["a red bench.", "a  Red bench.", "a green cat."]


def record(id, captions=(), label=None, seed=0):
    pixels = np.random.default_rng(seed + id).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return Record(str(id), pixels, captions, label)


@pytest.fixture
def records():
    """Three classes with and without captions, and captions alone, two of which are equal."""
    return [
        record(0, label="cat"),
        record(1, ("a cat that sleeps.",), label="cat"),
        record(2, label="dog"),
        *(record(3 + i, (caption,)) for i, caption in enumerate(CAPTIONS)),
    ]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_batches_carry_a_label_for_each_picture(records, share):
    recipe = replace(SMALL, template_share=share)
    start = start_from(recipe, CAPTIONS)
    loader = pair_loader(records, start.processor, recipe, "a photo of a {}.")
    batch = next(iter(loader))
    classes = group_labels(["cat", "dog"], ["", ""]).tolist()
    captions = group_labels([None] * 3, CAPTIONS).tolist()
    found = sorted(batch.labels.tolist())
    assert found == sorted([classes[0], classes[0], classes[1], *captions])
    assert len(set(found)) == 4
    assert len(batch.labels) == len(batch.pixels) == len(batch.ids)


def test_labels_go_with_their_captions_when_these_are_shuffled(records):
    recipe = replace(SMALL, shuffle_captions=True)
    start = start_from(recipe, CAPTIONS)
    loader = pair_loader(records, start.processor, recipe, "a photo of a {}.")
    assert [r.label for r in loader.dataset] != [r.label for r in records]
    assert {(r.captions, r.label) for r in loader.dataset} == {
        (r.captions, r.label) for r in records
    }


def test_unicl_is_the_loss_of_unicl_and_can_be_asked_of_others():
    assert objective_of(SMALL, "softmax") == "unicl"
    assert objective_of(replace(SMALL, objective="softmax"), "softmax") == "softmax"
    clip = replace(SMALL, system="clip", objective="unicl")
    assert objective_of(clip, "softmax") == "unicl"
    assert find_recipe("unicl").recipe().system == "unicl"


def test_without_classes_a_step_is_clips(records):
    """Different captions alone: the same loss and the same gradient."""
    start = start_from(SMALL, CAPTIONS)
    alone = [r for r in records if r.label is None and r.id != "4"]
    recipe = replace(SMALL, batch_size=2)
    batch = next(iter(pair_loader(alone, start.processor, recipe, "{}")))
    found = []
    for objective in ("unicl", "softmax"):
        start.network.zero_grad()
        loss = contrastive_step(objective, None)(start.network.train(), [batch]).loss
        found.append((loss, [p.grad.clone() for p in start.network.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(found[0][1], found[1][1], strict=True)
    )


def test_with_classes_a_step_is_not_clips(records):
    start = start_from(SMALL, CAPTIONS)
    batch = next(iter(pair_loader(records, start.processor, SMALL, "{}")))
    losses = {
        objective: contrastive_step(objective, None)(start.network.train(), [batch]).loss
        for objective in ("unicl", "softmax")
    }
    assert abs(losses["unicl"] - losses["softmax"]) > 1e-3


def test_micro_batches_give_the_gradient_of_the_whole(records):
    """A class whose pictures are in two micro-batches is one class."""
    start = start_from(SMALL, CAPTIONS)
    whole = next(iter(pair_loader(records, start.processor, SMALL, "{}")))
    order = whole.labels.argsort()  # equal labels side by side, then dealt out in turn
    parts = [type(whole)(*(c[order[i::3]] for c in whole)) for i in range(3)]
    assert any(set(a.labels.tolist()) & set(b.labels.tolist()) for a in parts for b in parts
               if a is not b)  # fmt: skip
    gradients = []
    for batches in ([whole], parts):
        start.network.zero_grad()
        contrastive_step("unicl", None)(start.network.train(), batches)
        gradients.append({n: p.grad.clone() for n, p in start.network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_smoothing_belongs_to_the_softmax_objective():
    with pytest.raises(ConfigError, match="for the softmax objective: use 0 with unicl"):
        pair_loss("unicl", label_smoothing=0.1)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, ((8, 16), (2, 1), (1, 2), (4, 4))),
        ({"depth": 1}, ((16,), (1,), (2,), (8, 8))),
        ({"patch_size": 7}, ((16,), (3,), (2,), (7, 7))),
    ],
)
def test_the_small_swin_ends_with_the_patches_of_the_recipe(settings, shape):
    start = start_from(replace(SMALL, **settings), CAPTIONS)
    image = start.config.image
    widths = tuple(image.first_width * 2**n for n in range(len(image.depths)))
    assert (widths, image.depths, image.num_heads, image.patch_size) == shape
    assert start.config.embedding_width == image.width == 16


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory):
    """Twenty pictures: half with a class, half with a caption."""
    folder = tmp_path_factory.mktemp("both")
    lines = []
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3))):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        said = {"label": ("one", "two")[i // 2 % 2]} if i % 2 else {"caption": f"a {i % 3}."}
        lines.append(json.dumps({"image": f"{i}.png", **said}))
    (folder / "list.jsonl").write_text("\n".join(lines))
    return str(folder / "list.jsonl")


def test_a_run_on_classes_and_captions_answers_and_starts_another(both_kinds, tmp_path):
    recipe = replace(SMALL, data=both_kinds, steps=2, eval_every=2)
    outcome = train_dual_encoder(recipe, tmp_path / "run")
    model = sightline.load(outcome.model, dtype="float32")
    assert model.system.name == "unicl"
    answers = model.classify(np.zeros((8, 8, 3), np.uint8), ["one", "two"])
    assert {label.label for label in answers} == {"one", "two"}
    start = start_from(replace(recipe, init=str(outcome.model)), [])
    saved = model.network.state_dict()
    assert all(torch.equal(v, saved[k]) for k, v in start.network.state_dict().items())


def written(digits, folder, *, with_classes):
    """A tenth of the training digits with a caption; the others with their class, or left out."""
    lines = []
    for i, record in enumerate(open_dataset(digits)):
        known = {"image": str(record.image), "split": record.split}
        if record.split == "test" or i % 13 == 12:
            split = "test" if record.split == "test" else "val"
            lines.append({**known, "label": record.label, "split": split})
        elif i % 10 == 0:
            lines.append({**known, "caption": record.captions[0]})
        elif with_classes:
            lines.append({**known, "label": record.label})
    folder.mkdir()
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder / "list.jsonl")


@pytest.mark.slow
def test_classes_beside_captions_teach_more_than_captions_alone(tmp_path):
    digits = write_digits(tmp_path / "digits")
    reached = {}
    for name, with_classes in (("captions", False), ("both", True)):
        data = written(digits, tmp_path / name, with_classes=with_classes)
        recipe = DualEncoderRecipe(
            system="unicl", data=data, steps=250, batch_size=64, eval_every=250
        )
        reached[name] = train_dual_encoder(recipe, tmp_path / f"run-{name}").after["zeroshot"]
    print(reached)
    assert reached["captions"] > 0.3  # one in ten by chance
    assert reached["both"] > reached["captions"] + 0.05
