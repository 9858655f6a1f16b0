"""Pictures and words to text: prompts through a network that writes, in batches or in pieces.

A row is one thing to be answered: a picture, a video (its path or `Video`), several of them in a
tuple (an empty tuple is no picture, for blind controls), and the ids of a prompt. Frames of a video
are pictures in the order of time. What a person says (questions,
names, labels, turns of a conversation) is put on one line and can never become a token that means
something to the network; a prompt that the caller wrote can.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sightline.core.errors import InputError, TextError, UnsupportedTaskError
from sightline.core.interfaces import Prompt
from sightline.generation.options import GenerationOptions, read_options
from sightline.generation.scoring import score
from sightline.generation.text import generate, stream
from sightline.inputs.tokenizers import check_text
from sightline.tasks.abilities import WRITES, cannot, instructions_of
from sightline.tasks.batching import (
    Failed,
    OnError,
    Row,
    check_batching,
    in_batches,
    is_single,
    prepared,
    read_named,
)
from sightline.tasks.embed import decode_options, without_dropout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sightline.generation.answers import Generated, Piece
    from sightline.inputs.instructions import Instructions
    from sightline.inputs.video import Video
    from sightline.tasks.model import Model

FRAMES = 8
"""Frames that are taken of a video, by the rule of `inputs.video`; other frames travel as a tuple
of pictures (`Video(path).sample(16).frames`)."""
BATCH = 8
"""Rows through the network at once; each has a cache of its own."""


class Seen(NamedTuple):
    """The pictures of one row, prepared."""

    pictures: tuple[Tensor, ...]
    """float32[3, H, W] each, as the network reads them."""
    sizes: tuple[tuple[int, int], ...]
    """(H, W) of each original."""


class Asked(NamedTuple):
    """One row: what it shows and what it says."""

    seen: Seen
    ids: Sequence[int] = ()
    texts: Sequence[Sequence[int]] = ()
    """What may be said, where it is scored and not written."""


class Written(NamedTuple):
    """One answer."""

    generated: Generated
    sizes: tuple[tuple[int, int], ...]
    """(H, W) of each original picture of the row."""

    @property
    def text(self) -> str:
        """The answer without white space around it."""
        return (self.generated.text or "").strip()


def require_writer(model: Model, task: str, deed: str) -> Instructions:
    """How the model wants to be asked.

    Raises:
        UnsupportedTaskError: it does not write, or was not trained for the task.
    """
    instructions = instructions_of(model)
    if instructions is None or model.system.role != WRITES or task not in model.tasks:
        raise cannot(model, task, deed)
    return instructions


def read_task_options(given: Mapping[str, Any], most: int) -> GenerationOptions:
    """The options of a task, with its longest answer where nobody says another.

    Raises:
        ConfigError: an unknown name, with the nearest; a value that is not allowed.
    """
    return read_options(given, max_new_tokens=most)


def is_row(images: Any) -> bool:
    """Whether this is what one answer is about; anything else that can be walked is a list."""
    return isinstance(images, tuple) or is_single(images)


def as_rows(images: Any) -> Iterable[Any]:
    """One row or many, as many."""
    return [images] if is_row(images) else images


def one_line(text: object, what: str) -> str:
    """The words of a person on one line, so that nobody can begin another one of the prompt.

    Raises:
        InputError: nothing, or no string.
        TextError: what no tokenizer can take.
    """
    if not isinstance(text, str):
        raise InputError(f"the {what} must be a sentence, {text!r} arrived")
    words = " ".join(check_text(text).split())
    if not words:
        raise InputError(f"the {what} must be a sentence, {text!r} arrived")
    return words


def framed(model: Model, prompt: str, trusted: bool = False) -> list[int]:
    """The ids of a whole prompt, as the checkpoint frames it.

    Args:
        prompt: the words.
        trusted: whether spelled special tokens count as such.

    Raises:
        TextError: what no tokenizer can take, or more tokens than the network reads.
        CheckpointError: a folder without a tokenizer.
    """
    instructions = instructions_of(model)
    if instructions is None:
        raise UnsupportedTaskError(f"{model.name} has no prompts")
    ids = instructions.encode(model.processor.tokenizer, check_text(prompt), trusted)
    most = _decoder_setting(model, "context_length")
    if most is not None and len(ids) > most:
        raise TextError(
            f"a prompt of {len(ids)} tokens: {model.name} reads at most {most}; shorten it"
        )
    return ids


def write_each(
    model: Model,
    sources: Iterable[Any],
    prompts: Iterable[Sequence[int]],
    options: GenerationOptions,
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[Written | Failed]:
    """One answer (or `Failed`) for each source, in order, while later ones are being decoded.

    Args:
        sources: pictures, or tuples of them.
        prompts: ids from `framed`, as many as sources or more (`itertools.repeat`).
        options: how to write.

    Raises:
        ImageError: with `on_error="raise"`, a picture that cannot be read.
        ConfigError: a batch size below one.
    """

    def write(rows: list[Asked]) -> list[Written]:
        return _written(model, rows, options)

    asked = zip(prompts, strict=False)
    return _in_batches(model, sources, asked, write, batch_size, on_error)


def write_one(
    model: Model, source: Any, prompt: Sequence[int], options: GenerationOptions
) -> Written:
    """The answer to one row; see `write_each`."""
    return _written(model, [Asked(_see(model, source, 0), prompt)], options)[0]


def write_stream(
    model: Model, source: Any, prompt: Sequence[int], options: GenerationOptions
) -> Iterator[str]:
    """The answer to one row in pieces, as they come; joined they are its text.

    The picture is read and mistakes are told at once; the network works while the pieces are taken,
    and closing the iterator stops it.

    Raises:
        ImageError: a picture that cannot be read.
        ConfigError: options with which nothing can be streamed.
    """
    seen = _see(model, source, 0)
    pieces = stream(
        model.network, _prompt(model, [Asked(seen, prompt)]), options, end_ids(model),
        model.processor.tokenizer.decode,
    )  # fmt: skip
    return _spoken(model, pieces)


def score_each(
    model: Model,
    sources: Iterable[Any],
    prompts: Iterable[Sequence[int]],
    texts: Sequence[Sequence[Sequence[int]]],
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[list[Tensor] | Failed]:
    """log p(text, end | pictures, prompt): for each source and each prompt float32[N].

    Args:
        prompts: ids from `framed`; every source is asked all of them.
        texts: for each prompt its N texts as ids, without an end token.

    Raises:
        ImageError: with `on_error="raise"`, a picture that cannot be read.
        ConfigError: a batch size below one.
    """
    asked = list(zip(prompts, texts, strict=True))

    def likelihoods(rows: list[Asked]) -> list[list[Tensor]]:
        every = [Asked(row.seen, *own) for row in rows for own in asked]
        answers: list[Tensor] = []
        for start in range(0, len(every), batch_size):
            answers += _likelihoods(model, every[start : start + batch_size])
        return [answers[at : at + len(asked)] for at in range(0, len(answers), len(asked))]

    return _in_batches(model, sources, repeat(()), likelihoods, batch_size, on_error)


def score_rows(
    model: Model,
    sources: Iterable[Any],
    prompts: Iterable[Sequence[int]],
    texts: Iterable[Sequence[Sequence[int]]],
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[Tensor | Failed]:
    """log p(text, end | pictures, prompt) float32[N] of each row: a source, a prompt and N texts.

    Arguments and errors as in `score_each`.
    """

    def likelihoods(rows: list[Asked]) -> list[Tensor]:
        return _likelihoods(model, rows)

    asked = zip(prompts, texts, strict=False)
    return _in_batches(model, sources, asked, likelihoods, batch_size, on_error)


def _likelihoods(model: Model, rows: Sequence[Asked]) -> list[Tensor]:
    end = model.processor.tokenizer.eos_id
    with without_dropout(model.network):
        scored = score(model.network, _prompt(model, rows), [row.texts for row in rows], end)
    return [torch.tensor([text.total for text in row]) for row in scored]


def end_ids(model: Model) -> set[int]:
    """The tokens that end an answer, by the checkpoint's files, the tokenizer and the config."""
    own = (model.processor.tokenizer.eos_id, _decoder_setting(model, "eos_id"))
    known = (*model.end_ids, *own)
    return {token for token in known if token is not None}


