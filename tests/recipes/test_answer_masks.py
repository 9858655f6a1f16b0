"""Masks that a model learns to write: out of outlines into text, and back out of the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline
from sightline.core.errors import CheckpointError, ConfigError, InputError, UnsupportedTaskError
from sightline.data.formats import open_dataset
from sightline.data.park import scene
from sightline.data.park.records import ParkRecords, marked_record
from sightline.data.regions import Region
from sightline.hub.bundled import bundled_path
from sightline.hub.save import save_checkpoint
from sightline.inputs.location_tokens import parse_paligemma
from sightline.models import mask_codec
from sightline.recipes import answer_masks
from sightline.recipes.answer_data import ParkExamples, examples_of, tasks_of
from sightline.recipes.answer_masks import MaskWriter, find_codec, inside
from sightline.recipes.paligemma import train_paligemma
from sightline.tasks.detect import Found
from sightline.tasks.segment import FOLDER, segments
from tests.recipes.speaking_runs import park_folder, small

CODEC = bundled_path("park-paligemma") / FOLDER


@pytest.fixture(scope="module")
def codec() -> Any:
    loaded = find_codec(str(CODEC), None)
    assert loaded is not None
    return loaded.network


@pytest.fixture(scope="module")
def things(tmp_path_factory) -> str:
    return park_folder(tmp_path_factory.mktemp("parks") / "things", "instances")


def read_back(text: str, size: tuple[int, int], codec: Any) -> list[Any]:
    """As `sightline segment` reads an answer."""
    places, invalid = parse_paligemma(text, size)
    assert not invalid
    return segments(Found(places, [1.0] * len(places), 0, size, text), codec)


def test_what_is_written_is_read_back_as_the_mask(codec) -> None:
    overlaps = []
    for seed in range(6):
        drawn = scene(seed)
        size = (drawn.height, drawn.width)
        regions = marked_record(drawn).regions
        found = read_back(MaskWriter(codec)(regions, size), size, codec)
        for region, segment in zip(regions, found, strict=True):
            assert segment.label == region.label
            truth = region.mask(*size)
            overlaps.append((truth & segment.mask).sum() / (truth | segment.mask).sum())
    assert len(overlaps) > 12 and np.mean(overlaps) > 0.8


def test_a_region_beyond_the_border_is_written_as_far_as_it_is_seen(codec, monkeypatch) -> None:
    beyond = Region("cat", (-4.0, 10.0, 40.6, 20.0), ((-4.0, 10, 40.6, 10, 40.6, 20, -4, 20),))
    thin = Region("line", (31.9, 3.0, 32.4, 9.0), ((31.9, 3, 32.4, 3, 32.4, 9, 31.9, 9),))
    assert inside(beyond.box, (32, 32)) == (0, 10, 32, 20)
    assert inside(thin.box, (32, 32)) == (31, 3, 32, 9)
    found = read_back(MaskWriter(codec)([beyond, thin], (32, 32)), (32, 32), codec)
    assert [segment.label for segment in found] == ["cat", "line"]
    assert found[0].mask[11:19, 1:31].mean() > 0.9
    monkeypatch.setattr(answer_masks, "inside", lambda box, size: box)
    with pytest.raises(InputError, match="is, rounded, no part of a picture"):
        MaskWriter(codec)([beyond], (32, 32))


def test_masks_are_learned_where_there_is_a_codec_and_an_outline(things, codec) -> None:
    records = open_dataset(things)
    assert tasks_of(records) == ["detect"]
    assert tasks_of(records, masks=True) == ["detect", "segment"]
    examples = examples_of(records, (), writers={"segment": MaskWriter(codec)})
    masks = [example for example in examples if example.prefix.startswith("segment ")]
    assert len(masks) == sum(len({r.label for r in record.regions}) for record in records)
    assert all(example.suffix.count("<seg") % 16 == 0 for example in masks)
    assert not any("<seg" in example.suffix for example in examples_of(records, ()))


def test_every_label_of_drawn_parks_has_its_turn(codec) -> None:
    records = ParkRecords("train", 0, 80, 32, spoken=True)
    examples = ParkExamples(records, (), 0, {"segment": MaskWriter(codec)})
    assert examples.tasks == ("caption", "ask", "detect", "segment")
    places = set()
    for index in range(3, 80, 4):
        label = examples[index].prefix.removeprefix("segment ").strip()
        labels = list(dict.fromkeys(r.label for r in records[index].regions))
        if label in labels:
            places.add(labels.index(label))
    assert {0, 1, 2} <= places


def test_a_run_teaches_masks_and_leaves_the_codec_beside_its_model(things, tmp_path) -> None:
    recipe = small(things, tasks=("segment",), codec=str(CODEC), phases=("scratch", "alignment"))
    outcome = train_paligemma(recipe, tmp_path / "run")
    codec = outcome.model / FOLDER / "model.safetensors"
    assert codec.read_bytes() == (CODEC / "model.safetensors").read_bytes()
    model = sightline.load(outcome.model, dtype="float32")
    assert isinstance(model.segment(scene(1, size=32).pixels, ["tree"]), list)
    going_on = find_codec(None, str(outcome.model))  # which a further run from it finds by itself
    assert going_on is not None and going_on.folder == outcome.model / FOLDER


def test_without_a_codec_masks_cannot_be_asked_for(things, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"name one with codec=FOLDER .*leave the task"):
        train_paligemma(small(things, tasks=("segment",)), tmp_path / "run")
    assert find_codec(None, None) is None and find_codec(None, str(tmp_path)) is None


def test_codecs_of_other_masks_and_other_models_are_refused(tmp_path: Path) -> None:
    entry = mask_codec.SYSTEM.for_config(mask_codec.TINY)
    network = mask_codec.MaskCodec(mask_codec.TINY)
    save_checkpoint(network, None, mask_codec.TINY, entry, tmp_path / "codec")
    with pytest.raises(CheckpointError, match="masks are written in 16 of 128"):
        find_codec(str(tmp_path / "codec"), None)
    with pytest.raises(UnsupportedTaskError, match="is no mask codec"):
        find_codec("park-siglip", None)
