"""Folders of models that write: theirs here and ours there, in every spelling and number type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

import sightline
from sightline.cli.program import program
from sightline.core.errors import CheckpointError, ConfigError
from sightline.core.interfaces import Prompt
from sightline.generation.options import GenerationOptions
from sightline.generation.text import generate
from sightline.hub.convert import convert
from sightline.hub.load import load_checkpoint
from tests.hub import gemma_files
from tests.models.writers import (
    SYSTEMS,
    agree,
    our_outputs,
    prompts,
    their_outputs,
)

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

# PaliGemma's processor of transformers 5.23 hands tensors to numpy in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

PICTURES = [
    Image.fromarray(np.random.default_rng(n).integers(0, 256, (*size, 3), dtype=np.uint8))
    for n, size in enumerate([(50, 71), (24, 24), (33, 19)])
]
PROMPTS = ["caption en", "answer en what colour is the ball?", "detect ball ; tree"]


def ours(folder: Path, **options: Any) -> Any:
    return sightline.load(folder, device="cpu", dtype="float32", **options)


def differing(theirs: Any, model: Any, name: str) -> set[str]:
    batch = prompts(name)

    with torch.no_grad():
        expected = their_outputs(theirs, *batch)
        found = our_outputs(model.network, *batch)
    return {key for key in expected if not agree(found[key], expected[key])}


@pytest.fixture(scope="module", params=SYSTEMS)
def published(request, tmp_path_factory):
    """(name, network and processor of the reference, their folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, *gemma_files.folder(request.param, folder), folder


@pytest.fixture(scope="module")
def paligemma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paligemma")
    return *gemma_files.folder("paligemma", folder), folder


def test_what_the_reference_saves_loads_here_and_agrees(published):
    name, theirs, _, folder = published
    assert differing(theirs, ours(folder), name) == set()


def test_what_is_saved_here_loads_there_whole_and_agrees(published, tmp_path):
    name, theirs, _, folder = published
    ours(folder).save(tmp_path / "m")
    back, report = type(theirs).from_pretrained(
        tmp_path / "m", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = prompts(name)
    with torch.no_grad():
        expected, found = (their_outputs(network, *batch) for network in (theirs, back.eval()))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    stored = load_file(tmp_path / "m/model.safetensors")
    original = load_file(folder / "model.safetensors")
    assert stored.keys() == original.keys()
    assert back.generation_config.eos_token_id == 1


@pytest.mark.parametrize("layout", ["openai", "open_clip", "onnx"])
def test_other_layouts_cannot_hold_it(published, tmp_path, layout):
    with pytest.raises(ConfigError, match=f"the {layout} layout cannot hold .*: .*transformers"):
        convert(published[-1], layout, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_its_tower_in_8_bits_answers_nearly_the_same(paligemma):
    """The part that sees; the decoder keeps its weights. A language model has no such part."""
    folder = paligemma[-1]
    model, plain = ours(folder, quantize="int8"), ours(folder)
    pixels = plain.processor.images([np.asarray(picture) for picture in PICTURES])
    with torch.no_grad():
        found, expected = (m.network.image_tokens(pixels) for m in (model, plain))
    assert not torch.equal(found, expected)
    assert float(torch.cosine_similarity(found, expected, dim=-1).min()) > 0.99


def test_what_the_folder_is_can_be_asked(paligemma):
    told = CliRunner().invoke(program, ["info", str(paligemma[-1]), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["family"], found["role"]) == ("paligemma", "vision-language model")
    assert found["vocabulary"] == len(paligemma[1].tokenizer)
    assert found["config"]["image_token"] == paligemma[1].image_token_id


def test_a_copy_is_proved_to_be_the_same(published, tmp_path):
    proof = convert(published[-1], "transformers", tmp_path / "m")
    assert proof.holds and set(proof.differences.values()) == {0.0}
    assert proof.tokens == "equal"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_other_number_types_and_shards(published, tmp_path, kind):
    """The numbers of the file, and not those of another type, decide."""
    name, theirs, words, _ = published
    narrow = type(theirs)(theirs.config).to(kind)
    narrow.load_state_dict(theirs.state_dict())
    narrow.save_pretrained(tmp_path, max_shard_size="20KB")
    words.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    wide, report = type(theirs).from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert differing(wide.eval(), ours(tmp_path), name) == set()


# Writers of transformers 4, of those around 4.50, and of 5.
SPELLINGS = {
    "4": {"vision_tower.": "vision_tower.vision_model."},
    "4.50": {
        "language_model.model.": "model.language_model.",
        "vision_tower.": "model.vision_tower.vision_model.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
    "in memory": {
        "language_model.model.": "model.language_model.",
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
}


@pytest.mark.parametrize("writer", SPELLINGS)
@pytest.mark.parametrize("head", [False, True], ids=["without its head", "with its head"])
def test_every_spelling_of_a_writer_is_read_as_the_reference_reads_it(
    paligemma, tmp_path, writer, head
):
    theirs, words, folder = paligemma
    state = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        start = next(old for old in (*SPELLINGS[writer], key) if key.startswith(old))
        state[SPELLINGS[writer].get(start, start) + key.removeprefix(start)] = tensor
    if head:
        table = next(tensor for key, tensor in state.items() if key.endswith("embed_tokens.weight"))
        state["language_model.lm_head.weight" if writer == "4" else "lm_head.weight"] = (
            table.clone()
        )
    assert state.keys() != load_file(folder / "model.safetensors").keys()
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs.config.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    again, report = type(theirs).from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert differing(again.eval(), ours(tmp_path), "paligemma") == set()


def test_a_tensor_that_nobody_knows_is_listed(paligemma, tmp_path):
    theirs, _, folder = paligemma
    state = load_file(folder / "model.safetensors")
    state["vision_tower.head.probe"] = torch.zeros(1, 1, 24)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs.config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"\+ vision_tower\.head\.probe"):
        ours(tmp_path)


# -- preprocessing ---------------------------------------------------------------------------------


def test_pictures_are_prepared_as_the_reference_does(paligemma):
    _, words, folder = paligemma
    theirs = words.image_processor(PICTURES, return_tensors="pt")["pixel_values"]
    mine = ours(folder).processor.images([np.asarray(picture) for picture in PICTURES])
    assert mine.shape == theirs.shape == (3, 3, 24, 24)
    assert float((mine - theirs).abs().max()) <= 2 / 255 + 1e-6  # one level, in -1 to 1


@pytest.mark.parametrize("count", [1, 2])
def test_prompts_are_framed_as_the_reference_does(paligemma, count):
    """The tokens of pictures apart, which ours does not write out."""
    _, words, folder = paligemma
    model = ours(folder)
    told = model.system.instructions(model.config)
    theirs = words(images=[PICTURES[:count]] * 3, text=["<image>" * count + p for p in PROMPTS])
    for prompt, expected in zip(PROMPTS, theirs["input_ids"], strict=True):
        pictures, rest = expected[: 9 * count], expected[9 * count :]
        assert set(pictures) == {words.image_token_id}
        assert told.encode(model.processor.text, prompt) == rest
        assert rest[0] == model.processor.text.bos_id  # behind the pictures
        assert rest[-1] == model.processor.text.token_id("\n")
    assert told.picture_tokens == words.image_seq_length


def test_the_newline_is_a_token_of_its_own(paligemma):
    """As big_vision writes it; merged into the prompt it becomes another token."""
    model = ours(paligemma[-1])
    words, told = model.processor.text, model.system.instructions(model.config)
    newline, double = words.token_id("\n"), words.token_id("\n\n")
    assert told.encode(words, "ocr\n")[-2:] == [newline, newline]
    merged = words.encode("ocr\n" + told.separator)
    assert merged[-1] == double and merged[-2:] != [newline, newline]


def test_the_tokens_of_answers_are_those_of_the_reference(paligemma):
    """A suffix, with its places and its end."""
    _, words, folder = paligemma
    model = ours(folder)
    suffix = "<loc0001><loc1023><loc0500><loc0007> ball ; <seg127>"
    theirs = words(images=PICTURES[0], text="<image>detect ball", suffix=suffix)
    written = [i for i, kind in zip(theirs["input_ids"][0], theirs["token_type_ids"][0],
                                    strict=True) if kind]  # fmt: skip
    tokens = model.processor.text
    assert [*tokens.encode(suffix, trusted=True), tokens.eos_id] == written
    assert model.processor.text.token_id("<loc0001>") not in tokens.encode(suffix)


def test_greedy_text_is_the_same(paligemma):
    """From pictures and prompts to 64 tokens of text, through both processors."""
    theirs, words, folder = paligemma
    theirs.generation_config.eos_token_id = None
    model = ours(folder)
    told, tokens = model.system.instructions(model.config), model.processor.text
    rows = [torch.tensor(told.encode(tokens, prompt)) for prompt in PROMPTS]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    pixels = words.image_processor(PICTURES, return_tensors="pt")["pixel_values"]
    prompt = Prompt(ids, mask, tuple((picture,) for picture in pixels))
    found = generate(model.network, prompt, GenerationOptions(64), (), tokens.decode)
    for number in (0, 1):
        inputs = words(PICTURES[number], "<image>" + PROMPTS[number], return_tensors="pt")
        inputs.pop("labels")
        length = inputs["input_ids"].shape[1]
        out = theirs.generate(**inputs, max_new_tokens=64, do_sample=False)[0, length:]
        assert found[number].ids == out.tolist()
        assert found[number].text == words.tokenizer.decode(out, skip_special_tokens=True)


def test_the_saved_processor_loads_there(paligemma, tmp_path):
    _, words, folder = paligemma
    ours(folder).save(tmp_path / "m")
    told = json.loads((tmp_path / "m/preprocessor_config.json").read_text())
    assert told["image_seq_length"] == 9
    back = transformers.AutoProcessor.from_pretrained(tmp_path / "m")
    assert type(back) is transformers.PaliGemmaProcessor
    assert type(back.image_processor) is type(words.image_processor)
    inputs = {"images": PICTURES[:1], "text": ["<image>" + PROMPTS[1]], "return_tensors": "pt"}
    one, two = words(**inputs), back(**inputs)
    assert all(torch.equal(one[key], two[key]) for key in one)


# -- what ends an answer ---------------------------------------------------------------------------


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize(
    ("written", "ends"), [(1, (1,)), ([1, 7], (1, 7)), (None, (1,))], ids=["one", "two", "none"]
)
def test_the_ends_of_an_answer_are_read_and_written(paligemma, tmp_path, written, ends):
    folder = copied(paligemma[-1], tmp_path / "a")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": written}))
    model = ours(folder)
    assert model.end_ids == ends
    model.save(tmp_path / "b")
    assert ours(tmp_path / "b").end_ids == ends
    loaded = transformers.GenerationConfig.from_pretrained(tmp_path / "b")
    assert loaded.eos_token_id == (ends[0] if len(ends) == 1 else list(ends))
    assert (loaded.bos_token_id, loaded.pad_token_id) == (2, 0)


def test_without_the_file_the_config_says_it(paligemma, tmp_path):
    folder = copied(paligemma[-1], tmp_path / "a")
    (folder / "generation_config.json").unlink()
    assert ours(folder).end_ids == (1,)


@pytest.mark.parametrize("value", [[], "<eos>", -1, 10**6, [1, True]], ids=str)
def test_ends_that_are_no_tokens_are_refused(paligemma, tmp_path, value):
    folder = copied(paligemma[-1], tmp_path / "a")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(CheckpointError, match=r"'eos_token_id' is .*, where a token or a list of"):
        ours(folder)


def test_a_list_of_ends_in_the_config_is_read(paligemma, tmp_path):
    folder = copied(paligemma[-1], tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = [1, 7]
    (folder / "config.json").write_text(json.dumps(config))
    assert ours(folder).config.text.eos_id == 1


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("text_config", "model_type", "llama", "a PaliGemma writes with gemma or gemma2"),
        ("vision_config", "model_type", "clip_vision_model", "not SigLIP's"),
        ("text_config", "eos_token_id", "<eos>", "'eos_token_id' is '<eos>'"),
    ],
)
def test_other_parts_are_refused(paligemma, tmp_path, section, name, value, message):
    folder = copied(paligemma[-1], tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config[section][name] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder, device="cpu", dtype="float32")