def with_pictures(rows: Iterable[Any], marks: int) -> Iterator[Any]:
    """The same rows, each with as many pictures as its prompt marks; 0 marks fit any number.

    Raises:
        InputError: another number.
    """
    for row in rows:
        parts = row if isinstance(row, tuple) else (row,)
        pictures = sum(FRAMES if as_video(part) else 1 for part in parts)
        if marks and marks != pictures:
            raise InputError(f"a prompt with {marks} pictures in it came with {pictures}")
        yield row


def as_video(source: Any) -> Video | None:
    """The video that a source is, by its kind or by the suffix of its path; None for others."""
    from sightline.inputs.video import VIDEO_SUFFIXES, Video

    if isinstance(source, Video):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return None
    name = os.fspath(source)
    address = name.lower().startswith(("http://", "https://"))
    moving = not address and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES
    return Video(name) if moving else None


def stripped(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of a text without white space at its ends; white space within waits for what comes."""
    begun, held = False, ""
    for piece in pieces:
        text = held + piece if begun else piece.lstrip()
        begun = begun or bool(text)
        kept = text.rstrip()
        held = text[len(kept) :]
        if kept:
            yield kept


def _written(model: Model, rows: list[Asked], options: GenerationOptions) -> list[Written]:
    decode = model.processor.tokenizer.decode
    with without_dropout(model.network):
        found = generate(model.network, _prompt(model, rows), options, end_ids(model), decode)
    return [Written(one, row.seen.sizes) for one, row in zip(found, rows, strict=True)]


def _spoken(model: Model, pieces: Iterator[Piece]) -> Iterator[str]:
    with without_dropout(model.network), closing(pieces):  # type: ignore[type-var]
        yield from stripped(piece.text for piece in pieces)


def _in_batches(
    model: Model,
    sources: Iterable[Any],
    asked: Iterable[tuple[Any, ...]],
    run: Callable[[list[Asked]], Iterable[Row]],
    batch_size: int,
    on_error: OnError,
) -> Iterator[Row | Failed]:
    check_batching(batch_size, on_error)
    decode_options(model)  # a mistake here is none of a picture
    seen = prepared(sources, lambda source, place: _see(model, source, place), 2 * batch_size)
    rows = (
        row if isinstance(row, Failed) else Asked(row, *own)
        for row, own in zip(seen, asked, strict=False)
    )
    return in_batches(rows, run, batch_size, on_error)


def _see(model: Model, source: Any, place: int) -> Seen:
    """The pictures of a row."""
    options = decode_options(model)
    pixels: list[NDArray[np.uint8]] = []
    for one in source if isinstance(source, tuple) else (source,):
        video = as_video(one)
        pixels += (
            [read_named(one, place, options)] if video is None else video.sample(FRAMES).frames
        )
    pictures = tuple(model.processor.images([picture])[0] for picture in pixels)
    return Seen(pictures, tuple((len(picture), picture.shape[1]) for picture in pixels))


def _prompt(model: Model, rows: Sequence[Asked]) -> Prompt:
    """Rows of one batch, padded on the right, where the network is.

    Rows about one picture share its tensor, so that the network looks at it once.
    """
    longest = max(len(row.ids) for row in rows)
    pad = model.processor.tokenizer.pad_id
    ids = torch.tensor([[*row.ids, *[pad] * (longest - len(row.ids))] for row in rows])
    lengths = torch.tensor([len(row.ids) for row in rows])
    mask = torch.arange(longest) < lengths[:, None]
    there = {id(p): p.to(model.device) for row in rows for p in row.seen.pictures}
    pictures = tuple(tuple(there[id(p)] for p in row.seen.pictures) for row in rows)
    return Prompt(ids.to(model.device), mask.to(model.device), pictures)


def _decoder_setting(model: Model, name: str) -> int | None:
    """A number of the part of the config that describes what writes."""
    value = getattr(getattr(model.config, "text", model.config), name, None)
    return value if isinstance(value, int) else None
