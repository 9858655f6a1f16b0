"""Two towers joined and trained: from nothing, from weights of each, and against a control."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import sightline
from sightline.core.errors import ConfigError
from sightline.data.park.export import write
from sightline.data.park.scenes import ParkScenes
from sightline.hub.save import save_checkpoint
from sightline.inputs.preprocessing import ImageProcessor
from sightline.inputs.processors import Processor
from sightline.models import vision_text
from sightline.models.table import system
from sightline.objectives.contrastive import softmax_contrastive
from sightline.recipes.dual_encoder import DualEncoderRecipe
from sightline.recipes.run import train_dual_encoder
from sightline.recipes.towers import start_from
from tests.hub.tiny import randomise, tiny_folder

SMALL = DualEncoderRecipe(
    system="vision_text", image_size=16, patch_size=8, width=16, depth=1, num_heads=2,
    text_width=16, text_depth=1, text_heads=2, vocab_size=200, batch_size=8, steps=4,
    eval_limit=8, eval_every=4, workers=0,
)  # fmt: skip
COLOURS = {
    "red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 220), "white": (240, 240, 240),
    "black": (15, 15, 15), "yellow": (230, 220, 30), "purple": (140, 30, 160), "grey": (128,) * 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    """Small models of single towers, and one of CLIP."""
    root = tmp_path_factory.mktemp("weights")
    for name in ("vit", "bert", "clip", "resnet"):
        tiny_folder(name, root / name)
    for name, fields in (("resnet", {"labels": ("cat", "dog")}), ("vit", {"pooler": False})):
        entry = system(name)
        config = replace(entry.tiny, **fields)
        network = randomise(entry.build(config))
        pictures = Processor(ImageProcessor(entry.preprocessing(config)), None)
        save_checkpoint(network, pictures, config, entry, root / f"{name}-classifier")
    return {path.name: str(path) for path in root.iterdir()}


@pytest.mark.parametrize("image", ["vit", "resnet", "clip", "resnet-classifier", "vit-classifier"])
def test_each_tower_can_come_from_weights_of_its_own(weights, image, tmp_path):
    recipe = replace(SMALL, init_image=weights[image], init_text=weights["bert"])
    start = start_from(recipe, [])
    given = sightline.load(weights[image], device="cpu", dtype="float32")
    tower = given.network.image if image == "clip" else given.network
    own = start.network.image.state_dict()
    kept = {k: v for k, v in tower.state_dict().items() if not k.startswith("classifier")}
    assert all(torch.equal(own[name], value) for name, value in kept.items())
    assert set(own) - set(kept) == ({"pooler.weight", "pooler.bias"} if "vit-c" in image else set())
    words = sightline.load(weights["bert"], device="cpu", dtype="float32")
    for name, value in words.network.state_dict().items():
        assert torch.equal(start.network.text.state_dict()[name], value)
    assert start.processor.image.spec == given.processor.image.spec
    assert torch.equal(start.processor.text(["a ball"]).ids, words.processor.text(["a ball"]).ids)
    assert start.config.image_system == image.removesuffix("-classifier")
    # A tanh layer that the weights do not bring would only be noise in front of the picture.
    assert start.config.image_pooling == ("trunk" if image == "vit-classifier" else "pooler")
    start.save(tmp_path / "m")
    again = sightline.load(tmp_path / "m", device="cpu", dtype="float32")
    assert again.config == start.config
    assert again.embed_texts(["a ball"]).shape == (1, 512)


def test_one_tower_can_be_new(weights):
    start = start_from(replace(SMALL, init_image=weights["resnet"]), ["a red ball", "two ducks"])
    assert (start.config.image_system, start.config.text.width) == ("resnet", 16)
    start = start_from(replace(SMALL, init_text=weights["bert"]), [])
    assert (start.config.image_system, start.config.image.width) == ("vit", 16)


def test_a_variant_says_how_a_sentence_is_pooled(weights, monkeypatch):
    raw = replace(vision_text.TINY, text=replace(vision_text.TINY.text, pooling="cls"))
    monkeypatch.setitem(vision_text.VARIANTS, "tiny-raw", raw)
    recipe = replace(SMALL, variant="tiny-raw", init_text=weights["bert"])
    assert start_from(recipe, []).config.text_pooling == "cls"
    assert start_from(replace(recipe, variant=None), []).config.text_pooling == "pooler"


def test_a_whole_model_goes_on_where_it_was(tmp_path):
    first = start_from(SMALL, ["a red ball", "two ducks"])
    first.save(tmp_path / "m")
    again = start_from(replace(SMALL, init=str(tmp_path / "m")), [])
    assert again.config == first.config
    for name, value in first.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name


@pytest.mark.parametrize(("fields", "message"), [
    ({"init_image": "bert"}, "bert as init_image: unknown image tower 'bert'"),
    ({"init_text": "vit"}, "vit as init_text: unknown text tower 'vit': known are bert"),
    ({"init": "vit"}, "is a vit model and the recipe trains vision_text"),
])  # fmt: skip
def test_weights_without_the_tower_are_refused(weights, fields, message):
    recipe = replace(SMALL, **{name: weights[model] for name, model in fields.items()})
    with pytest.raises(ConfigError, match=message):
        start_from(recipe, [])


def test_a_run_trains_saves_and_answers(tmp_path):
    write(ParkScenes("train", 0, 40, size=32), tmp_path / "parks")
    outcome = train_dual_encoder(replace(SMALL, data=str(tmp_path / "parks")), tmp_path / "run")
    assert outcome.summary.steps == 4
    model = sightline.load(outcome.model, device="cpu", dtype="float32")
    assert model.system.name == "vision_text"
    picture = np.zeros((16, 16, 3), np.uint8)
    assert len(model.classify(picture, ["a bench", "a cat"])) == 2


def squares(seed: int) -> list[np.ndarray]:
    """Noisy squares of one colour, eight of each, colour by colour."""
    generator = np.random.default_rng(seed)
    return [
        np.clip(generator.normal(colour, 12, (16, 16, 3)), 0, 255).astype(np.uint8)
        for colour in COLOURS.values()
        for _ in range(8)
    ]


def accuracy_after_training(shuffled: bool = False, frozen: str = "none") -> float:
    """Of new squares, how many find their colour among eight; each batch has one of each word."""
    captions = [f"a {name} square" for name in COLOURS]
    start = start_from(replace(SMALL, seed=1), captions)
    groups: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for name, parameter in start.network.named_parameters():
        if not parameter.requires_grad_(not name.startswith(frozen)).requires_grad:
            continue
        groups[name.startswith("image.")].append(parameter)
    before = {name: value.clone() for name, value in start.network.state_dict().items()}
    rates = [{"params": groups[True], "lr": 1e-3}, {"params": groups[False], "lr": 6e-3}]
    optimiser = torch.optim.AdamW(rates, weight_decay=0.1)
    pixels, words = start.processor.images(squares(0)), start.processor.texts(captions)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # of the text tower's dropout
    order = torch.randperm(64, generator=generator) if shuffled else torch.arange(64)
    given = order.reshape(8, 8)  # row: the pictures that are given one caption
    for _ in range(100):
        chosen = given[torch.arange(8), torch.randint(8, (8,), generator=generator)]
        scores = start.network(pixels[chosen], *words)
        optimiser.zero_grad()
        softmax_contrastive(
            scores.image_embeddings, scores.text_embeddings, scores.scale
        ).backward()
        optimiser.step()
    for name, value in start.network.state_dict().items():
        assert torch.equal(value, before[name]) or not name.startswith(frozen), name
    likes = start.as_model("squares").similarity(squares(1), captions).argmax(dim=1)
    return float((likes == torch.arange(64) // 8).float().mean())


def test_pairs_are_learned_and_shuffled_pairs_are_not():
    with torch.random.fork_rng():
        assert accuracy_after_training() >= 0.8
        assert accuracy_after_training(shuffled=True) <= 0.4  # one in eight by chance


def test_a_frozen_tower_does_not_move_and_pairs_are_learned():
    with torch.random.fork_rng():
        assert accuracy_after_training(frozen="image.") >= 0.8
