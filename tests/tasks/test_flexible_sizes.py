"""The tasks on a system whose pictures keep their aspect ratio, loaded from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import sightline
from sightline.core.errors import CheckpointError, ImageError
from sightline.core.interfaces import PatchBatch
from sightline.tasks.batching import Failed, joined
from sightline.tasks.embed import embed_readable
from sightline.tasks.embeddings import Embeddings, of_images
from sightline.tasks.model import Model
from sightline.tasks.retrieve import retrieve
from tests.hub.tiny import tiny_folder

TEXTS = ["a red ball", "two ducks in the water", "a blue car beside a tree"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "naflex"
    tiny_folder("siglip2-naflex", path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return sightline.load(str(folder), device="cpu", dtype="float32")


def _pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    sizes = [(1, 60), (60, 1), *(tuple(rng.integers(2, 70, 2)) for _ in range(count - 2))]
    return [rng.integers(0, 255, (*side, 3), np.uint8) for side in sizes]


def test_a_picture_has_the_same_vector_alone_and_among_others(model: Model) -> None:
    pictures = _pictures(9)
    batch = model.processor.images(pictures)
    assert isinstance(batch, PatchBatch)
    assert len({tuple(grid) for grid in batch.grids.tolist()}) > 3  # there is something to mix
    alone = torch.cat([model.embed_images(picture) for picture in pictures])
    for batch_size in (1, 4, 9):
        together = model.embed_images(pictures, batch_size=batch_size)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(9))
    assert not torch.allclose(alone[0], alone[2], atol=1e-3)


def test_the_aspect_ratio_reaches_the_network(model: Model) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
    wide = np.repeat(picture, 3, axis=1)
    squeezed, kept = model.embed_images([picture, wide])
    assert not torch.allclose(squeezed, kept, atol=1e-3)


@pytest.mark.filterwarnings("ignore")  # the reference's own, about its own files
def test_scores_agree_with_transformers_over_mixed_sizes(model: Model, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = transformers.AutoModel.from_pretrained(folder).eval()
    assert type(network).__name__ == "Siglip2Model"
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pictures = [p for p in _pictures(8) if min(p.shape[:2]) > 4]  # fewer would look like channels
    pixels = processor(pictures, return_tensors="pt", input_data_format="channels_last")
    ids = model.processor.texts(TEXTS).ids
    with torch.no_grad():
        logits = network(input_ids=ids, **pixels).logits_per_image
    ours = model.similarity(pictures, TEXTS)
    assert float((ours - logits).abs().max()) <= 1e-5 * max(1.0, float(logits.abs().max()))


def test_every_task_of_a_dual_encoder_answers(model: Model) -> None:
    pictures = _pictures(4)
    for labels in model.classify(pictures, ["ball", "car"]):
        assert {label.label for label in labels} == {"ball", "car"}
        assert all(0 <= label.score <= 1 for label in labels)
    assert len(model.match(pictures[0], TEXTS)) == 3
    assert model.tag(pictures, ["ball", "car"], threshold=0)
    assert model.ask(pictures[0], "a", choices=["ball", "car"]) in ("ball", "car")
    assert "naflex" in repr(model)


def test_a_collection_of_mixed_sizes_is_found_again(model: Model, tmp_path: Path) -> None:
    pictures = _pictures(6)
    made, failed = of_images(model, pictures, [f"p{n}" for n in range(6)], batch_size=4)
    assert not failed
    made.save(tmp_path / "e.safetensors")
    hits = retrieve(model, pictures, Embeddings.load(tmp_path / "e.safetensors"), k=1)
    assert [row[0].id for row in hits] == [f"p{n}" for n in range(6)]


def test_what_cannot_be_read_costs_its_own_answer_alone(model: Model) -> None:
    pictures = _pictures(4)
    found = embed_readable(model, [pictures[0], b"no picture", *pictures[1:]], batch_size=3)
    assert found.places == [0, 2, 3, 4]
    assert [type(failure) for failure in found.failed] == [Failed]
    torch.testing.assert_close(found.vectors, model.embed_images(pictures), atol=1e-5, rtol=0)
    with pytest.raises(ImageError):
        model.embed_images([b"no picture"])


def test_no_pictures_give_no_rows(model: Model) -> None:
    assert model.embed_images([]).shape == (0, 24)


def test_saved_and_loaded_again_it_gives_the_same(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "again")
    again = sightline.load(str(tmp_path / "again"), device="cpu", dtype="float32")
    pictures = _pictures(3)
    assert torch.equal(again.similarity(pictures, TEXTS), model.similarity(pictures, TEXTS))
    assert again.processor.image is not None and model.processor.image is not None
    assert again.processor.image.spec == model.processor.image.spec


def test_a_folder_may_ask_for_more_patches_than_the_table_has(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "finer")
    file = tmp_path / "finer" / "preprocessor_config.json"
    config = json.loads(file.read_text()) | {"max_num_patches": 40}
    file.write_text(json.dumps(config))
    finer = sightline.load(str(tmp_path / "finer"), device="cpu", dtype="float32")
    batch = finer.processor.images(_pictures(3))
    assert 9 < batch.mask.sum(dim=1).max() <= 40  # type: ignore[union-attr]
    assert finer.embed_images(_pictures(3)).isfinite().all()
    file.write_text(json.dumps(config | {"patch_size": 8}))
    with pytest.raises(CheckpointError, match="patch_size is 8; allowed: 4, which the network"):
        sightline.load(str(tmp_path / "finer"))


def test_joining_keeps_the_order_of_pictures(model: Model) -> None:
    pictures = _pictures(3)
    ones = [model.processor.images([picture]) for picture in pictures]
    together = joined(ones)
    expected = model.processor.images(pictures)
    assert all(torch.equal(a, b) for a, b in zip(together, expected, strict=True))
