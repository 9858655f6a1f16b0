"""`sightline segment FILE... --queries a,b`: named masks."""

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
@click.option("--codec", metavar="NAME",
              help="Folder of a mask codec. Default: the one beside the model.")  # fmt: skip
@batch_option
@generation_options
@shared_options()
def segment(
    call: Call,
    files: tuple[str, ...],
    queries: str | None,
    score: str | None,
    out: Path | None,
    codec: str | None,
    batch: int,
    options: dict[str, Any],
) -> int:
    """Cut things out of each picture: label, score, box and mask.

    Rows are those of detect; --json has each mask as COCO's run lengths, of the picture's size.
    """
    from sightline.tasks.places import place_json
    from sightline.tasks.segment import segment_each

    names = None if queries is None else word_list("--queries", queries)
    if score is not None:
        options = {**options, "score": score}
    found: list[tuple[str, Any]] = []

    def shown(name: str, things: Any) -> tuple[dict[str, Any], str]:
        found.append((name, things))
        return {"segments": [place_json(thing) for thing in things]}, place_rows(name, things)

    results = answer_each(
        call,
        "segment",
        files,
        lambda model, sources: segment_each(
            model, sources, names, options, codec, batch, "collect"
        ),
        shown,
    )
    if out is not None and found:
        write_found(call, out, found)
    call.document({"queries": names, "out": None if out is None else str(out), "results": results})
    return call.exit_code(len(results))
