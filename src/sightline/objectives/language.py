"""The next token: cross-entropy over the tokens that count.

Summed, with the number of tokens beside it: whoever averages divides once by the tokens of the
whole batch, of all micro-batches and processes. A mean of means would weigh every token of a short
answer more (the accumulation error that several trainers had).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sightline.core.errors import ConfigError
from sightline.nn.norms import at_least_float32
from sightline.nn.precision import without_autocast

UNCOUNTED = -100
"""A target that torch's cross-entropy leaves out."""


def next_token(
    hidden: Float[Tensor, "B M D"],
    targets: Int[Tensor, "B M"],
    counted: Bool[Tensor, "B M"],
    head: Callable[[Tensor], Tensor],
    *,
    label_smoothing: float = 0.0,
    chunk: int | None = None,
    multiple: int = 1,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """-sum log p(target) over the tokens that count, and their number.

    Args:
        hidden: what predicts each token; already aligned, nothing is shifted here.
        targets: the tokens themselves.
        counted: False for prompts, turns of others and padding; they are not even scored.
        head: vectors [N, D] to logits [N, V].
        label_smoothing: share of the target that is spread over the vocabulary.
        chunk: tokens that are scored at a time, so that logits of a large vocabulary never all
            exist; computed again on the way back. None for all at once.
        multiple: scored tokens are filled up to a multiple of this with ones that do not count, so
            that shapes repeat from batch to batch.

    Raises:
        ConfigError: label smoothing outside [0, 1), or a chunk below 1.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing is {label_smoothing}: it lies between 0 and 1")
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk is {chunk}: at least one token has to be scored at a time")

    def part(rows: Float[Tensor, "N D"], wanted: Int[Tensor, " N"]) -> Float[Tensor, ""]:
        logits = head(rows)
        with without_autocast(logits.device):
            return F.cross_entropy(
                at_least_float32(logits), wanted, reduction="sum", label_smoothing=label_smoothing
            )

    rows, wanted = hidden[counted], targets[counted]  # [N D], [N]
    missing = -len(rows) % multiple
    rows, wanted = F.pad(rows, (0, 0, 0, missing)), F.pad(wanted, (0, missing), value=UNCOUNTED)
    if chunk is None or len(rows) <= chunk:
        return part(rows, wanted), counted.sum()
    total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    for piece, words in zip(rows.split(chunk), wanted.split(chunk), strict=True):
        total = total + checkpoint(part, piece, words, use_reentrant=False)
    return total, counted.sum()
