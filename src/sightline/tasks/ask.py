"""Which of these answers: a question with choices, for models that can only score.

A dual encoder writes nothing. It says how well a sentence describes a picture, so each choice is
put behind the question and the sentence that fits best wins. That is selection among given
answers, not reasoning: counts, negation and left against right are beyond most dual encoders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ConfigError, InputError, TextError, unknown_name
from sightline.core.outputs import Label
from sightline.tasks.batching import Failed, OnError, as_sources
from sightline.tasks.classify import best_first
from sightline.tasks.embed import embed_each, embed_texts
from sightline.tasks.prompted import checked_labels
from sightline.tasks.scores import logits

if TYPE_CHECKING:
    from sightline.tasks.model import Model

TEMPLATE = "{question} {choice}"
GENERATION_OPTIONS = (
    "beams", "max_new_tokens", "schema", "seed", "stop", "temperature", "top_k", "top_p"
)  # fmt: skip


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

    Raises:
        UnsupportedTaskError: the model reads no text.
        InputError: a question or choices that cannot be used.
        TextError: question and choice are too long, so that the choices would be cut off.
    """
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


def check_options(options: dict[str, Any]) -> None:
    """Raises `ConfigError` for an option that no model knows; known ones do not change a choice."""
    for name in options:
        if name not in GENERATION_OPTIONS:
            raise ConfigError(unknown_name("option", name, GENERATION_OPTIONS))


def _sentences(question: str, choices: list[str], template: str) -> list[str]:
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"the question must be a sentence, {question!r} arrived")
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
