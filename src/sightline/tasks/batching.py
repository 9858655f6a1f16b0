"""Pictures in a stream, decoded ahead of the network, answered in order and one by one.

A source that cannot be read costs its own answer and nobody else's. Memory holds a few batches of
prepared pixels, never the whole stream and never a whole original.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image

from sightline.core.devices import available_cores
from sightline.core.errors import ConfigError, InputError, SightlineError
from sightline.core.interfaces import PatchBatch, StoredPicture
from sightline.core.pools import dismiss
from sightline.inputs.limits import DEFAULT_OPTIONS, DecodeOptions
from sightline.inputs.naflex import join

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | StoredPicture
OnError = Literal["raise", "collect"]
Pixels: TypeAlias = "Tensor | PatchBatch"
"""Prepared pictures, as the checkpoint's processor makes them."""
Row = TypeVar("Row")
Answer = TypeVar("Answer")


class Failed(NamedTuple):
    """One source of a stream that gave no answer."""

    name: str
    error: SightlineError


def is_single(images: Any) -> bool:
    """Whether this is one picture; anything else that can be walked is a list of pictures.

    Raises:
        InputError: a tuple, which is several pictures of one question.
    """
    if isinstance(images, tuple):
        raise InputError(
            f"a tuple of {len(images)} arrived: a tuple holds several pictures of one question, "
            "which this task does not take; pass a list for one answer per picture"
        )
    if isinstance(images, (str, bytes, os.PathLike, Image.Image, np.ndarray, torch.Tensor)):
        return True
    return not isinstance(images, Iterable)


def as_sources(images: Any) -> Iterable[Any]:
    """One picture or many, as many."""
    return [images] if is_single(images) else images


def as_texts(texts: Any, what: str = "texts") -> list[str]:
    """One sentence or a list of them, as a list.

    Raises:
        InputError: something in it is not a string.
    """
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise InputError(f"{what} must be a list of strings, {type(texts).__name__} arrived")
    listed = list(texts)
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(
                f"{what} must be strings, number {place + 1} is {type(text).__name__}: {text!r}"
            )
    return listed


def source_name(source: Any, place: int) -> str:
    """What to call a source in a message: its path or address, else its kind and place."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, StoredPicture):
        return source.name
    if isinstance(getattr(source, "source", None), (str, os.PathLike)):  # a video
        return os.fspath(source.source)
    if isinstance(source, tuple) and source:  # several pictures of one question
        return ", ".join(source_name(one, number) for number, one in enumerate(source))
    filename = getattr(source, "filename", "") if isinstance(source, Image.Image) else ""
    return str(filename) or f"picture {place + 1} ({type(source).__name__})"


def read_named(source: Any, place: int, options: DecodeOptions = DEFAULT_OPTIONS) -> np.ndarray:
    """The pixels uint8[H, W, 3] of a source; messages call it `source_name`.

    Raises:
        ImageError: it cannot be read.
    """
    from sightline.inputs.images import read_image

    named = isinstance(source, str) or hasattr(source, "__fspath__")
    return read_image(source, options, None if named else source_name(source, place))


def prepared(
    sources: Iterable[Any],
    prepare: Callable[[Any, int], Row],
    ahead: int,
) -> Iterator[Row | Failed]:
    """`prepare(source, place)` for each source, in order, at most `ahead` of them in advance.

    The same tuple several times in a row, as for several questions about its pictures, is prepared
    once; anything else may have changed meanwhile, as an array that a camera fills.

    Every core decodes. On the CPU the network wants them too, but it waits for its first batch,
    and whenever one of its threads waits for another a decoder goes on: two cores embed large
    pictures a tenth faster so than with a single decoding thread.
    """
    numbered = enumerate(sources)
    waiting: deque[tuple[str, Future[Row]]] = deque()
    last: Any = waiting  # no source is this
    pool = ThreadPoolExecutor(available_cores(), thread_name_prefix="decode")
    try:
        while True:
            for place, source in islice(numbered, ahead - len(waiting)):
                if source is not last or not isinstance(source, tuple):
                    last, latest = source, pool.submit(prepare, source, place)
                waiting.append((source_name(source, place), latest))
            if not waiting:
                return
            name, future = waiting.popleft()
            try:
                yield future.result()
            except SightlineError as error:
                yield Failed(name, error)
    finally:
        dismiss(pool)


def in_batches(
    rows: Iterator[Row | Failed],
    run: Callable[[list[Row]], Iterable[Answer]],
    batch_size: int,
    on_error: OnError,
) -> Iterator[Answer | Failed]:
    """`run` over `batch_size` rows at a time; one answer or `Failed` each, in order."""
    while True:
        chunk = list(_take(rows, batch_size, on_error))
        if not chunk:
            return
        readable = [row for row in chunk if not isinstance(row, Failed)]
        answers = iter(run(readable) if readable else ())
        for row in chunk:
            yield row if isinstance(row, Failed) else next(answers)


def joined(pictures: Sequence[Pixels]) -> Pixels:
    """Batches of one as one batch; pictures in patches are padded to the longest."""
    if isinstance(pictures[0], PatchBatch):
        return join([picture for picture in pictures if isinstance(picture, PatchBatch)])
    return torch.cat([picture for picture in pictures if not isinstance(picture, PatchBatch)])


def _take(
    rows: Iterator[Row | Failed], batch_size: int, on_error: OnError
) -> Iterator[Row | Failed]:
    """Rows until `batch_size` of them are readable: failures do not thin the batches."""
    readable = 0
    # Failures alone may not grow without bound either: a folder of text files is a long one.
    for row in islice(rows, 8 * batch_size):
        if isinstance(row, Failed) and on_error == "raise":
            raise row.error
        yield row
        readable += not isinstance(row, Failed)
        if readable == batch_size:
            return


def check_batching(batch_size: int, on_error: str) -> None:
    """Raises `ConfigError` for a batch size below one or an unknown way to treat errors."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    if on_error not in ("raise", "collect"):
        raise ConfigError(f"on_error must be 'raise' or 'collect', not {on_error!r}")


def split_failures(
    answers: Iterable[Tensor | Failed],
) -> tuple[list[Tensor], list[int], list[Failed]]:
    """Answers, the places they belong to, and what failed."""
    rows: list[Tensor] = []
    places: list[int] = []
    failed: list[Failed] = []
    for place, answer in enumerate(answers):
        if isinstance(answer, Failed):
            failed.append(answer)
        else:
            rows.append(answer)
            places.append(place)
    return rows, places, failed


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
