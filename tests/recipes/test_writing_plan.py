"""Predicted memory of networks that write: counted by hand where that can be done."""

from dataclasses import replace

import pytest
import torch

from sightline.core.errors import ConfigError, UnsupportedTaskError
from sightline.models.table import system
from sightline.nn.four_bit import stored_bytes
from sightline.recipes import plan as planning
from sightline.recipes.memory_model import MemoryModel, _record, memory_model, total
from sightline.recipes.plan import plan
from sightline.recipes.rehearsal import Work, build

PALIGEMMA = system("paligemma")
FULL_SIZE = PALIGEMMA.variants["3B-224"]
THIN = replace(
    FULL_SIZE, image=replace(FULL_SIZE.image, depth=1), text=replace(FULL_SIZE.text, depth=1)
)
"""One block of each tower, all widths as published: quick to follow."""


def tiny(kind: str = "full", name: str = "paligemma", **options: object) -> Work:
    entry = system(name)
    return Work(entry, entry.tiny, kind, **options)


def thin(kind: str, **options: object) -> MemoryModel:
    return memory_model(Work(PALIGEMMA, THIN, kind, torch.bfloat16, **options), "cuda")


@pytest.fixture(scope="module")
def full() -> MemoryModel:
    return memory_model(tiny(), "cpu")


def test_a_batch_that_was_not_run_is_predicted_as_if_it_had_been(full: MemoryModel) -> None:
    direct, _ = _record(tiny(), "cpu", 8)
    assert full.small.events == direct.events and full._sizes(8) == direct.sizes


@pytest.mark.parametrize("kind", ["full", "lora", "qlora", "projector", "locked"])
def test_weights_and_moments_are_counted_exactly(kind: str) -> None:
    model = memory_model(tiny(kind), "cpu")
    network = build(tiny(kind))
    parts = model.peak(3)
    learning = [p.numel() for p in network.parameters() if p.requires_grad]
    assert parts["weights"] == stored_bytes(network)
    assert parts["optimiser"] == 2 * 4 * sum(learning)
    plain = sum(p.numel() for p in build(tiny()).parameters())
    added = sum(learning) if "lora" in kind else 0
    assert model.parameters == plain + added
    if kind == "projector":
        assert sum(learning) == 24 * 20 + 20


def test_gradients_are_those_of_what_learns() -> None:
    """Found at the end of a step, where nothing else of the way back is left."""
    for kind in ("full", "qlora", "projector"):
        trace, network = _record(tiny(kind), "cpu", 2)
        ended = {number for number, begins in trace.events if not begins}
        left = [n for n, part in enumerate(trace.parts) if part == "gradients" and n not in ended]
        learning = [p for p in network.parameters() if p.requires_grad]
        assert sum(trace.sizes[n] for n in left) == 4 * sum(p.numel() for p in learning)


def test_inference_holds_the_cache_and_no_graph(full: MemoryModel) -> None:
    answers = memory_model(tiny("none"), "cpu")
    assert answers.peak(8)["activations"] < 0.5 * full.peak(8)["activations"]
    longer = memory_model(tiny("none", tokens=512), "cpu")
    # keys and values of 3 blocks, 2 heads of 6 each, for each further token of either half
    cache = 2 * 3 * 2 * 6 * 4 * (512 - 64)
    grown = longer.peak(9)["activations"] - longer.peak(8)["activations"]
    grown -= answers.peak(9)["activations"] - answers.peak(8)["activations"]
    assert grown >= cache


@pytest.mark.parametrize("name", ["gemma", "gemma2"])
def test_a_network_without_pictures_is_planned_too(name: str) -> None:
    parts = memory_model(tiny("qlora", name), "cpu").peak(4)
    assert parts["activations"] > 0 and parts["logits"] > 0 and parts["pictures"] > 0


def test_logits_grow_with_the_answer_and_not_with_micro_batches(full: MemoryModel) -> None:
    longer = memory_model(tiny(tokens=128), "cpu").peak(64)["logits"]
    assert longer == pytest.approx(2 * full.peak(64)["logits"], rel=0.1)
    several = memory_model(tiny(accumulate=8), "cpu").peak(64)
    assert several["logits"] <= 1.01 * full.peak(64)["logits"]


