"""Systems as the towers of others: who can be one, and how a folder holds two of them.

A joint model names its towers: any image encoder, the image half of CLIP or of SigLIP, and any text
encoder. Its config.json nests theirs ("vision_config", "text_config"), and its tensors have theirs
below a level for each ("vision_model.", "text_model."), as transformers' VisionTextDualEncoderModel
writes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError, unknown_name
from sightline.core.interfaces import System
from sightline.models.keys import KeyTable
from sightline.models.published import field, section
from sightline.models.table import SYSTEMS, system

HALVES = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
"""`model_type` of an image half to the dual encoder whose half it is."""

_LEVELS = {"vision_model.": "image.", "text_model.": "text."}
"""Of the file, to the network's own."""


@dataclass(frozen=True)
class Towers:
    """Two towers by name, each with its own system's config; what joins them is the heirs' own."""

    image_system: str
    """A system of the role "image encoder", or "clip" or "siglip" for the half of it."""
    image: Any
    text_system: str
    """A system of the role "text encoder"."""
    text: Any


def image_tower(name: str) -> System:
    """The image encoder of that name; for a dual encoder its image half, as a system.

    Raises:
        ConfigError: no such system, or one without an image tower that stands alone.
    """
    if name in HALVES.values():
        return _half(system(name))
    found = _towers("image encoder")
    if name not in found.values():
        raise ConfigError(unknown_name("image tower", name, [*found.values(), *HALVES.values()]))
    return system(name)


def text_tower(name: str) -> System:
    """The text encoder of that name.

    Raises:
        ConfigError: no such system, or one that is no text encoder.
    """
    found = _towers("text encoder")
    if name not in found.values():
        raise ConfigError(unknown_name("text tower", name, found.values()))
    return system(name)


def trunk(tower: System, config: Any) -> Any:
    """The config of a tower without the heads that its own checkpoint may carry."""
    return _read_trunk(tower, tower.write_config(config))


def without_pooler(config: Any) -> Any:
    """The config of a tower whose vector is the class token as it is, without the tanh layer."""
    bare = {"pooler": False, "pooling": "cls"}
    known = {field.name for field in fields(config)}
    return replace(config, **{name: value for name, value in bare.items() if name in known})


def read_towers(config: Mapping[str, Any]) -> Towers:
    """The towers that a published config.json nests; absent fields take transformers' defaults.

    Raises:
        CheckpointError: towers that no system here reads.
    """
    vision, words = section(config, "vision_config"), section(config, "text_config")
    # Early files nest the whole CLIP under the name of its half.
    vision = section(vision, "vision_config") or vision
    image_kinds = _towers("image encoder") | HALVES | {name: name for name in HALVES.values()}
    image = image_tower(_named("vision_config", vision, "vit", image_kinds))
    text = text_tower(_named("text_config", words, "bert", _towers("text encoder")))
    return Towers(image.name, _read_trunk(image, vision), text.name, _read_trunk(text, words))


def write_towers(towers: Towers) -> dict[str, Any]:
    """The inverse of `read_towers`."""
    return {
        # ResNet's own configuration lacks the width that the joint class asks each tower for.
        "vision_config": {
            "hidden_size": towers.image.width,
            **image_tower(towers.image_system).write_config(towers.image),
        },
        "text_config": text_tower(towers.text_system).write_config(towers.text),
    }


def with_tower_names(entry: System, towers: Towers, keys: KeyTable) -> System:
    """A joint system with the names that a file with these two towers has.

    Args:
        keys: what belongs to neither tower.
    """
    parts = (image_tower(towers.image_system), text_tower(towers.text_system))

    def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = keys.read({k: v for k, v in state.items() if not k.startswith(tuple(_LEVELS))})
        for (level, prefix), tower in zip(_LEVELS.items(), parts, strict=True):
            part = tower.read_state(_below(level, state))
            own |= {prefix + name: tensor for name, tensor in part.items()}
        return own

    def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prefixes = tuple(_LEVELS.values())
        written = keys.write({k: v for k, v in state.items() if not k.startswith(prefixes)})
        for (level, prefix), tower in zip(_LEVELS.items(), parts, strict=True):
            part = tower.write_state(_below(prefix, state))
            written |= {level + name: tensor for name, tensor in part.items()}
        return written

    def class_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {k: v for k, v in state.items() if not k.startswith(tuple(_LEVELS))}
        for level, tower in zip(_LEVELS, parts, strict=True):
            part = (tower.class_names or dict)(_below(level, state))
            named |= {level + name: tensor for name, tensor in part.items()}
        return named

    return replace(entry, read_state=read_state, write_state=write_state, class_names=class_names)


def preprocessing(towers: Towers) -> Any:
    """The image tower's own."""
    return image_tower(towers.image_system).preprocessing(towers.image)


def text(towers: Towers) -> Any:
    """The text tower's own."""
    spec = text_tower(towers.text_system).text
    assert spec is not None
    return spec(towers.text)


def unbound(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a joint system does with tensors before it knows its towers.

    Raises:
        ConfigError: always.
    """
    raise ConfigError("the names of its tensors depend on the towers: ask System.for_config")


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _read_trunk(tower: System, published: Mapping[str, Any]) -> Any:
    # What a nested "architectures" says is where the tower came from; the whole trunk is built.
    return tower.read_config({k: v for k, v in published.items() if k != "architectures"})


def _towers(role: str) -> dict[str, str]:
    """`model_type` to name, of every system with that role."""
    entries = [system(name) for name in SYSTEMS]
    return {kind: e.name for e in entries if e.role == role for kind in e.model_types}


def _named(part: str, config: Mapping[str, Any], default: str, known: Mapping[str, str]) -> str:
    kind = field(config, "model_type", default)
    if kind not in known:
        raise CheckpointError(f"config.json, {part}: {unknown_name('model_type', kind, known)}")
    return known[kind]


def _half(whole: System) -> System:
    """The image tower of a dual encoder as a system of its own, through what the whole one does."""

    def around(config: Any) -> Any:
        return replace(whole.tiny, image=config)

    def build(config: Any) -> nn.Module:
        tower = whole.build(around(config)).image
        assert isinstance(tower, nn.Module)
        return tower

    def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Files of the 4.x era have the level twice.
        named = {f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in state.items()}
        return {k.removeprefix("image."): v for k, v in whole.read_state(named).items()}

    def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        written = whole.write_state({f"image.{k}": v for k, v in state.items()})
        return {k.removeprefix("vision_model."): v for k, v in written.items()}

    return replace(
        whole,
        role="image encoder",
        model_types=tuple(kind for kind, name in HALVES.items() if name == whole.name),
        build=build,
        read_config=lambda published: whole.read_config({"vision_config": published}).image,
        write_config=lambda config: whole.write_config(around(config))["vision_config"],
        read_state=read_state,
        write_state=write_state,
        preprocessing=lambda config: whole.preprocessing(around(config)),
        text=None,
        variants={name: config.image for name, config in whole.variants.items()},
        tiny=whole.tiny.image,
    )
