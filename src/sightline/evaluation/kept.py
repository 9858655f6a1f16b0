"""What a model gave, on disk before it is asked for more, so that a run that was killed goes on.

An answer is kept under a hash of all that it depends on: the model, pixels, and words. Going on
therefore needs no state of a run, and an answer to something else is never taken. `samples.jsonl`
keeps written answers itself (`evaluation.asked`); here are boxes, masks and likelihoods.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sightline.core.errors import DataError
from sightline.core.files import atomic_file
from sightline.core.outputs import Detection, Segment
from sightline.tasks.places import place_json, read_place
from sightline.tasks.segment import mask_codec_of

if TYPE_CHECKING:
    from sightline.tasks.model import Model

FILE = "answers.jsonl"


class Answers:
    """JSON documents by key; in `folder/answers.jsonl`, or in memory alone where there is none."""

    def __init__(self, folder: Path | None = None) -> None:
        self._known: dict[str, Any] = {}
        self._open = ExitStack()
        self._file: Any = None
        if folder is not None:
            self._known = _read(folder / FILE)
            lines = (_line(key, document) for key, document in self._known.items())
            with atomic_file(folder / FILE) as temporary:  # without what was torn
                temporary.write_bytes(b"".join(lines))
            self._file = self._open.enter_context((folder / FILE).open("ab"))

    def get(self, key: str) -> Any:
        """The document of a key; None where there is none."""
        return self._known.get(key)

    def put(self, key: str, document: Any) -> None:
        """Keep a document; it is with the operating system when this returns."""
        self._known[key] = document
        if self._file is not None:
            self._file.write(_line(key, document))
            self._file.flush()

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


def _line(key: str, document: Any) -> bytes:
    return json.dumps({"key": key, "answer": document}).encode() + b"\n"


def _read(path: Path) -> dict[str, Any]:
    """The documents of an earlier run; lines that are torn or say something else are none."""
    found = {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            entry = json.loads(line)
            found[str(entry["key"])] = entry["answer"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def short_key(parts: Any) -> str:
    """Sixteen digits for anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def identity_of(model: Model, settings: Mapping[str, Any]) -> str:
    """What an answer depends on beside pictures and words."""
    known = [model.name, model.revision, str(model.dtype), model.quantize, model.decode]
    return short_key([known, settings, weights_key(model.network)])


def weights_key(network: nn.Module) -> str:
    """Digits that change with the weights.

    Of these only the first numbers of each tensor: no training leaves those alone, and reading all
    of a large model would take longer than some evaluations.
    """
    digest = hashlib.sha256()
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if tensor.layout is torch.strided:  # packed ones cannot be looked into
            first = tensor.detach().reshape(-1)[:64].contiguous().cpu()
            digest.update(first.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def remembering(model: Any, folder: Path | None) -> Iterator[Any]:
    """The model's `detect` and `segment`, asked once for the same pixels and words.

    Args:
        folder: where `answers.jsonl` is continued; None gives the model itself.
    """
    if folder is None:
        yield model
        return
    with Answers(folder) as answers:
        yield _Remembering(model, answers)


class _Remembering:
    def __init__(self, model: Model, answers: Answers) -> None:
        self._model, self._answers = model, answers
        self._identity = identity_of(model, {})
        self._codec: str | None = None

    def detect(self, image: Any, queries: Iterable[str] | None = None) -> list[Detection]:
        named = None if queries is None else list(queries)
        key = self._key("detect", image, named)
        return self._known(key, lambda: self._model.detect(image, named))

    def segment(self, image: Any, queries: Iterable[str] | None = None) -> list[Segment]:
        if self._codec is None:
            self._codec = weights_key(mask_codec_of(self._model))  # type: ignore[arg-type]
        named = None if queries is None else list(queries)
        key = self._key(f"segment {self._codec}", image, named)
        return self._known(key, lambda: self._model.segment(image, named))

    def _key(self, task: str, image: Any, queries: Sequence[str] | None) -> str:
        pixels = np.ascontiguousarray(image)
        shown = hashlib.sha256(pixels.tobytes()).hexdigest()
        return short_key([self._identity, task, pixels.shape, shown, queries])

    def _known(self, key: str, ask: Callable[[], Sequence[Any]]) -> list[Any]:
        kept = self._answers.get(key)
        if isinstance(kept, list):
            with suppress(DataError):  # somebody else's line
                return [read_place(each) for each in kept]
        found = list(ask())
        self._answers.put(key, [place_json(each) for each in found])
        return found
