"""`sightline index search "text" --index DIR`, and pictures that are nearly the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.indexes import found_json, index_option, open_index, where_option, with_model
from sightline.cli.options import shared_options
from sightline.cli.output import Call, one_line
from sightline.cli.pictures import write_hits
from sightline.cli.progress import Meter
from sightline.cli.thumbnails import show_thumbnail

if TYPE_CHECKING:
    from sightline.tasks.index import Index
    from sightline.tasks.index_answers import Alike, Found

SHOWN = 20


@click.command()
@click.argument("text", required=False)
@click.option("--image", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Search by a picture instead of a text.")  # fmt: skip
@click.option("--like", metavar="ID",
              help="More like this one of the index, by its id or path.")  # fmt: skip
@index_option
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True,
              help="Hits to show.")  # fmt: skip
@where_option
@click.option("--exact", is_flag=True, help="Compare every vector, however many there are.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG",
              help="Write the hits as a contact sheet.")  # fmt: skip
@shared_options()
def search(
    call: Call,
    text: str | None,
    image: str | None,
    like: str | None,
    folder: Path,
    k: int,
    where: str | None,
    exact: bool,
    sheet: Path | None,
) -> int:
    """Search an index by words, by a picture, or for more like one of its pictures.

    \b
    sightline index search "orange cat" --index DIR
    sightline index search --image x.jpg --index DIR
    sightline index search --like ID --index DIR
    sightline index search "a boat" --index DIR --where 'width>=640 and added>=2026-01-01'

    Filters know path, name, folder (the name of the folder a picture lies in), format, width,
    height, bytes, modified, added, missing and digest; = != < <= > >= compare, ~ finds a part of a
    text (* and ? stand for others), 'in (a, b)' lists, and, or, not and parentheses join.

    Terminals that can (kitty, iTerm2, WezTerm, foot and others) show the pictures.
    """
    if [text, image, like].count(None) != 2:
        raise click.UsageError("say what to search for: a text, or --image FILE, or --like ID")
    with open_index(call, folder) as index:
        if like is not None:
            hits = index.like(like, k, where)
        else:
            hits = _asked(with_model(call, index), text, image, k, where, exact)
    if sheet is not None and hits:
        shown = [(hit.path, hit.fields["name"], hit.score) for hit in hits]
        write_hits(sheet, shown, text or f"like {image or like}")
        call.note(f"wrote {sheet}")
    for hit in hits:
        call.line(f"{hit.score:.3f}\t{hit.id}\t{one_line(hit.path)}")
        show_thumbnail(call, hit.path)
    query = {"text": text} if text is not None else {"image": image} if image else {"like": like}
    call.document({"query": query, "k": k, "where": where, "hits": [*map(found_json, hits)]})
    return 0


@click.command()
@index_option
@click.option("--threshold", type=click.FloatRange(-1, 1), default=0.97, show_default=True,
              help="Cosine from which two pictures are nearly the same.")  # fmt: skip
@where_option
@shared_options(model=False)
def duplicates(call: Call, folder: Path, threshold: float, where: str | None) -> int:
    """Find pictures of an index that are nearly the same, by their vectors.

    Every pair is compared. Nothing is removed: `index remove` takes ids or paths.
    """
    with open_index(call, folder) as index, Meter(call) as meter:
        pairs = index.duplicates(threshold, where, meter.update)
    groups = _groups(pairs)
    for group in groups[:SHOWN]:
        call.line("\t".join(one_line(path) for path in group))
    if len(groups) > SHOWN:
        call.note(f"{len(groups) - SHOWN:,} more groups: --json has them all")
    call.note(f"{len(pairs):,} pairs in {len(groups):,} groups with a cosine of {threshold:g}")
    listed = [pair._asdict() for pair in pairs]
    call.document({"threshold": threshold, "groups": groups, "pairs": listed})
    return 0


def _asked(
    index: Index, text: str | None, image: str | None, k: int, where: str | None, exact: bool
) -> list[Found]:
    if text is not None:
        return index.search(text, k, where, "text", exact)
    assert image is not None
    return index.search(Path(image), k, where, "image", exact)


def _groups(pairs: Sequence[Alike]) -> list[list[str]]:
    """Paths that a chain of pairs connects, in the order of their names."""
    import numpy as np

    from sightline.data.curation.groups import DisjointSets

    paths = sorted({path for pair in pairs for path in (pair.left, pair.right)})
    places = {path: place for place, path in enumerate(paths)}
    sets = DisjointSets(len(paths))
    left, right = [places[pair.left] for pair in pairs], [places[pair.right] for pair in pairs]
    sets.join(np.asarray(left, np.int64), np.asarray(right, np.int64))
    return [[paths[place] for place in group] for group in sets.groups()]
