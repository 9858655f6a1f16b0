"""Adapters of PaliGemma and Gemma against PEFT on transformers' classes, both ways; 4-bit bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sightline
from sightline.hub.adapters import Origin, find_adapter, put_on, save_adapter
from sightline.models.table import system
from sightline.nn import four_bit, lora
from tests.models.writers import (
    SYSTEMS,
    agree,
    our_outputs,
    prompts,
    read,
    reference,
    their_outputs,
)

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")  # the references; part of the test extra

# PEFT 0.21 asks transformers 5.23 for a name that is to go
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

PARTS = {
    "tower": ["image.*.attention.*", "image.*.mlp.*"],
    "projector": ["projector"],
    "decoder": ["decoder.*.attention.*", "decoder.*.mlp.*"],
    "queries and values": list(lora.QUERIES_AND_VALUES),
    "everything": ["*"],
}
CASES = [("paligemma", part) for part in PARTS] + [
    ("paligemma2", "everything"), ("gemma", "decoder"), ("gemma2", "queries and values"),
]  # fmt: skip


def pair(name: str, folder: Path) -> tuple[nn.Module, Any, Any, Any]:
    """The reference, ours with the same weights, our system and config."""
    theirs = reference(name)
    theirs.save_pretrained(folder)
    entry = system(SYSTEMS[name])
    config = entry.read_config(json.loads((folder / "config.json").read_text()))
    return theirs, read(name, folder), entry, config


def learned(network: nn.Module, seed: int = 1) -> nn.Module:
    """Every addition drawn anew, B too; not so large that they drown the base."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


@torch.no_grad()
def logits(network: Any, name: str) -> torch.Tensor:
    return our_outputs(network, *prompts(name))["logits"]


@torch.no_grad()
def their_logits(network: Any, name: str) -> torch.Tensor:
    return their_outputs(network, *prompts(name))["logits"]


@pytest.mark.parametrize(("name", "part"), CASES)
def test_what_is_saved_here_is_put_on_by_peft(name, part, tmp_path):
    theirs, ours, entry, config = pair(name, tmp_path / "base")
    before = logits(ours, name)
    lora.add(ours, 3, 5.0, PARTS[part])
    assert agree(logits(ours, name), before)  # B is zero
    learned(ours)
    save_adapter(ours, entry, config, tmp_path / "adapter", Origin("org/base"))
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    expected, found = their_logits(adapted.get_base_model(), name), logits(ours, name)
    assert not agree(found, before)
    assert agree(found, expected)
    merged = their_logits(adapted.merge_and_unload(), name)
    assert agree(logits(lora.merge(ours), name), merged)
    assert agree(logits(lora.unmerge(ours), name), expected)


@pytest.mark.parametrize("name", ["paligemma", "paligemma2"])
def test_what_peft_saves_is_put_on_here(name, tmp_path):
    theirs, ours, entry, config = pair(name, tmp_path / "base")
    settings = peft.LoraConfig(
        r=3, lora_alpha=5,
        target_modules=["q_proj", "v_proj", "o_proj", "out_proj", "down_proj", "fc1", "linear"],
    )  # fmt: skip
    adapted = peft.get_peft_model(theirs, settings)
    learned(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    put_on(ours, find_adapter(tmp_path / "adapter"), entry, config)
    names = set(lora.layers(ours))
    assert "projector" in names and "image.transformer.blocks.2.attention.out" in names
    assert "decoder.blocks.3.mlp.down" in names
    assert agree(logits(ours, name), their_logits(adapted.get_base_model(), name))


def test_a_model_is_loaded_with_its_adapter_and_saves_it_merged(tmp_path):
    from tests.hub import gemma_files

    theirs, _ = gemma_files.folder("paligemma", tmp_path / "base")
    model = sightline.load(tmp_path / "base", device="cpu", dtype="float32")
    lora.add(model.network, 2, 4.0, PARTS["everything"])
    learned(model.network)
    model.save_adapter(tmp_path / "adapter")
    again = sightline.load(
        tmp_path / "base", device="cpu", dtype="float32", adapter=tmp_path / "adapter"
    )
    assert agree(logits(again.network, "paligemma"), logits(model.network, "paligemma"))
    again.save(tmp_path / "merged")
    whole, report = type(theirs).from_pretrained(
        tmp_path / "merged", output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    found = their_logits(whole.eval(), "paligemma")
    assert agree(logits(again.network, "paligemma"), found)


@pytest.mark.parametrize("name", ["paligemma", "paligemma2"])
def test_an_adapter_of_a_base_in_4_bits_goes_on_the_full_one(name, tmp_path):
    theirs, ours, entry, config = pair(name, tmp_path / "base")
    four_bit.quantise(ours)
    lora.add(ours, 3, 5.0, PARTS["everything"])
    learned(ours)
    save_adapter(ours, entry, config, tmp_path / "adapter", Origin("org/base"))
    full = read(name, tmp_path / "base")
    put_on(full, find_adapter(tmp_path / "adapter"), entry, config)
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    assert agree(logits(full, name), their_logits(adapted.get_base_model(), name))
    # and on another base in 4 bits
    again = read(name, tmp_path / "base")
    four_bit.quantise(again)
    put_on(again, find_adapter(tmp_path / "adapter"), entry, config)
    assert agree(logits(again, name), logits(ours, name))
