"""What spoke for a text: in the picture's own pixels, by every method, and nothing disturbed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from sightline.core.devices import fast_bfloat16
from sightline.core.errors import ConfigError, ImageError, InputError, UnsupportedTaskError
from sightline.data.park import scene
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.metrics.attribution import energy_inside
from sightline.models.table import system
from sightline.nn.packed import PackedLinear
from sightline.tasks.batching import Failed
from sightline.tasks.explain import explain_each, methods_of
from sightline.tasks.model import Model
from tests.hub.tiny import randomise, tiny_folder

Get = Callable[[str], Model]
ATTENDING = ("clip", "siglip", "siglip2-naflex", "vision_text", "lit")
BLIND = ("unicl", "clip_resnet")
TEXT = "a red ball"
LABELS = ("cat", "crane", "boat", "crane")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """Tiny models with random weights, by system; image encoders have labels."""
    found: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in found:
            folder = tmp_path_factory.mktemp("models") / name
            if name in ("vit", "resnet", "swin"):
                entry = system(name)
                config = replace(entry.tiny, labels=LABELS) if name != "swin" else entry.tiny
                pictures = Processor(image_processor(entry.preprocessing(config)), None)
                save_checkpoint(randomise(entry.build(config)), pictures, config, entry, folder)
            else:
                tiny_folder(name, folder)
            found[name] = sightline.load(folder, device="cpu", dtype="float32")
        return found[name]

    return get


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("method", ["gradient", "rollout", "occlusion"])
@pytest.mark.parametrize("name", ATTENDING)
def test_every_method_gives_a_map_of_the_picture_s_size(
    models: Get, name: str, method: str
) -> None:
    heat = models(name).explain(picture(), TEXT, method)
    assert heat.dtype == np.float32 and heat.shape == (40, 60)
    assert heat.min() == 0 and heat.max() == 1


@pytest.mark.parametrize("name", BLIND)
def test_towers_without_attention_over_all_places_are_covered(models: Get, name: str) -> None:
    model = models(name)
    assert methods_of(model) == ("occlusion",)
    assert np.array_equal(
        model.explain(picture(), TEXT), model.explain(picture(), TEXT, "occlusion")
    )
    with pytest.raises(
        UnsupportedTaskError, match=r"'rollout' follows attention .*: use occlusion$"
    ):
        model.explain(picture(), TEXT, "rollout")


def test_the_score_explained_is_the_logit(models: Get) -> None:
    for name in (*ATTENDING, *BLIND):
        model = models(name)
        expected = model.similarity(picture(), [TEXT, "a blue car", "a tree"])[0].tolist()
        for method in methods_of(model):
            (found,) = explain_each(model, picture(), TEXT, method)
            (less,) = explain_each(model, picture(), TEXT, method, against=["a blue car", "a tree"])
            assert not isinstance(found, Failed) and not isinstance(less, Failed)
            assert found.score == pytest.approx(expected[0], abs=1e-4)
            assert less.score == pytest.approx(expected[0] - sum(expected[1:]) / 2, abs=1e-4)


def test_the_text_changes_all_maps_but_rollout_s(models: Get) -> None:
    model = models("siglip")
    maps = {
        method: [model.explain(picture(), text, method) for text in (TEXT, "two ducks")]
        for method in methods_of(model)
    }
    assert np.array_equal(*maps["rollout"])
    assert not np.allclose(*maps["gradient"]) and not np.allclose(*maps["occlusion"])


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_classifier_is_asked_for_one_of_its_labels(models: Get, name: str) -> None:
    model = models(name)
    assert "explain" in model.tasks
    logits = model.network.class_logits(model.network(model.processor.images([picture()])).pooled)
    for method in methods_of(model):
        (boat,) = explain_each(model, picture(), "boat", method)
        (crane,) = explain_each(model, picture(), "crane", method)
        assert not isinstance(boat, Failed) and not isinstance(crane, Failed)
        assert boat.score == pytest.approx(logits[0, 2].item(), abs=1e-4)
        assert crane.score == pytest.approx(logits[0, [1, 3]].logsumexp(0).item(), abs=1e-4)
    with pytest.raises(UnsupportedTaskError, match="cannot name 'dog'"):
        model.explain(picture(), "dog")


def test_what_scores_nothing_is_refused(models: Get) -> None:
    with pytest.raises(
        UnsupportedTaskError, match="cannot explain a score: it scores neither texts nor labels"
    ):
        models("swin").explain(picture(), "dog")


def test_what_cannot_be_asked_is_refused(models: Get) -> None:
    model = models("siglip")
    with pytest.raises(ConfigError, match="unknown method 'gradients': did you mean 'gradient'"):
        model.explain(picture(), TEXT, "gradients")
    with pytest.raises(InputError, match="one text is explained at a time, list arrived"):
        model.explain(picture(), [TEXT])
    with pytest.raises(ImageError):
        model.explain(b"nothing", TEXT)
    first, second = explain_each(model, [b"nothing", picture()], TEXT, on_error="collect")
    assert isinstance(first, Failed) and not isinstance(second, Failed)


def test_a_list_gives_a_list_of_each_picture_s_own_map(models: Get) -> None:
    for name in ("siglip", "siglip2-naflex"):
        model, pictures = models(name), [picture(30, 80), picture(64, 24, seed=1)]
        for method in methods_of(model):
            maps = model.explain(pictures, TEXT, method)
            assert [heat.shape for heat in maps] == [(30, 80), (64, 24)]
            assert np.array_equal(maps[1], model.explain(pictures[1], TEXT, method))


# The right place


def test_nothing_outside_of_a_crop_is_hot(models: Get) -> None:
    """CLIP's tower sees the middle square."""
    for method in ("gradient", "occlusion"):
        heat = models("clip").explain(picture(40, 100), TEXT, method)
        assert (heat[:, :30] == 0).all() and (heat[:, 70:] == 0).all()
        assert heat[:, 30:70].max() == 1


