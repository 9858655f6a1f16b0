"""One step of a run, or one answer, on pictures without content: what `plan` counts the memory of.

The same code runs with tensors that have no memory, to predict, and with real ones, to measure. It
takes the losses and the step of `sightline train`, so that prediction and run cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sightline.core.errors import ConfigError, UnsupportedTaskError, unknown_name
from sightline.core.interfaces import WRITING_ROLES, System, TextBatch
from sightline.inputs.naflex import NaFlexSpec
from sightline.nn import four_bit, lora
from sightline.nn.precision import lower
from sightline.objectives.language import next_token
from sightline.recipes.dual_encoder import pair_loss
from sightline.recipes.pair_data import PairBatch
from sightline.training.accumulation import (
    Step,
    WeightedLoss,
    accumulate,
    backward,
    cached_contrastive,
)
from sightline.training.memory import checkpointed_blocks
from sightline.training.stages import lock, set_modes

INFERENCE = "none"
KINDS = ("full", "lora", "qlora", "projector", "locked")
"""What learns: everything; low-rank additions to queries and values (Hu et al. 2021,
arXiv:2106.09685, section 4.2), also to a base whose linear layers are stored in 4 bits (Dettmers et
al. 2023, arXiv:2305.14314); the layer between tower and decoder; everything but the image tower
(Zhai et al. 2022, arXiv:2111.07991)."""
ROLES = {
    "qlora": WRITING_ROLES,
    "projector": ("vision-language model",),
    "locked": ("dual encoder", "vision-language model"),
}
"""Roles of the systems that can be trained so; the other kinds are for all."""

Mark = Callable[[str], AbstractContextManager[object]]
"""Says which part of the plan what is allocated within the block belongs to."""


@dataclass(frozen=True)
class Work:
    """What is to be computed."""

    system: System
    config: Any
    kind: str = INFERENCE
    dtype: torch.dtype = torch.float32
    """Of the products. Inference holds linear weights in it; training keeps them in float32 and
    lowers the products by autocast."""
    accumulate: int = 1
    """Micro-batches of a step."""
    rank: int = 8
    """Of the low-rank additions."""
    activation_checkpointing: bool = False
    tokens: int = 64
    """Of a prompt and its answer, half each, for a network that writes."""

    def __post_init__(self) -> None:
        if self.kind not in (INFERENCE, *KINDS):
            raise ConfigError(unknown_name("kind of training", self.kind, (INFERENCE, *KINDS)))
        if min(self.accumulate, self.rank) < 1 or self.tokens < 2:
            raise ConfigError(
                f"accumulate {self.accumulate} and rank {self.rank} are numbers from 1 on, and "
                f"tokens {self.tokens} one from 2 on"
            )
        roles = ROLES.get(self.kind, (self.system.role,))
        if self.system.role not in roles:
            raise UnsupportedTaskError(
                f"{self.system.name} has the role of {self.system.role}, and {self.kind} training "
                f"is for {' or '.join(roles)}: use full or lora"
            )

    @property
    def writes(self) -> bool:
        """Whether the network writes."""
        return self.system.role in WRITING_ROLES

    @property
    def trains(self) -> bool:
        return self.kind != INFERENCE


def build(work: Work) -> nn.Module:
    """The network on the default device, with what learns marked as such."""
    network = work.system.build(work.config)
    if not work.trains:
        return lower(network, work.dtype).eval().requires_grad_(False)
    if work.kind == "qlora":
        four_bit.quantise(network)
    if work.kind == "projector":
        network.requires_grad_(False)
        network.projector.requires_grad_(True)
    if work.kind in ("lora", "qlora"):
        try:
            lora.add(network, work.rank)
        except ConfigError:
            raise UnsupportedTaskError(
                f"{work.system.name} has no attention with queries and values for lora: use full"
            ) from None
    if work.kind == "locked":
        lock(network, "image")
    set_modes(network)
    return network


class WritingBatch(NamedTuple):
    """Prompts of one length with answers of one length behind them."""

    ids: Tensor
    """int64[B, T]: the prompts."""
    answers: TextBatch
    """int64[B, M]"""
    pixels: Tensor
    """float32[B, 3, H, W], or [B, 0] for a network without pictures."""


Batch = PairBatch | WritingBatch


def empty_batch(work: Work, size: int) -> Batch:
    """Pictures and sentences of the longest length, on the default device, all zeros."""
    if work.writes:
        prompt, answer = work.tokens // 2, work.tokens - work.tokens // 2
        written = torch.zeros(size, answer, dtype=torch.int64)
        return WritingBatch(
            torch.zeros(size, prompt, dtype=torch.int64),
            TextBatch(written, torch.ones_like(written, dtype=torch.bool)),
            _pictures(work, size),
        )
    words = None if work.system.text is None else work.system.text(work.config)
    length = 1 if words is None else words.max_length
    ids = torch.zeros(size, length, dtype=torch.int64)
    mask = torch.ones(size, length, dtype=torch.bool)
    labels = torch.zeros(size, dtype=torch.int64)
    return PairBatch(ids, mask, _pictures(work, size), labels)


def _pictures(work: Work, size: int) -> Tensor:
    spec = work.system.preprocessing(work.config)
    if work.system.role == "mask codec":
        return torch.zeros(size, work.config.mask_size, work.config.mask_size)
    if spec is None:
        return torch.zeros(size, 0)
    if isinstance(spec, NaFlexSpec):
        raise UnsupportedTaskError(
            f"{work.system.name} takes pictures of mixed sizes, whose memory is not planned yet: "
            "name a model of one picture size, such as siglip:2-B/16-256"
        )
    return torch.zeros(size, 3, spec.height, spec.width)


def answer(work: Work, network: Any, batch: Any, mark: Mark) -> None:
    """One batch forward: pictures and sentences one after the other, or prompts and a token."""
    with torch.no_grad(), mark("activations"):
        if work.writes:
            room = batch.answers.ids.shape[1]
            _, cache = network.prefill_behind(_prompts(work, network, batch), room)
            network.extend(batch.answers.ids[:, :1], cache)
        elif work.system.role == "dual encoder":
            embeddings = network.encode_images(batch.pixels)
            del embeddings
            network.encode_texts(batch.ids, batch.mask)
        else:
            _alone(work, network, batch)


def learn(work: Work, network: nn.Module, batches: list[Any], mark: Mark) -> None:
    """Forward and backward of one optimiser step over its micro-batches."""
    device = next(network.parameters()).device.type
    lowered = work.dtype != torch.float32
    autocast = torch.autocast(device, work.dtype) if lowered else nullcontext()
    with checkpointed_blocks(network, work.activation_checkpointing), autocast:
        _step(work, mark)(network, batches)


def _step(work: Work, mark: Mark) -> Step:
    if work.writes:
        return accumulate(lambda network, batch: _written_loss(work, network, batch, mark))
    if work.system.role != "dual encoder":
        return lambda network, batches: _alone_backward(work, network, batches, mark)
    score = work.system.for_config(work.config).score
    whole = pair_loss("sigmoid" if score == "sigmoid" else "softmax")

    def embed(network: nn.Module, batch: PairBatch) -> tuple[Tensor, ...]:
        with mark("activations"):
            scores = network(batch.pixels, batch.ids, batch.mask)
        return scores.image_embeddings, scores.text_embeddings, batch.labels

    def loss(network: nn.Module, embeddings: tuple[Tensor, ...]) -> Tensor:
        with mark("loss"):
            return whole(network, embeddings)

    return cached_contrastive(embed, loss)


def _prompts(work: Work, network: Any, batch: WritingBatch) -> list[Tensor]:
    """What the decoder reads of each row. All rows are alike, so that a single tensor holds them:
    the number of storages must not depend on the number of rows."""
    words = network.decoder.look_up(batch.ids)  # [B T D]
    if batch.pixels.numel():
        seen = network.image_tokens(batch.pixels)  # [B P D]
        words = torch.cat([seen.to(words.dtype), words], dim=1)  # [B L D]
    return list(words.unbind())


def _written_loss(work: Work, network: Any, batch: WritingBatch, mark: Mark) -> WeightedLoss:
    with mark("activations"):
        hidden = network.hidden_behind(_prompts(work, network, batch), batch.answers)
    ids, counted = batch.answers
    with mark("logits"):
        return WeightedLoss(*next_token(hidden, ids, counted, network.logits))


def _alone_backward(work: Work, network: Any, batches: list[PairBatch], mark: Mark) -> Any:
    """An encoder without a partner: any loss of its vectors is small beside the network."""
    for batch in batches:
        with mark("activations"):
            vectors = _alone(work, network, batch)
        with mark("loss"):
            loss = vectors.float().square().mean()
        backward(loss)
        del vectors, loss


def _alone(work: Work, network: Any, batch: PairBatch) -> Tensor:
    if work.system.role == "text encoder":
        return network(batch.ids, batch.mask).pooled
    if work.system.role == "mask codec":
        return network(batch.pixels).masks
    return network(batch.pixels).pooled


def optimiser(network: nn.Module) -> torch.optim.AdamW:
    """AdamW over what learns, as the loop makes it."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=1e-5, fused=learning[0].device.type in ("cpu", "cuda"))
