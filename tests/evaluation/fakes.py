"""A model whose embeddings are given, and records that name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sightline.core.errors import ImageError, UnsupportedTaskError
from sightline.core.outputs import Label


@dataclass(frozen=True)
class FakeRecord:
    id: str
    image: Any
    captions: tuple[str, ...] = ()
    label: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class FakeDataset(list[FakeRecord]):
    name = "fakes"


class FakeModel:
    """Pictures are bytes that name a vector; "broken" ones cannot be read."""

    name = "fake"

    def __init__(
        self, images: Mapping[str, Sequence[float]], texts: Mapping[str, Sequence[float]]
    ) -> None:
        self.images, self.texts = images, texts
        self.batches: list[int] = []
        self.asked: list[str] = []

    def embed_images(self, images: Sequence[Any], batch_size: int = 32) -> Tensor:
        for image in images:
            if image.startswith(b"broken"):
                raise ImageError(f"{image.decode()} is no picture", "image_undecodable")
        self.batches.append(len(images))
        return torch.tensor([self.images[image.decode()] for image in images])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        return torch.tensor([self.texts[text] for text in texts])


class FakeClassifier:
    """A model without text embeddings: it scores labels itself."""

    def __init__(self, answers: Mapping[bytes, Mapping[str, float]]) -> None:
        self.answers = answers

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        raise UnsupportedTaskError("no text embeddings")

    def classify(
        self, image: Any, labels: Sequence[str], templates: Sequence[str] | None = None
    ) -> list[Label]:
        if image.startswith(b"broken"):
            raise ImageError("no picture", "image_undecodable")
        found = [Label(label, score) for label, score in self.answers[image].items()]
        return sorted(found, key=lambda answer: -answer.score)


def plane(angle: float) -> list[float]:
    """A unit vector in the plane, by its angle in degrees."""
    turned = torch.deg2rad(torch.tensor(float(angle)))
    return [turned.cos().item(), turned.sin().item()]
