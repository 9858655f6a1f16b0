"""How well a model says what it should, on examples that it did not learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from sightline.core.errors import DataError, ImageError
from sightline.data.examples import Example
from sightline.nn.writer import Writer
from sightline.recipes.answer_data import Speller, Spoken, collate
from sightline.recipes.answer_loss import answer_hidden
from sightline.tasks.embed import without_dropout
from sightline.training.batches import to_device

if TYPE_CHECKING:
    from sightline.tasks.model import Model

BATCH = 16
CHUNK = 256
"""Tokens scored at a time: 256 MB of scores for a vocabulary of 250,000."""


class Said(NamedTuple):
    """How each of the true answers fared; one entry an example."""

    logprob: Tensor
    """float64[E]: of the whole answer."""
    tokens: Tensor
    """float64[E]: how many it has."""
    right: Tensor
    """float64[E]: how many of them were the likeliest."""


def answer_scores(
    model: Model, examples: Sequence[Example], length: int, limit: int, control: bool = False
) -> dict[str, float]:
    """ "logprob" of a token of the true answers, share of "tokens" that are the likeliest, share of
    "exact" answers.

    An answer is exact where every token is the likeliest under its own beginning, which is what
    greedy writing gives.

    Args:
        length: tokens of prompt and answer together, at most.
        limit: examples that are looked at, spread over all.
        control: also "exact, other pictures": each example with the pictures of another one, by
            which nothing is right but what words give away.

    Raises:
        DataError: no picture can be read.
    """
    chosen = _spread(examples, limit)
    found = _said(model, _readable(model, chosen, length))
    scores = {
        "logprob": float(found.logprob.sum() / found.tokens.sum()),
        "tokens": float(found.right.sum() / found.tokens.sum()),
        "exact": _exact(found),
    }
    if control:
        far = len(chosen) // 2  # neighbours are often about one picture
        swapped = [
            replace(own, pictures=other.pictures)
            for own, other in zip(chosen, [*chosen[far:], *chosen[:far]], strict=True)
        ]
        scores["exact, other pictures"] = _exact(_said(model, _readable(model, swapped, length)))
    return scores


def _exact(found: Said) -> float:
    return float((found.right == found.tokens).double().mean())


def _spread(examples: Sequence[Example], limit: int) -> list[Example]:
    count = min(limit, len(examples))
    return [examples[place * len(examples) // count] for place in range(count)]


def _readable(model: Model, examples: Sequence[Example], length: int) -> Iterator[Spoken]:
    told = model.system.instructions
    assert told is not None
    speller = Speller(model.processor, told(model.config), length)
    for example in examples:
        try:
            yield speller(example)
        except ImageError:  # the loader counts and names those of the training data
            continue


@torch.no_grad()
def _said(model: Model, spoken: Iterator[Spoken]) -> Said:
    network = cast(Writer, model.network)
    parts = list[Tensor]()
    # shapes differ here: what training compiled would be compiled again and again
    with without_dropout(network), torch.compiler.set_stance("force_eager"):
        while rows := list(islice(spoken, BATCH)):
            batch = to_device(collate(rows), model.device)
            hidden = answer_hidden(network, batch)[batch.suffix_mask]  # [S D]
            fared = _each_token(network, hidden, batch.suffix[batch.suffix_mask])
            lengths = batch.suffix_mask.sum(dim=1).tolist()
            parts.extend(fared.split(lengths))
    if not parts:
        raise DataError("none of the pictures to score on can be read")
    logprob, right = torch.stack([part.sum(dim=0) for part in parts]).unbind(dim=1)
    return Said(logprob, torch.tensor([len(part) for part in parts], dtype=torch.float64), right)


def _each_token(network: Writer, hidden: Tensor, tokens: Tensor) -> Tensor:
    """float64[S, 2] on the CPU: log p of each token, and whether it was the likeliest."""
    fared = []
    for rows, said in zip(hidden.split(CHUNK), tokens.split(CHUNK), strict=True):
        logits = network.logits(rows).float()  # [N V]
        own = logits.log_softmax(dim=1).gather(1, said[:, None])[:, 0]  # [N]
        right = logits.argmax(dim=1) == said
        fared.append(torch.stack([own, right.float()], dim=1).cpu().double())
    return torch.cat(fared)
