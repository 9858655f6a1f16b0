"""Training a mask codec: what a run leaves, what it learns, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from sightline.core.errors import ConfigError, DataError, UnsupportedTaskError
from sightline.data.boxed_masks import BoxedMask, plain_shape
from sightline.data.records import Record
from sightline.data.regions import Region
from sightline.evaluation.mask_codec import round_trip
from sightline.models.mask_codec import SYSTEM, TINY, VARIANTS
from sightline.recipes import mask_codec
from sightline.recipes.mask_codec import (
    Learning,
    MaskCodecRecipe,
    codec_loss,
    difference,
    start_codec,
    train_mask_codec,
)
from sightline.recipes.mask_data import mask_loader, objects_of, park_objects
from sightline.recipes.table import find_recipe
from tests.hub.tiny import tiny_folder

SMALL = MaskCodecRecipe(
    batch_size=8, steps=4, eval_every=4, eval_limit=12, workers=0, autocast="off"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_mask_codec(SMALL, tmp_path_factory.mktemp("run") / "run")


def test_a_run_leaves_a_codec_that_loads_a_report_and_a_sheet(run):
    assert run.summary.steps == 4
    assert {"iou", "codewords used", "perplexity", "iou, plain shapes"} <= set(run.after)
    model = sightline.load(run.model, device="cpu")
    assert (model.system.name, model.config) == ("mask_codec", VARIANTS["park"])
    assert "Masks" in run.report.read_text()
    with Image.open(run.report.parent / mask_codec.SHEET) as sheet:
        assert min(sheet.size) > 300


def test_a_run_goes_on_with_its_running_means(run):
    from safetensors.torch import load_file

    folder = run.summary.checkpoint
    names = {name for file in folder.rglob("*.safetensors") for name in load_file(file)}
    assert any(name.endswith("average.counts") for name in names)


def small_learning(decay=0.99, seed=0):
    network = start_codec(replace(SMALL, seed=seed)).network
    return Learning(network, decay, 0.02)


def test_codewords_are_running_means_or_learn_by_gradient():
    batch = next(iter(mask_loader(range(400), SMALL, 64)))
    for decay in (0.99, None):
        learning = small_learning(decay).train()
        before = learning.model.codebook.vectors.detach().clone()
        loss = codec_loss(0.25, by_gradient=decay is None)(learning, batch)
        loss.sum.backward()
        moved = not torch.equal(before, learning.model.codebook.vectors)
        assert moved == (decay is not None)
        assert (learning.model.codebook.vectors.grad is not None) == (decay is None)
        assert learning.model.encoder.down[0].weight.grad.abs().sum() > 0


def test_masks_are_learned_by_heart():
    """Forty steps on four masks take most of the loss away, with codewords that were revived."""
    batch = next(iter(mask_loader(range(400), replace(SMALL, batch_size=4), TINY.mask_size)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learning = Learning(SYSTEM.build(TINY), 0.9, 0.02).train()
        loss = codec_loss(0.25, by_gradient=False)
        optimiser = torch.optim.Adam([p for p in learning.parameters() if p.requires_grad], lr=0.01)
        values = []
        for _ in range(40):
            part = loss(learning, batch)
            optimiser.zero_grad()
            part.sum.backward()
            optimiser.step()
            values.append(part.sum.item() / 4)
    assert values[-1] < 0.6 * values[0]


def test_training_masks_are_seeded_squares_from_minus_one_to_one():
    first, again = (next(iter(mask_loader(range(400), SMALL, 64))).masks for _ in range(2))
    assert first.shape == (8, 64, 64) and torch.equal(first, again)
    assert float(first.min()) >= -1 and float(first.max()) <= 1
    other = next(iter(mask_loader(range(400), replace(SMALL, seed=1), 64))).masks
    assert not torch.equal(first, other)


def test_pictures_of_masks_are_data_too(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(30):
        mask = plain_shape(generator).mask
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{number}.png")
    outcome = train_mask_codec(
        replace(SMALL, data=str(tmp_path), shapes_share=0.0, steps=2, eval_every=2),
        tmp_path.parent / "run",
    )
    assert outcome.summary.pictures == 16 and 0 <= outcome.after["iou"] <= 1


def test_outlined_regions_are_the_objects_and_crowds_are_none():
    outline = ((0.0, 0.0, 9.0, 0.0, 9.0, 9.0),)
    regions = (
        Region("cup", (0.0, 0.0, 9.0, 9.0), outline),
        Region("cup", (0.0, 0.0, 9.0, 9.0)),
        Region("people", (0.0, 0.0, 9.0, 9.0), outline, crowd=True),
    )
    picture = np.zeros((9, 9, 3), np.uint8)
    with_regions, bare = Record("a", picture, regions=regions), Record("b", picture)
    found = objects_of([with_regions, bare])
    assert len(found) == 2 and found[0] is regions[0] and found[1] is bare
    batch = next(iter(mask_loader([regions[0]] * 8, replace(SMALL, shapes_share=0.0), 64)))
    assert batch.masks.shape == (8, 64, 64) and torch.equal(batch.masks[0], batch.masks[7])
    with pytest.raises(DataError, match="no region of these data has an outline"):
        objects_of([Record("c", picture, regions=regions[1:])])


def test_weights_are_started_from_and_others_refused(run, tmp_path):
    start = start_codec(replace(SMALL, init=str(run.model)))
    own = sightline.load(run.model, device="cpu").network.state_dict()
    assert all(torch.equal(start.network.state_dict()[n], t) for n, t in own.items())
    assert all(p.requires_grad for p in start.network.parameters())
    tiny_folder("vit", tmp_path / "vit")
    with pytest.raises(ConfigError, match="is a vit model: a mask codec starts from one"):
        start_codec(replace(SMALL, init=str(tmp_path / "vit")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "oidd"}, "unknown variant 'oidd': did you mean 'oid'"),
        ({"shapes_share": 1.5}, "shapes_share 1.5 and test_share 0.1 are shares"),
        ({"decay": 1.0}, "decay 1.0: use 0 <= decay < 1, or none for gradients"),
        ({"shapes": ("64x64",)}, "learns from masks: leave shapes out"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **settings)


def test_it_stands_in_the_table_of_recipes():
    assert find_recipe("mask-codec").recipe() == MaskCodecRecipe()


def test_a_round_trip_counts_by_size_and_needs_a_codec(run, tmp_path):
    model = sightline.load(run.model, device="cpu")
    objects = park_objects(40)
    trip = round_trip(model, objects)
    metrics = trip.metrics(resamples=50)
    assert metrics["iou"].n == 40
    groups = [m for name, m in metrics.items() if name.startswith("iou, ")]
    assert sum(m.n for m in groups) == 40
    mean = sum(m.value * m.n for m in groups) / 40
    assert mean == pytest.approx(metrics["iou"].value)
    low, high = metrics["iou"].ci95
    assert low <= metrics["iou"].value <= high
    with pytest.raises(DataError, match="no mask arrived"):
        round_trip(model, [])
    tiny_folder("vit", tmp_path / "vit")
    with pytest.raises(UnsupportedTaskError, match="cannot turn masks into tokens"):
        round_trip(sightline.load(tmp_path / "vit", device="cpu"), objects)


def test_a_difference_shows_what_was_lost_and_added():
    mask = np.zeros((6, 6), np.bool_)
    mask[1:4, 1:4] = True
    back = np.roll(mask, 1, axis=1)
    picture = difference(BoxedMask(mask, (1.0, 1.0, 4.0, 4.0)), back)
    assert picture.shape == (5, 5, 3)
    colours = [tuple(picture[2, column]) for column in range(5)]
    assert colours == [mask_codec.NEITHER, mask_codec.LOST, mask_codec.BOTH, mask_codec.BOTH,
                       mask_codec.ADDED]  # fmt: skip


@pytest.mark.slow
def test_park_objects_come_back(tmp_path):
    outcome = train_mask_codec(MaskCodecRecipe(steps=600), tmp_path / "run")
    assert outcome.before["iou"] < 0.6
    assert outcome.after["iou"] >= 0.92
    assert outcome.after["codewords used"] > 0.5
