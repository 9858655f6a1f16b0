"""`sightline features FILE... --model NAME --out DIR`: what the units of a network look for."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli.loading import load_model
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import FAILED, Call
from sightline.cli.pictures import expand
from sightline.cli.progress import Meter


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              metavar="DIR", help="Where the sheets and the page go.")  # fmt: skip
@click.option("--layer", "layers", multiple=True, metavar="NAME",
              help="Such as stage1 or block3; several times. Default: a few by depth.")  # fmt: skip
@click.option("--units", type=click.IntRange(1, 64), default=8, show_default=True, metavar="N",
              help="Units of each layer, drawn by lot.")  # fmt: skip
@click.option("--best", type=click.IntRange(1, 32), default=9, show_default=True, metavar="N",
              help="Pieces of each unit.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of the lot.")  # fmt: skip
@batch_option
@shared_options()
def features(
    call: Call,
    files: tuple[str, ...],
    out: Path,
    layers: tuple[str, ...],
    units: int,
    best: int,
    seed: int,
    batch: int,
) -> int:
    """Show which parts of the pictures excite the units of a network, layer by layer.

    One sheet a layer, the filters of the first layer, and a page with all of them. Some hundred
    pictures are needed before rows look alike. Layers near the pixels find edges and colours,
    later ones parts of things.
    """
    sources = expand(call, files)
    if not sources:
        call.document({"layers": [], "files": []})
        return FAILED
    model = load_model(call, "embed")
    from sightline.tasks.feature_sheets import summary, write_features
    from sightline.tasks.features import find_features

    with Meter(call) as meter:
        found = find_features(
            model, sources, layers or None, units, best, seed, batch, "collect",
            lambda done: meter.update(done, len(sources)),
        )  # fmt: skip
    for failure in found.failed:
        call.fail(failure.name, failure.error)
    written = write_features(found, out, str(model.name))
    for layer in found.layers:
        call.line(f"{layer.name}\t{layer.units} units\tsees {layer.sees}")
    call.note(f"wrote {written[0]}")
    call.document({**summary(found), "pictures": found.pictures, "files": list(map(str, written))})
    return call.exit_code(found.pictures)