def test_the_published_model_on_a_gpu() -> None:
    """PaliGemma 3B at 224 pixels, bfloat16 products over float32 weights, by hand."""
    parameters = 2_923_466_480  # transformers counts as many (tests/models/test_writers.py)
    model = memory_model(Work(PALIGEMMA, FULL_SIZE, "full", torch.bfloat16), "cuda")
    parts = model.peak(1)
    assert model.parameters == parameters
    # 11.7 GB of weights, 23.4 GB of moments; gradients are whole before AdamW needs them
    assert parts["weights"] == pytest.approx(4 * parameters, rel=1e-3)
    assert parts["optimiser"] == 8 * parameters
    assert parts["gradients"] == pytest.approx(4 * parameters, rel=1e-2)
    assert 16 * parameters < total(parts) < 20 * parameters  # 46.8 to 58.5 GB
    assert "allocator" not in parts and "allocator" in memory_model(tiny(), "cpu").peak(1)
    # Of each picture the decoder keeps, for 256 + 63 positions in 18 blocks, four vectors of 16384
    # in bfloat16 (gate, its activation, up, their product): 0.75 GB. Norms, queries and the rest
    # are as much again at most, the tower's 27 blocks of 256 patches a third of it.
    kept = 18 * (256 + 63) * 4 * 16384 * 2
    growth = total(model.peak(33)) - total(model.peak(32))
    assert kept < growth < 2.3 * kept
    # and 32 logits of 257216 words, in bfloat16, in float32, and as log-probabilities
    assert 32 * 257216 * 4 < growth - (parts["pictures"] + kept)


def test_what_each_way_of_training_saves_at_published_widths() -> None:
    whole, lora, qlora, projector = map(thin, ("full", "lora", "qlora", "projector"))
    table = 4 * 257216 * 2048
    linear = 4 * 1152 * 1152 + 2 * 1152 * 4304 + 1152 * 2048
    linear += 2048 * (2048 + 2 * 256 + 2048) + 3 * 2048 * 16384
    # rank 8 on the queries and values of a block each
    additions = 8 * (2 * (1152 + 1152)) + 8 * ((2048 + 2048) + (2048 + 256))
    for model in (lora, qlora):
        assert model.peak(1)["optimiser"] == 8 * additions
    assert projector.peak(1)["optimiser"] == 8 * (1152 * 2048 + 2048)
    # 4 bits a weight, a byte for 64 of them, a float for 64 * 256: 4.127 bits; the table stays
    stored = lora.peak(1)["weights"] - qlora.peak(1)["weights"]
    assert stored == pytest.approx(linear * (4 - (4 + 8 / 64 + 32 / (64 * 256)) / 8), rel=1e-3)
    assert qlora.peak(1)["weights"] > table
    assert total(qlora.peak(4)) < total(lora.peak(4)) < total(whole.peak(4))
    assert total(projector.peak(4)) < total(whole.peak(4))


def test_a_gpu_need_not_be_there_where_its_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PALIGEMMA.variants, "tiny", PALIGEMMA.tiny)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(planning, "KINDS", ("lora", "qlora", "locked"))  # fewer are quicker
    found = plan("paligemma:tiny", kind="qlora", device="cuda", memory=10**7, batch=2, tokens=8)
    assert found.device == "cuda" and found.dtype == "bfloat16" and found.fits
    assert "libraries" not in found.parts and "allocator" not in found.parts
    assert [fit.kind for fit in found.largest] == ["none", "lora", "qlora", "locked"]
    assert all(fit.batch > 2 for fit in found.largest)
    with pytest.raises(ConfigError, match="device 'cuda' is not present on this machine"):
        plan("paligemma:tiny", device="cuda")


def test_what_a_network_cannot_be_trained_by_is_refused() -> None:
    with pytest.raises(UnsupportedTaskError, match=r"clip has .* dual encoder, and qlora training"):
        tiny("qlora", "clip")
    with pytest.raises(UnsupportedTaskError, match="projector training is for vision-language mod"):
        tiny("projector", "gemma")
    with pytest.raises(ConfigError, match="and tokens 1 one from 2 on"):
        tiny(tokens=1)
