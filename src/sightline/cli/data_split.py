"""`sightline data split PATH --parts train=0.8,val=0.1,test=0.1 --out FILE`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.data_sets import (
    Matching,
    Source,
    check_free,
    gather,
    matching_options,
    source_options,
)
from sightline.cli.options import shared_options
from sightline.cli.output import Call

if TYPE_CHECKING:
    from sightline.data.records import Dataset


@click.command()
@source_options
@click.option("--parts", default="train=0.8,val=0.1,test=0.1", show_default=True, metavar="LIST",
              help="Fractions, counts (test=500), and at most one rest (train=rest).")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, another split.")
@click.option("--group-by", metavar="COLUMN",
              help="Records with one value here stay together.")  # fmt: skip
@click.option("--no-stratify", is_flag=True, help="Do not balance the labels.")
@matching_options("bytes,pixels,dhash,mirror")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              required=True, help="Write all records with their part as JSON lines.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@shared_options()
def split(
    call: Call,
    source: Source,
    parts: str,
    seed: int,
    group_by: str | None,
    no_stratify: bool,
    matching: Matching,
    out: Path,
    overwrite: bool,
) -> int:
    """Part a data set so that no picture, and no group, is on two sides.

    Copies are looked for as `data dedup --against` does and stay together (--methods none leaves
    that out, and decodes nothing). Labels are balanced over the parts. The result depends on ids
    and seed, not on the order of the records, and no record is lost: pictures that cannot be read
    are parted too.
    """
    from sightline.data.curation.listing import write_listing
    from sightline.data.curation.splitting import group_values, parse_parts, split_records

    check_free(out, overwrite)
    shares = parse_parts(parts)
    dataset = source.open(listed=True)
    copies = _copies(call, matching, dataset)
    groups = group_values(dataset.records, group_by) if group_by else None
    names = split_records(dataset.records, shares, seed, copies, groups, not no_stratify)
    labelled = [replace(r, split=name) for r, name in zip(dataset, names, strict=True)]
    count = write_listing(labelled, out, overwrite)
    counts = Counter(names)
    call.table(("part", "records"), [(name, f"{counts[name]:,}") for name in shares])
    call.note(f"wrote {count:,} records to {out}; {len(copies):,} groups of copies stay together")
    call.document(
        {
            "out": str(out),
            "records": count,
            "parts": {name: counts[name] for name in shares},
            "copies_together": len(copies),
            "seed": seed,
        }
    )
    return call.exit_code(count)


def _copies(call: Call, matching: Matching, dataset: Dataset) -> list[tuple[int, ...]]:
    """Groups of records that are the same picture."""
    from sightline.data.curation.duplicates import find_duplicates
    from sightline.data.curation.leaks import DEFAULT_METHODS
    from sightline.data.curation.matching import check_methods

    if matching.methods == ("none",):
        return []
    methods = DEFAULT_METHODS if matching.methods is None else matching.methods
    check_methods(methods, vectors=True)
    evidence = gather(call, dataset, matching, methods)
    found = find_duplicates(evidence, methods, matching.thresholds)
    return [group.members for group in found.groups]
