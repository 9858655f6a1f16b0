"""Classifiers measured on labels that they know, and on some that they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sightline
from sightline.core.errors import DataError, UnsupportedTaskError
from sightline.evaluation.closed_set import closed_set
from sightline.evaluation.results import read_result
from sightline.evaluation.zeroshot import zeroshot
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.models.table import system
from sightline.tasks.model import Model
from tests.evaluation.fakes import FakeDataset, FakeRecord

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A ViT whose layer is set so that it is right about pictures of one colour."""
    entry = system("vit")
    config = replace(entry.tiny, labels=tuple(COLOURS), pooler=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = entry.build(config)
    folder = tmp_path_factory.mktemp("m") / "m"
    processor = Processor(image_processor(entry.preprocessing(config)), None)
    with torch.no_grad():
        pixels = processor.images([picture(name) for name in COLOURS])
        pooled = network(pixels).pooled  # [3 D]
        network.classifier.weight.copy_(torch.linalg.pinv(pooled).T * 20)
    save_checkpoint(network, processor, config, entry, folder)
    return sightline.load(folder, device="cpu", dtype="float32")


def picture(name: str) -> np.ndarray:
    return np.full((24, 36, 3), COLOURS[name], np.uint8)


def records(*rows: tuple[Any, str | None]) -> FakeDataset:
    return FakeDataset(
        FakeRecord(f"{n}.png", picture(what) if what in COLOURS else what.encode(), label=label)
        for n, (what, label) in enumerate(rows)
    )


ALL_RIGHT = [(name, name) for name in COLOURS]


def test_a_perfect_classifier_scores_one(model: Model) -> None:
    result = closed_set(model, records(*ALL_RIGHT, ("red", None)))
    assert (result.task, result.value, result.n, result.n_excluded) == ("classify", 1, 3, 1)
    assert set(result.metrics) == {"top1", "mean_per_class_recall", "ece15"}
    assert result.metrics["top1"].ci95 == pytest.approx((0.4385, 1), abs=1e-3)  # Wilson, 3 of 3
    assert result.groups["class"]["red"].value == 1


def test_labels_that_it_was_not_trained_on_count_as_wrong(model: Model) -> None:
    rows = [*ALL_RIGHT, ("red", "purple"), ("blue", "pink"), ("green", "teal")]
    result = closed_set(model, records(*rows))
    assert result.value == 0.5
    assert result.metrics["mean_per_class_recall"].value == 0.5
    assert result.metrics["top5"].value == 0.5
    assert result.settings["unknown_labels"] == ["pink", "purple", "teal"]
    assert result.samples[3].rank == 6 and result.samples[3].score == 0


def test_a_broken_picture_stays_in_the_denominator(model: Model) -> None:
    result = closed_set(model, records(*ALL_RIGHT, ("broken", "red")))
    assert (result.value, result.n, result.n_missing) == (0.75, 4, 1)
    assert result.missing[0].startswith("3.png: ")
    assert result.samples[3].status == "missing"


def test_names_of_the_data_may_be_translated(model: Model) -> None:
    data = records(("red", "n01"), ("blue", "blue"))
    assert closed_set(model, data, {"n01": "red"}).value == 1


def test_the_result_survives_its_files(model: Model, tmp_path: Path) -> None:
    result = closed_set(model, records(*ALL_RIGHT))
    result.write(tmp_path)
    again = read_result(tmp_path)
    assert again.signature == result.signature and again.samples == result.samples


def test_data_that_share_no_label_are_refused(model: Model) -> None:
    with pytest.raises(DataError, match=r"knows none of the data's 2 labels \('a'\); it knows"):
        closed_set(model, records(("red", "a"), ("blue", "b")))
    with pytest.raises(DataError, match="has a label: classification needs a folder per class"):
        closed_set(model, records(("red", None)))


def test_each_kind_of_model_is_sent_to_its_own_evaluation(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTaskError, match="measure it with 'sightline eval classify'"):
        zeroshot(model, records(*ALL_RIGHT))
    from tests.hub.tiny import tiny_folder

    tiny_folder("siglip", tmp_path / "m")
    words = sightline.load(tmp_path / "m", device="cpu", dtype="float32")
    with pytest.raises(UnsupportedTaskError, match="measured with 'sightline eval zeroshot'"):
        closed_set(words, records(*ALL_RIGHT))
