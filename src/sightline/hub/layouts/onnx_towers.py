"""The towers of a network as modules of their own: what becomes a graph, its inputs by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sightline.inputs.preprocessing import ImageSpec
from sightline.nn.norms import unit_length

if TYPE_CHECKING:
    from sightline.hub.contents import Contents

EXAMPLES = 2
"""Rows of the example inputs; a batch of one would be taken for a constant."""


class ImageGraph(nn.Module):
    """Pixels to unit vectors, and of a classifier also to the logits of its labels."""

    def __init__(self, network: Any, is_dual: bool, has_labels: bool) -> None:
        super().__init__()
        self.network = network
        self.is_dual, self.has_labels = is_dual, has_labels

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """float[B, 3, H, W] to float32[B, D], with float32[B, V] of a classifier."""
        if self.is_dual:
            vectors: Tensor = self.network.encode_images(pixels)  # [B D]
            return vectors
        pooled = self.network(pixels).pooled  # [B D]
        if not self.has_labels:
            return unit_length(pooled)
        return unit_length(pooled), self.network.class_logits(pooled)


class TextGraph(nn.Module):
    """Ids to unit vectors."""

    def __init__(self, network: Any, is_dual: bool) -> None:
        super().__init__()
        self.network = network
        self.is_dual = is_dual

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """int64[B, T] and bool[B, T] to float32[B, D]."""
        if self.is_dual:
            vectors: Tensor = self.network.encode_texts(ids, mask)  # [B D]
            return vectors
        return unit_length(self.network(ids, mask).pooled)  # [B D]


@dataclass(frozen=True)
class Tower:
    """One graph to be."""

    name: str
    """"image" or "text"; the file is named after it."""
    module: nn.Module
    inputs: Mapping[str, Tensor]
    """Examples by name, in the order of `forward`."""
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]]
    """Of each input the axes whose length is free, with their names."""


def towers_of(contents: Contents, network: nn.Module) -> list[Tower]:
    """The image tower, the text tower, or both.

    Args:
        contents: the model.
        network: filled, ready to answer.
    """
    found = []
    if contents.processor.image is not None:
        found.append(_image(contents, network))
    if contents.system.text is not None:
        found.append(_text(contents, network))
    return found


def _image(contents: Contents, network: nn.Module) -> Tower:
    assert contents.processor.image is not None, "asked of networks with pictures only"
    spec = contents.processor.image.spec
    assert isinstance(spec, ImageSpec), "others are refused"
    is_dual = contents.system.role == "dual encoder"
    has_labels = not is_dual and bool(getattr(contents.config, "labels", ()))
    return Tower(
        "image",
        ImageGraph(network, is_dual, has_labels).eval(),
        {"pixels": torch.zeros(EXAMPLES, 3, spec.height, spec.width)},
        ("embeddings", "logits") if has_labels else ("embeddings",),
        {"pixels": {0: "batch"}},
    )


def _text(contents: Contents, network: nn.Module) -> Tower:
    axes, length = {0: "batch"}, context_length(contents)
    if not is_padded_to_the_end(contents):
        axes[1] = "length"
        length = max(2, length - 1)  # an example of the full length would be taken for a constant
    ids = torch.zeros(EXAMPLES, length, dtype=torch.int64)
    inputs = {"ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}
    return Tower(
        "text",
        TextGraph(network, contents.system.role == "dual encoder").eval(),
        inputs,
        ("embeddings",),
        dict.fromkeys(inputs, axes),
    )


def context_length(contents: Contents) -> int:
    """Tokens of a sentence at most, as the system cuts it or as the tower has places for it."""
    assert contents.system.text is not None, "asked of systems with text only"
    cut = contents.system.text(contents.config).max_length
    return int(cut or getattr(contents.config, "text", contents.config).context_length)


def is_padded_to_the_end(contents: Contents) -> bool:
    """Whether sentences always have the full length, as those of SigLIP do."""
    assert contents.system.text is not None, "asked of systems with text only"
    return bool(contents.system.text(contents.config).padding == "max_length")
