"""`--adapter`: on the commands that load a model, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sightline
from sightline.nn import lora
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    loaded = sightline.load(model, dtype="float32")
    lora.add(loaded.network, 2, 8.0)
    torch.manual_seed(0)
    for layer in lora.layers(loaded.network).values():
        torch.nn.init.normal_(layer.lora_B)
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    loaded.save_adapter(folder)
    return folder


def test_an_adapter_changes_answers_and_is_named(run: Run, model: Path, adapter: Path) -> None:
    command = ("embed", "--text", "a red ball", "--model", model, "--dtype", "float32", "--json")
    plain, adapted = run(*command).json, run(*command, "--adapter", adapter).json
    assert adapted["model"] == f"{model} + {adapter}" and plain["model"] == str(model)
    assert plain["embeddings"] != adapted["embeddings"]
    again = sightline.load(model, dtype="float32", adapter=adapter).embed_texts(["a red ball"])
    assert adapted["embeddings"][0]["embedding"] == pytest.approx(again[0].tolist(), abs=1e-5)


def test_a_wrong_adapter_is_one_line(run: Run, model: Path, tmp_path: Path) -> None:
    answer = run("embed", "--text", "x", "--model", model, "--adapter", tmp_path)
    assert answer.code == 1 and "is not an adapter in PEFT's layout" in answer.err


@pytest.mark.parametrize("command", ["train", "plan", "info", "pull", "convert"])
def test_a_command_that_answers_nothing_takes_no_adapter(run: Run, command: str) -> None:
    answer = run(command, "x", "--adapter", "y")
    assert answer.code == 2 and "No such option" in answer.err


def test_a_missing_hub_adapter_is_not_replaced_by_a_drawn_park(run: Run) -> None:
    answer = run("embed", "--text", "x", "--adapter", "org/adapter")
    assert answer.code == 1 and "adapter org/adapter is not in the cache" in answer.err
