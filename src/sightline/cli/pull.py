"""`sightline pull NAME`: fetch a model now, use it offline later."""

from __future__ import annotations

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call


@click.command()
@click.argument("name", required=False)
@click.option("--revision", metavar="REV", help="Branch, tag or commit.")
@click.option("--allow-pickle", is_flag=True,
              help="Also fetch weights that exist only as a pickle.")  # fmt: skip
@shared_options(adapter=False)
def pull(call: Call, name: str | None, revision: str | None, allow_pickle: bool) -> int:
    """Fetch a model from the hub into its cache; files that are there already are kept.

    A line with licence and size comes first. Code is never fetched.
    """
    from sightline.hub.download import download
    from sightline.hub.names import resolve

    wanted = name or call.model_name
    if wanted is None:
        raise click.UsageError("give the NAME of a model; 'sightline models' lists the known ones")
    place = resolve(wanted)
    call.model = place.name
    if place.folder is not None:
        if revision is not None:
            raise click.UsageError(f"--revision belongs to hub models; {place.name} is a folder")
        folder = place.folder
        call.note(f"{place.name} is on this machine already")
    else:
        folder = download(place.name, revision, allow_pickle=allow_pickle)
    call.line(str(folder))
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    call.document({"folder": str(folder), "revision": revision, "files": files})
    return 0
