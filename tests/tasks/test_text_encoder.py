"""A model that only reads: its vectors, what it refuses, and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sightline
from sightline.core.errors import InputError, UnsupportedTaskError
from sightline.hub.save import save_checkpoint
from sightline.tasks.embeddings import Embeddings, of_texts
from sightline.tasks.model import Model
from sightline.tasks.retrieve import retrieve
from tests.hub.tiny import tiny, tiny_folder

TEXTS = ["a red ball", "two ducks in the water", "", "a blue car beside a tree, a ball and ducks"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "m"
    tiny_folder("bert", path)
    return path


@pytest.fixture
def model(folder: Path) -> Model:
    return sightline.load(folder, device="cpu", dtype="float32")


def test_vectors_are_unit_and_the_same_alone_and_together(model: Model) -> None:
    together = model.embed_texts(TEXTS)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    alone = torch.cat([model.embed_texts(text) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_vectors_are_the_references_pooled_ones(model: Model, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = words(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        pooled = theirs(**inputs).pooler_output
    expected = torch.nn.functional.normalize(pooled, dim=-1)
    torch.testing.assert_close(model.embed_texts(TEXTS), expected, atol=1e-5, rtol=0)


def test_no_texts_are_no_vectors_of_the_right_width(model: Model) -> None:
    assert model.embed_texts([]).shape == (0, 20)
    with pytest.raises(InputError, match="texts must be strings"):
        model.embed_texts([1])  # type: ignore[list-item]


def test_it_can_embed_texts_and_nothing_else(model: Model) -> None:
    assert model.tasks == ("embed-texts",)
    picture = np.zeros((9, 9, 3), np.uint8)
    refused = r"\(text encoder\) cannot look at pictures: it can embed-texts; models which can: "
    with pytest.raises(UnsupportedTaskError, match=refused + "google/siglip2-base-patch16-224"):
        model.embed_images(picture)
    with pytest.raises(UnsupportedTaskError, match=refused):
        model.embed_images([])
    for ask in (lambda: model.classify(picture, ["cat"]), lambda: model.similarity(picture, "cat"),
                lambda: model.match(picture, "cat"), lambda: model.tag(picture)):  # fmt: skip
        with pytest.raises(UnsupportedTaskError, match="it can embed-texts"):
            ask()


def test_kept_vectors_answer_queries_of_their_own_model(model: Model, tmp_path: Path) -> None:
    of_texts(model, TEXTS, ["a", "b", "c", "d"]).save(tmp_path / "e.safetensors")
    hits = retrieve(model, TEXTS, Embeddings.load(tmp_path / "e.safetensors"), k=1)
    assert [row[0].id for row in hits] == ["a", "b", "c", "d"]


def test_a_file_without_a_pooler_gives_its_first_token(folder: Path, tmp_path: Path) -> None:
    """As masked-word models are saved, whose config.json is the same."""
    state = load_file(folder / "model.safetensors")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    bare = {f"bert.{k}": v for k, v in state.items() if not k.startswith("pooler")}
    bare["cls.predictions.bias"] = torch.zeros(640)
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = sightline.load(tmp_path, device="cpu", dtype="float32")
    assert (model.config.pooler, model.config.pooling) == (False, "cls")
    model.save(tmp_path / "again")
    again = sightline.load(tmp_path / "again", device="cpu", dtype="float32")
    assert again.config == model.config
    assert torch.equal(again.embed_texts(TEXTS), model.embed_texts(TEXTS))


def test_raw_cls_is_kept_in_the_file(folder: Path, tmp_path: Path) -> None:
    entry, config, _, processor = tiny("bert")
    config = replace(config, pooling="cls")
    save_checkpoint(entry.build(config), processor, config, entry, tmp_path / "m")
    assert json.loads((tmp_path / "m/config.json").read_text())["pooling"] == "cls"
    assert sightline.load(tmp_path / "m", device="cpu").config == config
