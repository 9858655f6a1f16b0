"""Locked towers: not a bit of them moves, pictures are looked at once, and sentences learn."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sightline
from sightline.core.errors import CheckpointError, ConfigError
from sightline.data.digits import write_digits
from sightline.data.mixtures import Mixture
from sightline.data.park.records import ParkRecords
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.models.table import system
from sightline.recipes import image_vectors, lit
from sightline.recipes import run as running
from sightline.recipes.classifier import ClassifierRecipe, train_classifier
from sightline.recipes.image_vectors import Looking, key_of, vector_records
from sightline.recipes.lit import LiTRecipe, looks_once, start_lit, train_lit
from sightline.recipes.rehearsal import Work, build
from sightline.recipes.splits import splits
from sightline.recipes.table import find_recipe
from sightline.training import stages
from sightline.training.checkpoints import checkpoint_folders
from tests.hub.tiny import tiny, tiny_folder
from tests.models.test_vision_text import randomise

COLOURS = {
    "red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 220), "white": (240, 240, 240),
}  # fmt: skip
SMALL = LiTRecipe(
    text_width=16, text_depth=1, text_heads=2, vocab_size=200, batch_size=8, steps=5, lr=3e-3,
    weight_decay=0.5, eval_every=5, eval_limit=6, workers=0, autocast="off", template_share=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy squares of one colour, ten of each, with a caption each."""
    root = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    lines = []
    for name, colour in COLOURS.items():
        for number in range(10):
            noise = generator.normal(0, 12, (32, 32, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"{name}-{number}.png")
            lines.append({"image": f"{name}-{number}.png", "caption": f"a {name} square",
                          "label": name})  # fmt: skip
    (root / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return root / "list.jsonl"


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small weights of every kind of image tower; batch norms with statistics of their own."""
    root = tmp_path_factory.mktemp("towers")
    for name in ("vit", "swin", "clip", "siglip", "bert", "lit"):
        tiny_folder(name, root / name)
    entry, config, network, processor = tiny("resnet")
    save_checkpoint(randomise(network), processor, config, entry, root / "resnet")
    entry = system("vit")
    config = replace(entry.tiny, labels=tuple(COLOURS), pooler=False)
    network = randomise(entry.build(config))
    pictures = Processor(image_processor(entry.preprocessing(config)), None)
    save_checkpoint(network, pictures, config, entry, root / "vit-classifier")
    return {path.name: str(path) for path in root.iterdir()}


def recipe(squares: Path, towers: dict[str, str], tower: str = "vit", **changes: Any) -> LiTRecipe:
    return replace(SMALL, data=str(squares), init_image=towers[tower], **changes)


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "step"]


def tower_of(folder: str | Path) -> dict[str, torch.Tensor]:
    network = sightline.load(str(folder), device="cpu", dtype="float32").network
    state: dict[str, torch.Tensor] = getattr(network, "image", network).state_dict()
    return {n: t for n, t in state.items() if not n.startswith(("pooler.", "classifier."))}


@pytest.fixture
def bare_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that train and save as always, scored without intervals and without a report."""

    def scores(model, records, limit):
        named = [model.classify(record.image, COLOURS)[0].label for record in records]
        return {
            "zeroshot": float(np.mean([a == r.label for a, r in zip(named, records, strict=True)]))
        }

    monkeypatch.setattr(running, "held_out_scores", scores)
    monkeypatch.setattr(running, "write_report", lambda out, *_: out / "report.html")
    monkeypatch.setattr(running, "set_threads", lambda count: count)  # as many as the tests have


# -- locked is locked ------------------------------------------------------------------------------


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.parametrize("tower", ["vit", "resnet", "swin", "clip", "siglip", "vit-classifier"])
@pytest.mark.usefixtures("bare_runs")
def test_no_bit_of_the_tower_moves_and_the_rest_learns(
    squares, towers, tower, precompute, tmp_path
):
    settings = recipe(squares, towers, tower, precompute=precompute, image_head=12)
    begun = start_lit(settings, COLOURS).network.state_dict()
    begun = {name: tensor.clone() for name, tensor in begun.items()}
    outcome = train_lit(settings, tmp_path / "run")
    given, own = tower_of(towers[tower]), tower_of(outcome.model)
    assert given.keys() == own.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in given.items())
    trained = sightline.load(outcome.model, device="cpu", dtype="float32").network.state_dict()
    still = {n for n, t in trained.items()
             if not n.startswith("image.") and torch.equal(t, begun[n])}  # fmt: skip
    assert still <= {"text.segments.weight"}  # the second segment is never spoken of
    assert {"image_head.weight", "text_head.weight", "logit_scale"} <= trained.keys() - still
    newest = checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    moments = [name for name in load_file(newest / "training" / "state.safetensors")
               if name.startswith("optimiser/")]  # fmt: skip
    assert moments and not any("/image." in name for name in moments)


def unlocked(network, part):
    pass


def without_eval(network):
    network.train()


@pytest.mark.parametrize(("tower", "patch"), [
    ("vit", (lit, "lock", unlocked)), ("resnet", (stages, "set_modes", without_eval)),
], ids=["no lock", "frozen but in training mode"])  # fmt: skip
@pytest.mark.usefixtures("bare_runs")
def test_the_test_notices_a_tower_that_moves(squares, towers, tower, patch, tmp_path, monkeypatch):
    monkeypatch.setattr(*patch)
    outcome = train_lit(recipe(squares, towers, tower, precompute=False), tmp_path / "run")
    given, own = tower_of(towers[tower]), tower_of(outcome.model)
    moved = {name for name, tensor in given.items() if not torch.equal(own[name], tensor)}
    kinds = ("running_mean", "running_var", "tracked") if tower == "resnet" else ("weight",)
    assert moved and any(name.endswith(kinds) for name in moved)


@pytest.mark.parametrize("name", ["lit", "clip", "siglip", "vision_text"])
def test_the_plan_of_locked_training_counts_what_learns(name):
    entry = system(name)
    network = build(Work(entry, entry.tiny, "locked"))
    learns = {n for n, p in network.named_parameters() if p.requires_grad}
    assert learns == {n for n, _ in network.named_parameters() if not n.startswith("image.")}
    assert not network.image.training and network.text.training


# -- once is as good as every time -----------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {}, {"objective": "sigmoid"}, {"image_head": 10, "accumulate": 2, "ema": 0.5},
], ids=["softmax", "sigmoid", "head, accumulated, averaged"])  # fmt: skip
@pytest.mark.parametrize("tower", ["vit", "resnet"])
@pytest.mark.usefixtures("bare_runs")
def test_vectors_of_before_give_the_losses_of_now(squares, towers, tower, changes, tmp_path):
    runs = {}
    for precompute in (True, False):
        out = tmp_path / str(precompute)
        outcome = train_lit(recipe(squares, towers, tower, precompute=precompute, **changes), out)
        runs[precompute] = losses(out)
        assert (out / "image_vectors").is_dir() == precompute
        assert 0 <= outcome.after["zeroshot"] <= 1
    assert runs[True] == pytest.approx(runs[False], abs=1e-6)
    assert len(set(runs[True])) == 5


