"""Weights of one tower alone as the start of a model that joins two of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from sightline.core.errors import ConfigError
from sightline.models import vision_text
from sightline.models.towers import image_tower, text_tower, trunk, without_pooler
from sightline.models.vision_text import VisionTextConfig

if TYPE_CHECKING:
    from sightline.hub.load import Loaded


def as_half(loaded: Loaded, tower: str, variant: str | None, bare: bool = False) -> Loaded:
    """A model that has one of the towers, as if it were a whole model of which one half is meant.

    Its heads stay behind. A picture's vector goes through the tanh layer of pre-training only
    where the weights bring that layer; a sentence's is taken as the variant says, else as the
    weights do.

    Args:
        loaded: an image or text encoder, or a dual encoder whose image half can stand alone.
        tower: "image" or "text".
        variant: size of the joined system that the run trains, if any.
        bare: without the tanh layers of pre-training, whatever the weights bring: LiT's towers.

    Raises:
        ConfigError: a model that has no such tower.
    """
    chosen = vision_text.VARIANTS[variant] if variant in vision_text.VARIANTS else None
    if tower == "image":
        config, network = _image_half(loaded)
    else:
        config, network = _text_half(loaded, chosen)
    if bare:
        config = replace(
            config, image=without_pooler(config.image), text=without_pooler(config.text)
        )
    half = nn.Module()
    setattr(half, tower, network)
    return replace(loaded, config=config, network=half, system=vision_text.SYSTEM)


def with_half(config: Any, half: Any, tower: str) -> Any:
    """The config with one tower of another, and which system it is where the config says so."""
    names = [tower, *(f"{tower}_{what}" for what in ("system", "pooling"))]
    fields = [name for name in names if name in getattr(config, "__dataclass_fields__", {})]
    return replace(config, **{name: getattr(half, name) for name in fields})


def _image_half(loaded: Loaded) -> tuple[VisionTextConfig, nn.Module]:
    name, half = loaded.system.name, loaded.system.role == "dual encoder"
    try:
        system = image_tower(name)
    except ConfigError as error:
        raise ConfigError(f"{loaded.name} as init_image: {error}") from None
    config = loaded.config.image if half else loaded.config
    network: Any = loaded.network.image if half else loaded.network
    brings = getattr(network, "pre_logits", None) is None or network.pooler is not None
    joined = VisionTextConfig(
        image_system=name,
        image=trunk(system, config),
        text_system=vision_text.TINY.text_system,
        text=vision_text.TINY.text,
        image_pooling="pooler" if brings else "trunk",
    )
    return joined, network


def _text_half(
    loaded: Loaded, chosen: VisionTextConfig | None
) -> tuple[VisionTextConfig, nn.Module]:
    try:
        system = text_tower(loaded.system.name)
    except ConfigError as error:
        raise ConfigError(f"{loaded.name} as init_text: {error}") from None
    words = trunk(system, loaded.config)
    if chosen is not None and chosen.text_system == system.name:
        words = replace(words, pooling=chosen.text.pooling)
    joined = VisionTextConfig(
        image_system=vision_text.TINY.image_system,
        image=vision_text.TINY.image,
        text_system=system.name,
        text=words,
    )
    return joined, loaded.network
