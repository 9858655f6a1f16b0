"""`sightline data inspect|park|digits`: look at data sets, and write drawn or handwritten ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.data.inspect import Inspection
    from sightline.data.records import DatasetReport


@click.command()
@click.argument("path", type=click.Path())
@click.option("--format", "format_", metavar="NAME", help="Where it is not found by itself.")
@click.option("--split", metavar="NAME", help="Only this part, such as test.")
@click.option("--images", metavar="DIR", help="The folder that paths are relative to.")
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True,
              metavar="N", help="Open at most so many pictures.")  # fmt: skip
@click.option("--headers", is_flag=True, help="Read headers only; faster, finds less.")
@click.option("--strict", is_flag=True, help="Fail where anything is wrong.")
@shared_options(model=False)
def inspect(
    call: Call,
    path: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    limit: int,
    headers: bool,
    strict: bool,
) -> int:
    """Report what a data set holds: format, counts, sizes, and which pictures are broken."""
    from sightline.data.inspect import inspect_dataset

    with Meter(call) as meter:
        found = inspect_dataset(
            path, format_, strict, split, images, limit, not headers, progress=meter.update
        )
    report = found.report
    for name, reason in report.broken.items():
        call.failed.append({"file": name, "error": reason, "code": "image_unreadable"})
        call.warn(reason if name in reason else f"{name}: {reason}")
    for name in report.missing:
        call.failed.append({"file": name, "error": "is not there", "code": "image_not_found"})
        call.warn(f"{name}: the picture is not there")
    call.table(("what", "value"), _rows(found))
    call.document(found.to_json())
    return call.exit_code(report.records - len(call.failed))


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              metavar="DIR", help="A new or empty folder.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
              help="Scenes to draw.")  # fmt: skip
@click.option(
    "--split",
    type=click.Choice(["train", "test", "pairs"]),
    default="train",
    show_default=True,
    help="pairs: kinds and colours never drawn together elsewhere.",
)
@click.option("--start", type=click.IntRange(min=0), default=0, show_default=True, metavar="SEED",
              help="Seed of the first scene.")  # fmt: skip
@click.option("--size", type=click.IntRange(min=16), default=None, show_default="64",
              metavar="PIXELS", help="Side of a picture.")  # fmt: skip
@click.option("--shapes", metavar="LIST",
              help="Instead, heights x widths that take turns: 64x64,48x96; or mixed.")  # fmt: skip
@click.option("--objects", type=click.IntRange(1, 6), metavar="N", help="Objects in each scene.")
@click.option("--to", "layout", metavar="LAYOUT",
              type=click.Choice(["vqa", "instances", "messages", "prefix-suffix"]),
              help="Instead as published sets are laid out: vqa (questions and annotations as "
                   "VQAv2), instances (boxes and masks as COCO), messages (conversations), "
                   "prefix-suffix (captions, answers and boxes as PaliGemma learns them). DIR must "
                   "not exist.")  # fmt: skip
@click.option("--twins", is_flag=True,
              help="Instead, so many true and false captions of each kind, as SugarCrepe and "
                   "Winoground write theirs.")  # fmt: skip
@shared_options(model=False)
def park(
    call: Call,
    out: Path,
    count: int,
    split: str,
    start: int,
    size: int | None,
    shapes: str | None,
    objects: int | None,
    layout: str | None,
    twins: bool,
) -> int:
    """Draw parks: pictures with captions, objects, relations and questions, all exactly true."""
    from sightline.data.park.export import write
    from sightline.data.park.scenes import ParkScenes, parse_shapes

    if twins:
        if shapes is not None or objects is not None or layout is not None:
            raise click.UsageError("--twins takes neither --shapes nor --objects nor --to")
        return _twins(call, out, count, split, start, size or 64)
    if size is not None and shapes is not None:
        raise click.UsageError("give --size or --shapes, not both")
    mixed = parse_shapes(shapes.split(",")) if shapes is not None else ()
    scenes = ParkScenes(split, start, count, size or 64, objects, shapes=mixed)
    if layout is not None:
        return _published(call, scenes, out, layout)
    with Meter(call, "scenes") as meter:
        written = write(_counted(scenes, count, meter), out)
    call.line(f"wrote {written} scenes to {out}")
    call.document({"out": str(out), "scenes": written, "split": split, "start": start})
    return 0


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              metavar="DIR", help="A new or empty folder.")  # fmt: skip
@click.option("--test", type=int, default=500, show_default=True, metavar="N",
              help="Pictures kept for the test split.")  # fmt: skip
@click.option("--size", type=int, default=32, show_default=True, metavar="PIXELS",
              help="Side of a picture, a multiple of 8.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the split.")
@shared_options(model=False)
def digits(call: Call, out: Path, test: int, size: int, seed: int) -> int:
    """Write scikit-learn's 1,797 handwritten digits as captioned pictures."""
    from sightline.data.digits import COUNT, write_digits

    folder = write_digits(out, test, seed, size)
    call.line(f"wrote {COUNT} pictures to {folder}")
    call.document({"out": str(folder), "pictures": COUNT, "test": test})
    return 0


