"""What units look for: found where it is, cut as it is seen, and told when there is nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.core.errors import ConfigError, ImageError, InputError, UnsupportedTaskError
from sightline.data.park import scene
from sightline.inputs.preprocessing import ImageProcessor, ImageSpec
from sightline.models.table import system
from sightline.tasks.embed import evaluating
from sightline.tasks.feature_sheets import filter_sheet, layer_sheet, write_features
from sightline.tasks.features import find_features, first_filters
from sightline.tasks.model import Model, load
from sightline.tasks.network_layers import layer_names, layers_of
from tests.hub.tiny import tiny, tiny_folder
from tests.tasks.colours import colour_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models with random weights, by system."""
    found = {}

    def get(name):
        if name not in found:
            folder = tmp_path_factory.mktemp("models") / name
            tiny_folder(name, folder)
            found[name] = load(folder, dtype="float32")
        return found[name]

    return get


def pictures(count=7, side=72, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)]


class Spotter(torch.nn.Module):
    """A network whose two units look for red and for green pixels, at half the size."""

    def __init__(self):
        super().__init__()
        self.stacks = torch.nn.ModuleList([torch.nn.Conv2d(3, 2, 2, stride=2, bias=False)])
        weight = torch.tensor([[1.0, -1, -1], [-1, 1, -1]])
        self.stacks[0].weight.data = weight[:, :, None, None].expand(2, 3, 2, 2) / 4
        self.stem = self.stacks[0]

    def stages(self, pixels):
        return [self.stacks[0](pixels)]


