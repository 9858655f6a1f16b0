"""What the commands share that find things: arguments, rows, pictures with what was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from sightline.cli.output import Call, one_line
from sightline.cli.pictures import Source
from sightline.tasks.abilities import PLACE_SCORES

REPORT = "report.html"


def place_options(function: Callable[..., int]) -> Callable[..., int]:
    """--queries, --score and --out."""
    for option in (
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                     help="Write each picture with what was found in it, and a report, there."),
        click.option("--score", type=click.Choice(PLACE_SCORES),
                     help="Of a place: the mean or the product of its tokens' probabilities. "
                     "Default: geometric."),
        click.option("--queries", metavar="A,B|@FILE",
                     help="What to look for. Default: everything that the model can name."),
    ):  # fmt: skip
        function = option(function)
    return function


def place_rows(name: str, things: Sequence[Any]) -> str:
    """A row for each thing: file, label, score, box; a dash where nothing was found."""
    rows = [
        f"{one_line(name)}\t{one_line(thing.label) or '-'}\t{thing.score:.3f}\t"
        + ",".join(f"{side:.1f}" for side in thing.box)
        for thing in things
    ]
    return "\n".join(rows) or f"{one_line(name)}\t-"


def write_found(call: Call, out: Path, found: Sequence[tuple[Source, Sequence[Any]]]) -> None:
    """The pictures with what was found in them, and a page with all of them."""
    from sightline.core.files import atomic_file
    from sightline.inputs.images import read_image
    from sightline.tasks.marked import marked, marked_item
    from sightline.tasks.report import Report

    out.mkdir(parents=True, exist_ok=True)
    items = []
    for (source, things), target in zip(found, _targets(out, found), strict=True):
        pixels = read_image(source)
        with atomic_file(target) as temporary:
            marked(pixels, things).save(temporary, format="PNG")
        items.append(marked_item(pixels, things, Path(source).name))
    total = sum(len(things) for _, things in found)
    page = Report("Found", f"{total} in {len(found)} pictures, by {call.model}")
    page.gallery(items).write(out / REPORT)
    call.note(f"wrote {out / REPORT}")


def _targets(out: Path, found: Sequence[tuple[Source, Any]]) -> Iterator[Path]:
    """A name of its own for each picture; never that of a picture that was given."""
    taken = {os.path.abspath(source).casefold() for source, _ in found}
    for source, _ in found:
        stem = Path(source).stem or "picture"
        target, number = out / f"{stem}.png", 1
        while os.path.abspath(target).casefold() in taken:
            number += 1
            target = out / f"{stem}-{number}.png"
        taken.add(os.path.abspath(target).casefold())
        yield target
