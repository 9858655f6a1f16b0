"""A model folder in 8 bits: close, the same every time, and refused where it has no place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from sightline.core.errors import ConfigError
from sightline.data.park import scene
from sightline.hub.quantize import check_quantize
from sightline.inputs.dead_leaves import dead_leaves
from sightline.nn.packed import PackedTransformer
from sightline.tasks.model import Model, load
from tests.hub.tiny import tiny_folder

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")),
    reason="this build of torch has no 8-bit products of oneDNN",
)


def pictures(count: int) -> list[np.ndarray]:
    return [np.asarray(scene(seed, split="test").image) for seed in range(count)]


def centred(vectors: torch.Tensor) -> torch.Tensor:
    return normalize(vectors - vectors.mean(dim=0), dim=-1)


@pytest.fixture(scope="module")
def small() -> Model:
    return load("park-siglip", device="cpu", dtype="float32", quantize="int8")


@pytest.fixture(scope="module")
def whole() -> Model:
    return load("park-siglip", device="cpu", dtype="float32")


def test_vectors_of_the_bundled_model_stay_close(small: Model, whole: Model) -> None:
    shown = pictures(48)
    found, expected = small.embed_images(shown), whole.embed_images(shown)
    cosines = (centred(found) * centred(expected)).sum(dim=-1)
    assert cosines.min() >= 0.95
    assert (centred(found) * centred(expected).roll(1, 0)).sum(dim=-1).min() < 0.5
    assert (small.quantize, whole.quantize) == ("int8", None)


def test_words_are_read_as_before(small: Model, whole: Model) -> None:
    words = ["a red bench", "two cats"]
    assert torch.equal(small.embed_texts(words), whole.embed_texts(words))


def test_a_picture_alone_is_its_row_of_a_batch(small: Model) -> None:
    shown = pictures(5)
    batch = small.embed_images(shown)
    alone = torch.cat([small.embed_images(picture) for picture in shown])
    assert (batch - alone).abs().max() <= 1e-5


def test_scales_are_the_same_every_time(small: Model) -> None:
    again = load("park-siglip", device="cpu", dtype="float32", quantize="int8")
    shown = pictures(3)
    assert torch.equal(again.embed_images(shown), small.embed_images(shown))


@pytest.mark.parametrize("system", ["clip", "vit", "siglip2-naflex", "lit"])
def test_every_kind_of_vision_transformer_can_be(system: str, tmp_path: Path) -> None:
    tiny_folder(system, tmp_path / "model")
    model = load(tmp_path / "model", device="cpu", dtype="float32", quantize="int8")
    packed = [m for m in model.network.modules() if isinstance(m, PackedTransformer)]
    assert len(packed) == 1
    exact = load(tmp_path / "model", device="cpu", dtype="float32")
    shown = pictures(6)
    a, b = centred(model.embed_images(shown)), centred(exact.embed_images(shown))
    assert (a * b).sum(dim=-1).min() > 0.9


@pytest.mark.parametrize("system", ["resnet", "bert"])
def test_what_has_no_vision_transformer_says_so(system: str, tmp_path: Path) -> None:
    tiny_folder(system, tmp_path / "model")
    with pytest.raises(ConfigError, match="8 bits are for"):
        load(tmp_path / "model", device="cpu", dtype="float32", quantize="int8")


def test_saving_asks_for_the_whole_weights(small: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="load the model without quantize to save it"):
        small.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_another_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="computes on the CPU, and the device is cuda"):
        check_quantize("int8", torch.device("cuda"), torch.float32)


def test_an_adapter_is_merged_first(tmp_path: Path) -> None:
    from sightline.nn.lora import add

    folder, adapter = tmp_path / "model", tmp_path / "adapter"
    tiny_folder("clip", folder)
    model = load(folder, device="cpu", dtype="float32")
    add(model.network, rank=2, targets=("image.*.q", "image.*.v"))
    for name, parameter in model.network.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    model.save_adapter(adapter)
    shown = pictures(8)
    worn = load(folder, device="cpu", dtype="float32", adapter=adapter)
    small = load(folder, device="cpu", dtype="float32", adapter=adapter, quantize="int8")
    expected = centred(worn.embed_images(shown))
    assert (centred(small.embed_images(shown)) * expected).sum(dim=-1).min() > 0.9
    bare = load(folder, device="cpu", dtype="float32", quantize="int8")
    assert (centred(bare.embed_images(shown)) * expected).sum(dim=-1).min() < 0.9


def test_dead_leaves_are_the_same_pictures_and_varied() -> None:
    first, second = dead_leaves(4, 64), dead_leaves(4, 64)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].shape == (64, 64, 3) and first[0].dtype == np.uint8
    contrast = [picture.std(axis=(0, 1)).mean() for picture in first]
    assert contrast[0] > 2 * contrast[1] > 0  # every other one is foggy
    assert not np.array_equal(first[0], dead_leaves(1, 64, seed=1)[0])