def _twins(call: Call, out: Path, count: int, split: str, start: int, size: int) -> int:
    from sightline.data.park.contrasts import twins
    from sightline.data.park.export import write_twins

    written = write_twins(twins(count, split, start, size), out)
    call.line(f"wrote {written} contrasts to {out}")
    call.document({"out": str(out), "contrasts": written, "split": split, "start": start})
    return 0


def _published(call: Call, scenes: Any, out: Path, layout: str) -> int:
    """Scenes as records, written in the layout of a published set."""
    from sightline.data.convert import convert
    from sightline.data.park.spoken import spoken_records
    from sightline.data.records import Dataset

    with Meter(call, "scenes") as meter:
        drawn = _counted(scenes, len(scenes), meter)
        records = spoken_records(drawn, layout)
    done = convert(Dataset(records, f"park {scenes.split}"), out, layout, strict=True)
    call.line(f"wrote {done.records:,} records of {len(scenes):,} scenes to {out}")
    call.document({**done.to_json(), "scenes": len(scenes), "split": scenes.split,
                   "start": scenes.start})  # fmt: skip
    return 0


def _counted(scenes: Any, count: int, meter: Meter) -> Iterator[Any]:
    for place, scene in enumerate(scenes, start=1):
        yield scene
        meter.update(place, count)


def _rows(found: Inspection) -> list[tuple[str, str]]:
    report = found.report
    rows = [
        ("format", f"{report.format} ({report.why})"),
        ("pictures", f"{report.records:,}"),
        ("captions", f"{report.captions:,}"),
        *_spoken_rows(report),
        ("splits", _counts(report.splits)),
        ("labels", _counts(report.labels)),
        ("opened", f"{found.checked:,}" + ("" if found.decoded else ", headers only")),
        ("width", _spread(found.widths)),
        ("height", _spread(found.heights)),
        ("words a caption", _spread(found.caption_words)),
        ("file formats", _counts(found.file_formats)),
        ("pixels", _counts(found.modes)),
        ("missing", str(len(report.missing))),
        ("broken", str(len(report.broken))),
        ("empty captions", str(report.empty_captions)),
        ("ids used twice", str(len(report.duplicate_ids))),
        ("equal files", _groups(found.duplicates)),
    ]
    rows += [("note", note) for note in report.notes]
    rows += [("damage", sentence) for sentence in report.damage]
    for example in found.examples:
        said = "; ".join(example.captions[:2]) or example.said or example.label or "-"
        rows.append((f"example {example.id}", said))
    return [row for row in rows if row[1]]


def _spoken_rows(report: DatasetReport) -> list[tuple[str, str]]:
    """What there is beyond captions; rows of what there is none of are left out."""
    answers = f" with {report.answers:,} answers" if report.answers else ""
    outlines = f", {report.outlines:,} with an outline" if report.outlines else ""
    rows = [
        (report.questions, "questions", answers),
        (report.regions, "regions", outlines),
        (report.turns, "turns", ""),
        (report.further_pictures, "further pictures", ""),
    ]
    counted = [(name, f"{count:,}{more}") for count, name, more in rows if count]
    return [*counted, ("names of regions", _counts(report.region_labels))]


def _counts(counts: Any) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:12]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _spread(quantiles: Any) -> str:
    if not quantiles:
        return ""
    return f"{quantiles['min']:g} to {quantiles['max']:g}, half {quantiles['50%']:g}"


def _groups(groups: Any) -> str:
    return "; ".join(" = ".join(group[:3]) for group in groups[:5])
