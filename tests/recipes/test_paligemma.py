"""Training a model that speaks: what is learned of data, from whose weights, in which phases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sightline
from sightline.core.errors import CheckpointError, ConfigError, DataError
from sightline.data.examples import Example, Examples
from sightline.data.formats import open_dataset
from sightline.data.park import scene
from sightline.data.park.records import told_record
from sightline.data.records import Record
from sightline.data.turns import Turn
from sightline.inputs.tokenizers import TextSpec
from sightline.inputs.vocabulary import with_places
from sightline.models import paligemma
from sightline.recipes.answer_data import Speller, collate, examples_of, tasks_of
from sightline.recipes.answer_loss import answer_loss
from sightline.recipes.answer_scores import answer_scores
from sightline.recipes.paligemma import PaliGemmaRecipe, start_of, train_paligemma
from sightline.recipes.speaking import Sizes, joined, resized, weights_of
from sightline.recipes.splits import splits
from sightline.training.accumulation import accumulate
from tests.recipes.speaking_runs import park_folder, small

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks of this size are slower with two, and much slower beside other work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sightline.recipes.run.set_threads", lambda count: torch.set_num_threads(1))
        yield


@pytest.fixture(scope="module")
def parks(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("parks")
    return {n: park_folder(folder / n, n) for n in ("vqa", "prefix-suffix", "messages")}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Any, Any, Path]:
    """A model folder that transformers wrote: (network, processor, folder)."""
    pytest.importorskip("transformers")
    from tests.hub import gemma_files

    folder = tmp_path_factory.mktemp("published") / "tiny"
    network, processor = gemma_files.folder("paligemma", folder)
    return network, processor, folder


# -- what there is to learn --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "tasks"), [("vqa", ["ask"]), ("prefix-suffix", ["written"]), ("messages", ["chat"])]
)
def test_all_that_the_data_say_is_learned(parks, layout, tasks) -> None:
    data = open_dataset(parks[layout])
    assert tasks_of(data) == tasks
    assert len(examples_of(data, ())) >= len(data)


def test_an_answer_of_a_conversation_is_asked_for_as_chat_does(parks) -> None:
    record = told_record(scene(3))
    examples = Examples([record], ["chat"])
    assert len(examples) == len(record.messages) // 2
    assert examples[0].prefix == "answer en Describe the picture."
    assert examples[0].suffix == scene(3).caption
    third = [turn.text for turn in record.messages[:5]]
    assert examples[2].prefix == "\n".join([*third[:4], f"answer en {third[4]}"])
    assert examples[2].suffix == record.messages[5].text


def test_an_answer_sees_the_pictures_that_were_shown_by_then() -> None:
    first, second = scene(1).pixels, scene(2).pixels
    turns = (
        Turn("assistant", "hello"), Turn("user", "what is this?", (first,)),
        Turn("assistant", "a"), Turn("user", "and  this?", (second,)), Turn("assistant", "b"),
    )  # fmt: skip
    record = Record("one", first, more_images=(second,), messages=turns)
    examples = Examples([record], ["chat"])
    assert [len(example.pictures) for example in examples] == [1, 2]
    assert [e.prefix.count("\n") for e in examples] == [1, 3]  # a greeting is no answer
    assert examples[1].prefix.endswith("answer en and this?")


def test_pictures_alone_teach_nothing() -> None:
    bare = [replace(told_record(scene(0)), messages=())]
    with pytest.raises(DataError, match="nothing is said about the pictures"):
        examples_of(bare, ())


def test_questions_about_one_picture_stay_in_one_part(parks) -> None:
    parts = splits(small(parks["vqa"]))
    shown = [{str(record.image) for record in part} for part in parts]
    assert all(shown)
    assert not shown[0] & shown[1] and not shown[0] & shown[2] and not shown[1] & shown[2]
    assert sum(map(len, parts)) == len(open_dataset(parks["vqa"]))


def test_a_long_answer_is_cut_and_a_long_prompt_refused(parks, caplog) -> None:
    start = start_of(
        small("park"), small("park").chosen()[0], examples_of([told_record(scene(1))], ())
    )
    examples = examples_of([told_record(scene(1))], ())
    told = paligemma.instructions(start.config)
    whole = Speller(start.processor, told, 500)(examples[0])
    short = Speller(start.processor, told, len(whole.prompt) + 2)
    assert short(examples[0]).suffix == whole.suffix[:2]
    assert whole.suffix[-1] == start.processor.tokenizer.eos_id
    assert sum("answers are cut" in message for message in caplog.messages) == 1
    short(examples[0])
    assert sum("answers are cut" in message for message in caplog.messages) == 1
    with pytest.raises(DataError, match="leaves no room for an answer in 3: raise text_length"):
        Speller(start.processor, told, 3)(examples[0])


# -- from weights that transformers wrote ------------------------------------------------------


# transformers 5.23 asks numpy for a copy in a way that tensors do not answer yet
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_the_first_loss_is_the_references_own(parks, published) -> None:
    theirs, processor, folder = published
    start, _ = weights_of(str(folder))
    examples = examples_of(open_dataset(parks["prefix-suffix"]), ())[:5]
    speller = Speller(start.processor, paligemma.instructions(start.config), 900)
    batch = collate([speller(example) for example in examples])
    ours = accumulate(answer_loss())(start.network, [batch])
    from sightline.inputs.images import read_image

    inputs = processor(
        images=[read_image(example.pictures[0]) for example in examples],
        text=["<image>" + example.prefix for example in examples],
        suffix=[example.suffix for example in examples],
        return_tensors="pt", padding="longest", padding_side="right",
    )  # fmt: skip
    expected = theirs(**inputs).loss
    assert (inputs["labels"] != -100).sum() == batch.suffix_mask.sum()
    assert ours.loss == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    gradient = theirs.model.multi_modal_projector.linear.weight.grad
    own = start.network.get_submodule("projector").weight.grad
    largest = max(1.0, float(gradient.abs().max()))
    torch.testing.assert_close(own, gradient, atol=1e-5 * largest, rtol=0)


@pytest.mark.parametrize("name", ["gemma", "gemma2"])
def test_a_tower_and_a_decoder_are_joined(published, name, tmp_path) -> None:
    from tests.hub import gemma_files

    gemma_files.folder(name, tmp_path / "words")
    recipe = small("park", init_image=str(published[2]), init_text=str(tmp_path / "words"))
    assert [phase.name for phase in recipe.chosen()] == ["alignment", "joint"]
    start = start_of(recipe, recipe.chosen()[0], [])
    tower, decoder = (
        sightline.load(f, dtype="float32").network.state_dict()
        for f in (published[2], tmp_path / "words")
    )
    for key, tensor in start.network.state_dict().items():
        if key == "decoder.table.weight":
            known = len(decoder[key])
            assert torch.equal(tensor[:known], decoder[key])
            assert len(tensor) % 64 == 0 and len(tensor) >= known + 1153
            assert 0 < float(tensor[known:].std()) < 0.03
        elif key == "image.positions.table":
            assert tensor.shape == (4, 24)  # of image_size=16
        elif not key.startswith("projector."):
            assert torch.equal(tensor, (tower if key.startswith("image.") else decoder)[key]), key
    words = start.processor.tokenizer
    places = [words.token_id(token) for token in ("<loc0000>", "<seg127>", "<image>")]
    assert places == [known, known + 1151, known + 1152]
    assert words.encode("<loc0007>", trusted=True) == [known + 7]
    assert len(words.encode("<loc0007>")) > 1
    assert start.config.image_token == places[2]


def test_a_new_decoder_learns_behind_a_tower_that_sees() -> None:
    recipe = PaliGemmaRecipe(init_image="park-siglip", width=16, num_heads=2, mlp_width=24)
    (phase,) = recipe.chosen()
    start = start_of(recipe, phase, examples_of([told_record(scene(0))], ()))
    tower = sightline.load("park-siglip", dtype="float32").network.state_dict()
    own = start.network.state_dict()
    assert phase.name == "scratch"
    assert all(torch.equal(own[n], tower[n]) for n in own if n.startswith("image."))
    assert own["projector.weight"].abs().max() > 0


def test_a_vocabulary_that_cannot_grow_is_refused() -> None:
    class Pieces:
        def token_id(self, token: str) -> None:
            return None

    with pytest.raises(ConfigError, match=r"SentencePiece file cannot take the tokens of places"):
        with_places(Pieces(), TextSpec())  # type: ignore[arg-type]


def test_a_bundled_writer_is_tuned_with_what_its_card_knows() -> None:
    start, _ = weights_of("park-paligemma")
    assert start.card == {
        "domain": "drawn parks", "everything": ["everything"], "tuned_from": "park-paligemma"
    }  # fmt: skip


def test_parts_of_other_systems_are_refused() -> None:
    with pytest.raises(ConfigError, match="comes from a gemma or a gemma2 or a paligemma"):
        joined(Sizes(), None, "park-siglip", [], 0)
    with pytest.raises(ConfigError, match="give it as init_image or init_text"):
        weights_of("park-siglip")


@pytest.mark.parametrize("phase", ["transfer", "lora", "qlora"])
def test_tuning_a_published_model_improves_held_out_answers(parks, published, phase, tmp_path):
    _, _, folder = published
    recipe = PaliGemmaRecipe(
        data=parks["vqa"], init=str(folder), phases=(phase,), steps=25, lr=0.01, batch_size=4,
        eval_limit=6, eval_every=25, workers=0, autocast="off", text_length=256, lora_rank=4
        if phase != "transfer" else None, lora_targets=("*.attention.*", "*.mlp.*"),
    )  # fmt: skip
    outcome = train_paligemma(recipe, tmp_path)
    assert outcome.after["logprob"] > outcome.before["logprob"] + 1
    last = tmp_path / f"1-{phase}" / "checkpoints" / "last"
    assert outcome.model.is_relative_to(last.parent)
    base, tuned = (sightline.load(f, dtype="float32") for f in (folder, last / "model"))
    state = tuned.network.state_dict()
    moved = {n for n, t in base.network.state_dict().items() if not torch.equal(t, state[n])}
    if phase == "transfer":
        assert not (last / "adapter").exists() and len(moved) == len(state)
        return
    worn = load_file(last / "adapter" / "adapter_model.safetensors")
    assert len(worn) == 2 * (3 * 6 + 4 * 7)  # A and B of every linear layer of both stacks
    if phase == "lora":  # nothing else moves; 4-bit weights are saved as what they stand for
        assert all(".attention." in name or ".mlp." in name for name in moved)
        apart = sightline.load(folder, dtype="float32", adapter=last / "adapter")
        grey = torch.full((24, 24, 3), 90, dtype=torch.uint8).numpy()
        one, other = (m.logprob(grey, "caption en", ["a ball"]) for m in (apart, tuned))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


# -- phases -------------------------------------------------------------------------------------

PHASES = ("scratch", "alignment", "resolution-448", "lora")
SMALLER = {"resolution-448.image_size": "32", "alignment.lr": "0.05"}


@pytest.fixture(scope="module")
def phased(parks, tmp_path_factory):
    """(recipe, outcome, folder) of a run of four phases."""
    recipe = small(parks["prefix-suffix"], phases=PHASES, phase_settings=SMALLER, next_from="last")
    recipe = replace(recipe, lora_rank=None, row_length=300)
    folder = tmp_path_factory.mktemp("phased") / "run"
    return recipe, train_paligemma(recipe, folder), folder


def left(folder: Path, number: int) -> dict[str, torch.Tensor]:
    model = folder / f"{number}-{PHASES[number - 1]}" / "checkpoints" / "last" / "model"
    return dict(sightline.load(model, dtype="float32").network.state_dict())


def test_each_phase_starts_from_what_the_one_before_left(phased) -> None:
    _, outcome, folder = phased
    assert outcome.summary.steps == 8 and outcome.summary.stopped == "finished"
    assert outcome.model.is_relative_to(folder / "4-lora")
    first, aligned, larger, added = (left(folder, number) for number in (1, 2, 3, 4))
    changed = {n for n, tensor in first.items() if not torch.equal(tensor, aligned[n])}
    assert changed == {"projector.weight", "projector.bias"}
    assert larger["image.positions.table"].shape == (16, 16)
    assert {n for n, tensor in larger.items() if not torch.equal(tensor, added[n])} == {
        f"{stack}.blocks.0.attention.{half}.weight"
        for stack in ("image.transformer", "decoder")
        for half in "qv"
    }


def test_the_config_and_the_preparation_change_with_the_resolution(phased) -> None:
    _, _, folder = phased
    sizes = []
    for number in (2, 3):
        model = folder / f"{number}-{PHASES[number - 1]}" / "checkpoints" / "last" / "model"
        config = json.loads((model / "config.json").read_text())
        prepared = json.loads((model / "preprocessor_config.json").read_text())
        sizes.append((config["vision_config"]["image_size"], prepared["size"]["height"],
                      prepared["image_seq_length"]))  # fmt: skip
    assert sizes == [(16, 16, 4), (32, 32, 16)]


def test_a_larger_picture_is_read_as_before(published) -> None:
    start, _ = weights_of(str(published[2]))
    larger = resized(start, 40)
    pixels = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(larger.network.image_tokens(pixels), start.network.image_tokens(pixels))
    assert larger.processor.images([pixels[0].permute(1, 2, 0).byte().numpy()]).shape[-1] == 40
    with pytest.raises(ConfigError, match="30 is no whole number of patches of 8 x 8"):
        resized(start, 30)


def test_a_run_that_is_done_is_only_looked_at(phased) -> None:
    recipe, outcome, folder = phased
    again = train_paligemma(recipe, folder)
    assert again == outcome or (again.after, again.summary.steps) == (outcome.after, 8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_inside_and_between_phases_it_is_still_the_same_run(tmp_path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.recipes.killed_phases", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert [name for name, _, _ in report["kills"]] == ["inside 1", "between", "inside 2"]
    for name, killed, outcome in report["kills"]:
        assert killed, name
        assert outcome == report["whole"], name


def test_other_settings_of_a_phase_that_is_done_are_refused(phased) -> None:
    recipe, _, folder = phased
    other = replace(recipe, phase_settings={**SMALLER, "alignment.lr": "0.01"})
    with pytest.raises(ConfigError, match=r"alignment\.lr = '0\.01'"):
        train_paligemma(other, folder)


def test_minutes_are_those_of_all_phases(parks, tmp_path) -> None:
    recipe = small(parks["vqa"], phases=("scratch", "alignment"), steps=1, eval_limit=2)
    stopped = train_paligemma(recipe, tmp_path, minutes=1e-6)
    assert (stopped.summary.stopped, stopped.summary.steps) == ("minutes", 1)
    assert not (tmp_path / "2-alignment").exists()
    done = train_paligemma(recipe, tmp_path)
    assert (done.summary.stopped, done.summary.steps) == ("finished", 2)
    assert done.before == stopped.before


def test_a_mark_of_a_newer_version_is_refused(phased, tmp_path) -> None:
    recipe, _, folder = phased
    document = json.loads((folder / "1-scratch" / "phase.json").read_text())
    (tmp_path / "1-scratch").mkdir()
    (tmp_path / "1-scratch" / "phase.json").write_text(json.dumps({**document, "version": 2}))
    with pytest.raises(CheckpointError, match="version 2: install the newer Sightline"):
        train_paligemma(recipe, tmp_path)


def test_pictures_that_cannot_be_read_are_no_score(published) -> None:
    start, _ = weights_of(str(published[2]))
    examples = [Example("lost", (Path("nowhere.png"),), "caption en", "a ball")]
    with pytest.raises(DataError, match="none of the pictures to score on can be read"):
        answer_scores(start.as_model("tiny"), examples, 128, 10)


def test_a_damaged_mark_is_named(phased, tmp_path) -> None:
    recipe, _, _ = phased
    (tmp_path / "1-scratch").mkdir()
    (tmp_path / "1-scratch" / "phase.json").write_text("{")
    with pytest.raises(CheckpointError, match="delete it, and the phase goes on"):
        train_paligemma(recipe, tmp_path)


# -- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "a", "init_text": "b"}, "init gives both parts"),
        ({"next_from": "first"}, "use best or last"),
        ({"parallel": "fsdp"}, "use parallel=ddp"),
        ({"compile": True}, "use compile=no"),
        ({"test_share": 1.0}, "share between 0 and 1"),
        ({"phases": ("tranfser",)}, "transfer"),
        ({"phase_settings": {"joint.lr": "1"}}, "phase of this run"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        PaliGemmaRecipe(**changes)


def test_additions_need_weights(parks, tmp_path) -> None:
    with pytest.raises(ConfigError, match="name them with init"):
        train_paligemma(small(parks["vqa"], phases=("lora",)), tmp_path)


def test_a_row_holds_the_longest_sequence(parks, tmp_path) -> None:
    with pytest.raises(ConfigError, match="row_length 100 is shorter"):
        train_paligemma(small(parks["vqa"], row_length=100), tmp_path)
