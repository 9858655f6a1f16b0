"""Runs of the flexible recipe: budgets of patches, mixed shapes, and what comes out of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sightline
from sightline.core.errors import ConfigError, DataError
from sightline.data.park.export import write
from sightline.data.park.scenes import SHAPES, ParkScenes
from sightline.data.records import Record
from sightline.objectives.unicl import group_labels
from sightline.recipes import naflex
from sightline.recipes.dual_encoder import (
    DualEncoderRecipe,
    contrastive_step,
    number_of_steps,
    pair_loss,
)
from sightline.recipes.naflex import (
    NaFlexRecipe,
    packed_pair_loader,
    pictures_of_a_batch,
    train_naflex,
    with_budget,
    with_positions,
)
from sightline.recipes.run import sample_sizes
from sightline.recipes.splits import splits
from sightline.recipes.table import find_recipe
from sightline.recipes.towers import start_from
from sightline.training import distributed

SMALL = NaFlexRecipe(
    patch_size=16, max_patches=12, tokens=72, row_length=24, width=16, depth=1, num_heads=2,
    text_width=16, text_depth=1, text_heads=2, vocab_size=700, steps=4, eval_limit=8, eval_every=4,
    workers=0,
)  # fmt: skip
CAPTIONS = ["a red bench.", "a blue tree.", "a green cat.", "two yellow boats."]
SIZES = [(32, 48), (48, 32), (32, 96), (64, 64)]


@pytest.fixture(scope="module")
def parks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parks") / "pictures"
    write(ParkScenes("train", 0, 40, shapes=((32, 48), (64, 32), (32, 96))), folder)
    return str(folder)


@pytest.fixture(scope="module")
def run(parks, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return train_naflex(replace(SMALL, data=parks), out), out


def records(count=24, sizes=SIZES):
    return [
        Record(
            str(i), np.full((*sizes[i % len(sizes)], 3), 9 * i % 256, np.uint8), (CAPTIONS[i % 4],)
        )
        for i in range(count)
    ]


def ready(recipe, sizes=SIZES):
    """The recipe with every setting known, and its network."""
    recipe = with_positions(recipe, sizes)
    return with_budget(recipe, start_from(recipe, CAPTIONS))


def log_of(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


def test_a_run_counts_pictures_and_not_rows(run):
    outcome, out = run
    steps = log_of(out)
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert outcome.summary.pictures == sum(line["batch"] for line in steps)
    assert all(line["batch"] >= 5 for line in steps)  # three rows, with two pictures each
    assert all(0.6 < line["filled"] <= 1 for line in steps)
    assert {"loss", "scale", "bias", "lr"} <= set(steps[0])
    assert set(outcome.before) == set(outcome.after) == {"retrieval"}
    page = outcome.report.read_text()
    assert "Before and after" in page and "pictures a step" in page


def test_every_setting_is_known_afterwards(run):
    _, out = run
    kept = json.loads((out / "checkpoints" / "last" / "recipe.json").read_text())
    names = ("recipe", "max_patches", "tokens", "row_length", "shapes", "image_size")
    assert [kept[name] for name in names] == ["NaFlexRecipe", 12, 72, 24, [], 48]


def test_transformers_loads_what_was_trained_and_agrees(run):
    transformers = pytest.importorskip("transformers")
    outcome, _ = run
    theirs, found = transformers.Siglip2Model.from_pretrained(
        outcome.model, output_loading_info=True
    )
    assert not any(found[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model = sightline.load(outcome.model, device="cpu", dtype="float32")
    assert model.processor.image.spec.max_num_patches == 12
    batch = model.processor.images([record.image for record in records(4)])
    words = model.processor.texts(CAPTIONS)
    with torch.no_grad():
        logits = theirs.eval()(
            input_ids=words.ids, pixel_values=batch.patches,
            pixel_attention_mask=batch.mask.int(), spatial_shapes=batch.grids,
        ).logits_per_image  # fmt: skip
        ours = model.network(batch, words.ids).logits
    assert torch.allclose(ours, logits, atol=1e-5 * float(logits.abs().max()))


def test_a_stopped_run_goes_on_bit_for_bit(run, parks, tmp_path):
    _, whole = run
    recipe = replace(SMALL, data=parks)
    stopped = train_naflex(recipe, tmp_path / "run", minutes=1e-9)
    assert stopped.summary.steps == 1
    assert train_naflex(recipe, tmp_path / "run").summary.steps == 4
    place = "checkpoints/last/model/model.safetensors"
    first, second = load_file(whole / place), load_file(tmp_path / "run" / place)
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [[line["loss"] for line in log_of(out)] for out in (whole, tmp_path / "run")]
    assert losses[0] == losses[1]


def test_weights_bring_their_patches_and_a_setting_changes_them(run, parks, tmp_path):
    outcome, _ = run
    tuned, start = ready(NaFlexRecipe(init=str(outcome.model)))
    assert (tuned.max_patches, tuned.row_length, tuned.tokens) == (12, 12, 64 * 12)
    saved = load_file(outcome.model / "model.safetensors")
    assert torch.equal(start.network.logit_scale, saved["logit_scale"])
    finer, start = ready(NaFlexRecipe(init=str(outcome.model), max_patches=24))
    assert start.processor.image.spec.max_num_patches == finer.max_patches == 24
    assert len(start.network.image.positions.table) == 9


def test_numbers_of_patches_come_from_the_pictures():
    recipe, start = ready(NaFlexRecipe(patch_size=8))  # about 55 pixels square in the middle
    assert recipe.max_patches == 36 and recipe.image_size == 48
    assert start.network.image.positions.grid == (6, 6)
    recipe, start = ready(NaFlexRecipe(patch_size=8, max_patches=50))
    assert recipe.image_size == 56 and start.processor.image.spec.max_num_patches == 50
    mixed, _ = ready(NaFlexRecipe(patch_size=8, sequence_lengths=(16, 64), batch_size=10))
    assert (mixed.row_length, mixed.tokens, mixed.rows) == (128, 640, 5)


def test_several_resolutions_are_mixed_in_training():
    recipe, start = ready(replace(SMALL, sequence_lengths=(4, 12), tokens=96))
    loader = packed_pair_loader(records(), start.processor, recipe, "{}")
    counts = {
        int(n) for _, b in zip(range(4), loader, strict=False) for n in b.pixels.grids.prod(1)
    }
    assert min(counts) <= 4 < max(counts) <= 12


@pytest.mark.parametrize("lengths", [(), (4, 8, 12)])
def test_the_number_of_pictures_in_a_batch_is_estimated_for_the_steps(lengths):
    recipe, start = ready(replace(SMALL, sequence_lengths=lengths, tokens=240))
    many = records(400)
    guess = pictures_of_a_batch(recipe, start.processor, sample_sizes(many))
    loader = packed_pair_loader(many, start.processor, recipe, "{}")
    found = [len(batch.ids) for _, batch in zip(range(12), loader, strict=False)]
    assert guess == pytest.approx(sum(found) / len(found), rel=0.15)
    epochs = replace(recipe, steps=None, epochs=3.0)
    assert number_of_steps(epochs, 400, guess) == round(1200 / guess)
    assert number_of_steps(replace(epochs, accumulate=2), 400, guess) == round(600 / guess)


def test_micro_batches_of_different_sizes_give_one_gradient():
    """Against one step over both, one picture a row."""
    recipe, start = ready(replace(SMALL, crop=1.0))
    loader = iter(packed_pair_loader(records(), start.processor, recipe, "{}"))
    parts = [next(loader), next(loader)]
    images = [start.network.encode_images(part.pixels) for part in parts]
    texts = [start.network.encode_texts(part.ids) for part in parts]
    whole = pair_loss("sigmoid")(start.network, (torch.cat(images), torch.cat(texts)))
    whole.backward()
    expected = {n: p.grad.clone() for n, p in start.network.named_parameters()}
    start.network.zero_grad()
    result = contrastive_step("sigmoid", None)(start.network, parts)
    assert result.pictures == sum(len(part.ids) for part in parts)
    for name, parameter in start.network.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-5), name


def test_batches_carry_labels_for_the_losses_that_share_matches():
    recipe, start = ready(replace(SMALL, template_share=0.0, objective="unicl"))
    batch = next(iter(packed_pair_loader(records(), start.processor, recipe, "{}")))
    known = group_labels([None] * 4, CAPTIONS).tolist()
    sentences = [start.processor.texts([caption]).ids[0] for caption in CAPTIONS]
    for ids, label in zip(batch.ids, batch.labels.tolist(), strict=True):
        assert torch.equal(ids, sentences[known.index(label)])
    assert contrastive_step("unicl", None)(start.network, [batch]).loss > 0
    assert contrastive_step("sigmoid", None, shared_matches=True)(start.network, [batch]).loss > 0


def test_square_systems_train_on_the_very_same_scenes():
    flexible = splits(NaFlexRecipe(data="park", shapes=("mixed",), eval_limit=8))
    square = splits(DualEncoderRecipe(data="park", shapes=("mixed",), eval_limit=8))
    for ours, theirs in zip(flexible, square, strict=True):
        for index in range(8):
            assert np.array_equal(ours[index].image, theirs[index].image)
            assert ours[index].captions == theirs[index].captions
    for part in flexible:
        assert {part[index].image.shape[:2] for index in range(8)} == set(SHAPES)


def test_drawn_parks_have_several_shapes_where_nothing_else_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(naflex, "all_sentences", lambda records, template: CAPTIONS)
    monkeypatch.setattr(naflex, "carry_out", lambda recipe, plan, *rest: (recipe, plan))
    recipe = NaFlexRecipe(data="park", eval_limit=4)
    settled, plan = train_naflex(recipe, tmp_path)
    assert settled.shapes == ("mixed",) and settled.max_patches == 64
    assert {record.image.shape[:2] for record in plan.test} == set(SHAPES)
    squares, plan = train_naflex(replace(recipe, shapes=("48x48",)), tmp_path)
    assert {record.image.shape for record in plan.test} == {(48, 48, 3)}
    assert squares.max_patches == 36


def test_shapes_are_for_scenes_that_are_drawn(parks):
    with pytest.raises(ConfigError, match="shapes are those of scenes to draw"):
        splits(DualEncoderRecipe(data=parks, shapes=("mixed",)))
    mixture = f"park=1,{parks}=1"
    drawn = splits(DualEncoderRecipe(data=mixture, shapes=("40x120",), eval_limit=2)).validation
    assert drawn[0].image.shape == (40, 120, 3)
    with pytest.raises(ConfigError, match="shape '40:120': write HEIGHTxWIDTH in pixels"):
        splits(DualEncoderRecipe(data="park", shapes=("40:120",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 0}, "tokens counts patches from 1 on, got 0"),
        ({"max_patches": -1}, "max_patches counts patches from 1 on, got -1"),
        ({"sequence_lengths": (4, 0)}, "sequence_lengths counts patches from 1 on, got 0"),
        ({"crop": 0.0}, "shares between 0 and 1"),
    ],
)
def test_numbers_that_count_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        NaFlexRecipe(**settings)


def test_budgets_that_do_not_fit_are_refused(parks, tmp_path):
    with pytest.raises(ConfigError, match="tokens=11 holds no row of 24 patches"):
        ready(replace(SMALL, tokens=11))
    recipe, start = ready(replace(SMALL, row_length=8))
    with pytest.raises(ConfigError, match="pictures of 12 patches do not fit into rows of 8"):
        packed_pair_loader(records(), start.processor, recipe, "{}")
    with pytest.raises(DataError, match=r"holds about \d+ of these pictures, and there are 32"):
        train_naflex(replace(SMALL, data=parks, tokens=4000), tmp_path / "run")
    with pytest.raises(ConfigError, match="has no patches to leave out"):
        ready(replace(SMALL, patch_dropout=0.5))


def test_several_processes_are_refused(monkeypatch, parks, tmp_path):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="train it in one process, with accumulate=N"):
        train_naflex(replace(SMALL, data=parks), tmp_path / "run")


def test_it_stands_in_the_table_of_recipes():
    assert find_recipe("naflex").recipe() == NaFlexRecipe()
    assert find_recipe("naflex").run() is train_naflex
