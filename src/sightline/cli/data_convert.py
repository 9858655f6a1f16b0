"""`sightline data convert`: a data set in another layout, the pictures byte for byte the same."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter


@click.command()
@click.argument("path", metavar="IN", type=click.Path())
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", "layout", required=True, metavar="LAYOUT",
              type=click.Choice(["webdataset", "folder", "jsonl", "parquet"]),
              help="webdataset (tars), folder (pictures with .txt and .json beside them), jsonl "
                   "(metadata.jsonl and pictures), parquet (pictures inside).")  # fmt: skip
@click.option("--format", "format_", metavar="NAME", help="Of IN, where it is not clear.")
@click.option("--split", metavar="NAME", help="Only this part, such as test.")
@click.option("--images", metavar="DIR", help="The folder that paths in IN are relative to.")
@click.option("--per-shard", type=click.IntRange(min=1), default=10_000, show_default=True,
              metavar="N", help="Records in one tar or table.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Fail where anything is wrong, and write nothing.")
@shared_options(model=False)
def convert(
    call: Call,
    path: str,
    out: Path,
    layout: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    per_shard: int,
    strict: bool,
) -> int:
    """Write a data set in another layout: captions, labels and splits stay, pictures too.

    OUT must not exist yet; it appears when everything is written. Pictures are copied byte by byte.
    """
    from sightline.data.convert import convert as convert_dataset
    from sightline.data.formats import open_dataset

    dataset = open_dataset(path, format_, strict, split, images)
    with Meter(call) as meter:
        done = convert_dataset(dataset, out, layout, strict, per_shard, meter.update)
    for name, reason in done.failed.items():
        call.failed.append({"file": name, "error": reason, "code": "image_unreadable"})
        call.warn(reason if name in reason else f"{name}: {reason}")
    for sentence in dataset.damage:
        call.failed.append({"file": path, "error": sentence, "code": "data_damaged"})
    size = done.pictures_bytes / 2**20
    call.line(f"wrote {done.records:,} records with {size:,.1f} MiB of pictures to {done.out}")
    call.document({**done.to_json(), "from": dataset.format, "damage": list(dataset.damage)})
    return call.exit_code(done.records)
