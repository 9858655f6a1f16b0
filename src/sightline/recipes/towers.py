"""The network that a run starts from: small and new, a published size, or somebody's weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sightline.core.errors import ConfigError, UnsupportedTaskError, unknown_name
from sightline.hub.bundled import tuned_card
from sightline.inputs.processors import Processor, image_processor
from sightline.inputs.vocabulary import Rules, train_vocabulary
from sightline.models.resnet import ResNetConfig
from sightline.models.siglip_naflex import ImageTowerConfig as FlexibleTowerConfig
from sightline.models.swin import SwinConfig
from sightline.models.table import system as find_system
from sightline.models.towers import image_tower
from sightline.nn import lora
from sightline.nn.patch_dropout import PatchDropout
from sightline.nn.positions import GridPositions, sincos_grid
from sightline.recipes.joined_towers import as_half, with_half
from sightline.recipes.start import Start

if TYPE_CHECKING:
    from sightline.core.interfaces import System
    from sightline.hub.adapters import Origin
    from sightline.hub.load import Loaded
    from sightline.inputs.tokenizers import TextTokenizer
    from sightline.recipes.dual_encoder import DualEncoderRecipe


logger = logging.getLogger(__name__)

LONGEST, MEASURED = 64, 20_000
"""Tokens of a sentence at most, and sentences that are looked at, where no length is given."""
OWN_SPACE = ("clip", "unicl", "vision_text")
"""Systems with a space whose width is that of neither tower."""
RULES: Mapping[str, Rules] = {
    "clip": "clip", "unicl": "clip", "vision_text": "bert", "lit": "bert"
}  # fmt: skip
"""Rules of the vocabulary that is learned, where they are not SigLIP's."""
SMALLEST_SIDE, LARGEST_SIDE = 32, 224
"""Pixels of the pictures of a small network, where no size is given."""


