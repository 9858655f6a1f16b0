"""Predicted memory: counted by hand where that can be done, refused where it cannot."""

from itertools import groupby
from pathlib import Path

import pytest
import torch

from sightline.core.errors import ConfigError, HubNotFoundError, UnsupportedTaskError
from sightline.models.table import system
from sightline.recipes import plan as planning
from sightline.recipes.free_memory import available, container_rest, parse_amount
from sightline.recipes.heap import Heap
from sightline.recipes.memory_model import _record, memory_model, total
from sightline.recipes.plan import find_network, largest_batch, plan, with_image_size
from sightline.recipes.rehearsal import Work, build, empty_batch


def tiny(name: str = "clip", kind: str = "full", **options) -> Work:
    entry = system(name)
    return Work(entry, entry.tiny, kind, **options)


@pytest.fixture(scope="module")
def full():
    return memory_model(tiny(), "cpu")


def test_weights_and_moments_are_counted_exactly(full):
    network = build(tiny())
    weights = sum(p.numel() * 4 for p in network.parameters())
    buffers = sum(b.numel() * b.element_size() for b in network.buffers())
    parts = full.peak(3)
    assert parts["weights"] == weights + buffers
    assert parts["optimiser"] == 2 * weights


def test_a_batch_that_was_not_run_is_predicted_as_if_it_had_been(full):
    direct, _ = _record(tiny(), "cpu", 16)
    assert full.small.events == direct.events
    assert full._sizes(16) == direct.sizes


def test_the_matrix_of_all_pairs_grows_with_the_square(full):
    matrices = [
        n for n, (a, b) in enumerate(zip(full.small.sizes, full.large.sizes, strict=True))
        if full.small.parts[n] == "loss" and b == 4 * a > 16
    ]  # fmt: skip
    assert matrices
    assert {full._sizes(1000)[n] for n in matrices} == {4 * 1000**2}


def test_what_does_not_learn_has_no_moments_and_saves_nothing(full):
    locked, low_rank = memory_model(tiny(kind="locked"), "cpu"), memory_model(
        tiny(kind="lora", rank=2), "cpu"
    )  # fmt: skip
    whole = full.peak(64)
    for cheaper in (locked.peak(64), low_rank.peak(64)):
        assert cheaper["optimiser"] < whole["optimiser"]
        assert cheaper["activations"] < whole["activations"]
    # rank 2 on q and v of three blocks a tower, 24 and 20 wide: A and B of each
    assert low_rank.peak(2)["optimiser"] == 2 * 4 * (3 * 2 * 2 * 2 * (24 + 20))


def test_micro_batches_cost_little_more_than_one(full):
    several = memory_model(tiny(accumulate=4), "cpu")
    one, four = full.peak(64), several.peak(64)
    assert four["pictures"] == pytest.approx(4 * one["pictures"], rel=1e-6)
    assert total(four) - four["pictures"] < 1.3 * total(one)
    assert total(four) < total(full.peak(256))


def test_checkpointing_and_bfloat16_save_activations(full):
    again = memory_model(tiny(activation_checkpointing=True), "cpu").peak(64)
    assert again["activations"] < 0.7 * full.peak(64)["activations"]
    answers = memory_model(tiny(kind="none"), "cpu").peak(64)
    lowered = memory_model(tiny(kind="none", dtype=torch.bfloat16), "cpu").peak(64)
    assert lowered["weights"] < answers["weights"]
    assert answers["optimiser"] == 0


def test_sentences_are_as_long_as_the_system_cuts_them():
    assert empty_batch(tiny("lit"), 2).ids.shape == (2, 9)  # of 11 positions
    assert empty_batch(tiny("bert"), 2).ids.shape == (2, 11)
    assert empty_batch(tiny("vit"), 2).ids.shape == (2, 1)


@pytest.mark.parametrize("kind", ["full", "locked"])
def test_casts_that_end_together_end_in_one_order(kind):
    """Autocast drops them by their addresses, which no two runs share."""
    model = memory_model(tiny(kind=kind, dtype=torch.bfloat16), "cpu")
    assert model.small.events == model.large.events
    ends = [[n for n, _ in run] for began, run in groupby(model.small.events, lambda e: e[1])
            if not began]  # fmt: skip
    assert all(run == sorted(run) for run in ends) and max(map(len, ends)) > 20


