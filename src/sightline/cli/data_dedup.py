"""`sightline data dedup PATH`: copies within a data set, or test pictures that training has."""

from __future__ import annotations

from collections.abc import Sequence
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
from sightline.cli.output import DONE, FAILED, SOME_FAILED, Call, one_line

if TYPE_CHECKING:
    from sightline.data.curation.duplicates import Duplicates
    from sightline.data.curation.leaks import Leaks
    from sightline.data.records import Dataset

SHOWN = 20


@click.command()
@source_options
@click.option("--against", metavar="PATH", help="Look for the pictures of this test set in PATH.")
@click.option("--against-split", metavar="NAME", help="Only this part of the test set.")
@matching_options("bytes,pixels,dhash, with --against also mirror")
@click.option("--keep", type=click.Choice(["largest", "first"]), default="largest",
              show_default=True, help="Which picture of a group stays.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write what stays of PATH as JSON lines.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@shared_options()
def dedup(
    call: Call,
    source: Source,
    against: str | None,
    against_split: str | None,
    matching: Matching,
    keep: str,
    out: Path | None,
    overwrite: bool,
) -> int:
    """Find pictures that are there twice, or test pictures that training has seen.

    Exact copies (bytes, pixels) and near ones: JPEG again, another size, brighter, a little
    cropped (dhash), flipped (mirror), the same motif to a model (embedding). One picture of each
    group stays, the largest, then the first. Nothing is deleted: FILE lists what stays.

    With --against PATH is the training set. Exit code 1 when a picture of the test set is found in
    it, also where --out writes the training set without them: run again on FILE to see 0.
    """
    check_free(out, overwrite)
    if against_split is not None and against is None:
        raise click.UsageError("--against-split belongs to --against")
    if against is None:
        return _duplicates(call, source, matching, keep, out, overwrite)
    test = replace(source, path=against, format=None, split=against_split, images=None)
    return _leaks(call, source, test, matching, out, overwrite)


def _duplicates(
    call: Call, source: Source, matching: Matching, keep: str, out: Path | None, overwrite: bool
) -> int:
    from sightline.data.curation.duplicates import DEFAULT_METHODS, find_duplicates
    from sightline.data.curation.matching import check_methods

    methods = DEFAULT_METHODS if matching.methods is None else matching.methods
    check_methods(methods, vectors=True)
    dataset = source.open(listed=out is not None)
    evidence = gather(call, dataset, matching, methods)
    found = find_duplicates(evidence, methods, matching.thresholds, keep)  # type: ignore[arg-type]
    _show_groups(call, found)
    written = _write(call, dataset, found.kept, out, overwrite)
    call.document({**found.to_json(), **written})
    return call.exit_code(len(dataset) - len(call.failed))


def _leaks(
    call: Call, source: Source, against: Source, matching: Matching, out: Path | None,
    overwrite: bool,
) -> int:  # fmt: skip
    from sightline.data.curation.leaks import DEFAULT_METHODS, find_leaks
    from sightline.data.curation.matching import check_methods

    methods = DEFAULT_METHODS if matching.methods is None else matching.methods
    check_methods(methods, vectors=True)
    train, test = source.open(listed=out is not None), against.open()
    seen = gather(call, train, matching, methods)
    asked = gather(call, test, matching, methods)
    found = find_leaks(seen, asked, methods, matching.thresholds)
    _show_leaks(call, found)
    gone = {*found.train, *seen.prints.broken}
    stay = [number for number in range(len(train)) if number not in gone]
    written = _write(call, train, stay, out, overwrite)
    call.document({**found.to_json(), **written})
    if found.pairs:
        return FAILED
    return SOME_FAILED if call.failed else DONE


def _show_groups(call: Call, found: Duplicates) -> None:
    for group in found.groups[:SHOWN]:
        copies = [found.ids[m] for m in group.members if m != group.kept]
        shown = ", ".join(one_line(id) for id in copies[:5])
        more = f" and {len(copies) - 5} more" if len(copies) > 5 else ""
        kept = one_line(found.ids[group.kept])
        call.line(f"{kept}\t{shown}{more}\t{', '.join(group.methods)}")
    if len(found.groups) > SHOWN:
        call.note(f"{len(found.groups) - SHOWN:,} more groups: --json has them all")
    by_method = ", ".join(f"{method} {count:,}" for method, count in found.by_method.items())
    call.note(
        f"{len(found.removed):,} of {len(found.ids):,} pictures are another one again, in "
        f"{len(found.groups):,} groups ({by_method})"
    )


def _show_leaks(call: Call, found: Leaks) -> None:
    for leak in found.pairs[:SHOWN]:
        test, train = one_line(found.test_ids[leak.test]), one_line(found.train_ids[leak.train])
        call.line(f"{test}\t{train}\t{', '.join(leak.methods)}")
    if len(found.pairs) > SHOWN:
        call.note(f"{len(found.pairs) - SHOWN:,} more leaks: --json has them all")
    call.warn(
        f"{len(found.test):,} of {len(found.test_ids):,} test pictures are among the "
        f"{len(found.train_ids):,} of training"
    )


def _write(
    call: Call, dataset: Dataset, numbers: Sequence[int], out: Path | None, overwrite: bool
) -> dict[str, object]:
    from sightline.data.curation.listing import write_listing

    if out is None:
        return {}
    count = write_listing((dataset[number] for number in numbers), out, overwrite)
    call.note(f"wrote {count:,} records to {out}")
    return {"out": str(out), "written": count}
