"""The layers of a network whose answers have places: stages of maps, and blocks over patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from sightline.core.errors import ConfigError, UnsupportedTaskError, unknown_name
from sightline.nn.copies import float32_copy

if TYPE_CHECKING:
    from sightline.tasks.model import Model

BLOCKS = 4
"""Blocks of a transformer that are looked at unless some are named."""


class Layers(NamedTuple):
    """The layers of one network that can be looked at."""

    names: tuple[str, ...]
    default: tuple[str, ...]
    maps: Callable[[Tensor, Sequence[str]], list[Tensor]]
    """Pixels [B, C, H, W] and names to the answers [B, K, h, w] of those layers."""
    attends: bool
    """Whether places see each other through attention, so that no field belongs to a place."""


def layer_names(model: Model) -> tuple[str, ...]:
    """The layers of a model that can be looked at, from the pixels to the top.

    Raises:
        UnsupportedTaskError: a model whose layers have no places.
    """
    return layers_of(model).names


def layers_of(model: Model) -> Layers:
    """The layers of a model that can be looked at.

    Raises:
        UnsupportedTaskError: a model whose layers have no places.
    """
    tower = image_part(model.network)
    blocks = getattr(getattr(tower, "transformer", None), "blocks", None)
    if hasattr(getattr(model.processor.image, "spec", None), "fit"):
        if callable(getattr(tower, "stages", None)):
            return _stages(tower)
        if blocks is not None and hasattr(tower, "patches") and model.quantize is None:
            return _blocks(_plain_tower(model))
    bits = ", 8 bits" if model.quantize else ""
    raise UnsupportedTaskError(
        f"{model.name} ({model.system.name}{bits}) has no layers over the places of a picture, so "
        "the features of its units cannot be shown: take a vit, clip, siglip, swin or resnet model"
        + (", without quantize" if bits else "")
    )


def image_part(network: Any) -> Any:
    """What of a network sees pictures: a tower, or of an image encoder all of it."""
    return getattr(network, "image", network)


def _stages(tower: Any) -> Layers:
    """The stem, where there is one, and the map behind each stage."""
    has_stem = hasattr(tower, "stem")

    def maps(pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        found = [tower.stem(pixels)] if has_stem and "stem" in names else [pixels]
        if any(name != "stem" for name in names):
            found += tower.stages(pixels)
        return [found[0 if name == "stem" else int(name.removeprefix("stage"))] for name in names]

    numbered = [f"stage{number}" for number in range(1, len(tower.stacks) + 1)]
    names = (*(["stem"] if has_stem else []), *numbered)
    return Layers(names, names, maps, attends=not has_stem)


def _plain_tower(model: Model) -> Any:
    """A tower that runs block after block, a whole batch at a time: packed ones cannot be heard."""
    words = [name for name in ("text",) if hasattr(model.network, name)]
    return image_part(float32_copy(model.network, words)).eval()


def _blocks(tower: Any) -> Layers:
    """The neurons of the MLP of each block.

    What stands in front of the blocks (class token, norm, positions) is each system's own, so the
    tower runs as it is and the neurons are listened to.
    """
    blocks = tower.transformer.blocks
    names = tuple(f"block{number}" for number in range(1, len(blocks) + 1))
    count = min(BLOCKS, len(names))
    spread = np.linspace(0, len(names) - 1, count).round().astype(int)

    def maps(pixels: Tensor, wanted: Sequence[str]) -> list[Tensor]:
        heard: dict[str, Tensor] = {}

        def listener(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
            return lambda module, inputs: heard.__setitem__(name, inputs[0])

        handles = [
            blocks[names.index(name)].mlp.fc2.register_forward_pre_hook(listener(name))
            for name in wanted
        ]
        try:
            tower(pixels)
        finally:
            for handle in handles:
                handle.remove()
        grid = tower.patches.grid(*pixels.shape[-2:])
        return [_as_map(heard[name], grid) for name in wanted]

    return Layers(names, tuple(names[i] for i in spread), maps, attends=True)


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, L, K] to [B, K, h, w], without what stands in front of the patches."""
    patches = tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
    return patches.mT.unflatten(2, grid)


def chosen_layers(found: Layers, layers: Sequence[str] | None) -> tuple[str, ...]:
    """The named layers in the order of the network, or a few from bottom to top.

    Raises:
        ConfigError: an unknown layer, or none.
    """
    if layers is None:
        return found.default
    for name in layers:
        if name not in found.names:
            raise ConfigError(unknown_name("layer", name, found.names))
    if not layers:
        raise ConfigError(f"no layer is named; there are {', '.join(found.names)}")
    return tuple(name for name in found.names if name in layers)
