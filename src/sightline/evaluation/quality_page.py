"""What was found out about a data set, as one HTML page with the pictures it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sightline.data.curation.quality import Balance, CaptionDiversity, Measured, Quality, Spread
from sightline.data.records import Dataset
from sightline.tasks.report import Report
from sightline.tasks.sheets import SheetItem

GROUPS_SHOWN = 12
PICTURES_SHOWN = 5
LABELS_SHOWN = 20
_LONGEST = 60
_FOUND = {
    "bytes": "equal files",
    "pixels": "equal pixels",
    "dhash": "near by a hash of 64 bits",
    "dhash256": "near by a hash of 256 bits",
    "mirror": "mirrored",
    "embedding": "near by embeddings",
    "captions": "equal captions",
    "similar-captions": "similar captions",
}


def quality_page(quality: Quality, dataset: Dataset) -> Report:
    """The page: numbers first, then what a person should look at.

    Args:
        quality: what `data.quality.examine` found.
        dataset: the records that were examined; the pictures that are shown are read again.
    """
    found = quality.report
    page = Report(quality.name, f"{found.records:,} pictures, read as {found.format}")
    page.facts(
        {
            "pictures": found.records,
            "captions": found.captions,
            "copies": len(quality.duplicates.removed),
            "unreadable": len(found.broken) + len(set(found.missing) - set(found.broken)),
            "blurred": quality.blurred,
            "of one colour": len(quality.flat),
        }
    )
    _pictures(page, quality, dataset)
    _duplicates(page, quality, dataset)
    _captions(page, quality.captions)
    _labels(page, quality.labels, found.splits)
    _spread(page, quality.spread)
    _licences(page, quality)
    return page


def _pictures(page: Report, quality: Quality, dataset: Dataset) -> None:
    page.section("Pictures")
    rows = (
        ("width", quality.widths),
        ("height", quality.heights),
        ("longer side over shorter", quality.aspects),
        ("sharpness", quality.sharpness),
    )
    header = ("", "least", "5 %", "half", "95 %", "most")
    keys = ("min", "5%", "50%", "95%", "max")
    page.table(header, [(name, *(_whole(values.get(k)) for k in keys)) for name, values in rows])
    page.text(
        "Sharpness is the variance of the Laplacian of the grey levels, at most 512 pixels a side; "
        f"{quality.blurred:,} pictures below 20 count as blurred. {quality.wide:,} pictures are "
        "more than three times as long as wide."
    )
    _standing_out(page, "The least sharp", quality.least_sharp[:PICTURES_SHOWN], dataset)
    _standing_out(page, "Of one colour", quality.flat, dataset)
    if quality.report.broken:
        page.heading("Unreadable")
        broken = list(quality.report.broken.items())
        page.table(("picture", "why"), broken[:LABELS_SHOWN])
        _more(page, len(broken) - LABELS_SHOWN)


def _standing_out(page: Report, title: str, items: Sequence[Measured], dataset: Dataset) -> None:
    if not items:
        return
    images = {record.id: record.image for record in dataset}
    page.heading(title)
    page.gallery(
        SheetItem(images[item.id], _short(item.id), item.value) for item in items[:PICTURES_SHOWN]
    )
    _more(page, len(items) - PICTURES_SHOWN)


def _duplicates(page: Report, quality: Quality, dataset: Dataset) -> None:
    duplicates = quality.duplicates
    page.section("Copies")
    if not duplicates.groups:
        page.note("No picture is there twice.", "success")
    else:
        page.text(
            f"{len(duplicates.removed):,} pictures are another one again, in "
            f"{len(duplicates.groups):,} groups. The framed picture is the one to keep."
        )
    page.table(
        ("found as", "copies"),
        [(_FOUND[method], count) for method, count in duplicates.by_method.items()],
    )
    # the largest groups say most about how a collection was made
    largest = sorted(duplicates.groups, key=lambda group: -len(group.members))
    for group in largest[:GROUPS_SHOWN]:
        members = [group.kept, *(member for member in group.members if member != group.kept)]
        page.heading(
            f"{len(members)} times: {', '.join(_FOUND[method] for method in group.methods)}"
        )
        shown = members[:PICTURES_SHOWN]
        page.gallery(
            [SheetItem(dataset[m].image, _short(dataset[m].id)) for m in shown],
            [member == group.kept for member in shown],
        )
        _more(page, len(members) - PICTURES_SHOWN)
    if len(largest) > GROUPS_SHOWN:
        page.text(f"{len(largest) - GROUPS_SHOWN:,} smaller groups are not shown.")


def _captions(page: Report, captions: CaptionDiversity | None) -> None:
    page.section("Captions")
    if captions is None:
        page.text("None of the pictures has a caption.")
        return
    page.facts(
        {
            "different captions": f"{captions.different:,} of {captions.captions:,}",
            "words a caption": _whole(captions.length["50%"]),
            "vocabulary": captions.vocabulary,
            "words used once": captions.once,
        }
    )
    page.bars(
        dict(captions.commonest_words),
        full=float(captions.commonest_words[0][1]) if captions.commonest_words else 1.0,
    )
    if captions.commonest_captions:
        rows = [(text, times) for text, times in captions.commonest_captions]
        page.table(("caption", "times"), rows, "Captions that occur more than once")


def _labels(page: Report, labels: Balance | None, splits: Mapping[str, int]) -> None:
    if labels is not None:
        page.section(
            "Labels",
            f"{len(labels.counts):,} labels, evenness {labels.evenness:.2f} (1 where all are "
            f"equally frequent); {labels.unlabelled:,} records have none.",
        )
        _counts(page, labels.counts)
    if splits:
        page.section("Splits")
        _counts(page, splits)


def _spread(page: Report, spread: Spread | None) -> None:
    if spread is None:
        return
    page.section("Embeddings", f"Of {spread.pictures:,} pictures.")
    page.facts(
        {
            "cosine of two pictures": spread.mean_cosine,
            "of the nearest, half": spread.nearest_cosine["50%"],
            "of the nearest, most": spread.nearest_cosine["max"],
            "effective dimensions": spread.effective_dimensions,
        }
    )


def _licences(page: Report, quality: Quality) -> None:
    page.section("Licences")
    if quality.licence_column is None:
        page.note("No column names a licence: all are unknown.", "warning")
        return
    page.text(f"From the column {quality.licence_column!r}.")
    _counts(page, quality.licences)


def _counts(page: Report, counts: Mapping[str, int]) -> None:
    listed = list(counts.items())
    most = float(max(counts.values(), default=1))
    page.bars(dict(listed[:LABELS_SHOWN]), full=most)
    _more(page, len(listed) - LABELS_SHOWN)


def _more(page: Report, count: int) -> None:
    if count > 0:
        page.text(f"And {count:,} more.")


def _whole(value: float | None) -> float | int | None:
    """Whole numbers without their decimals."""
    return int(value) if value is not None and value == int(value) else value


def _short(id: str) -> str:
    return id if len(id) <= _LONGEST else f"...{id[-_LONGEST:]}"