def test_heat_is_upright_where_the_picture_is_turned(models: Get, tmp_path: Path) -> None:
    pixels = picture(40, 60)
    lying = Image.fromarray(np.rot90(pixels))  # turned back by orientation 6, a quarter clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    for method in ("gradient", "occlusion"):
        turned = models("siglip").explain(tmp_path / "lying.png", TEXT, method)
        assert np.array_equal(turned, models("siglip").explain(pixels, TEXT, method))


class Spotter(torch.nn.Module):
    """A dual encoder whose score is the red of one place of the prepared picture."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        if not isinstance(pixels, torch.Tensor):
            from sightline.inputs.naflex import as_pixels

            pixels = as_pixels(pixels, 4)
        window = pixels[:, 0, self.row : self.row + 4, self.column : self.column + 4]
        return window.mean(dim=(1, 2))[:, None]

    def encode_texts(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(ids), 1)

    def pair_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(1.0), torch.tensor(0.0)


@pytest.mark.parametrize(
    ("name", "seen", "spot"),
    [
        ("siglip", (0, 0, 96, 48), (32, 16, 48, 24)),  # squeezed from 48 x 96 to 24 x 24
        ("clip", (24, 0, 72, 48), (40, 16, 48, 24)),  # to 24 x 48, then the middle 24 columns
        ("siglip2-naflex", (0, 0, 96, 48), (48, 24, 72, 48)),  # to 2 x 4 patches of 4 x 4
    ],
)
def test_heat_lies_where_the_network_looked(
    models: Get, name: str, seen: tuple[int, ...], spot: tuple[int, int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = models(name)
    monkeypatch.setattr(model, "network", Spotter(*((4, 8) if "naflex" in name else (8, 8))))
    assert model.processor.image.spec.view(48, 96) == seen
    x1, y1, x2, y2 = spot
    pixels = np.zeros((48, 96, 3), np.uint8)
    pixels[y1:y2, x1:x2] = (255, 0, 0)
    heat = model.explain(pixels, TEXT)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert y1 <= y < y2 and x1 <= x < x2


# Nothing disturbed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["gradient", "rollout", "occlusion"])
def test_the_model_is_afterwards_what_it_was(tmp_path: Path, dtype: str, method: str) -> None:
    tiny_folder("siglip", tmp_path / "m")
    model = sightline.load(tmp_path / "m", device="cpu", dtype=dtype)
    packed = any(isinstance(module, PackedLinear) for module in model.network.modules())
    assert packed == (dtype == "bfloat16" and fast_bfloat16("cpu"))
    before = model.embed_images(picture()), model.embed_texts(TEXT)
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    heat = model.explain(picture(), TEXT, method)
    assert heat.max() == 1
    assert torch.equal(model.embed_images(picture()), before[0])
    assert torch.equal(model.embed_texts(TEXT), before[1])
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert not any(getattr(module, "recorder", None) for module in model.network.modules())
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_packed_and_plain_weights_give_nearly_the_same_map(tmp_path: Path) -> None:
    tiny_folder("siglip", tmp_path / "m")
    plain = sightline.load(tmp_path / "m", device="cpu", dtype="float32")
    narrow = sightline.load(tmp_path / "m", device="cpu", dtype="bfloat16")
    for method in ("gradient", "rollout"):
        one, other = (model.explain(picture(), TEXT, method) for model in (plain, narrow))
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98


@pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")),
    reason="this build of torch has no 8-bit products of oneDNN",
)
def test_blocks_in_8_bits_are_covered(tmp_path: Path) -> None:
    """They have no attention to listen to, and say so."""
    tiny_folder("siglip", tmp_path / "m")
    model = sightline.load(tmp_path / "m", device="cpu", dtype="float32", quantize="int8")
    before = model.embed_images(picture())
    assert methods_of(model) == ("occlusion",)
    assert model.explain(picture(), TEXT).max() == 1
    with pytest.raises(
        UnsupportedTaskError, match=r"\(siglip, 8 bits\) cannot show: use occlusion"
    ):
        model.explain(picture(), TEXT, "gradient")
    assert torch.equal(model.embed_images(picture()), before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_in_training_and_without_gradients_around_is_explained_all_the_same(
    tmp_path: Path, dtype: str
) -> None:
    tiny_folder("clip", tmp_path / "m")
    model = sightline.load(tmp_path / "m", device="cpu", dtype=dtype)
    expected = model.explain(picture(), TEXT, "gradient")
    model.network.train()
    for around in (torch.inference_mode(), torch.no_grad()):
        with around:
            assert np.array_equal(model.explain(picture(), TEXT, "gradient"), expected)
    assert model.network.training and model.network.image.transformer.training


# Controls on a model that has learned


@pytest.fixture(scope="module")
def park() -> Model:
    return sightline.load("park-siglip", device="cpu", dtype="float32")


SUBJECTS = [
    (drawn, drawn.unmistakable[0])
    for drawn in (scene(seed, "test") for seed in range(600, 700))
    if len(drawn.objects) in (2, 3) and drawn.unmistakable == drawn.objects
][:10]


def on_the_thing(model: Model, method: str, texts: list[str]) -> float:
    """Share of the heat on each scene's thing, in units of its share of the picture."""
    inside = chance = 0.0
    few = 5 if method == "occlusion" else len(texts)  # it asks the network eighty times
    for (drawn, thing), text in list(zip(SUBJECTS, texts, strict=True))[:few]:
        heat = torch.from_numpy(model.explain(drawn.pixels, text, method))
        inside += energy_inside(heat, torch.from_numpy(thing.mask))
        chance += thing.mask.mean()
    return inside / chance


NAMES = [f"a {thing.name}" for _, thing in SUBJECTS]
OTHERS = [f"a {next(o for o in drawn.objects if o is not thing).name}" for drawn, thing in SUBJECTS]
"""Texts that are true of another thing in the same picture."""


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_a_wrong_text_gets_less_heat_on_the_thing_than_the_right_one(
    park: Model, method: str
) -> None:
    right, wrong = (on_the_thing(park, method, texts) for texts in (NAMES, OTHERS))
    assert right > 3 > 1.5 * wrong


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_a_network_drawn_at_random_loses_the_thing(
    park: Model, method: str, tmp_path: Path
) -> None:
    """The sanity check of Adebayo et al. 2018 (arXiv:1810.03292): maps must need the weights.

    Rollout does not pass it: what stands out is looked at by chance too.
    """
    park.save(tmp_path / "m")
    drawn = sightline.load(tmp_path / "m", device="cpu", dtype="float32")
    randomise(drawn.network)
    assert on_the_thing(drawn, method, NAMES) < on_the_thing(park, method, NAMES) / 2
