"""What is saved here is transformers' own layout: it loads there whole, and agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sightline.core.errors import ConfigError
from sightline.core.interfaces import WRITING_ROLES, PatchBatch
from sightline.hub import save as saving
from sightline.hub.load import load_checkpoint
from sightline.hub.save import save_checkpoint
from sightline.models.table import SYSTEMS, system
from tests.hub.tiny import WORDS, randomise, tiny, tiny_folder

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

PICTURE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def close(ours: torch.Tensor, reference: torch.Tensor) -> bool:
    limit = 1e-5 * max(1.0, reference.abs().max().item())
    return (ours - reference).abs().max().item() <= limit


def reference_model(folder: Path) -> Any:
    """The folder as transformers reads it, after the proof that nothing was missing or extra."""
    model, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert not report["mismatched_keys"], report
    return model.eval()


UNKNOWN_THERE = {"clip_resnet", "unicl", "lit", "mask_codec"}
"""Systems without a class in transformers; their files are another repository's."""


READ_AS_PAIRS = [
    name
    for name in SYSTEMS
    if name not in UNKNOWN_THERE and system(name).role not in WRITING_ROLES  # see test_writers
]


@pytest.mark.parametrize("name", READ_AS_PAIRS)
def test_what_is_saved_here_loads_in_transformers_and_agrees(name: str, tmp_path: Path) -> None:
    tiny_folder(name, tmp_path / "m")
    ours, reference = load_checkpoint(tmp_path / "m", device="cpu", dtype="float32"), None
    reference = reference_model(tmp_path / "m")
    pixels = None if ours.processor.image is None else ours.processor.images([PICTURE])
    with torch.no_grad():
        if ours.system.text is None:
            last = reference(pixels).last_hidden_state
            theirs = last if last.ndim == 3 else last.flatten(2).transpose(1, 2)
            assert close(ours.network(pixels).tokens, theirs)
            return
        words = ours.processor.texts(WORDS)
        # AutoTokenizer takes Gemma's class for this model whatever the folder says; published
        # folders hold Gemma's tokenizer, this one a vocabulary of ours.
        kind = transformers.PreTrainedTokenizerFast
        loader = kind if name == "siglip2-naflex" else transformers.AutoTokenizer
        their_words = loader.from_pretrained(tmp_path / "m")
        padding = "max_length" if name.startswith("siglip") else True
        ids = their_words(WORDS, padding=padding, return_tensors="pt")["input_ids"]
        assert torch.equal(words.ids, ids)
        if ours.system.role == "text encoder":
            theirs = reference(ids, attention_mask=words.mask.long())
            assert close(ours.network(words.ids, words.mask).pooled, theirs.pooler_output)
            return
        mask = {"attention_mask": words.mask.long()} if name == "vision_text" else {}
        pictures = {"pixel_values": pixels}
        if isinstance(pixels, PatchBatch):
            pictures = {"pixel_values": pixels.patches, "pixel_attention_mask": pixels.mask.int(),
                        "spatial_shapes": pixels.grids}  # fmt: skip
        theirs = reference(input_ids=ids, **pictures, **mask)
        assert close(ours.network(pixels, words.ids, words.mask).logits, theirs.logits_per_image)


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_what_transformers_saves_loads_here_and_agrees(tmp_path: Path, shard: str) -> None:
    _, config, _, processor = tiny("siglip")
    tower = {"num_hidden_layers": 3, "hidden_size": 24, "intermediate_size": 40}
    reference = randomise(
        transformers.SiglipModel(
            transformers.SiglipConfig(
                vision_config={**tower, "num_attention_heads": 3, "image_size": 24,
                               "patch_size": 8},
                text_config={**tower, "num_attention_heads": 2, "pad_token_id": 1,
                             "bos_token_id": 1, "eos_token_id": 1,
                             "vocab_size": config.text.vocab_size,
                             "max_position_embeddings": config.text.context_length},
            )
        ), seed=4,
    )  # fmt: skip
    reference.save_pretrained(tmp_path, max_shard_size=shard)
    processor.save(tmp_path, "siglip")
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    ours = load_checkpoint(tmp_path, device="cpu", dtype="float32")
    pixels, words = ours.processor.images([PICTURE]), ours.processor.texts(WORDS)
    with torch.no_grad():
        theirs = reference(input_ids=words.ids, pixel_values=pixels).logits_per_image
        assert close(ours.network(pixels, words.ids, words.mask).logits, theirs)


