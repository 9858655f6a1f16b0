"""A sentence about each picture, by a model that writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ConfigError
from sightline.generation.options import GenerationOptions
from sightline.tasks.abilities import CAPTION_DETAILS
from sightline.tasks.batching import Failed, OnError
from sightline.tasks.writing import (
    BATCH,
    as_rows,
    framed,
    read_task_options,
    require_writer,
    with_pictures,
    write_each,
    write_stream,
)

if TYPE_CHECKING:
    from sightline.tasks.model import Model

MOST = {"short": 64, "long": 256}
"""The longest caption in tokens, where nobody says another."""


def caption_each(
    model: Model,
    images: Any,
    prompt: str | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[str | Failed]:
    """A caption for each picture, or for each tuple of pictures, in order.

    Args:
        prompt: what the checkpoint's published processor would be given; special tokens in it
            count. None takes the prompt of the level of detail.
        options: `detail`, and those of `generation.options`.

    Raises:
        UnsupportedTaskError: the model writes no captions.
        ConfigError: an option that does not exist or does not fit.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    ids, marks, how = caption_prompt(model, prompt, options or {})
    rows = with_pictures(as_rows(images), marks)
    written = write_each(model, rows, repeat(ids), how, batch_size, on_error)
    return (one if isinstance(one, Failed) else one.text for one in written)


def caption_stream(
    model: Model, image: Any, prompt: str | None = None, options: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """The caption of one picture in pieces, as they come; see `caption_each`."""
    ids, marks, how = caption_prompt(model, prompt, options or {})
    (row,) = with_pictures([image], marks)
    return write_stream(model, row, ids, how)


def caption_prompt(
    model: Model, prompt: str | None, options: Mapping[str, Any]
) -> tuple[list[int], int, GenerationOptions]:
    """The prompt's ids, how many pictures it marks, and how to write; see `caption_each`."""
    instructions = require_writer(model, "caption", "write captions")
    rest = dict(options)
    detail = rest.pop("detail", None)
    if prompt is not None and detail is not None:
        raise ConfigError("detail chooses one of the model's prompts: leave it out beside a prompt")
    how = read_task_options(rest, MOST.get(detail or CAPTION_DETAILS[0], MOST["long"]))
    if prompt is None:
        return framed(model, instructions.caption_prompt(detail or CAPTION_DETAILS[0])), 0, how
    words, marks = instructions.unmarked(prompt)
    return framed(model, words, trusted=True), marks, how
