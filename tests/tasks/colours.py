"""A dual encoder small enough to reason about: pictures and words are places in colour space.

A picture is its mean colour, a sentence the sum of its colour words, both on four axes (red, green,
blue, grey) and of unit length. So every right answer is known by hand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sightline.core.interfaces import TextBatch
from sightline.core.outputs import EncodedImage
from sightline.models.table import system
from sightline.tasks.model import Model

AXES = {"red": (1.0, 0, 0), "green": (0, 1.0, 0), "blue": (0, 0, 1.0), "purple": (0.7, 0, 0.7)}


def picture(red: int, green: int, blue: int, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    """uint8[H, W, 3] of one colour."""
    return np.full((*size, 3), (red, green, blue), np.uint8)


RED, GREEN, BLUE = picture(250, 5, 5), picture(5, 250, 5), picture(5, 5, 250)


class ColourProcessor:
    """Pictures to their mean colour as float32[B, 3, 1, 1]; words to ids."""

    def __init__(self) -> None:
        self.image = SimpleNamespace(spec="mean colour")
        self.words: list[str] = [""]
        self.texts_read = 0
        self.longest = 12

    def images(self, pictures: list[np.ndarray]) -> Tensor:
        means = np.stack([p.reshape(-1, 3).mean(axis=0) for p in pictures]) / 255
        return torch.from_numpy(means).float()[:, :, None, None]

    def texts(self, texts: list[str], trusted: bool = False) -> TextBatch:
        self.texts_read += len(texts)
        ids = torch.zeros(len(texts), self.longest, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = text.lower().replace(".", " ").replace("?", " ").split()[: self.longest]
            for column, word in enumerate(words):
                if word not in self.words:
                    self.words.append(word)
                ids[row, column] = self.words.index(word)
        return TextBatch(ids, ids > 0)


class ColourNetwork(nn.Module):
    """Roles DualEncoder and ImageEncoder over mean colours."""

    def __init__(self, processor: ColourProcessor, scale: float, bias: float) -> None:
        super().__init__()
        self.processor = processor
        self.axis = nn.Parameter(torch.eye(4))
        self.dropout = nn.Dropout(0.9)
        self.scale, self.bias = scale, bias
        self.batches: list[int] = []

    def encode_images(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        means = pixels.flatten(1)
        colour = torch.cat([means, torch.full_like(means[:, :1], 0.05)], dim=1)
        return normalize(self.dropout(colour) @ self.axis, dim=-1)

    def encode_texts(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        rows = []
        for row in ids.tolist():
            words = [self.processor.words[number] for number in row if number]
            colours = [AXES[word] for word in words if word in AXES]
            total = torch.tensor(colours).sum(dim=0) if colours else torch.zeros(3)
            # Every sentence is a little grey, so that one without a colour has a direction too.
            rows.append(torch.cat([total, torch.tensor([0.1 + 0.001 * len(words)])]))
        return normalize(torch.stack(rows) @ self.axis, dim=-1)

    def pair_scale(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.scale), torch.tensor(self.bias)

    def forward(self, pixels: Tensor) -> EncodedImage:
        pooled = 7 * self.encode_images(pixels)
        return EncodedImage(tokens=pooled[:, None], pooled=pooled)


def colour_model(kind: str = "clip", **changes: Any) -> Model:
    """A model of that system's scoring rule and role around the colour network."""
    processor = ColourProcessor()
    scale, bias = (20.0, -10.0) if kind == "siglip" else (20.0, 0.0)
    network = ColourNetwork(processor, scale, bias).eval()
    loaded = SimpleNamespace(
        origin=None, quantize=None, end_ids=(),
        name=f"colour-{kind}", revision="r1", folder=Path("nowhere"), config=None,
        system=replace(system(kind)), network=network, processor=processor,
        device=torch.device("cpu"), dtype=torch.float32, bundled=False, domain=None,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(loaded, name, value)
    return Model(loaded)  # type: ignore[arg-type]
