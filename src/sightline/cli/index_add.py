"""`sightline index add FOLDER --index DIR`: pictures into an index, or the index up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.indexes import TASK, index_option, open_index, with_model
from sightline.cli.loading import load_model
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.tasks.index import Index
    from sightline.tasks.index_answers import Added


@click.command()
@click.argument("pictures", nargs=-1, required=True, metavar="FOLDER|FILE...")
@index_option
@batch_option
@shared_options()
def add(call: Call, pictures: tuple[str, ...], folder: Path, batch: int) -> int:
    """Add the pictures of folders to an index; make the index where there is none.

    Run it again whenever pictures have changed: those of the same size and time are passed over,
    others are embedded again, and those that are gone are marked as missing. If it is interrupted,
    even by a power cut, running it again goes on.
    """
    with _opened(call, folder) as index, Meter(call) as meter:
        report = index.add(list(pictures), batch, meter.update, call.note)
    for failed in report.failed:
        call.fail(failed.name, failed.error)
    _say(call, report, folder)
    call.document(
        {
            "index": str(folder),
            "pictures": report.pictures,
            "added": report.added,
            "changed": report.changed,
            "unchanged": report.unchanged,
            "missing": report.missing,
        }
    )
    return call.exit_code(report.pictures)


def _opened(call: Call, folder: Path) -> Index:
    from sightline.search.opening import store_exists
    from sightline.tasks.index import Index

    if store_exists(folder):
        return with_model(call, open_index(call, folder))
    return Index.open(folder, load_model(call, TASK))


def _say(call: Call, report: Added, folder: Path) -> None:
    counts = {
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "now missing": report.missing,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    call.line(f"{folder}: {told or 'nothing to add'}")
