"""The tasks on tiny models of the real systems, loaded from a folder, beside transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sightline
from sightline.core.errors import DataError, UnsupportedTaskError
from sightline.tasks.embeddings import Embeddings, of_images
from sightline.tasks.model import Model
from sightline.tasks.retrieve import retrieve
from tests.hub.tiny import tiny_folder

TEXTS = ["a red ball", "two ducks in the water", "a blue car beside a tree"]
DUAL = ["clip", "siglip", "vision_text"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    for name in (*DUAL, "vit"):
        tiny_folder(name, root / name)
    return {name: root / name for name in (*DUAL, "vit")}


def _pictures(count: int, size: tuple[int, int] | None = None) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    sizes = [size or tuple(rng.integers(5, 70, 2)) for _ in range(count)]
    return [rng.integers(0, 255, (*side, 3), np.uint8) for side in sizes]


def _load(folder: Path) -> Model:
    return sightline.load(str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", [*DUAL, "vit"])
def test_mixed_sizes_in_a_batch_give_the_rows_that_each_gives_alone(
    folders: dict[str, Path], name: str
) -> None:
    model = _load(folders[name])
    pictures = _pictures(9)
    together = model.embed_images(pictures, batch_size=4)
    alone = torch.cat([model.embed_images(picture) for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(9))
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("name", DUAL)
def test_texts_give_the_same_vectors_alone_and_together(
    folders: dict[str, Path], name: str
) -> None:
    model = _load(folders[name])
    together = model.embed_texts(TEXTS)
    alone = torch.cat([model.embed_texts(text) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def _reference(folder: Path, name: str, pictures: list[np.ndarray], texts: list[str]) -> Any:
    """Logits of transformers, float32[N, M], from the same folder, with its own preprocessing."""
    import transformers

    kinds = {
        "clip": transformers.CLIPModel,
        "siglip": transformers.SiglipModel,
        "vision_text": transformers.VisionTextDualEncoderModel,
    }
    network = kinds[name].from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    length = network.config.text_config.max_position_embeddings
    padding = "max_length" if name == "siglip" else "longest"
    words = tokenizer(
        texts, padding=padding, truncation=True, max_length=length, return_tensors="pt"
    )
    inputs = {"input_ids": words["input_ids"]}
    if name != "siglip":
        inputs["attention_mask"] = words["attention_mask"]
    with torch.no_grad():
        pixels = processor(pictures, return_tensors="pt")["pixel_values"]
        return network(pixel_values=pixels, **inputs).logits_per_image


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # the reference's own, about its own files
@pytest.mark.parametrize("name", DUAL)
def test_scores_agree_with_transformers(folders: dict[str, Path], name: str) -> None:
    model = _load(folders[name])
    pictures = _pictures(4, (24, 24))  # already the right size: no resampling in between
    logits = _reference(folders[name], name, pictures, TEXTS)
    ours = model.similarity(pictures, TEXTS)
    assert float((ours - logits).abs().max()) <= 1e-5 * max(1.0, float(logits.abs().max()))
    scores = logits.sigmoid() if name == "siglip" else logits.softmax(dim=1)
    for row, labels in zip(scores, model.classify(pictures, TEXTS, templates="{}"), strict=True):
        expected = dict(zip(TEXTS, row.tolist(), strict=True))
        assert dict(labels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", DUAL)
def test_every_task_of_a_dual_encoder_answers(folders: dict[str, Path], name: str) -> None:
    model = _load(folders[name])
    picture = _pictures(1)[0]
    assert len(model.classify(picture, ["ball", "car"])) == 2
    assert 0 <= float(model.match(picture, TEXTS).min()) <= float(model.match(picture, TEXTS).max())
    scores = dict(model.tag(picture, ["ball", "car"], threshold=0))
    more = dict(model.tag(picture, ["ball", "car", "tree", "ducks"], threshold=0))
    assert {tag: more[tag] for tag in scores} == pytest.approx(scores, abs=1e-6)
    assert model.ask(picture, "a", choices=["ball", "car"]) in ("ball", "car")
    with pytest.raises(UnsupportedTaskError, match="cannot write captions"):
        model.caption(picture)


@pytest.mark.parametrize("name", DUAL)
def test_saved_and_loaded_again_it_gives_the_same(
    folders: dict[str, Path], name: str, tmp_path: Path
) -> None:
    model = _load(folders[name])
    model.save(tmp_path / "again")
    again = _load(tmp_path / "again")
    pictures = _pictures(3)
    assert torch.equal(again.similarity(pictures, TEXTS), model.similarity(pictures, TEXTS))


def test_embeddings_are_tied_to_their_model(folders: dict[str, Path], tmp_path: Path) -> None:
    model, other = _load(folders["siglip"]), _load(folders["clip"])
    made, _ = of_images(model, _pictures(5), [f"p{place}" for place in range(5)])
    made.save(tmp_path / "e.safetensors")
    hits = retrieve(model, _pictures(5), Embeddings.load(tmp_path / "e.safetensors"), k=1)
    assert [row[0].id for row in hits] == [f"p{place}" for place in range(5)]
    with pytest.raises(DataError, match="these embeddings"):
        retrieve(other, TEXTS, tmp_path / "e.safetensors")
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    with pytest.raises(DataError, match="gives other vectors"):
        retrieve(model, TEXTS, tmp_path / "e.safetensors")
