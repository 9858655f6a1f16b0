"""The pictures of a command: from arguments to sources, and one answer for each of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.cli.loading import load_model
from sightline.cli.output import one_line
from sightline.cli.progress import Meter
from sightline.core.errors import DataError

if TYPE_CHECKING:
    from sightline.cli.output import Call
    from sightline.tasks.embeddings import Embeddings
    from sightline.tasks.model import Model

Source = str | Path


def expand(call: Call, arguments: Sequence[str]) -> list[Source]:
    """Files and addresses as they are, a folder as its pictures.

    A folder without pictures is noted as failed. A file that does not exist stays, so that its
    reader says what is wrong with it.
    """
    from sightline.inputs.folders import find_images

    sources: list[Source] = []
    for argument in arguments:
        if not os.path.isdir(argument):
            address = argument.lower().startswith(("http://", "https://"))
            sources.append(argument if address else Path(argument))
            continue
        try:
            sources += find_images(argument)
        except DataError as error:
            call.fail(argument, error)
    return sources


def answer_each(
    call: Call,
    task: str,
    arguments: Sequence[str],
    ask: Callable[[Model, list[Source]], Iterable[Any]],
    shown: Callable[[str, Any], tuple[dict[str, Any], str]],
) -> list[dict[str, Any]]:
    """`answer_sources` for files, folders and addresses."""
    return answer_sources(call, task, expand(call, arguments), ask, shown)


def answer_sources(
    call: Call,
    task: str,
    sources: list[Source],
    ask: Callable[[Model, list[Source]], Iterable[Any]],
    shown: Callable[[str, Any], tuple[dict[str, Any], str]],
    speak: Callable[[Model, Source], Iterable[str]] | None = None,
) -> list[dict[str, Any]]:
    """Ask a model about each picture; rows are printed as they come, failures are named.

    Args:
        call: the call.
        task: the task's name, for the default model.
        sources: from `expand`.
        ask: one answer, or `Failed`, for each source in order.
        shown: a picture's name and its answer, to the fields of its JSON and its printed row.
        speak: the answer to a single picture in pieces, which are printed as they come where a
            person sits before a terminal.

    Returns:
        The JSON of each answer.
    """
    results: list[dict[str, Any]] = []
    if not sources:
        return results
    model = load_model(call, task)
    if speak is not None and call.drawn and len(sources) == 1:
        text = call.pieces(speak(model, sources[0]))
        return [{"file": os.fspath(sources[0]), "text": text}]
    for name, answer in answers(call, sources, ask(model, sources), beside_rows=True):
        fields, row = shown(name, answer)
        results.append({"file": name, **fields})
        call.line(row)
    return results


def answers(
    call: Call, sources: Sequence[Source], stream: Iterable[Any], beside_rows: bool = False
) -> Iterator[tuple[str, Any]]:
    """Name and answer of each source that could be read; the others are noted as failed."""
    from sightline.tasks.batching import Failed

    with Meter(call, beside_rows=beside_rows) as meter:
        for place, (source, answer) in enumerate(zip(sources, stream, strict=True), start=1):
            meter.update(place, len(sources))
            if isinstance(answer, Failed):
                call.fail(source, answer.error)
            else:
                yield os.fspath(source), answer


def embed_pictures(call: Call, model: Model, sources: Sequence[Source], batch: int) -> Embeddings:
    """The vectors of the pictures that could be read, named by their files."""
    import torch

    from sightline.tasks.embed import embed_each, embedding_width
    from sightline.tasks.embeddings import Embeddings, preprocessing_digest, probe

    found = list(answers(call, sources, embed_each(model, sources, batch, "collect")))
    vectors = [vector for _, vector in found]
    return Embeddings(
        ids=tuple(name for name, _ in found),
        vectors=torch.stack(vectors) if vectors else torch.empty(0, embedding_width(model)),
        kind="image",
        model=str(model.name),
        revision=model.revision,
        preprocessing=preprocessing_digest(model),
        probe=probe(model),
    )


def write_hits(path: Path, hits: Sequence[tuple[str, str, float]], title: str) -> None:
    """A contact sheet of hits (file, caption, score); the best score is a full bar."""
    from sightline.tasks.sheets import SheetItem, write_sheet

    best = max(score for _, _, score in hits)
    items = [SheetItem(*hit) for hit in hits]
    write_sheet(path, items, title=title, score_range=(0.0, best if best > 0 else 1.0))


def text_row(name: str, text: str, sources: Sequence[Source]) -> str:
    """One row: the text, behind the file where there are several."""
    return f"{one_line(name)}\t{one_line(text)}" if len(sources) > 1 else text


def labels_json(labels: Iterable[Any]) -> list[dict[str, Any]]:
    """Labels with their scores as JSON objects."""
    return [{"label": label.label, "score": label.score} for label in labels]


def labels_row(name: str, labels: Sequence[Any], most: int) -> str:
    """One row: the file, then the best labels with their scores."""
    best = ", ".join(f"{label.label} {label.score:.3f}" for label in labels[:most])
    return f"{one_line(name)}\t{best or '-'}"
