"""`sightline data convert`: a data set in another layout, the pictures byte for byte the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.data.records import Dataset


@click.command()
@click.argument("path", metavar="IN", type=click.Path())
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", "layout", required=True, metavar="LAYOUT",
              type=click.Choice(["webdataset", "folder", "jsonl", "parquet", "vqa", "instances",
                                 "messages", "prefix-suffix"]),
              help="webdataset (tars), folder (pictures with .txt and .json beside them), jsonl "
                   "(metadata.jsonl and pictures), parquet (pictures inside); for questions vqa, "
                   "for regions instances (COCO), for conversations messages, for PaliGemma "
                   "prefix-suffix.")  # fmt: skip
@click.option("--tasks", metavar="LIST",
              help="Write examples of these tasks instead of the records: caption, ask, question, "
                   "detect, chat; for messages and prefix-suffix.")  # fmt: skip
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
    tasks: str | None,
    format_: str | None,
    split: str | None,
    images: str | None,
    per_shard: int,
    strict: bool,
) -> int:
    """Write a data set in another layout: captions, labels and splits stay, pictures too.

    OUT must not exist yet; it appears when everything is written. Pictures are copied byte by byte.
    The first four layouts keep everything; records without a place in the others are left out.
    """
    from sightline.data.convert import convert as convert_dataset
    from sightline.data.formats import open_dataset

    if tasks is not None and layout not in ("messages", "prefix-suffix"):
        raise click.UsageError("--tasks makes conversations: use it with --to messages or "
                               "prefix-suffix")  # fmt: skip
    dataset = open_dataset(path, format_, strict, split, images)
    source = dataset.format
    if tasks is not None:
        dataset = _examples(dataset, tasks)
    with Meter(call) as meter:
        done = convert_dataset(dataset, out, layout, strict, per_shard, meter.update)
    for name, reason in done.failed.items():
        call.failed.append({"file": name, "error": reason, "code": "image_unreadable"})
        call.warn(reason if name in reason else f"{name}: {reason}")
    for sentence in dataset.damage:
        call.failed.append({"file": path, "error": sentence, "code": "data_damaged"})
    size = done.pictures_bytes / 2**20
    call.line(f"wrote {done.records:,} records with {size:,.1f} MiB of pictures to {done.out}")
    call.document({**done.to_json(), "from": source, "damage": list(dataset.damage)})
    return call.exit_code(done.records)


def _examples(dataset: Dataset, tasks: str) -> Dataset:
    """What the tasks make of the records, as conversations of one exchange."""
    from sightline.data.examples import Examples, as_record
    from sightline.data.records import Dataset

    examples = Examples(dataset, [name.strip() for name in tasks.split(",")])
    records = [as_record(example) for example in examples]
    return Dataset(records, dataset.name, damage=dataset.damage)
