"""`sightline bench objectives`: memory and time of a contrastive loss, whole and in blocks.

Each measurement has a process of its own: embeddings are drawn, then loss and gradients computed
once. The memory is what the loss takes above the embeddings at its worst moment, gradients of the
embeddings included. The same loss is computed both ways wherever the whole matrix fits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sightline.bench.memory import in_a_process, peak_above
from sightline.core.devices import available_cores, set_threads
from sightline.core.errors import ConfigError, unknown_name
from sightline.nn.norms import unit_length
from sightline.objectives.contrastive import sigmoid_contrastive, softmax_contrastive

LOSSES = ("sigmoid", "softmax")
MATRICES = 6
"""How many matrices of all pairs a plain loss and its backward pass are expected to hold."""


@dataclass(frozen=True)
class Row:
    """One loss of one batch."""

    pairs: int
    chunk: int | None
    """Columns of a block; None is the whole matrix at once."""
    bytes_above: int
    """At the worst moment, above the embeddings."""
    seconds: float
    loss: float
    gradient_norm: float
    """Of the gradient of all embeddings together."""


@dataclass(frozen=True)
class ObjectivesBench:
    """Everything that was measured, batch by batch."""

    loss: str
    width: int
    cores: int
    rows: tuple[Row, ...]
    skipped: tuple[int, ...]
    """Batches whose whole matrix does not fit into this machine's memory."""

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {"bench": "objectives", **asdict(self)}


def bench_objectives(
    loss: str = "sigmoid",
    pairs: Sequence[int] = (4096, 16384),
    width: int = 512,
    chunk: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> ObjectivesBench:
    """Measure a loss of unit vectors in float32, forward and backward.

    Args:
        loss: "sigmoid" or "softmax".
        pairs: sizes of the batches.
        width: of the embeddings.
        chunk: columns of a block.
        progress: called with measurements done and their total.

    Raises:
        ConfigError: an unknown loss, or a size below 1.
    """
    if loss not in LOSSES:
        raise ConfigError(unknown_name("loss", loss, LOSSES))
    if min((*pairs, width, chunk)) < 1:
        raise ConfigError("pairs, width and chunk are numbers from 1 on")
    rows, skipped = [], []
    for number, count in enumerate(pairs):
        whole = MATRICES * 4 * count**2 < _memory()
        for how in (None, chunk) if whole else (chunk,):
            found = in_a_process(
                __name__, "measure", loss=loss, pairs=count, width=width, chunk=how
            )
            rows.append(Row(count, how, **found))
        if not whole:
            skipped.append(count)
        if progress is not None:
            progress(number + 1, len(pairs))
    return ObjectivesBench(loss, width, available_cores(), tuple(rows), tuple(skipped))


def measure(loss: str, pairs: int, width: int, chunk: int | None) -> dict[str, float]:
    """One loss with its gradients, in this process."""
    set_threads()
    _run(loss, *_embeddings(64, width), 16)  # so that libraries have their workspaces
    image, text = _embeddings(pairs, width)
    value = torch.zeros(())
    begun = time.perf_counter()

    def work() -> None:
        nonlocal value
        value = _run(loss, image, text, chunk)

    above = peak_above(work)
    seconds = time.perf_counter() - begun
    assert image.grad is not None and text.grad is not None
    norm = torch.stack([image.grad.norm(), text.grad.norm()]).norm()
    return {
        "bytes_above": above,
        "seconds": seconds,
        "loss": float(value),
        "gradient_norm": float(norm),
    }


def _embeddings(pairs: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and sentences near them, as after some training."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(pairs, width, generator=generator)
    text = unit_length(image + torch.randn(pairs, width, generator=generator))
    return unit_length(image).requires_grad_(), text.requires_grad_()


def _run(loss: str, image: torch.Tensor, text: torch.Tensor, chunk: int | None) -> torch.Tensor:
    scale = torch.tensor(10.0, requires_grad=True)
    bias = torch.tensor(-10.0, requires_grad=True)
    if loss == "softmax":
        value = softmax_contrastive(image, text, scale, chunk=chunk)
    else:
        value = sigmoid_contrastive(image, text, scale, bias, chunk=chunk)
    value.backward()
    return value.detach()


def _memory() -> int:
    """Bytes of this machine; without bound where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62
