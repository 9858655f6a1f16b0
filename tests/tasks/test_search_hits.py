"""The nearest of a collection, and files of embeddings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize

from sightline.core.errors import (
    ConfigError,
    DataError,
    ImageError,
    InputError,
    UnsupportedTaskError,
)
from sightline.tasks.embeddings import FORMAT, Embeddings, of_images, of_texts
from sightline.tasks.model import Model
from sightline.tasks.retrieve import retrieve, top_k
from tests.tasks.colours import BLUE, GREEN, RED, colour_model, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    Image.fromarray(RED).save(root / "red.png")
    Image.fromarray(GREEN).save(root / "deep" / "green.png")
    Image.fromarray(BLUE).save(root / "blue.png")
    return root


def test_words_find_pictures_of_a_folder(clip: Model, folder: Path) -> None:
    hits = retrieve(clip, ["green", "blue"], folder, k=2)
    assert [row[0].id for row in hits] == [
        str(folder / "deep" / "green.png"),
        str(folder / "blue.png"),
    ]
    assert all(len(row) == 2 and row[0].score >= row[1].score for row in hits)
    assert type(hits[0][0].score) is float


def test_a_picture_finds_words_and_pictures(clip: Model, folder: Path) -> None:
    words = ["red", "green", "blue"]
    (hits,) = retrieve(clip, folder / "blue.png", words, gallery_kind="text")
    assert hits[0].id == "blue" and len(hits) == 3
    (hits,) = retrieve(clip, str(folder / "red.png"), folder, k=1, query_kind="image")
    assert hits[0].id == str(folder / "red.png")
    assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_an_image_encoder_searches_by_picture_and_not_by_word(vit: Model, folder: Path) -> None:
    (hits,) = retrieve(vit, [RED], folder, k=1)
    assert hits[0].id == str(folder / "red.png")
    with pytest.raises(UnsupportedTaskError, match="cannot read text"):
        retrieve(vit, "red", folder)


def test_equal_pictures_stand_in_the_gallerys_order(clip: Model) -> None:
    gallery = [BLUE, RED, RED, BLUE, RED]
    (hits,) = retrieve(clip, "red", gallery, k=4)
    assert [hit.id for hit in hits] == [
        "picture 2 (ndarray)", "picture 3 (ndarray)", "picture 5 (ndarray)", "picture 1 (ndarray)",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 40), st.integers(1, 50),
    st.integers(1, 17),
)  # fmt: skip
def test_top_k_is_the_whole_sorted_list_cut_off(
    seed: int, queries: int, rows: int, k: int, chunk: int
) -> None:
    rng = np.random.default_rng(seed)
    # Few different rows, so that ties are the rule.
    gallery = rng.integers(-1, 2, (rows, 3)).astype(np.float32)
    asked = rng.integers(-1, 2, (queries, 3)).astype(np.float32)
    scores, places = top_k(torch.from_numpy(asked), torch.from_numpy(gallery), k, chunk)
    exact = asked.astype(np.float64) @ gallery.T
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    assert places.tolist() == expected.tolist()
    assert scores.tolist() == np.take_along_axis(exact, expected, axis=1).tolist()


def test_not_a_number_ranks_last() -> None:
    gallery = torch.tensor([[float("nan"), 0.0], [-1.0, 0.0], [1.0, 0.0]])
    _, places = top_k(torch.tensor([[1.0, 0.0]]), gallery, 3)
    assert places.tolist() == [[2, 1, 0]]


def test_embeddings_come_back_from_their_file(clip: Model, tmp_path: Path) -> None:
    ids = ["red", "a\nb", "caf\udce9.jpg", "日本"]
    made, failed = of_images(clip, [RED, GREEN, BLUE, picture(9, 9, 9)], ids)
    path = tmp_path / "new" / "park.safetensors"
    made.save(path)
    back = Embeddings.load(path)
    assert not failed
    assert back.ids == tuple(ids) and back.kind == "image" and back.dim == 4
    assert (back.model, back.revision) == ("colour-clip", "r1")
    assert torch.equal(back.vectors, made.vectors)
    assert [file.name for file in path.parent.iterdir()] == ["park.safetensors"]
    (hits,) = retrieve(clip, "green", path, k=1)
    assert hits[0].id == "a\nb"


def test_pictures_that_cannot_be_read_are_left_out_and_named(clip: Model) -> None:
    made, failed = of_images(clip, [RED, b"", BLUE])
    assert made.ids == ("picture 1 (ndarray)", "picture 3 (ndarray)")
    assert [failure.name for failure in failed] == ["picture 2 (bytes)"]
    with pytest.raises(ImageError):
        retrieve(clip, "red", [RED, b""])


def test_vectors_of_other_weights_are_refused(clip: Model) -> None:
    made = of_texts(clip, ["red", "blue"])
    made.check_model(clip)
    other = colour_model("clip", name="other", revision=None)
    made.check_model(other)  # another name for the same weights is the same model
    with torch.no_grad():
        other.network.axis.copy_(torch.eye(4)[[1, 0, 2, 3]])
    with pytest.raises(
        DataError, match=r"made by colour-clip \(revision r1\), and other .* embed the collection"
    ):
        retrieve(other, "red", made)


def test_another_preprocessing_is_refused(clip: Model) -> None:
    made = of_texts(clip, ["red"])
    clip.processor.image = SimpleNamespace(spec="median colour")
    with pytest.raises(DataError, match="another picture preprocessing"):
        made.check_model(clip)


def test_the_same_weights_in_bfloat16_are_the_same_model(clip: Model) -> None:
    made = of_texts(clip, ["red"])
    replace(made, probe=normalize(made.probe.bfloat16().float(), dim=1)).check_model(clip)


def _rewritten(path: Path, **metadata: str) -> None:
    made = Embeddings.load(path)
    about = {"kind": "text", "model": "m", "revision": None, "preprocessing": "p"}
    ids = torch.frombuffer(bytearray(json.dumps(made.ids).encode()), dtype=torch.uint8)
    tensors = {"vectors": made.vectors, "probe": made.probe, "ids": ids}
    base = {"format": FORMAT, "version": "1", "about": json.dumps(about)}
    save_file(tensors, path, metadata=base | metadata)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"version": "2"}, "version 2, this program reads up to 1: update Sightline"),
        ({"version": "x"}, "version 'x', which does not exist"),
        ({"format": "pt"}, "not a file of embeddings that Sightline wrote"),
        ({"about": "{"}, "embeddings cannot be read"),
        ({"about": "null"}, "embeddings are incomplete"),
        ({"about": "{}"}, "embeddings are incomplete"),
        ({"about": '{"kind": 3, "model": "m", "revision": null, "preprocessing": "p"}'},
         "do not fit"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(
    clip: Model, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "e.safetensors"
    of_texts(clip, ["red"]).save(path)
    _rewritten(path, **metadata)
    with pytest.raises(DataError, match=rf"e\.safetensors.*{message}"):
        Embeddings.load(path)


def test_damaged_files_and_vectors_are_refused(clip: Model, tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    made = of_texts(clip, ["red", "blue"])
    made.save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="embeddings cannot be read"):
        Embeddings.load(path)
    with pytest.raises(DataError, match="no such file of embeddings"):
        Embeddings.load(tmp_path / "absent.safetensors")
    replace(made, ids=("one",)).save(path)
    with pytest.raises(DataError, match="ids and vectors do not fit"):
        Embeddings.load(path)
    for wrong in (made.vectors * 2, made.vectors * float("nan")):
        replace(made, vectors=wrong).save(path)
        with pytest.raises(DataError, match="not of length one"):
            Embeddings.load(path)


def test_settings_that_cannot_be_used_are_refused(clip: Model) -> None:
    with pytest.raises(ConfigError, match="k must be a whole number of at least 1, not 0"):
        retrieve(clip, "red", [RED], k=0)
    with pytest.raises(ConfigError, match="query_kind must be 'text' or 'image', not 'word'"):
        retrieve(clip, "red", [RED], query_kind="word")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="gallery_kind must be"):
        retrieve(clip, "red", [RED], gallery_kind="words")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="queries mix strings and pictures"):
        retrieve(clip, ["red", RED], [RED])
    with pytest.raises(DataError, match="the gallery is empty"):
        retrieve(clip, "red", [])
    with pytest.raises(InputError, match="1 ids arrived for 2 items"):
        of_texts(clip, ["red", "blue"], ["one"])
    assert retrieve(clip, [], [RED]) == []
