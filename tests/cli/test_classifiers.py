"""Classifiers from the command line: trained, asked without labels, measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.models.table import system
from tests.cli.conftest import Run
from tests.hub.tiny import randomise


@pytest.fixture(scope="session")
def classifier(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with random weights that knows the labels of `classes`, and one more."""
    entry = system("vit")
    labels = (*sorted(path.name for path in classes.iterdir() if path.is_dir()), "zebra")
    config = replace(entry.tiny, labels=labels, pooler=False)
    folder = tmp_path_factory.mktemp("models") / "tiny-classifier"
    pictures = Processor(image_processor(entry.preprocessing(config)), None)
    save_checkpoint(randomise(entry.build(config)), pictures, config, entry, folder)
    return folder


def test_classify_takes_the_labels_of_the_model(run: Run, classifier: Path, classes: Path) -> None:
    document = run("classify", classes, "--model", classifier, "--json").json
    assert "zebra" in document["labels"] and len(document["labels"]) >= 3
    scores = [label["score"] for label in document["results"][0]["labels"]]
    assert len(scores) == len(document["labels"]) and abs(sum(scores) - 1) < 1e-5


def test_classify_without_labels_asks_for_them(run: Run, model: Path, classes: Path) -> None:
    answer = run("classify", classes)
    assert answer.code == 2
    assert "give --labels a,b, or --model NAME of a classifier" in answer.err
    answer = run("classify", classes, "--model", model)
    assert answer.code == 2 and "give it some (--labels cat,dog" in answer.err


def test_classify_refuses_a_label_of_another_world(
    run: Run, classifier: Path, classes: Path
) -> None:
    answer = run("classify", classes, "--model", classifier, "--labels", "zebra,okapi")
    assert answer.code == 1 and "cannot name 'okapi'" in answer.err


def test_eval_classify_measures_and_names_unknown_labels(
    run: Run, classifier: Path, classes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("eval", "classify", "--data", classes, "--model", classifier, "--out", out)
    document = run(*arguments, "--json").json
    assert document["task"] == "classify" and 0 <= document["value"] <= 1
    assert json.loads((out / "results.json").read_text())["signature"] == document["signature"]
    (config,) = classifier.glob("config.json")
    text = config.read_text()
    first = document["settings"]["labels"][0]
    try:
        config.write_text(text.replace(f'"{first}"', '"okapi"'))
        answer = run(*arguments)
    finally:
        config.write_text(text)
    assert f"1 label(s) of the data are none of the model's, and count as wrong: {first}" in (
        answer.err
    )


def test_eval_classify_maps_the_labels_of_the_data(
    run: Run, classifier: Path, classes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "by-id"
    for place, folder in enumerate(sorted(classes.iterdir())):
        (data / f"n{place}").mkdir(parents=True)
        for file in folder.iterdir():
            (data / f"n{place}" / file.name).write_bytes(file.read_bytes())
    names = {f"n{place}": folder.name for place, folder in enumerate(sorted(classes.iterdir()))}
    (tmp_path / "names.json").write_text(json.dumps(names))
    arguments = ("eval", "classify", "--model", classifier, "--json", "--data")
    mapped = run(*arguments, data, "--labels", f"@{tmp_path}/names.json").json
    assert mapped["value"] == run(*arguments, classes).json["value"]
    assert mapped["settings"]["unknown_labels"] == []
    (tmp_path / "names.json").write_text('{"n0": ["a", "b"]}')
    for labels in ("a,b", f"@{tmp_path}/names.json"):
        answer = run(*arguments, data, "--labels", labels)
        assert answer.code == 2
        assert "a .json file of data labels with one name each" in " ".join(answer.err.split())


def test_probes_take_models_that_read_no_words(
    run: Run, classifier: Path, classes: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        shutil.copytree(classes, tmp_path / split)
    arguments = ("--data", tmp_path, "--model", classifier, "--json")
    near = run("eval", "knn", *arguments, "-k", 1).json
    assert near["value"] == 1  # the same pictures: each is its own neighbour
    few = run("eval", "few-shot", *arguments, "--shots", "1,2", "--draws", 2).json
    assert set(few["metrics"]) == {"1-shot/top1", "2-shot/top1"}
    assert few["prompt_templates"] == []


def test_eval_zeroshot_leads_to_eval_classify(run: Run, classifier: Path, classes: Path) -> None:
    answer = run("eval", "zeroshot", "--data", classes, "--model", classifier)
    assert answer.code == 1 and "measure it with 'sightline eval classify'" in answer.err
