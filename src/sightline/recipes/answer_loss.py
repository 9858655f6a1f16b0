"""The loss of a model that speaks: only tokens that it should say itself count."""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.core.interfaces import Prompt, TextBatch
from sightline.inputs.packing import first_fit
from sightline.nn.writer import Writer
from sightline.objectives.language import next_token
from sightline.training.accumulation import LossFunction, WeightedLoss


class AnswerBatch(NamedTuple):
    """Pictures, what is asked about each, and what is answered."""

    pixels: Tensor
    """float32[N, 3, H, W]: the pictures of all rows, row by row."""
    pictures: Tensor
    """int64[B]: how many of them each row shows."""
    prompt: Tensor
    """int64[B, T]"""
    prompt_mask: Tensor
    suffix: Tensor
    """int64[B, M]: what is answered, with its end token."""
    suffix_mask: Tensor
    """bool[B, M]: True on the tokens of an answer, which are all learned."""


def answer_hidden(writer: Writer, batch: AnswerBatch, slots: int | None = None) -> Tensor:
    """What predicts each token of the answers, float[B, M, D].

    Args:
        slots: length of the rows that sequences are packed into; None gives each its own row.

    Raises:
        ConfigError: a sequence that no row can hold.
    """
    shown = batch.pixels.split(batch.pictures.tolist())
    pictures = tuple(tuple(row) for row in shown)
    prompts = writer.prompt_vectors(Prompt(batch.prompt, batch.prompt_mask, pictures))
    rows = None
    if slots is not None:
        # nothing is predicted from the last token, which takes no place
        tails = (batch.suffix_mask.sum(dim=1) - 1).tolist()
        counts = [len(head) + tail for head, tail in zip(prompts, tails, strict=True)]
        if max(counts) > slots:
            raise ConfigError(
                f"a sequence of {max(counts)} tokens, those of its pictures included, does not fit "
                f"into a row of {slots}: raise row_length, or lower text_length"
            )
        rows = [row for row, _ in first_fit(counts, slots)]
    return writer.hidden_behind(prompts, TextBatch(batch.suffix, batch.suffix_mask), rows, slots)


def answer_loss(
    label_smoothing: float = 0.0, slots: int | None = None, chunk: int | None = None
) -> LossFunction:
    """Cross-entropy summed over the tokens of answers; for `training.accumulation.accumulate`.

    Args:
        slots: see `answer_hidden`.
        chunk: tokens that are scored at a time, see `objectives.language`.
    """

    def loss(network: nn.Module, batch: AnswerBatch) -> WeightedLoss:
        writer = cast(Writer, network)
        total, tokens = next_token(
            answer_hidden(writer, batch, slots), batch.suffix, batch.suffix_mask, writer.logits,
            label_smoothing=label_smoothing, chunk=chunk,
        )  # fmt: skip
        return WeightedLoss(total, tokens)

    return loss
