"""`sightline index remove|info|repair|recall`: the care of an index."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli.indexes import index_option, open_index
from sightline.cli.options import shared_options
from sightline.cli.output import FAILED, Call
from sightline.cli.progress import Meter


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID|PATH...")
@index_option
@shared_options(model=False)
def remove(call: Call, ids: tuple[str, ...], folder: Path) -> int:
    """Take pictures out of an index, by id or path; their files stay."""
    with open_index(call, folder) as index:
        removed = index.remove(ids)
    call.line(f"{folder}: {removed:,} removed")
    call.document({"index": str(folder), "removed": removed})
    return 0 if removed else FAILED


@click.command()
@index_option
@shared_options(model=False)
def info(call: Call, folder: Path) -> int:
    """Describe an index: how many pictures, which model, how it is searched, what is wrong."""
    with open_index(call, folder) as index:
        found = index.info()
    store = found.store
    tuned = store.approximation
    how = "exact: every vector is compared" if tuned is None or not tuned.probes else (
        f"approximate: {tuned.probes:,} of {tuned.partitions:,} partitions, "
        f"recall {tuned.recall:.3f} when it was tuned at {tuned.rows:,} rows"
    )  # fmt: skip
    rows = [
        ("pictures", f"{found.pictures:,}"),
        ("missing", f"{found.missing:,}"),
        ("model", f"{found.model}" + (f" ({found.revision})" if found.revision else "")),
        ("numbers a vector", str(store.dim)),
        ("preprocessing", found.preprocessing),
        ("search", how),
        ("version", str(store.version)),
        ("on disk", f"{store.bytes / 1e6:,.1f} MB"),
        *(("damage", reason) for reason in store.damage),
    ]
    call.table(("what", "value"), rows)
    call.document(found.to_json())
    return 0


@click.command()
@index_option
@shared_options(model=False)
def repair(call: Call, folder: Path) -> int:
    """Read every row, and step back from a newest state that is broken.

    What is broken is moved to DIR/broken and not deleted. Pictures that were added in it have to be
    added again: run the same `index add`.
    """
    from sightline.search.repair import repair as repaired

    found = repaired(folder)
    for reason in found.set_aside:
        call.line(f"{reason}: moved to {folder / 'broken'}")
    state = "all is well" if not found.set_aside else "run the same index add again"
    call.line(f"{folder}: version {found.version}, {found.rows:,} rows: {state}")
    call.document(
        {
            "index": str(folder),
            "version": found.version,
            "rows": found.rows,
            "set_aside": found.set_aside,
        }
    )
    return 0


@click.command()
@index_option
@click.option("--sample", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
              help="Pictures whose neighbours are looked for.")  # fmt: skip
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True,
              help="Neighbours of each.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample.")
@shared_options(model=False)
def recall(call: Call, folder: Path, sample: int, k: int, seed: int) -> int:
    """Measure how many of the true nearest pictures a search finds.

    Some pictures of the index are searched for as `index search --like` does it, and compared with
    the answers of an exact search.
    """
    from sightline.search.recall import measure_recall

    with open_index(call, folder) as index, Meter(call, "searches") as meter:
        found = measure_recall(index.store, sample, k, seed, meter.update)
    how = "approximate" if found.approximate else "exact"
    call.line(
        f"recall at {found.k}: {found.mean:.4f} over {found.sampled:,} searches, at worst "
        f"{found.worst:.2f} (the index is searched {how})"
    )
    call.document(
        {
            "index": str(folder),
            "k": found.k,
            "sampled": found.sampled,
            "recall": found.mean,
            "worst": found.worst,
            "approximate": found.approximate,
        }
    )
    return 0
