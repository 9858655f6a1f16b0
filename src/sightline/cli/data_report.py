"""`sightline data report PATH --out page.html`: what a data set is worth, on one page."""

from __future__ import annotations

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
    from sightline.data.curation.quality import Quality


@click.command()
@source_options
@matching_options("bytes,pixels,dhash")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="HTML",
              help="Write a page with the pictures that stand out.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace HTML where it exists.")
@shared_options()
def report(
    call: Call, source: Source, matching: Matching, out: Path | None, overwrite: bool
) -> int:
    """Measure pictures, captions, labels, copies and licences of a data set.

    Sizes, blur, pictures of one colour, copies, vocabulary, balance of the labels, licences; with
    --embeddings also how far the pictures lie apart. Every picture is decoded once.
    """
    from sightline.data.curation.duplicates import DEFAULT_METHODS, find_duplicates
    from sightline.data.curation.matching import check_methods
    from sightline.data.curation.quality import examine
    from sightline.evaluation.quality_page import quality_page

    check_free(out, overwrite)
    methods = DEFAULT_METHODS if matching.methods is None else matching.methods
    check_methods(methods, vectors=True)
    dataset = source.open()
    evidence = gather(call, dataset, matching, methods)
    duplicates = find_duplicates(evidence, methods, matching.thresholds)
    found = examine(dataset, evidence.prints, duplicates, evidence.vectors)
    if out is not None:
        quality_page(found, dataset).write(out)
        call.note(f"wrote {out}")
    call.table(("what", "value"), _rows(found))
    call.document({**found.to_json(), **({"out": str(out)} if out else {})})
    return call.exit_code(len(dataset) - len(call.failed))


def _rows(found: Quality) -> list[tuple[str, str]]:
    rows = [
        ("pictures", f"{found.report.records:,}"),
        ("unreadable", f"{len(found.report.broken):,}"),
        ("copies", f"{len(found.duplicates.removed):,} in {len(found.duplicates.groups):,} groups"),
        ("blurred", f"{found.blurred:,}"),
        ("of one colour", f"{len(found.flat):,}"),
        ("aspect above 3", f"{found.wide:,}"),
    ]
    if found.captions is not None:
        said = found.captions
        rows += [
            ("captions", f"{said.captions:,}, {said.different:,} different"),
            ("vocabulary", f"{said.vocabulary:,} words, {said.once:,} used once"),
        ]
    if found.labels is not None:
        rows.append(
            ("labels", f"{len(found.labels.counts):,}, evenness {found.labels.evenness:.2f}")
        )
    if found.spread is not None:
        rows += [
            ("mean cosine", f"{found.spread.mean_cosine:.3f}"),
            ("effective dimensions", f"{found.spread.effective_dimensions:.1f}"),
        ]
    licences = [f"{name} {count:,}" for name, count in list(found.licences.items())[:6]]
    return [*rows, ("licences", ", ".join(licences))]