@pytest.mark.usefixtures("bare_runs")
def test_a_picture_that_cannot_be_read_is_left_out_either_way(squares, towers, tmp_path, caplog):
    broken = [Path(splits(recipe(squares, towers)).training[place].image) for place in (3, 20)]
    kept = {picture: picture.read_bytes() for picture in broken}
    try:
        for picture in broken:
            picture.write_bytes(b"no picture")
        for precompute in (True, False):
            train_lit(recipe(squares, towers, precompute=precompute), tmp_path / str(precompute))
    finally:
        for picture, content in kept.items():
            picture.write_bytes(content)
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), abs=1e-6)
    assert all(f"left out: {picture}: the content" in caplog.text for picture in broken)


def test_it_looks_once_where_that_costs_less():
    assert looks_once(SMALL, steps=5, pictures=40)
    assert not looks_once(SMALL, steps=5, pictures=41)  # most would never be asked for
    assert not looks_once(replace(SMALL, crop=0.9), steps=5, pictures=40)
    assert looks_once(replace(SMALL, precompute=True), steps=1, pictures=100)
    assert not looks_once(replace(SMALL, precompute=False), steps=5, pictures=1)


# -- what lies on the disk -------------------------------------------------------------------------


@pytest.fixture
def looking(squares, towers, tmp_path, monkeypatch) -> tuple[Looking, Any]:
    """A tower, its training pictures, and parts of ten rows."""
    monkeypatch.setattr(image_vectors, "ROWS", 10)
    settings = recipe(squares, towers)
    start = start_lit(settings, COLOURS)
    model = start.as_model("lit")
    return Looking(model, tmp_path, 8, "off"), splits(settings).training