def test_large_models_are_sharded_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "LARGEST_SHARD", 20_000)
    network = tiny_folder("clip", tmp_path / "m")
    shards = sorted((tmp_path / "m").glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    index = json.loads((tmp_path / "m/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in shards}
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in network.parameters())
    loaded = load_checkpoint(tmp_path / "m", device="cpu", dtype="float32").network
    for one, two in zip(loaded.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, two)
    reference_model(tmp_path / "m")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", None])
def test_the_stored_number_type_is_chosen_and_recorded(tmp_path: Path, dtype: str | None) -> None:
    from sightline.hub.weights import check_header

    tiny_folder("siglip", tmp_path / "m", dtype=dtype)
    written = json.loads((tmp_path / "m/config.json").read_text())
    assert written["dtype"] == (dtype or "float32")
    assert written["sightline"]["format"] == "sightline-checkpoint"
    assert "transformers_version" not in written
    assert written["architectures"] == ["SiglipModel"]
    width = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", None: "F32"}[dtype]
    kinds = {kind for kind, _ in check_header(tmp_path / "m/model.safetensors").values()}
    assert kinds == {width}


def test_values_that_a_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    entry, config, network, processor = tiny("vit")
    next(iter(network.parameters())).data.fill_(1e6)
    with pytest.raises(ConfigError, match="values that float16 cannot hold: save as bfloat16"):
        save_checkpoint(network, processor, config, entry, tmp_path / "m", dtype="float16")
    assert not (tmp_path / "m").exists()
    with pytest.raises(ConfigError, match="unknown dtype 'auto'"):
        save_checkpoint(network, processor, config, entry, tmp_path / "m", dtype="auto")


def test_a_lowered_network_saves_and_comes_back(tmp_path: Path) -> None:
    tiny_folder("clip", tmp_path / "a")
    low = load_checkpoint(tmp_path / "a", device="cpu", dtype="bfloat16")
    save_checkpoint(low.network, low.processor, low.config, low.system, tmp_path / "b")
    again = load_checkpoint(tmp_path / "b", device="cpu", dtype="bfloat16").network
    for one, two in zip(low.network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_saving_replaces_a_model_and_nothing_else(tmp_path: Path) -> None:
    tiny_folder("vit", tmp_path / "m", metadata={"command": "train"})
    tiny_folder("clip", tmp_path / "m")
    assert load_checkpoint(tmp_path / "m", device="cpu").system.name == "clip"
    assert not (tmp_path / "m/card.json").exists()
    (tmp_path / "m/holiday.jpg").write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"holds 'holiday.jpg' beside a model: saving would"):
        tiny_folder("clip", tmp_path / "m")
    assert (tmp_path / "m/holiday.jpg").read_bytes() == b"precious"


def test_other_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and no model folder"):
        tiny_folder("vit", tmp_path / "notes")
    with pytest.raises(ConfigError, match="is a file: give the name of a folder"):
        tiny_folder("vit", tmp_path / "notes/a.txt")
    assert (tmp_path / "notes/a.txt").read_text() == "mine"


def test_a_save_that_fails_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_folder("vit", tmp_path / "m")
    before = {f.name: f.read_bytes() for f in (tmp_path / "m").iterdir()}

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(saving, "_write_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        tiny_folder("clip", tmp_path / "m")
    assert {f.name: f.read_bytes() for f in (tmp_path / "m").iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["m"]
