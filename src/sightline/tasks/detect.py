"""Named boxes, by a model that writes places.

What it writes is parsed (`inputs.location_tokens`) and scaled to the original picture. A model that
writes gives no confidence; the score of a box is made of the probabilities with which the tokens of
its place and of its label were written:

    "geometric"   exp(mean of log p), the default: lengths of labels do not matter
    "product"     exp(sum of log p), the probability of exactly these tokens

Neither is calibrated. Boxes stay in the order in which they were written, equal ones too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from sightline.core.errors import ConfigError, InputError, unknown_name
from sightline.core.outputs import Detection
from sightline.generation.pieces import TextPieces
from sightline.hub.bundled import read_card
from sightline.inputs.grounded_text import Place, plain
from sightline.inputs.location_tokens import parse_paligemma
from sightline.tasks.abilities import DEEDS, PLACE_SCORES
from sightline.tasks.batching import Failed, OnError
from sightline.tasks.prompted import checked_labels
from sightline.tasks.writing import (
    BATCH,
    Written,
    as_rows,
    as_video,
    framed,
    one_line,
    read_task_options,
    require_writer,
    write_each,
)

if TYPE_CHECKING:
    from sightline.generation.answers import Generated
    from sightline.tasks.model import Model

PARSERS = {"paligemma": parse_paligemma}
"""What reads the answers of a family, by `Instructions.places`."""
MOST = {"detect": 512, "segment": 1024}
"""The longest answer in tokens, where nobody says another."""
EVERYTHING = "everything"
"""In a model's card: what it is asked for when nobody says what to look for."""


class Found(NamedTuple):
    """What one answer names."""

    places: list[Place]
    scores: list[float]
    invalid: int
    """Beginnings of places that were not well formed."""
    size: tuple[int, int]
    """(H, W) of the original picture."""
    text: str
    """The answer as it was written."""


def detect_each(
    model: Model,
    images: Any,
    queries: Iterable[str] | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[list[Detection] | Failed]:
    """The boxes of each picture in order, in pixels of the original.

    Args:
        queries: what to look for, untrusted; None is everything that the model can name, where its
            card says how it is asked for that.
        options: `score` ("geometric" or "product"), and those of `generation.options`.

    Raises:
        UnsupportedTaskError: the model finds no boxes.
        InputError: queries that cannot be used, or none where the model needs some.
        ConfigError: an option that does not exist or does not fit.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
    """
    found = find_each(model, "detect", images, queries, options, batch_size, on_error)
    return (one if isinstance(one, Failed) else detections(one) for one in found)


def detections(found: Found) -> list[Detection]:
    """The boxes of an answer as plain values."""
    return [
        Detection(place.label, score, place.box)
        for place, score in zip(found.places, found.scores, strict=True)
        if place.box is not None
    ]


def find_each(
    model: Model,
    task: str,
    images: Any,
    queries: Iterable[str] | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[Found | Failed]:
    """What the answers to "detect" or "segment" name, with all that was wrong in them.

    Arguments and errors as `detect_each`.
    """
    instructions = require_writer(model, task, DEEDS[task])
    rest = dict(options or {})
    rule = rest.pop("score", PLACE_SCORES[0])
    if rule not in PLACE_SCORES:
        raise ConfigError(unknown_name("score", str(rule), PLACE_SCORES))
    how = read_task_options(rest, MOST[task])
    names = _names(model, queries)
    ask = instructions.detection if task == "detect" else instructions.segmentation
    ids = framed(model, ask(names))
    parse = PARSERS[instructions.places]
    label = names[0] if len(names) == 1 else ""
    written = write_each(model, _single(as_rows(images)), repeat(ids), how, batch_size, on_error)

    def read(answer: Written) -> Found:
        text = answer.generated.text or ""
        places, invalid = parse(text, answer.sizes[0])
        scores = place_scores(model, answer.generated, places, how.stop, rule)
        named = [place if place.label else place._replace(label=label) for place in places]
        return Found(named, scores, invalid, answer.sizes[0], text)

    return (one if isinstance(one, Failed) else read(one) for one in written)


def place_scores(
    model: Model,
    generated: Generated,
    places: Sequence[Place],
    stop: tuple[str, ...] = (),
    rule: str = PLACE_SCORES[0],
) -> list[float]:
    """The score of each place of an answer, made of the probabilities of its tokens."""
    pieces = TextPieces(model.processor.tokenizer.decode, stop)
    ends: list[int] = []
    for token in generated.ids:
        pieces.push(token)
        ends.append(len(pieces.text))
    pieces.close()  # what was held back belongs to the last token
    ends[-1:] = [len(pieces.text)] if ends else []
    starts = [0, *ends[:-1]]
    scores = []
    for place in places:
        parts = [place.span, place.label_span]
        own = [
            logprob
            for start, end, logprob in zip(starts, ends, generated.logprobs, strict=True)
            if any(start < stop_at and end > begin for begin, stop_at in parts)
        ]
        total = math.fsum(own)
        scores.append(math.exp(total if rule == "product" else total / max(len(own), 1)))
    return scores


def _names(model: Model, queries: Iterable[str] | None) -> list[str]:
    """What to look for, on one line each and without what parts names."""
    if queries is not None:
        words = [one_line(name, "query") for name in checked_labels(queries, "queries")]
        plainly = [plain(word) for word in words]
        if not all(plainly):
            raise InputError(f"queries must be words, {words[plainly.index('')]!r} arrived")
        return plainly
    known = read_card(model.folder).get(EVERYTHING)
    if isinstance(known, list) and known and all(isinstance(name, str) for name in known):
        return list(known)
    raise InputError(
        f"{model.name} does not say what it can name: give queries (--queries cat,dog, or "
        'queries=["cat", "dog"])'
    )


def _single(rows: Iterable[Any]) -> Iterator[Any]:
    """Rows of one picture each: a box belongs to one."""
    for row in rows:
        if isinstance(row, tuple) or as_video(row):
            what = f"a tuple of {len(row)}" if isinstance(row, tuple) else "a video"
            raise InputError(
                f"{what} arrived: places belong to one picture; pass a list for one answer per "
                "picture"
            )
        yield row
