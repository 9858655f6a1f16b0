"""How likely texts are as the answer of a model that writes: log p, and shares made of it.

Everything is the network's own log p(text, end | pictures, prompt), the end token included, so that
a text is not likelier for being the beginning of another one. Longer texts are less likely; nothing
is divided by their length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sightline.core.errors import InputError
from sightline.core.outputs import Label
from sightline.inputs.tokenizers import check_text
from sightline.tasks.batching import Failed, OnError, as_texts
from sightline.tasks.scores import best_first
from sightline.tasks.writing import (
    BATCH,
    as_rows,
    framed,
    one_line,
    require_writer,
    score_each,
    with_pictures,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.tasks.model import Model


def logprob_each(
    model: Model,
    images: Any,
    prompt: str,
    texts: str | Iterable[str],
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[Tensor | Failed]:
    """log p(text, end | pictures, prompt) float32[N] of N texts, for each picture in order.

    Prompt and texts are what the checkpoint's published processor would be given as prefix and
    suffix; special tokens in them count.

    Raises:
        UnsupportedTaskError: the model writes nothing.
        InputError: no text.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    instructions = require_writer(model, "logprob", "give the likelihood of a text")
    words, marks = instructions.unmarked(check_text(prompt))
    ids = framed(model, words, trusted=True)
    listed = as_texts(texts)
    if not listed:
        raise InputError("no texts arrived: give at least one to score")
    suffixes = [model.processor.tokenizer.encode(check_text(text), trusted=True) for text in listed]
    rows = with_pictures(as_rows(images), marks)
    scored = score_each(model, rows, [ids], [suffixes], batch_size, on_error)
    return (row if isinstance(row, Failed) else row[0] for row in scored)


def answer_shares(
    model: Model,
    images: Any,
    prompt: Sequence[int],
    answers: Sequence[str],
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[list[Label] | Failed]:
    """Each answer with its share, softmax over log p(answer, end), best first, a picture at a time.

    Args:
        prompt: ids from `framed`.
        answers: untrusted; what spells a special token stays text.
    """
    texts = answer_ids(model, answers)
    scored = score_each(model, as_rows(images), [prompt], [texts], batch_size, on_error)
    return (
        row if isinstance(row, Failed) else best_first(answers, row[0].softmax(dim=0))
        for row in scored
    )


def class_shares(
    model: Model,
    images: Any,
    labels: Sequence[str],
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[list[Label] | Failed]:
    """Each label with its share as the answer to the checkpoint's question of what this is."""
    instructions = require_writer(model, "classify", "classify")
    prompt = framed(model, instructions.question(instructions.classify))
    return answer_shares(model, images, prompt, labels, batch_size, on_error)


def claim_probabilities(
    model: Model,
    images: Any,
    texts: Sequence[str],
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[Tensor | Failed]:
    """P(yes) float32[N] against no: whether each text describes the picture, for each in order.

    Each text is asked about on its own (`Instructions.claim`), so that none moves another.
    """
    instructions = require_writer(model, "match", "match pictures with text")
    claims = [instructions.claim(one_line(text, "text")) for text in texts]
    prompts = [framed(model, claim) for claim in claims]
    answers = [answer_ids(model, instructions.yes_no)] * len(prompts)
    scored = score_each(model, as_rows(images), prompts, answers, batch_size, on_error)
    return (
        row if isinstance(row, Failed) else torch.stack(row).softmax(dim=1)[:, 0] for row in scored
    )


def answer_ids(model: Model, answers: Sequence[str]) -> list[list[int]]:
    """Answers as a model writes them, without an end token.

    Raises:
        InputError: an answer without words.
    """
    tokenizer = model.processor.tokenizer
    return [tokenizer.encode(one_line(answer, "answer")) for answer in answers]