@pytest.mark.parametrize("name", ["resnet", "swin", "bert"])
def test_every_kind_of_tower_is_followed(name):
    parts = memory_model(tiny(name), "cpu").peak(3)
    assert parts["activations"] > 0 and parts["optimiser"] > 0


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(
        UnsupportedTaskError,
        match=r"vit has the role of image encoder, and locked training is for dual",
    ):
        tiny("vit", "locked")
    with pytest.raises(ConfigError, match="unknown kind of training 'ful'"):
        tiny(kind="ful")
    with pytest.raises(
        ConfigError, match=r"accumulate 0 and rank 8 are numbers .* tokens 64 one from 2 on"
    ):
        tiny(accumulate=0)
    with pytest.raises(UnsupportedTaskError, match=r"resnet has no attention .* use full"):
        build(tiny("resnet", "lora"))
    with pytest.raises(UnsupportedTaskError, match="mixed sizes, whose memory is not planned"):
        memory_model(tiny("siglip2-naflex"), "cpu")
    with pytest.raises(ConfigError, match="batch 0: use a number from 1 on"):
        plan("park-siglip", batch=0)


def test_the_largest_batch_fits_and_the_next_does_not(full):
    memory = total(full.peak(100))
    found = largest_batch(full, memory)
    assert total(full.peak(found)) <= memory < total(full.peak(found + 1))
    assert largest_batch(full, 1000) == 0
    assert largest_batch(full, 1 << 60) == planning.LARGEST_BATCH


def test_names_lead_to_networks_without_their_weights():
    assert find_network("clip:L/14")[1].image.width == 1024
    assert find_network("ViT-B/32")[1] == find_network("openai/clip-vit-base-patch32")[1]
    assert find_network("park-siglip")[0].name == "siglip"
    with pytest.raises(ConfigError, match="unknown variant of clip 'B/33'"):
        find_network("clip:B/33")
    with pytest.raises(ConfigError, match=r"not on this machine: run 'sightline pull someone/some"):
        find_network("someone/something")
    with pytest.raises(HubNotFoundError):
        find_network("nothing-like-it")


def test_the_size_of_pictures_can_change():
    _, config = find_network("clip:B/32")
    assert with_image_size(config, 384).image.image_size == (384, 384)
    with pytest.raises(ConfigError, match="image size 100: use a multiple of the patch size, 32"):
        with_image_size(config, 100)
    with pytest.raises(ConfigError, match="has no picture size to change"):
        with_image_size(system("bert").tiny, 100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("24GB", 24 * 10**9), ("1.5 GiB", 3 * 2**29), ("500m", 5 * 10**8), ("7", 7)],
)
def test_amounts_are_read(text, expected):
    assert parse_amount(text) == expected


@pytest.mark.parametrize("text", ["", "24XB", "GB", "-1GB", "0", "24 I"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ConfigError, match="write an amount with its unit, such as 24GB"):
        parse_amount(text)


def test_free_memory_is_read_from_the_system(tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    assert available(tmp_path / "meminfo") == 2048 * 1024
    assert available(tmp_path / "nothing") is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_counts(tmp_path: Path, version):
    names = ("memory.max", "memory.current", "memory.stat")
    if version == 1:
        (tmp_path / "memory").mkdir()
        names = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
                 "memory/memory.stat")  # fmt: skip
    cached = "inactive_file 30\n" if version == 2 else "total_inactive_file 30\n"
    for name, text in zip(names, ("1000\n", "400\n", cached), strict=True):
        (tmp_path / name).write_text(text)
    assert container_rest(tmp_path) == 630
    (tmp_path / names[0]).write_text("max\n" if version == 2 else f"{(1 << 63) - 4096}\n")
    assert container_rest(tmp_path) is None


def steps(graph: bool) -> int:
    """Bytes resident after temporaries of one size between tensors that last."""
    heap = Heap()
    for number in range(0, 60, 3):
        heap.take(number, 50_000, graph)  # lasts
        heap.take(number + 1, 100_000, graph)
        heap.take(number + 2, 90_000, graph)  # lasts
        heap.give(number + 1)
    resident = heap.most
    for number in range(60):
        if number % 3 != 1:
            heap.give(number)
    assert heap.resident < resident / 4  # every lead has ended with its graph
    return resident


def test_small_blocks_of_the_graph_keep_holes_from_growing_together():
    assert steps(graph=True) > steps(graph=False)


def test_a_hole_in_the_heap_stays_and_is_used_again():
    heap = Heap()
    for number in range(3):
        heap.take(number, 100_000)
    before = heap.resident
    heap.give(1)
    assert heap.resident == before  # it lies between two others
    heap.take(3, 90_000)
    assert heap.resident == before
    heap.take(4, 50_000_000)
    heap.give(4)
    assert heap.resident == before  # a large one goes back at once
    for number in (0, 2, 3):
        heap.give(number)
    assert heap.resident < before and heap.most > 50_000_000
