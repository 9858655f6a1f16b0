"""A question about each picture: answered freely, or with one of the answers that are given.

A model that writes answers in its own words; among given answers it takes the likeliest, by the
whole log p(answer, end | pictures, question). A dual encoder writes nothing. It says how well a
sentence describes a picture, so each choice is put behind the question and the sentence that fits
best wins. That is selection among given answers, not reasoning: counts, negation and left against
right are beyond most dual encoders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ConfigError, TextError
from sightline.core.outputs import Label
from sightline.tasks.abilities import WRITES, cannot
from sightline.tasks.batching import Failed, OnError, as_sources
from sightline.tasks.embed import embed_each, embed_texts
from sightline.tasks.likelihood import answer_shares
from sightline.tasks.prompted import checked_labels
from sightline.tasks.scores import best_first, logits
from sightline.tasks.writing import (
    BATCH,
    as_rows,
    framed,
    one_line,
    read_task_options,
    require_writer,
    write_each,
    write_stream,
)

if TYPE_CHECKING:
    from sightline.tasks.model import Model

TEMPLATE = "{question} {choice}"
MOST = 64
"""The longest answer in tokens, where nobody says another."""


def ask_each(
    model: Model,
    images: Any,
    question: str,
    options: Mapping[str, Any] | None = None,
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[str | Failed]:
    """The answer to a question about each picture, or about each tuple of pictures, in order.

    Args:
        question: untrusted; what spells a special token stays text.
        options: those of `generation.options`.

    Raises:
        UnsupportedTaskError: the model writes nothing.
        InputError: no question.
        TextError: a question that no tokenizer can take, or that is too long.
        ConfigError: an option that does not exist or does not fit.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    how = check_options(options or {})
    prompts = repeat(question_ids(model, question))
    written = write_each(model, as_rows(images), prompts, how, batch_size, on_error)
    return (one if isinstance(one, Failed) else one.text for one in written)


def ask_stream(
    model: Model, image: Any, question: str, options: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """The answer about one picture in pieces, as they come; see `ask_each`."""
    how = check_options(options or {})
    return write_stream(model, image, question_ids(model, question), how)


def question_ids(model: Model, question: str) -> list[int]:
    """A question in the template that the checkpoint was trained with.

    Raises:
        UnsupportedTaskError: the model writes nothing.
        InputError: no question.
        TextError: a question that no tokenizer can take, or that is too long.
    """
    if model.system.role == "dual encoder":
        raise cannot(model, "chat", "answer freely", "pass choices=[...] to let it choose")
    instructions = require_writer(model, "ask", "answer questions")
    return framed(model, instructions.question(one_line(question, "question")))


def score_choices(
    model: Model,
    images: Any,
    question: str,
    choices: Iterable[str],
    template: str = TEMPLATE,
    batch_size: int = 32,
    on_error: OnError = "raise",
) -> Iterator[list[Label] | Failed]:
    """Every choice with its share (softmax over the choices), best first, for each picture.

    Exactly one choice is taken to be right, so the shares add up to one for sigmoid systems too.

    Args:
        template: of a dual encoder's sentence; a model that writes has one of its own.

    Raises:
        UnsupportedTaskError: the model reads no text.
        InputError: a question or choices that cannot be used.
        TextError: question and choice are too long, so that the choices would be cut off.
    """
    if model.system.role == WRITES:
        if template != TEMPLATE:
            raise ConfigError(f"{model.name} has a template of its own: leave the template out")
        names = checked_labels(choices, "choices")
        ids = question_ids(model, question)
        return answer_shares(model, images, ids, names, batch_size, on_error)
    model.require_role("dual encoder", "match", "compare answers")
    names = checked_labels(choices, "choices")
    sentences = _sentences(question, names, template)
    _check_kept(model, names, sentences)
    texts = embed_texts(model, sentences)
    rows = embed_each(model, as_sources(images), batch_size, on_error)
    return (
        row
        if isinstance(row, Failed)
        else best_first(names, logits(model, row, texts).softmax(dim=-1))
        for row in rows
    )


def check_options(options: Mapping[str, Any]) -> Any:
    """How to write an answer. Known options do not change a choice.

    Raises:
        ConfigError: an option that does not exist, with the nearest, or does not fit.
    """
    return read_task_options(options, MOST)


def _sentences(question: str, choices: list[str], template: str) -> list[str]:
    one_line(question, "question")
    if "{choice}" not in template:
        raise ConfigError(
            f"template {template!r} has no place for the answer: write {{choice}} where it belongs"
        )
    return [_filled(template, {"question": question, "choice": choice}) for choice in choices]


def _filled(template: str, words: dict[str, str]) -> str:
    # One pass, so that braces inside the question or a choice stay text.
    return re.sub(r"\{(question|choice)\}", lambda place: words[place[1]], template)


def _check_kept(model: Model, choices: list[str], sentences: list[str]) -> None:
    """A choice cut off at the model's text length makes equal sentences out of different ones."""
    seen: dict[tuple[int, ...], str] = {}
    for choice, ids in zip(choices, model.processor.texts(sentences).ids.tolist(), strict=True):
        twin = seen.setdefault(tuple(ids), choice)
        if twin != choice:
            raise TextError(
                f"choices {twin!r} and {choice!r} look the same to {model.name} behind this "
                "question: its text length or its vocabulary ends before they differ; "
                "shorten the question or reword the choices"
            )
