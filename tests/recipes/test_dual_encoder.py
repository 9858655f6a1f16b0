"""Runs of the contrastive recipes, small enough for seconds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sightline
from sightline.core.errors import ConfigError, DataError
from sightline.data.park.export import write
from sightline.data.park.scenes import ParkScenes
from sightline.data.records import Dataset, Record
from sightline.hub.bundled import DRAWN_PARKS, read_card
from sightline.models.table import SYSTEMS
from sightline.recipes.dual_encoder import DualEncoderRecipe, contrastive_step
from sightline.recipes.pair_data import draw_sentence, pair_loader, random_crop, usable_pairs
from sightline.recipes.run import held_out_scores, train_dual_encoder
from sightline.recipes.splits import splits
from sightline.recipes.table import RECIPES, find_recipe
from sightline.recipes.towers import start_from

SMALL = DualEncoderRecipe(
    image_size=32, patch_size=16, width=16, depth=1, num_heads=2, text_width=16, text_depth=1,
    text_heads=2, vocab_size=700, batch_size=8, steps=4, eval_limit=8, eval_every=4, workers=0,
)  # fmt: skip
CAPTIONS = ["a red bench.", "a blue tree.", "a green cat.", "two yellow boats."]


@pytest.fixture(scope="module")
def parks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parks") / "pictures"
    write(ParkScenes("train", 0, 40, size=32), folder)
    return str(folder)


@pytest.fixture(scope="module")
def run(parks, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return train_dual_encoder(replace(SMALL, data=parks), out), out


def test_a_run_leaves_model_log_scores_and_report(run):
    outcome, out = run
    assert outcome.summary.steps == 4
    assert set(outcome.before) == set(outcome.after) == {"retrieval"}
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == [1, 2, 3, 4]
    assert {"loss", "scale", "bias", "lr"} <= set(lines[0])
    page = outcome.report.read_text()
    assert "Before and after" in page and "Similarity" in page and "Map" in page
    recipe = json.loads((out / "checkpoints" / "last" / "recipe.json").read_text())
    assert "SMALL" not in str(recipe) and "batch_size" in str(recipe)


def test_the_saved_model_loads_and_answers(run):
    outcome, _ = run
    model = sightline.load(outcome.model, dtype="float32")
    picture = sightline.data.park.scene(1, size=32).image
    assert model.embed_images([picture]).shape == (1, 16)
    assert len(model.classify(picture, ["a bench", "a cat"])) == 2


@pytest.mark.parametrize(
    ("flops", "text"), [(1.98e12, "1.98 TFLOP"), (1.9e17, "190 PFLOP"), (5e6, "0.005 GFLOP")]
)
def test_arithmetic_has_the_unit_that_fits(flops, text):
    from sightline.recipes.report import _arithmetic

    assert _arithmetic(flops) == text


def test_a_rerun_of_a_finished_run_changes_nothing(run, parks):
    outcome, out = run
    again = train_dual_encoder(replace(SMALL, data=parks), out)
    assert again.summary.steps == outcome.summary.steps
    assert again.before == outcome.before


@pytest.mark.parametrize("system", ["siglip", "clip"])
def test_weights_of_both_towers_give_their_own_loss_at_step_zero(system, parks, tmp_path):
    recipe = replace(SMALL, system=system, data=parks)
    first = train_dual_encoder(recipe, tmp_path / "first")
    tuned = replace(recipe, init=str(first.model), crop=1.0)
    training, _, test = splits(tuned)
    start = start_from(tuned, [])
    batch = next(iter(pair_loader(training, start.processor, tuned, "{}")))
    saved = sightline.load(first.model, dtype="float32").network
    step = contrastive_step("softmax" if system == "clip" else "sigmoid", None)
    assert step(start.network, [batch]).loss == step(saved.requires_grad_(True), [batch]).loss
    model = start.as_model(system, tmp_path)
    assert held_out_scores(model, test, tuned.eval_limit) == pytest.approx(first.after)


def test_what_is_tuned_from_a_bundled_model_keeps_what_its_card_knows(tmp_path):
    start_from(replace(SMALL, init="park-siglip"), []).save(tmp_path / "tuned")
    model = sightline.load(tmp_path / "tuned", dtype="float32")
    assert model.domain == DRAWN_PARKS
    start_from(replace(SMALL, init=str(tmp_path / "tuned")), []).save(tmp_path / "again")
    model.save(tmp_path / "saved")
    cards = [read_card(tmp_path / name) for name in ("tuned", "again", "saved")]
    known = {"domain": DRAWN_PARKS, "tuned_from": "park-siglip"}
    head = {"format": "sightline-model-card", "version": 1}
    assert cards == [{**head, **known}] * 3, "neither scores of other weights nor a folder's name"
    start_from(replace(SMALL, width=128, init_text="park-siglip"), []).save(tmp_path / "half")
    start_from(SMALL, CAPTIONS).save(tmp_path / "new")
    assert read_card(tmp_path / "half") == read_card(tmp_path / "new") == {}


def test_one_tower_can_come_from_weights(run):
    outcome, _ = run
    saved = sightline.load(outcome.model, dtype="float32").network.state_dict()
    start = start_from(replace(SMALL, init_image=str(outcome.model)), CAPTIONS)
    own = start.network.state_dict()
    assert all(torch.equal(own[k], saved[k]) for k in own if k.startswith(("image", "logit")))
    assert not torch.equal(own["text.positions"], saved["text.positions"])


def test_weights_of_another_system_are_refused(run):
    outcome, _ = run
    with pytest.raises(ConfigError, match="is a siglip model and the recipe trains clip"):
        start_from(replace(SMALL, system="clip", init=str(outcome.model)), CAPTIONS)


def test_micro_batches_give_the_gradient_of_the_whole():
    torch.manual_seed(0)
    start = start_from(SMALL, CAPTIONS)
    records = [
        Record(str(i), np.full((32, 32, 3), 9 * i, np.uint8), (CAPTIONS[i % 4],)) for i in range(8)
    ]
    whole = next(iter(pair_loader(records, start.processor, replace(SMALL, crop=1.0), "{}")))
    parts = [type(whole)(*(column[i : i + 4] for column in whole)) for i in (0, 4)]
    gradients = []
    for batches in ([whole], parts):
        start.network.zero_grad()
        contrastive_step("sigmoid", None)(start.network.train(), batches)
        gradients.append({n: p.grad.clone() for n, p in start.network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_clips_scale_stays_at_most_a_hundred():
    start = start_from(replace(SMALL, system="clip"), CAPTIONS)
    start.network.logit_scale.data.fill_(9.0)
    records = [
        Record(str(i), np.zeros((32, 32, 3), np.uint8), (c,)) for i, c in enumerate(CAPTIONS)
    ]
    recipe = replace(SMALL, system="clip", batch_size=4)
    batch = next(iter(pair_loader(records, start.processor, recipe, "{}")))
    assert contrastive_step("softmax", 100.0)(start.network, [batch]).metrics["scale"] <= 100.001


def test_shuffled_captions_leave_no_picture_its_own():
    records = [
        Record(str(i), np.zeros((32, 32, 3), np.uint8), (f"caption {i}.",)) for i in range(9)
    ]
    start = start_from(SMALL, [r.captions[0] for r in records])
    recipe = replace(SMALL, shuffle_captions=True, batch_size=9)
    loader = pair_loader(records, start.processor, recipe, "{}")
    assert all(r.captions[0] != f"caption {r.id}." for r in loader.dataset)
    assert sorted(r.captions[0] for r in loader.dataset) == sorted(r.captions[0] for r in records)


def test_sentences_are_put_into_the_prompt_at_the_share_asked_for():
    record = Record("a", np.zeros((2, 2, 3), np.uint8), ("a hand-written three.",), label="three")
    drawn = [
        draw_sentence(record, np.random.default_rng(i), "This is a photo of {}.", 0.25)[0]
        for i in range(400)
    ]
    prompts = [d for d in drawn if d.startswith("This is")]
    assert 60 < len(prompts) < 140
    assert set(prompts) == {
        "This is a photo of three.", "This is a photo of a hand-written three."
    }  # fmt: skip


def test_a_class_alone_is_a_sentence(tmp_path):
    record = Record("a", np.zeros((2, 2, 3), np.uint8), label="three")
    assert draw_sentence(record, np.random.default_rng(0), "a {}.", 0.0) == ("a three.",) * 2


def test_data_without_sentences_is_refused():
    start = start_from(SMALL, CAPTIONS)
    with pytest.raises(DataError, match="no picture has a caption or a class"):
        pair_loader([Record("a", b"")], start.processor, SMALL, "{}")


@pytest.mark.parametrize("smallest", [0.5, 0.9])
def test_crops_keep_their_share_of_each_side(smallest):
    pixels = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
    for seed in range(50):
        part = random_crop(pixels, np.random.default_rng(seed), smallest)
        assert round(40 * smallest) <= part.shape[0] <= 40
        assert round(30 * smallest) <= part.shape[1] <= 30
    assert random_crop(pixels, np.random.default_rng(0), 1) is pixels


def ids(parts):
    return [[record.id for record in part] for part in parts]


def test_splits_hold_out_seeded_shares(parks):
    recipe = replace(SMALL, data=parks)
    training, validation, test = splits(recipe)
    assert isinstance(test, Dataset)
    assert (len(training), len(validation), len(test)) == (32, 4, 4)
    assert len({r.id for part in (training, validation, test) for r in part}) == 40
    assert ids(splits(recipe)) == ids((training, validation, test))
    assert ids(splits(replace(recipe, seed=1))) != ids((training, validation, test))


@pytest.mark.parametrize(
    ("named", "sizes"),
    [
        (("train", "test"), (18, 2, 20)),
        (("train", "val"), (18, 2, 20)),
        (("train", "val", "test"), (14, 13, 13)),
        (("val", "test"), (32, 4, 4)),  # nothing is called train: as if nothing were named
    ],
)
def test_named_splits_are_kept_and_a_missing_one_comes_from_training(parks, tmp_path, named, sizes):
    lines = [
        json.dumps({"image": str(path), "caption": "a bench", "split": named[i % len(named)]})
        for i, path in enumerate(sorted(Path(parks).glob("*.png")))
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    training, validation, test = splits(replace(SMALL, data=str(tmp_path / "list.jsonl")))
    assert (len(training), len(validation), len(test)) == sizes
    assert len({r.id for part in (training, validation, test) for r in part}) == 40
    if "train" in named:
        assert {r.split for r in training} == {"train"}
        assert {r.split for r in test} == {"test" if "test" in named else "val"}


def test_park_scenes_that_choose_are_not_those_that_judge():
    _, validation, test = splits(replace(SMALL, data="park"))
    assert {r.id for r in validation} & {r.id for r in test} == set()


def test_no_scene_is_drawn_before_it_is_needed():
    training = splits(replace(SMALL, data="park", eval_limit=1)).training
    assert usable_pairs(training, SMALL, "{}") is training


def test_too_few_records_for_three_parts_are_refused(parks, tmp_path):
    picture = next(Path(parks).glob("*.png"))
    (tmp_path / "list.jsonl").write_text(json.dumps({"image": str(picture), "caption": "a bench"}))
    with pytest.raises(DataError, match=r"has 1 record\(s\): too few"):
        splits(replace(SMALL, data=str(tmp_path / "list.jsonl")))


def test_a_run_without_data_says_how_to_give_it():
    with pytest.raises(ConfigError, match="give --data PATH"):
        splits(SMALL)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_in_the_table_exists(name):
    entry = find_recipe(name)
    assert entry.recipe().system in SYSTEMS
    assert callable(entry.run())


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'siglip'"):
        find_recipe("sigclip")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "a", "init_text": "b"}, "init gives both towers"),
        ({"objective": "triplet"}, "unknown objective 'triplet': known are sigmoid, softmax"),
        ({"crop": 0.0}, "shares between 0 and 1"),
        ({"positions": "none"}, "use sincos or normal"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DualEncoderRecipe(**settings)


def test_patch_dropout_is_for_training_alone_and_not_saved(tmp_path):
    start = start_from(replace(SMALL, patch_dropout=0.5), CAPTIONS)
    pixels = torch.randn(2, 3, 32, 32)
    assert start.network.train().image(pixels).tokens.shape[1] == 2
    assert start.network.eval().image(pixels).tokens.shape[1] == 4
    start.save(tmp_path / "model")
    assert "dropout" not in (tmp_path / "model" / "config.json").read_text().replace(
        "attention_dropout", ""
    )
    with pytest.raises(ConfigError, match="leave out a share from 0 up to below 1"):
        start_from(replace(SMALL, patch_dropout=1.0), CAPTIONS)


def test_blocks_and_smoothing_reach_the_loss():
    from sightline.nn.norms import unit_length
    from sightline.recipes.dual_encoder import pair_loss

    start = start_from(SMALL, CAPTIONS)
    rows = tuple(unit_length(torch.randn(2, 6, 16)))
    whole = pair_loss("softmax", 0.1)(start.network, rows)
    assert torch.allclose(whole, pair_loss("softmax", 0.1, 2)(start.network, rows), atol=1e-6)
    assert not torch.allclose(whole, pair_loss("softmax")(start.network, rows))
    ring = pair_loss("softmax", 0.1, exchange="ring")  # a ring of one
    assert torch.allclose(whole, ring(start.network, rows), atol=1e-6)
    with pytest.raises(ConfigError, match="unknown exchange 'rign': did you mean 'ring'"):
        replace(SMALL, exchange="rign")
    with pytest.raises(ConfigError, match="label_smoothing is for the softmax objective"):
        pair_loss("sigmoid", 0.1)
    with pytest.raises(ConfigError, match="chunk 0: give the number of columns"):
        pair_loss("sigmoid", chunk=0)