def start_from(
    recipe: DualEncoderRecipe,
    captions: Iterable[str],
    settle: Callable[[Any], Any] = lambda config: config,
) -> Start:
    """Build the network of a recipe; a vocabulary is learned from `captions` where none is given.

    Weights of a tower bring its size, its preprocessing or its tokenizer with it, and the joint
    scale with the first tower that has one; with both towers of one model the first loss is that
    model's own.

    Args:
        settle: has the last word on the config, before the network is built.

    Raises:
        ConfigError: weights of another system, or an unknown variant.
        HubError: the weights cannot be fetched.
    """
    system = find_system(recipe.system)
    image = _given(recipe.init or recipe.init_image, system, "image", recipe)
    text = image if recipe.init else _given(recipe.init_text, system, "text", recipe)
    tokenizer = text.processor.text if text else learn_vocabulary(recipe, captions)
    config = settle(_config(recipe, system, image, text, tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = system.build(config)
    if recipe.positions == "sincos":
        _start_positions(network)
    for loaded, tower in ((text, "text"), (image, "image")):
        if loaded is not None:
            _take_tower(network, loaded.network, tower)
    if recipe.patch_dropout:
        _leave_out_patches(network, recipe)
    pictures = image.processor.image if image else image_processor(system.preprocessing(config))
    start = Start(network, Processor(pictures, tokenizer), config, system.for_config(config))
    if recipe.init and image is not None:
        start.card = tuned_card(image)
    if recipe.lora_rank and image is not None:
        start.adapter = _add_to_weights(start, recipe, image)
    return start


def _add_to_weights(start: Start, recipe: DualEncoderRecipe, given: Loaded) -> Origin | None:
    """Low-rank additions; what their adapter is for, where one can be saved."""
    from sightline.hub.adapters import adapted_names

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        lora.add(
            start.network, recipe.lora_rank, recipe.lora_alpha, recipe.lora_targets,
            dropout=recipe.lora_dropout, rslora=recipe.lora_rslora,
        )  # fmt: skip
    try:
        adapted_names(start.network, start.system, start.config)
    except UnsupportedTaskError as error:
        logger.warning("%s. Checkpoints hold the merged model alone", error)
        return None
    return given.origin


def learn_vocabulary(recipe: DualEncoderRecipe, captions: Iterable[str]) -> TextTokenizer:
    """A tokenizer of the system's rules, learned from the captions, as long as they need."""
    sentences = list(captions)
    rules = RULES.get(recipe.system, "siglip")
    length = recipe.context_length
    if length is None:
        widest = train_vocabulary(sentences, recipe.vocab_size, rules, LONGEST)
        mask = widest(sentences[:MEASURED]).mask
        # SigLIP's padding is its end token: the first of them closes the sentence.
        needed = int(mask.sum(dim=1).max()) + 1
        length = min(LONGEST, 8 * math.ceil(needed / 8))
    return train_vocabulary(sentences, recipe.vocab_size, rules, length)


def _given(
    name: str | None, system: System, tower: str, recipe: DualEncoderRecipe
) -> Loaded | None:
    if name is None:
        return None
    from sightline.hub.load import load_checkpoint

    loaded = load_checkpoint(name, device="cpu", dtype="float32")
    if system.bind is not None and loaded.system.name != system.name and not recipe.init:
        return as_half(loaded, tower, recipe.variant, bare=system.name == "lit")
    if loaded.system.name != system.name:
        raise ConfigError(
            f"{name} is a {loaded.system.name} model and the recipe trains {system.name}: choose "
            f"weights of a {system.name} model, or train {loaded.system.name}"
        )
    return loaded


def _config(
    recipe: DualEncoderRecipe,
    system: System,
    image: Loaded | None,
    text: Loaded | None,
    tokenizer: TextTokenizer | None,
) -> Any:
    if recipe.init and text is not None:
        return text.config
    config = _own_config(recipe, system, tokenizer)
    if text is not None:
        config = with_half(config, text.config, "text")
    elif tokenizer is not None:
        config = replace(config, text=_fitted(config.text, tokenizer))
    if image is not None:
        config = with_half(config, image.config, "image")
    both = image or text
    if both is not None and hasattr(both.config, "embedding_width") and system.name in OWN_SPACE:
        config = replace(config, embedding_width=both.config.embedding_width)
    return config


def _fitted(words: Any, tokenizer: TextTokenizer) -> Any:
    """The text tower's config with the ids of a tokenizer that was learned for it."""
    ids = {"eos_id": tokenizer.eos_id, "bos_id": tokenizer.bos_id, "pad_id": tokenizer.pad_id}
    known = {n: value for n, value in ids.items() if value is not None and hasattr(words, n)}
    return replace(words, vocab_size=tokenizer.vocab_size, **known)


def fitting_size(sides: Sequence[int], patch_size: int) -> int:
    """The median side of pictures, within bounds, as a whole number of patches."""
    side = min(LARGEST_SIDE, max(SMALLEST_SIDE, round(median(sides))))
    return patch_size * max(1, round(side / patch_size))


def small_resnet(width: int, depth: int, size: int) -> ResNetConfig:
    """A ResNet of three stages that come to `width`; at least one block in each."""
    quarter = max(1, width // 4)
    return ResNetConfig(
        widths=(quarter, 2 * quarter, width),
        depths=tuple(max(1, (depth + stage) // 3) for stage in range(3)),
        block="basic",
        stem_width=quarter,
        image_size=(size, size),
    )


def _own_config(recipe: DualEncoderRecipe, system: System, tokenizer: TextTokenizer | None) -> Any:
    if recipe.variant is not None:
        if recipe.variant not in system.variants:
            raise ConfigError(unknown_name("variant", recipe.variant, system.variants))
        return system.variants[recipe.variant]
    tiny = _with_image_system(recipe, system)
    size = recipe.image_size or 8 * recipe.patch_size
    length = recipe.context_length or getattr(tokenizer, "max_length", None) or LONGEST
    text = replace(
        system.tiny.text,
        width=recipe.text_width,
        depth=recipe.text_depth,
        num_heads=recipe.text_heads,
        mlp_width=4 * recipe.text_width,
        context_length=length,
    )
    config = replace(tiny, image=_image_config(recipe, tiny.image, size), text=text)
    return replace(config, embedding_width=recipe.width) if system.name in OWN_SPACE else config


def _with_image_system(recipe: DualEncoderRecipe, system: System) -> Any:
    """The tiny config, with the image tower that the recipe names."""
    if recipe.image_tower is None:
        return system.tiny
    if not hasattr(system.tiny, "image_system"):
        raise ConfigError(
            f"the image tower of {system.name} is its own: use image_tower with vision_text"
        )
    tower = image_tower(recipe.image_tower)
    return replace(system.tiny, image_system=tower.name, image=tower.tiny)


def _image_config(recipe: DualEncoderRecipe, tiny: Any, size: int) -> Any:
    """The small image tower; a Swin halves its grid once, and ends with the patches of a ViT."""
    depth, heads = recipe.depth, recipe.num_heads
    if isinstance(tiny, ResNetConfig):
        return small_resnet(recipe.width, depth, size)
    if isinstance(tiny, SwinConfig):
        stages = 2 if depth > 1 and heads % 2 == recipe.patch_size % 2 == 0 else 1
        patch = recipe.patch_size // stages
        return SwinConfig(
            first_width=recipe.width // stages,
            depths=(depth,) if stages == 1 else (depth - depth // 2, depth // 2),
            num_heads=(heads,) if stages == 1 else (heads // 2, heads),
            window=4,
            image_size=(size, size),
            patch_size=(patch, patch),
            branch_drop=0.0,
        )
    grid: dict[str, Any] = {"patch_size": (recipe.patch_size,) * 2, "image_size": (size, size)}
    if isinstance(tiny, FlexibleTowerConfig):
        grid = {"patch_size": recipe.patch_size, "num_patches": (size // recipe.patch_size) ** 2}
    return replace(
        tiny,
        width=recipe.width,
        depth=depth,
        num_heads=heads,
        mlp_width=4 * recipe.width,
        **grid,
    )


def _start_positions(network: nn.Module) -> None:
    """Sines and cosines as the first values of the image tower's learned positions, if any."""
    positions = getattr(network.image, "positions", None)
    if not isinstance(positions, GridPositions):
        return
    table = positions.table.data
    table[positions.prefix :] = sincos_grid(positions.grid, table.shape[1], longest=100.0)


def _leave_out_patches(network: nn.Module, recipe: DualEncoderRecipe) -> None:
    """In training alone; what is saved says nothing of it."""
    dropout = getattr(network.image, "patch_dropout", None)
    if not isinstance(dropout, PatchDropout):
        raise ConfigError(
            f"the image tower of {recipe.system} has no patches to leave out: use patch_dropout=0"
        )
    dropout.leave_out(recipe.patch_dropout)


def _take_tower(network: nn.Module, source: nn.Module, tower: str) -> None:
    """Copy one tower's parameters, and the joint scale and bias, from another network."""
    own, given = network.state_dict(), source.state_dict()
    # A tower that came alone brings its heads along, which have no place here.
    taken = [name for name in given if name.startswith((tower, "logit_")) and name in own]
    for name in taken:
        if own[name].shape != given[name].shape:
            raise ConfigError(
                f"{name} is {tuple(given[name].shape)} in the weights and "
                f"{tuple(own[name].shape)} here: the two towers meet in spaces of different width"
            )
    network.load_state_dict({**own, **{name: given[name] for name in taken}})
