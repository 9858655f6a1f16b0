"""Pictures and words to vectors: order, batches, lists, failures."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.core.errors import ConfigError, ImageError, InputError
from sightline.tasks import batching
from sightline.tasks.batching import Failed, prepared
from sightline.tasks.embed import embed_each, embed_readable
from sightline.tasks.model import Model, load
from tests.ended import ends
from tests.tasks.colours import BLUE, GREEN, RED, colour_model, picture


def test_one_picture_gives_one_row_and_a_list_one_row_each(clip: Model) -> None:
    assert clip.embed_images(RED).shape == (1, 4)
    assert clip.embed_images([RED]).shape == (1, 4)
    assert clip.embed_images([RED, BLUE, GREEN]).shape == (3, 4)
    assert clip.embed_texts("red").shape == (1, 4)
    assert clip.embed_texts(["red", "blue"]).shape == (2, 4)


def test_an_empty_list_gives_no_rows_of_the_right_width(clip: Model) -> None:
    assert clip.embed_images([]).shape == (0, 4)
    assert clip.embed_texts([]).shape == (0, 4)


def test_rows_are_in_order_and_the_same_for_every_batch_size(clip: Model) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (5, 5, 3), np.uint8) for _ in range(23)]
    alone = torch.cat([clip.embed_images(one) for one in pictures])
    for batch_size in (1, 4, 23, 100):
        together = clip.embed_images(pictures, batch_size=batch_size)
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_vectors_are_plain_unit_float32_that_a_head_can_be_trained_on(clip: Model) -> None:
    row = next(embed_each(clip, [RED]))
    assert not isinstance(row, Failed)
    for vectors in (row[None], clip.embed_images([RED, BLUE]), clip.embed_texts(["red"])):
        assert vectors.dtype == torch.float32 and vectors.device.type == "cpu"
        assert not vectors.requires_grad and not vectors.is_inference()
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
        head = torch.nn.Linear(4, 1)
        head(vectors).sum().backward()


def test_dropout_is_off_while_embedding_and_back_afterwards(clip: Model) -> None:
    clip.network.train()
    clip.network.axis.requires_grad_(True)
    rows = clip.embed_images([picture(10, 200, 90)] * 64)
    torch.testing.assert_close(rows, rows[:1].expand(64, -1))
    assert float(rows[0, 1]) > 0.8
    assert clip.network.training and clip.network.dropout.training


def test_pictures_are_taken_from_a_stream_a_few_batches_ahead(clip: Model) -> None:
    taken = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal taken
        while True:
            taken += 1
            yield RED

    answers = embed_each(clip, endless(), batch_size=4)
    for _ in range(10):
        next(answers)
    assert 10 <= taken <= 10 + 3 * 4
    answers.close()  # type: ignore[attr-defined]
    assert ends("decode")


def test_a_broken_picture_raises_and_is_named(clip: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture at all")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        clip.embed_images([RED, broken, BLUE])


def test_failures_are_collected_beside_the_others(clip: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture at all")
    found = embed_readable(clip, [broken, RED, b"", BLUE, tmp_path / "absent.png"], batch_size=2)
    assert found.places == [1, 3]
    torch.testing.assert_close(found.vectors, clip.embed_images([RED, BLUE]))
    names = [failure.name for failure in found.failed]
    assert names == [str(broken), "picture 3 (bytes)", str(tmp_path / "absent.png")]
    assert clip.network.batches[0] == 2, "failures must not thin the batches"


def test_nothing_readable_gives_no_rows(clip: Model) -> None:
    found = embed_readable(clip, [b""] * 40, batch_size=2)
    assert found.vectors.shape == (0, 4) and len(found.failed) == 40


def test_other_errors_than_a_pictures_are_not_swallowed() -> None:
    def broken(source: object, place: int) -> torch.Tensor:
        raise RuntimeError("our own mistake")

    with pytest.raises(RuntimeError, match="our own mistake"):
        list(prepared([1], broken, ahead=2))


def test_answers_keep_their_order_when_decoding_takes_different_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "available_cores", lambda: 2)
    later_is_done = threading.Event()

    def prepare(source: int, place: int) -> torch.Tensor:
        if source == 0:
            assert later_is_done.wait(10)
        else:
            later_is_done.set()
        return torch.tensor(source)

    rows = list(prepared(range(6), prepare, ahead=4))
    assert [int(row) for row in rows if not isinstance(row, Failed)] == list(range(6))


def test_sources_may_be_paths_bytes_pictures_and_arrays(clip: Model, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.fromarray(RED).save(path)
    vectors = clip.embed_images([path, str(path), path.read_bytes(), Image.fromarray(RED), RED])
    assert (vectors == vectors[0]).all()


def test_a_tuple_is_refused_with_the_reason(clip: Model) -> None:
    with pytest.raises(InputError, match=r"a tuple of 2 arrived.*pass a list"):
        clip.embed_images((RED, BLUE))


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_a_senseless_batch_size_is_refused(clip: Model, size: object) -> None:
    with pytest.raises(ConfigError, match="batch_size must be a whole number of at least 1"):
        clip.embed_images([RED], batch_size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", 3], "number 2 is int: 3"),
        (b"red", "must be a list of strings, bytes arrived"),
        (7, "must be a list of strings, int arrived"),
    ],
)
def test_texts_that_are_no_strings_are_refused(clip: Model, texts: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clip.embed_texts(texts)  # type: ignore[arg-type]


def test_an_image_encoder_gives_its_pooled_vector_at_unit_length(vit: Model) -> None:
    torch.testing.assert_close(vit.embed_images(RED), colour_model("clip").embed_images(RED))


def test_jpeg_files_can_be_decoded_at_a_part_of_their_size(tmp_path):
    """By name alone; a wrong name is told at once, also where broken pictures are collected."""
    from sightline.data.park import scene
    from sightline.tasks.embeddings import preprocessing_digest

    model = load("park-siglip", device="cpu", dtype="float32")
    large = Image.fromarray(np.asarray(scene(3, "test").image)).resize((640, 512), 3)
    large.save(tmp_path / "large.jpg", quality=92)
    exact, digest = model.embed_images(tmp_path / "large.jpg"), preprocessing_digest(model)
    model.decode = "reduced"
    reduced = model.embed_images(tmp_path / "large.jpg")
    assert 0.95 < float((exact * reduced).sum()) < 0.99999
    assert preprocessing_digest(model) != digest
    model.decode = "half"
    with pytest.raises(ConfigError, match="unknown decode 'half'"):
        embed_readable(model, [tmp_path / "large.jpg"])
