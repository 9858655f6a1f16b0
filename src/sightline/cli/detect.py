"""`sightline detect FILE... --queries a,b`: named boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sightline.cli.generation import generation_options
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call
from sightline.cli.pictures import answer_each
from sightline.cli.places import place_options, place_rows, write_found
from sightline.cli.words import word_list


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@place_options
@batch_option
@generation_options
@shared_options()
def detect(
    call: Call,
    files: tuple[str, ...],
    queries: str | None,
    score: str | None,
    out: Path | None,
    batch: int,
    options: dict[str, Any],
) -> int:
    """Find things in each picture: label, score, and box in pixels of the picture.

    A box is x1,y1,x2,y2; the last two are exclusive. A folder stands for its pictures. Scores are
    made of the probabilities of what the model wrote; they are not calibrated.
    """
    from sightline.tasks.detect import detect_each
    from sightline.tasks.places import place_json

    names = None if queries is None else word_list("--queries", queries)
    if score is not None:
        options = {**options, "score": score}
    found: list[tuple[str, Any]] = []

    def shown(name: str, things: Any) -> tuple[dict[str, Any], str]:
        found.append((name, things))
        return {"detections": [place_json(thing) for thing in things]}, place_rows(name, things)

    results = answer_each(
        call,
        "detect",
        files,
        lambda model, sources: detect_each(model, sources, names, options, batch, "collect"),
        shown,
    )
    if out is not None and found:
        write_found(call, out, found)
    call.document({"queries": names, "out": None if out is None else str(out), "results": results})
    return call.exit_code(len(results))
