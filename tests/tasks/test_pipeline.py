"""The answers of transformers' own pipelines, from the same folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from sightline.core.errors import ConfigError, InputError, UnsupportedTaskError
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor
from sightline.inputs.vocabulary import train_vocabulary
from tests.hub.tiny import RULES, WORDS, randomise, tiny, tiny_folder
from tests.tasks.colours import colour_model
from tests.tasks.writers import scripted

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra

DICE = np.random.default_rng(0)
PICTURES = [Image.fromarray(DICE.integers(0, 256, (*size, 3), dtype=np.uint8))
            for size in ((40, 52), (31, 30))]  # fmt: skip
LABELS = ["red ball", "blue car", "duck"]


def same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [set(row) for row in ours] == [{"score", "label"}] * len(LABELS)
    assert [row["label"] for row in ours] == [row["label"] for row in theirs]
    for one, two in zip(ours, theirs, strict=True):
        assert abs(one["score"] - two["score"]) <= 1e-5


def folder_for(name: str, folder: Path) -> None:
    """A tiny model with 64 tokens, to which transformers' pipeline always pads SigLIP's text."""
    entry, config, _, processor = tiny(name)
    words = train_vocabulary(WORDS, 640, RULES.get(name, "siglip"), max_length=64)
    config = replace(config, text=replace(config.text, context_length=64))
    network = randomise(entry.build(config))
    save_checkpoint(network, Processor(processor.image, words), config, entry, folder)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_zero_shot_answers_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder_for(name, tmp_path / "m")
    task = "zero-shot-image-classification"
    theirs = transformers.pipeline(task, model=str(tmp_path / "m"), device="cpu")
    ours = sightline.pipeline(task, model=tmp_path / "m", device="cpu", dtype="float32")
    options: dict[str, Any] = {"candidate_labels": LABELS}
    same(ours(PICTURES[0], **options), theirs(PICTURES[0], **options))
    options["hypothesis_template"] = "a {}"
    answers = ours(PICTURES, **options)
    reference = theirs(PICTURES, **options)
    assert len(answers) == len(reference) == 2
    for one, two in zip(answers, reference, strict=True):
        same(one, two)
    assert ours(images=PICTURES, **options) == answers


def test_features_are_those_of_transformers(tmp_path: Path) -> None:
    tiny_folder("vit", tmp_path / "m")
    task = "image-feature-extraction"
    theirs = transformers.pipeline(task, model=str(tmp_path / "m"), device="cpu")
    ours: Any = sightline.pipeline(task, model=tmp_path / "m", device="cpu", dtype="float32")
    for options in ({}, {"pool": True}):
        one, two = ours(PICTURES[0], **options), theirs(PICTURES[0], **options)
        assert isinstance(one, list) and np.shape(one) == np.shape(two)
        assert np.abs(np.array(one) - np.array(two)).max() <= 1e-5
    several = ours(PICTURES, return_tensors=True)
    assert len(several) == 2 and isinstance(several[0], torch.Tensor)
    assert several[0].shape == theirs(PICTURES[0], return_tensors=True).shape


def test_what_a_pipeline_cannot_do_is_said(tmp_path: Path) -> None:
    tiny_folder("vit", tmp_path / "vit")
    tiny_folder("clip", tmp_path / "clip")
    with pytest.raises(ConfigError, match=r"unknown pipeline .*: did you mean 'zero-shot-"):
        sightline.pipeline("zero-shot-classification", model=tmp_path / "clip")
    with pytest.raises(ConfigError, match="no model arrived"):
        sightline.pipeline("image-feature-extraction")
    with pytest.raises(UnsupportedTaskError, match="cannot classify by words"):
        sightline.pipeline("zero-shot-image-classification", model=tmp_path / "vit")
    classify: Any = sightline.pipeline("zero-shot-image-classification", model=tmp_path / "clip")
    with pytest.raises(InputError, match=r"no labels arrived: call it with candidate_labels"):
        classify(PICTURES[0])
    with pytest.raises(InputError, match="no picture arrived"):
        classify(candidate_labels=LABELS)


def test_models_that_write_answer_as_transformers_does() -> None:
    model = scripted("a red ball")
    caption: Any = sightline.pipeline("image-to-text", model=model)
    assert caption(PICTURES[0]) == [{"generated_text": "a red ball"}]
    assert caption(PICTURES, max_new_tokens=5) == [[{"generated_text": "a red"}]] * 2
    ask: Any = sightline.pipeline("visual-question-answering", model=model)
    assert ask(PICTURES[0], question="what?") == [{"answer": "a red ball"}]
    assert ask(image=PICTURES, question="what?") == [[{"answer": "a red ball"}]] * 2


def test_boxes_are_dictionaries_of_whole_pixels() -> None:
    model = scripted("<loc0256><loc0000><loc0512><loc1023> ball")
    find: Any = sightline.pipeline("zero-shot-object-detection", model=model)
    (found,) = find(PICTURES[0], candidate_labels=["ball"])
    assert found.keys() == {"score", "label", "box"} and 0 < found["score"] <= 1
    assert found["label"] == "ball"
    assert found["box"] == {"xmin": 0, "ymin": 10, "xmax": 52, "ymax": 20}
    assert all(type(side) is int for side in found["box"].values())
    assert find(PICTURES, ["ball"]) == [[found], find(PICTURES[1], ["ball"])]
    assert find(PICTURES[0], ["ball"], threshold=1.0) == []
    with pytest.raises(UnsupportedTaskError, match="cannot find boxes"):
        sightline.pipeline("object-detection", model=colour_model("clip"))
    with pytest.raises(UnsupportedTaskError, match="cannot write captions"):
        sightline.pipeline("image-to-text", model=colour_model("clip"))