def looked(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the pictures that the tower sees from now on."""
    seen, forward = [0], looking.model.network.image.forward

    def counted(pixels):
        seen[0] += len(pixels)
        return forward(pixels)

    monkeypatch.setattr(looking.model.network.image, "forward", counted)
    return lambda: seen[0]


def test_vectors_are_those_of_the_tower_in_the_order_of_the_records(looking):
    look, records = looking
    found = vector_records(look, records)
    for index in (0, 9, 10, 31):
        pixels = look.model.processor.images([np.asarray(Image.open(records[index].image))])
        expected = look.model.network.eval().image(pixels).pooled[0]
        assert torch.allclose(torch.from_numpy(found[index].image), expected, atol=1e-5)
        assert found[index].captions == records[index].captions
    assert [r.id for r in found[30:]] == [r.id for r in records[30:]]


def test_a_mixture_keeps_its_order_and_finds_its_pictures_again(looking):
    look, records = looking
    mixture = Mixture({"a": records[:20], "b": records[20:]}, {"a": 1, "b": 3})
    found = vector_records(look, mixture)
    order = mixture.epoch_order(0, 0)
    assert (found.epoch_order(0, 0) == order).all() and found.fingerprint == mixture.fingerprint
    assert max(order) >= len(records)  # some are drawn a second time
    plain = {r.id: r.image for r in vector_records(look, [*records[:20], *records[20:]])}
    for index in map(int, order):
        assert np.array_equal(found[index].image, plain[mixture[index].id])


def test_what_is_there_is_not_computed_again(looking, monkeypatch, caplog):
    look, records = looking
    first = [np.array(record.image) for record in vector_records(look, records)]  # not mapped
    folder = look.out / "image_vectors"
    assert len(list(folder.iterdir())) == 4  # 32 records by ten, and nothing temporary
    count = looked(look, monkeypatch)
    vector_records(look, records)
    assert count() == 0
    (folder / "00001.safetensors").unlink()  # as if stopped before it
    vector_records(look, records)
    assert count() == 10
    data = bytearray((folder / "00003.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "00003.safetensors").write_bytes(data)
    vector_records(look, records)
    assert count() == 12 and "00003.safetensors is damaged: it is computed again" in caplog.text
    (folder / "00000.safetensors").write_bytes(b"cut off")
    rows = vector_records(look, records)
    assert count() == 22
    assert all(np.array_equal(rows[i].image, first[i]) for i in range(len(records)))


def changed_weights(look, records):
    look.model.network.image.norm.weight.data[0] += 1e-3


def other_preparation(look, records):
    look.model.processor.image = image_processor(
        replace(look.model.processor.image.spec, mean=(0.4, 0.5, 0.5))
    )


def a_picture_of_later(look, records):
    picture = records[3].image
    os.utime(picture, ns=(1, os.stat(picture).st_mtime_ns + 1))


def one_picture_less(look, records):
    del records[0]


@pytest.mark.parametrize("change", [
    changed_weights, other_preparation, a_picture_of_later, one_picture_less,
], ids=lambda change: change.__name__)  # fmt: skip
def test_vectors_of_something_else_are_computed_again_or_refused(looking, change, monkeypatch):
    look, records = looking
    vector_records(look, records)
    change(look, records)
    count = looked(look, monkeypatch)
    vector_records(look, records)
    assert count() == len(records)
    (look.out / "checkpoints" / "step-0000001").mkdir(parents=True)
    vector_records(look, records)
    look.model.network.image.norm.bias.data[0] += 1e-3
    with pytest.raises(ConfigError, match="has learned from the picture vectors of other weights"):
        vector_records(look, records)


def test_the_key_knows_the_type_of_the_products_and_stored_bytes(looking, squares):
    look, records = looking
    keys = {key_of(replace(look, autocast=kind), records) for kind in ("off", "bfloat16")}
    as_bytes = [replace(r, image=Path(r.image).read_bytes()) for r in records]
    as_pixels = [replace(r, image=np.asarray(Image.open(r.image))) for r in records]
    keys |= {key_of(look, as_bytes), key_of(look, as_pixels)}
    as_pixels[0] = replace(as_pixels[0], image=as_pixels[0].image ^ np.uint8(1))
    assert len(keys | {key_of(look, as_pixels)}) == 5


def test_drawn_parks_are_known_by_their_seeds_and_drawn_a_part_at_a_time(looking, monkeypatch):
    look, _ = looking
    parks = [ParkRecords("train", start, 12, size=32) for start in (0, 0, 5)]
    one, same, other = (key_of(look, records) for records in parks)
    assert one == same != other
    monkeypatch.setattr(ParkRecords, "__iter__", None)  # nothing walks over all of them
    found = vector_records(look, parks[0])
    assert found.rows == len(found) == 12 and found[11].captions == parks[0][11].captions


def test_a_newer_version_is_refused_by_name(looking):
    look, records = looking
    vector_records(look, records)
    file = look.out / "image_vectors" / "00002.safetensors"
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata() | {"version": "2"}
    save_file(load_file(file), file, metadata=told)
    with pytest.raises(
        CheckpointError, match=r"00002\.safetensors has version 2, this Sightline re"
    ):
        vector_records(look, records)


def test_progress_is_told(looking):
    told: list[tuple[int, int]] = []

    class Told:
        def prepare(self, done: int, total: int, what: str) -> None:
            assert what == "vectors of pictures"
            told.append((done, total))

    vector_records(*looking, Told())
    assert told[-1] == (32, 32) and len(told) == 32


# -- runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.usefixtures("bare_runs")
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_been(
    squares, towers, precompute, tmp_path
):
    settings = recipe(squares, towers, "resnet", precompute=precompute, save_every=1)
    whole = train_lit(settings, tmp_path / "whole")
    parts = replace(settings)
    stopped = train_lit(parts, tmp_path / "parts", minutes=1e-9)
    assert stopped.summary.stopped == "minutes" and stopped.summary.steps < 5
    files = sorted((tmp_path / "parts").glob("image_vectors/*"))
    written = [file.stat().st_mtime_ns for file in files]
    outcome = train_lit(parts, tmp_path / "parts")
    assert outcome.summary.steps == 5 and losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [file.stat().st_mtime_ns for file in files] == written
    one, two = (load_file(o.model / "model.safetensors") for o in (whole, outcome))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.usefixtures("bare_runs")
def test_siglit_is_saved_as_such_and_answers_by_sigmoids(squares, towers, tmp_path):
    outcome = train_lit(recipe(squares, towers, objective="sigmoid"), tmp_path / "run")
    model = sightline.load(outcome.model, device="cpu", dtype="float32")
    assert model.config.score == model.system.score == "sigmoid"
    assert float(model.network.logit_bias.detach()) != pytest.approx(-2.71, abs=1e-6)
    scores = [answer.score for answer in model.classify(squares.with_name("red-0.png"), COLOURS)]
    assert sum(scores) != pytest.approx(1, abs=1e-3)
    again = start_lit(replace(SMALL, init=str(outcome.model), data=str(squares)), [])
    assert again.config == model.config and again.system.score == "sigmoid"
    softmax = replace(SMALL, init=str(outcome.model), objective="softmax")
    assert start_lit(softmax, []).network.logit_bias is None


def test_words_come_with_a_text_tower_and_are_cut_to_sixteen(squares, towers):
    start = start_lit(recipe(squares, towers, init_text=towers["bert"]), [])
    assert start.config.text.pooling == "cls" and not start.config.text.pooler
    assert start.config.max_tokens == 11  # as many positions as the tiny one has
    ids = start.processor.text(["a red ball on the grass " * 9]).ids
    assert ids.shape == (1, 11)
    words = start.processor.text
    assert ids[0, 0] == words.token_id("[CLS]") and words.token_id("[SEP]") not in ids
    given = sightline.load(towers["bert"], device="cpu", dtype="float32").network.state_dict()
    own = start.network.text.state_dict()
    assert all(torch.equal(own[n], t) for n, t in given.items() if not n.startswith("pooler"))
    longer = recipe(squares, towers, init_text=towers["bert"], context_length=7)
    assert start_lit(longer, []).processor.text(["a red ball on the grass"]).ids.shape == (1, 7)


def test_a_released_model_gives_its_tower_and_goes_on(squares, towers):
    whole = start_lit(replace(SMALL, init=towers["lit"]), [])
    given = sightline.load(towers["lit"], device="cpu", dtype="float32")
    assert whole.config == given.config
    for name, tensor in given.network.state_dict().items():
        assert torch.equal(whole.network.state_dict()[name], tensor)
    half = start_lit(recipe(squares, towers, "lit", image_head=None), ["a red square"])
    assert half.config.image_head == 0 and half.config.score == "softmax"
    assert all(torch.equal(half.network.image.state_dict()[n], t)
               for n, t in given.network.image.state_dict().items())  # fmt: skip


@pytest.mark.usefixtures("bare_runs")
def test_low_rank_additions_reach_the_text_alone(squares, towers, tmp_path):
    run = replace(SMALL, data=str(squares), init=towers["lit"], lora_rank=2, precompute=True)
    outcome = train_lit(run, tmp_path / "run")
    before, after = (sightline.load(str(folder), device="cpu", dtype="float32").network.state_dict()
                     for folder in (towers["lit"], outcome.model))  # fmt: skip
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert moved and all(".attention.q." in n or ".attention.v." in n for n in moved)
    assert all(name.startswith("text.") for name in moved)


@pytest.mark.parametrize(("changes", "message"), [
    ({"precompute": True, "crop": 0.9}, "precompute=yes keeps one vector of a picture, and crop="),
    ({"patch_dropout": 0.5}, "the image tower of lit is locked: patch_dropout and image_lr_scale"),
    ({"image_lr_scale": 0.1}, "the image tower of lit is locked"),
    ({"positions": "none"}, "use sincos or normal"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **changes)


def test_a_run_without_a_tower_says_how_to_give_one(squares, tmp_path):
    with pytest.raises(
        ConfigError, match="give it with init_image=NAME, such as the best model of"
    ):
        train_lit(replace(SMALL, data=str(squares)), tmp_path / "run")


def test_it_stands_in_the_table_of_recipes():
    entry = find_recipe("lit")
    assert entry.recipe() == LiTRecipe() and entry.run() is train_lit


@pytest.mark.usefixtures("bare_runs")
def test_sentences_learn_and_shuffled_ones_do_not(squares, towers, tmp_path):
    """A tower that nobody trained tells four colours apart; words have to find them."""
    settings = recipe(squares, towers, "vit", steps=60, lr=1e-2, weight_decay=0.0, eval_every=60,
                      eval_limit=100)  # fmt: skip
    parts = splits(settings)
    held_out = [*parts.validation, *parts.test]
    scores = {}
    for shuffled in (False, True):
        run = replace(settings, shuffle_captions=shuffled)
        model = sightline.load(train_lit(run, tmp_path / str(shuffled)).model, dtype="float32")
        named = [model.classify(r.image, COLOURS, "a {} square")[0].label for r in held_out]
        scores[shuffled] = float(
            np.mean([a == r.label for a, r in zip(named, held_out, strict=True)])
        )
    assert scores[False] >= 0.9
    assert scores[True] <= 0.6


@pytest.mark.slow
def test_handwritten_digits_are_named_by_a_locked_classifier(tmp_path):
    """The tower was taught ten labels; sentences learn to say them, shuffled ones do not."""
    data = str(write_digits(tmp_path / "digits"))
    tower = train_classifier(
        ClassifierRecipe(tower="resnet", data=data, steps=250), tmp_path / "tower"
    )
    assert tower.after["top1"] >= 0.95
    run = LiTRecipe(data=data, init_image=str(tower.model), steps=300)
    outcome = train_lit(run, tmp_path / "lit")
    assert outcome.before["zeroshot"] <= 0.35
    assert outcome.after["zeroshot"] >= 0.9
    control = train_lit(replace(run, shuffle_captions=True), tmp_path / "control")
    assert control.after["zeroshot"] <= 0.35
