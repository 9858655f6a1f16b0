"""`sightline tag FILE...`: every word that fits."""

from __future__ import annotations

from typing import Any

import click

from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call
from sightline.cli.pictures import answer_each, labels_json, labels_row
from sightline.cli.words import word_list
from sightline.core.errors import SightlineError


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--vocabulary", metavar="A,B|@FILE",
              help="Words to try. Default: some 600 everyday words.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(0, 1), metavar="SHARE",
              help="Least score of a tag. Default: by the kind of model.")  # fmt: skip
@click.option("--write-xmp", is_flag=True,
              help="Add the tags to FILE.xmp beside each picture.")  # fmt: skip
@batch_option
@shared_options()
def tag(
    call: Call,
    files: tuple[str, ...],
    vocabulary: str | None,
    threshold: float | None,
    write_xmp: bool,
    batch: int,
) -> int:
    """Find all words that fit each picture; each is scored on its own.

    With --write-xmp the tags go into side-cars that photo programs read; pictures themselves are
    never changed.
    """
    from sightline.tasks.tag import tag_each

    words = None if vocabulary is None else word_list("--vocabulary", vocabulary)
    results = answer_each(
        call,
        "tag",
        files,
        lambda model, sources: tag_each(model, sources, words, threshold, batch, "collect"),
        lambda name, tags: ({"tags": labels_json(tags)}, labels_row(name, tags, len(tags))),
    )
    tagged = [result for result in results if not write_xmp or _write(call, result)]
    call.document({"results": results})
    return call.exit_code(len(tagged))


def _write(call: Call, result: dict[str, Any]) -> bool:
    """Write the side-car of one picture; whether it could be written."""
    from sightline.tasks.xmp import write_tags

    if result["file"].lower().startswith(("http://", "https://")) or not result["tags"]:
        return True
    try:
        sidecar = write_tags(result["file"], [tag["label"] for tag in result["tags"]])
    except (SightlineError, OSError) as error:
        call.fail(result["file"], error)
        return False
    result["sidecar"] = str(sidecar)
    return True
