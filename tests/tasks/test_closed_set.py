"""Classifiers: the labels of their training, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sightline
from sightline.core.errors import ConfigError, ImageError, InputError, UnsupportedTaskError
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.models.table import system
from sightline.tasks.classify import classify_each
from sightline.tasks.model import Model
from tests.hub.tiny import randomise, tiny_folder

LABELS = ("cat", "crane", "boat", "crane")
"""One name for two classes, as in ImageNet."""
GENERATOR = np.random.default_rng(0)
PICTURES = [GENERATOR.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(3)]


@pytest.fixture(params=["vit", "resnet"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    entry = system(request.param)
    config = replace(entry.tiny, labels=LABELS)
    network = randomise(entry.build(config))
    pictures = Processor(image_processor(entry.preprocessing(config)), None)
    save_checkpoint(network, pictures, config, entry, tmp_path / "m")
    return sightline.load(tmp_path / "m", device="cpu", dtype="float32")


def shares(model: Model, picture: np.ndarray) -> torch.Tensor:
    pixels = model.processor.images([picture])
    logits = model.network.class_logits(model.network(pixels).pooled)
    return logits.softmax(dim=1)[0]


def test_without_labels_all_of_its_own_are_scored(model: Model) -> None:
    answer = model.classify(PICTURES[0])
    cat, crane, boat, other_crane = shares(model, PICTURES[0]).tolist()
    found = {label.label: label.score for label in answer}
    assert found == pytest.approx({"cat": cat, "crane": crane + other_crane, "boat": boat})
    assert [label.score for label in answer] == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)


def test_given_labels_share_one_between_them(model: Model) -> None:
    answer = {label.label: label.score for label in model.classify(PICTURES[0], ["boat", "cat"])}
    cat, _, boat, _ = shares(model, PICTURES[0]).tolist()
    assert answer == pytest.approx({"cat": cat / (cat + boat), "boat": boat / (cat + boat)})


def test_a_list_gives_a_list_and_each_picture_its_own_answer(model: Model) -> None:
    together = model.classify(PICTURES)
    assert len(together) == 3
    for picture, answer in zip(PICTURES, together, strict=True):
        alone = model.classify(picture)
        assert [label.label for label in alone] == [label.label for label in answer]
        assert [a.score for a in alone] == pytest.approx([a.score for a in answer], abs=1e-5)
    assert model.classify([]) == []


def test_a_label_outside_the_closed_set_is_refused_and_others_are_named(model: Model) -> None:
    with pytest.raises(UnsupportedTaskError) as caught:
        model.classify(PICTURES[0], ["cat", "zebra"])
    message = str(caught.value)
    assert "cannot name 'zebra'" in message
    assert "trained on a closed set of 3 labels (cat, crane, boat)" in message
    assert "a new one needs training again" in message
    assert "models which can: google/siglip2-base-patch16-224" in message
    assert "google/vit" not in message and "microsoft/resnet" not in message


def test_templates_are_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="classifies without words: templates would change"):
        model.classify(PICTURES[0], templates=["a {}"])


def test_a_broken_picture_is_named_or_collected(model: Model) -> None:
    with pytest.raises(ImageError):
        model.classify([PICTURES[0], b"broken"])
    first, second = classify_each(model, [b"broken", PICTURES[0]], on_error="collect")
    assert "broken" not in str(second) and type(first).__name__ == "Failed"


def test_it_says_what_it_can(model: Model) -> None:
    assert model.tasks == ("embed", "classify", "explain")
    with pytest.raises(UnsupportedTaskError, match="it can embed, classify"):
        model.match(PICTURES[0], ["a cat"])


def test_a_trunk_without_the_layer_cannot_classify(tmp_path: Path) -> None:
    tiny_folder("vit", tmp_path / "m")
    trunk = sightline.load(tmp_path / "m", device="cpu", dtype="float32")
    assert trunk.tasks == ("embed",)
    for labels in (None, ["cat", "dog"]):
        with pytest.raises(UnsupportedTaskError, match=r"\(image encoder\) cannot classify"):
            trunk.classify(PICTURES[0], labels)


def test_a_model_that_reads_words_needs_labels(clip: Model) -> None:
    with pytest.raises(InputError, match="has no labels of its own: give it some"):
        clip.classify(PICTURES[0])
