"""Runs in which only low-rank additions learn, small enough for seconds."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sightline
from sightline.core.errors import ConfigError
from sightline.data.park.export import write
from sightline.data.park.scenes import ParkScenes
from sightline.nn import lora
from sightline.recipes.dual_encoder import (
    DualEncoderRecipe,
    contrastive_step,
    largest_scale,
    objective_of,
)
from sightline.recipes.pair_data import pair_loader
from sightline.recipes.run import dual_encoder_stage, train_dual_encoder
from sightline.recipes.splits import splits
from sightline.recipes.towers import start_from
from sightline.training.optimisers import build_optimiser
from sightline.training.stages import begin_stage
from tests.hub.tiny import tiny_folder

TUNED = DualEncoderRecipe(
    batch_size=4, steps=4, eval_limit=4, eval_every=9, save_every=1, workers=0, crop=1.0, lr=0.05,
    autocast="off", weight_decay=0.5, init="base", lora_rank=2, lora_alpha=4.0, ema=0.5,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks of this size are slower with two, and much slower beside other work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sightline.recipes.run.set_threads", lambda count: torch.set_num_threads(1))
        yield


@pytest.fixture(scope="module")
def parks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parks") / "pictures"
    write(ParkScenes("train", 0, 24, size=32), folder)
    return str(folder)


def base(system: str, folder: Path) -> str:
    tiny_folder(system, folder)
    return str(folder)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def run(request, parks, tmp_path_factory) -> Any:
    """(recipe, outcome, folder of the run)."""
    folder = tmp_path_factory.mktemp(request.param)
    weights = base(request.param, folder / "base")
    recipe = replace(TUNED, system=request.param, data=parks, init=weights)
    return recipe, train_dual_encoder(recipe, folder / "run"), folder / "run"


def test_each_checkpoint_has_the_merged_model_and_the_adapter(run):
    recipe, outcome, out = run
    assert outcome.summary.steps == 4
    last = out / "checkpoints" / "last"
    whole = sightline.load(last / "model", dtype="float32")
    apart = sightline.load(recipe.init, dtype="float32", adapter=last / "adapter")
    words = ["a red ball on the grass", "two ducks"]
    expected = apart.embed_texts(words)
    assert torch.allclose(whole.embed_texts(words), expected, atol=1e-5)
    assert not torch.allclose(
        sightline.load(recipe.init, dtype="float32").embed_texts(words), expected, atol=1e-3
    )
    assert len(lora.layers(apart.network)) == 12
    assert {layer.scale for layer in lora.layers(apart.network).values()} == {2.0}


def test_the_base_stays_bit_identical_and_only_additions_have_moments(run):
    recipe, _, out = run
    before = sightline.load(recipe.init, dtype="float32").network.state_dict()
    state = load_file(out / "checkpoints" / "last" / "training" / "state.safetensors")
    network = {
        name.removeprefix("network/").replace(".base.", "."): tensor
        for name, tensor in state.items()
        if name.startswith("network/") and "lora_" not in name
    }
    assert network.keys() == before.keys()
    assert all(torch.equal(network[name], before[name]) for name in before)
    for part in ("optimiser/", "average/"):
        names = [name for name in state if name.startswith(part)]
        assert names and all("lora_" in name for name in names)
        assert all(state[name].dtype == torch.float32 for name in names)
    merged = load_file(out / "checkpoints" / "last" / "model" / "model.safetensors")
    original = load_file(Path(recipe.init) / "model.safetensors")
    changed = {name for name in original if not torch.equal(merged[name], original[name])}
    assert len(changed) == 12
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)


def test_the_first_loss_is_the_bases_own(run):
    recipe, _, _ = run
    training, _, _ = splits(recipe)
    start = start_from(recipe, [])
    batch = next(iter(pair_loader(training, start.processor, recipe, "{}")))
    scale = start.network.logit_scale.clone()
    step = contrastive_step(objective_of(recipe, start.system.score), largest_scale(recipe.system))
    network = sightline.load(recipe.init, dtype="float32").network.requires_grad_(True)
    bare = contrastive_step(objective_of(recipe, start.system.score), None)
    assert step(start.network, [batch]).loss == bare(network, [batch]).loss
    assert torch.equal(start.network.logit_scale, scale)


def test_a_frozen_scale_above_the_bound_is_not_cut(parks, tmp_path):
    recipe = replace(TUNED, system="clip", data=parks, init=base("clip", tmp_path / "base"))
    start = start_from(recipe, [])
    start.network.logit_scale.data.fill_(4.6052)  # as published, a hair above log(100)
    batch = next(iter(pair_loader(splits(recipe)[0], start.processor, recipe, "{}")))
    contrastive_step("softmax", 100.0)(start.network, [batch])
    assert start.network.logit_scale == torch.tensor(4.6052)


def test_a_run_goes_on_where_it_stopped(run, tmp_path):
    recipe, _, out = run
    source = sorted((out / "checkpoints").glob("step-*"))[-2]
    assert source.name == "step-00000003"
    shutil.copytree(source, tmp_path / "checkpoints" / source.name)
    train_dual_encoder(recipe, tmp_path)
    first, second = (
        load_file(folder / "checkpoints" / "last" / "adapter" / "adapter_model.safetensors")
        for folder in (out, tmp_path)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_towers_learn_at_rates_of_their_own_and_one_alone(run):
    recipe, _, _ = run
    both = replace(recipe, text_lr_scale=0.1, lora_targets=("*.0.attention.q",))
    for changed, towers in (
        (both, {"image", "text"}),
        (replace(both, lora_targets=("image.*.0.attention.q",)), {"image"}),
        (replace(both, text_lr_scale=1.0, freeze=("text.*",)), {"image"}),
    ):
        network = start_from(changed, []).network
        stage = dual_encoder_stage(changed, 1, network)
        fixed = frozenset(n for n, p in network.named_parameters() if not p.requires_grad)
        learning = begin_stage(network, stage, fixed)
        assert {name.partition(".")[0] for name in learning} == towers
        assert len(build_optimiser(network, stage, learning).param_groups) == len(towers)


def test_a_system_that_peft_has_no_class_for_keeps_the_merged_model(parks, tmp_path, caplog):
    recipe = replace(
        TUNED, system="unicl", data=parks, init=base("unicl", tmp_path / "base"), steps=1
    )
    with caplog.at_level(logging.WARNING):
        train_dual_encoder(recipe, tmp_path / "run")
    assert "no linear layer of its own in the published layout of unicl" in caplog.text
    last = tmp_path / "run" / "checkpoints" / "last"
    assert not (last / "adapter").exists()
    assert sightline.load(last / "model", dtype="float32").embed_texts(["a ball"]).shape[0] == 1


def test_settings_that_do_not_fit_are_refused(run):
    recipe, _, _ = run
    with pytest.raises(ConfigError, match="lora_rank 2 adds to weights that stay as they are"):
        replace(recipe, init=None)
    with pytest.raises(ConfigError, match=r"no linear layer fits the pattern '\*\.query'"):
        start_from(replace(recipe, lora_targets=("*.query",)), [])
    with pytest.raises(ConfigError, match="use a rank from 1 on"):
        start_from(replace(recipe, lora_rank=-1), [])