def spotter(spec=None):
    spec = spec or ImageSpec(64, 64, "square", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    processor = ImageProcessor(spec)
    loaded = SimpleNamespace(
        origin=None, quantize=None, end_ids=(),
        name="spotter", revision=None, folder=None, config=None, system=replace(system("resnet")),
        network=Spotter().eval(), processor=SimpleNamespace(image=processor, images=processor),
        device=torch.device("cpu"), dtype=torch.float32, bundled=False, domain=None,
    )  # fmt: skip
    return Model(loaded)


def dotted(colour, row, column, strength=255):
    """A black picture with one dot of 2 x 2 pixels."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, colour] = strength
    return pixels


def test_the_piece_is_where_the_unit_answers():
    images = [dotted(0, 5, 9), dotted(1, 20, 30), dotted(0, 31, 0, 128), dotted(2, 4, 4)]
    found = find_features(spotter(), images, ["stage1"], units=2, best=2)
    (layer,) = found.layers
    assert (layer.units, layer.sees, found.pictures) == (2, "2 x 2 pixels", 4)
    red, green = layer.sample
    assert [piece.name for piece in red.best] == ["picture 1 (ndarray)", "picture 3 (ndarray)"]
    assert [piece.score for piece in red.best] == pytest.approx([1.0, 128 / 255])
    assert (red.best[0].pixels == (255, 0, 0)).all() and red.best[0].pixels.shape == (2, 2, 3)
    assert (red.best[1].pixels == (128, 0, 0)).all()
    assert (green.best[0].pixels == (0, 255, 0)).all()
    assert red.best[0].centre == (0, 0, 2, 2)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("name", ["resnet", "vit", "siglip", "clip", "swin", "clip_resnet"])
def test_the_best_of_all_pictures_whatever_the_batch(models, name, batch_size):
    model, images = models(name), pictures()
    found = find_features(model, images, units=3, best=4, batch_size=batch_size)
    layers = layers_of(model)
    with evaluating(model.network):
        maps = layers.maps(model.processor.images(images), [f.name for f in found.layers])
    for answers, layer in zip(maps, found.layers, strict=True):
        assert layer.units == answers.shape[1]
        for unit in layer.sample:
            expected = answers[:, unit.unit].flatten(1).max(dim=1)
            order = expected.values.argsort(descending=True)[:4].tolist()
            assert [piece.name for piece in unit.best] == [
                f"picture {place + 1} (ndarray)" for place in order
            ]
            scores = [piece.score for piece in unit.best]
            assert scores == pytest.approx(expected.values[order].tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["vit", "siglip", "clip"])
def test_neurons_are_those_in_front_of_the_last_linear_layer(models, name):
    """Listening must find what the block computes, in the order of the patches."""
    model = models(name)
    tower = getattr(model.network, "image", model.network)
    pixels = model.processor.images(pictures(2))
    inputs = []
    handle = tower.transformer.blocks[1].register_forward_pre_hook(lambda m, x: inputs.append(x[0]))
    with evaluating(model.network):
        (heard,) = layers_of(model).maps(pixels, ["block2"])
        handle.remove()
        block = tower.transformer.blocks[1]
        x = inputs[0] + block.attention(block.norm1(inputs[0]), mask=None)
        expected = block.mlp.activation(block.mlp.fc1(block.norm2(x)))
    rows, columns = tower.patches.grid(*pixels.shape[-2:])
    expected = expected[:, -rows * columns :].mT.reshape(2, -1, rows, columns)
    torch.testing.assert_close(heard, expected)
    assert not tower.transformer.blocks[1].mlp.fc2._forward_pre_hooks


def test_a_transformers_piece_is_the_patch_and_its_neighbours(models):
    model = models("siglip")  # patches of 8 in 24 x 24
    picture = pictures(1, side=24)[0]
    found = find_features(model, [picture], ["block1"], units=4, best=1)
    for unit in found.layers[0].sample:
        (piece,) = unit.best
        assert piece.pixels.shape == (24, 24, 3) and piece.centre == (8, 8, 16, 16)
        patch = piece.pixels[8:16, 8:16]
        places = [(y, x) for y in (0, 8, 16) for x in (0, 8, 16)
                  if (picture[y : y + 8, x : x + 8] == patch).all()]  # fmt: skip
        assert len(places) == 1
        (y, x) = places[0]
        assert (piece.pixels[0, 0] == 200).all() == (y == 0 or x == 0)


def test_layers_have_names_from_bottom_to_top(models):
    assert layer_names(models("resnet")) == ("stem", "stage1", "stage2", "stage3")
    assert layer_names(models("vit")) == ("block1", "block2", "block3")
    assert layer_names(models("swin"))[0] == "stage1"
    found = find_features(models("vit"), pictures(2), ["block3", "block1"], units=1)
    assert [layer.name for layer in found.layers] == ["block1", "block3"]


def test_the_lot_decides_about_units(models):
    def drawn(seed):
        found = find_features(models("vit"), pictures(1), ["block1"], units=5, seed=seed)
        return [unit.unit for unit in found.layers[0].sample]

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(set(drawn(0))) == 5 and drawn(0) == sorted(drawn(0))


def test_filters_of_a_convolution_are_its_weights():
    _, _, network, _ = tiny("resnet")
    shown = first_filters(network)
    assert shown.shape == (6, 7, 7, 3)
    weights = network.stem.conv.weight.detach()
    strongest = weights[weights.flatten(1).norm(dim=1).argmax()]
    expected = 127.5 + 127.5 * strongest / strongest.abs().max()
    assert np.abs(shown[0] - expected.permute(1, 2, 0).numpy()).max() <= 0.5


def test_filters_of_patches_are_their_components():
    _, _, network, _ = tiny("vit")
    weights = network.patches.projection.weight
    direction = torch.randn(3, 12, 12)
    weights.data = weights.data * 1e-3 + torch.randn(len(weights), 1, 1, 1) * direction
    first = torch.from_numpy(first_filters(network)[0].astype(np.float32)).permute(2, 0, 1) - 127.5
    cosine = torch.cosine_similarity(first.flatten(), direction.flatten(), dim=0)
    assert cosine.abs() > 0.999


def test_sheets_show_the_pieces(tmp_path):
    images = [dotted(0, 5, 9), dotted(1, 20, 30)]
    found = find_features(spotter(), images, ["stage1"], units=2, best=2)
    sheet = np.asarray(layer_sheet(found.layers[0]))
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == 72 * 72
    assert (sheet == (0, 255, 0)).all(axis=2).sum() == 72 * 72
    files = write_features(found, tmp_path / "out", "spot <b>&")
    assert [file.name for file in files] == [
        "features.html", "features.json", "filters.png", "01-stage1.png"
    ]  # fmt: skip
    page = files[0].read_text()
    assert "spot &lt;b&gt;&amp;" in page and page.count("data:image/png") == 2
    document = json.loads(files[1].read_text())
    assert (document["format"], document["version"]) == ("sightline.features", 1)
    assert document["layers"][0]["sample"][0]["best"][0]["file"] == "picture 1 (ndarray)"
    with Image.open(files[3]) as picture:
        assert picture.size == sheet.shape[1::-1]
    assert filter_sheet(found.filters).size == (130, 68)


def test_a_frame_marks_the_place_in_what_is_seen(models):
    layer = find_features(models("siglip"), pictures(1, 24), ["block1"], 1, 1).layers[0]
    sheet = np.asarray(layer_sheet(layer)).astype(int)
    tile = sheet[30 : 30 + 72, 98 : 98 + 72]
    assert (tile[24, 24:48] == 255).all() and (tile[23, 23:49] == 20).all()


def test_pictures_that_cannot_be_read(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    images = [bad, dotted(0, 3, 3)]
    with pytest.raises(ImageError, match=r"bad\.png"):
        find_features(spotter(), images)
    found = find_features(spotter(), images, ["stage1"], on_error="collect")
    assert found.pictures == 1 and found.failed[0].name == str(bad)
    assert found.layers[0].sample[0].best[0].name == "picture 2 (ndarray)"
    with pytest.raises(InputError, match="no picture to search"):
        find_features(spotter(), [bad], on_error="collect")


def test_what_cannot_be_asked(models):
    with pytest.raises(ConfigError, match="unknown layer 'block9': did you mean"):
        find_features(models("vit"), pictures(1), ["block9"])
    with pytest.raises(ConfigError, match="no layer is named; there are block1, block2, block3"):
        find_features(models("vit"), pictures(1), [])
    with pytest.raises(ConfigError, match="units and best must be at least 1: 0 and 9"):
        find_features(models("vit"), pictures(1), units=0)
    with pytest.raises(ConfigError, match="side must be at least 16 pixels: 3"):
        layer_sheet(find_features(spotter(), [dotted(0, 1, 1)]).layers[0], side=3)


@pytest.mark.parametrize("name", ["siglip2-naflex", "bert"])
def test_models_without_such_layers_say_who_has_them(models, name):
    with pytest.raises(UnsupportedTaskError, match="no layers over the places of a picture, so"):
        find_features(models(name), pictures(1))


def test_a_network_of_another_kind():
    with pytest.raises(UnsupportedTaskError, match="take a vit, clip, siglip, swin or resnet"):
        find_features(colour_model("vit"), pictures(1))


def test_units_of_packed_blocks_are_those_of_plain_ones() -> None:
    """Packed blocks run side by side in pieces; what is looked at is a plain copy."""
    from sightline.nn.packed import pack

    pictures = [np.asarray(scene(seed, split="test").image) for seed in range(6)]
    plain = load("park-siglip", device="cpu", dtype="float32")
    packed = load("park-siglip", device="cpu", dtype="float32")
    pack(packed.network)
    before = packed.embed_images(pictures)
    a = find_features(plain, pictures, ["block2"], units=3, best=2)
    b = find_features(packed, pictures, ["block2"], units=3, best=2)
    for one, other in zip(a.layers[0].sample, b.layers[0].sample, strict=True):
        assert [piece.score for piece in one.best] == pytest.approx(
            [piece.score for piece in other.best], rel=1e-4, abs=1e-5
        )
    assert torch.equal(packed.embed_images(pictures), before)


def test_blocks_in_8_bits_are_not_looked_at() -> None:
    small = load("park-siglip", device="cpu", dtype="float32", quantize="int8")
    with pytest.raises(UnsupportedTaskError, match=r"8 bits.*without quantize"):
        find_features(small, [np.zeros((64, 64, 3), np.uint8)])
