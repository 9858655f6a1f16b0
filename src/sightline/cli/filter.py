"""`sightline filter FILE... --mask NAME`: convolution masks over pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call, one_line
from sightline.cli.pictures import Source, expand
from sightline.cli.progress import Meter
from sightline.core.errors import SightlineError

if TYPE_CHECKING:
    import numpy as np

    from sightline.inputs.filter_masks import Filter

BORDERS = ("reflect", "edge", "zero", "wrap", "valid", "keep")
WAYS = ("clip", "absolute", "offset", "stretch")
MOST_MASKS = 24


class _Settings(NamedTuple):
    """How every picture is treated."""

    filters: list[Filter]
    border: Any
    shown: Any
    grey: bool
    correlation: bool
    sheet: bool


@click.command()
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--mask", "masks", multiple=True, metavar="NAME|ROWS",
              help="A name (--list), box:5, gaussian:1.5, or rows such as "
              "'0,-1,0;-1,5,-1;0,-1,0' (then /16 divides, +128 adds); several times.")  # fmt: skip
@click.option("--border", type=click.Choice(BORDERS), default="reflect", show_default=True,
              help="What lies outside the picture; keep: its border stays as it is.")  # fmt: skip
@click.option("--show", "shown", type=click.Choice(WAYS), default="clip", show_default=True,
              help="How answers outside 0..255 are drawn; offset: 0 becomes grey.")  # fmt: skip
@click.option("--grey", is_flag=True, help="Make the picture grey first.")
@click.option("--correlate", "correlation", is_flag=True,
              help="Do not turn the mask, as the layers of networks do not.")  # fmt: skip
@click.option("--sheet", is_flag=True,
              help="Original and answer side by side; always so with several masks.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Default: beside each picture.")  # fmt: skip
@click.option("--list", "listed", is_flag=True, help="Name all masks with their numbers.")
@shared_options(model=False)
def filter_(
    call: Call,
    files: tuple[str, ...],
    masks: tuple[str, ...],
    border: str,
    shown: str,
    grey: bool,
    correlation: bool,
    sheet: bool,
    out: Path | None,
    listed: bool,
) -> int:
    """Lay convolution masks over pictures and write the answers as PNG.

    photo.jpg under sharpen becomes photo.sharpen.png. The mask is turned by 180 degrees, as the
    formula of convolution says; that changes nothing for masks that are symmetric. Colours are
    filtered one by one. A picture that is there already under that name is replaced, an original
    never.
    """
    from sightline.inputs.named_masks import parse_filter

    if listed:
        return _list(call)
    if not files or not masks:
        raise click.UsageError("give pictures (FILE...) and --mask NAME; --list names the masks")
    if len(masks) > MOST_MASKS:
        raise click.UsageError(f"{len(masks)} masks: at most {MOST_MASKS} fit on one sheet")
    filters = list({found.name: found for found in map(parse_filter, masks)}.values())
    settings = _Settings(filters, border, shown, grey, correlation, sheet or len(filters) > 1)
    sources = _expanded(call, files, out)
    results = []
    with Meter(call, beside_rows=True) as meter:
        for place, (source, target) in enumerate(_targets(sources, settings, out), start=1):
            try:
                results.append(_filtered(source, target, settings))
                call.line(f"{one_line(os.fspath(source))}\t{one_line(str(target))}")
            except (SightlineError, OSError) as error:
                call.fail(source, error)
            meter.update(place, len(sources))
    call.document({"masks": [_described(f) for f in filters], "border": border, "shown": shown,
                   "correlation": correlation, "grey": grey, "results": results})  # fmt: skip
    return call.exit_code(len(results))


def _expanded(call: Call, files: Sequence[str], out: Path | None) -> list[Source]:
    """The pictures.

    Raises:
        click.UsageError: a folder or an address, and nowhere to write to.
    """
    for file in files:
        if out is None and os.path.isdir(file):
            raise click.UsageError(
                f"{file} is a folder: give --out DIR, or the answers would be among its pictures"
            )
        if out is None and file.lower().startswith(("http://", "https://")):
            raise click.UsageError(f"{file} is an address: give --out DIR for the answer")
    return expand(call, files)


def _targets(
    sources: Sequence[Source], settings: _Settings, out: Path | None
) -> Iterator[tuple[Source, Path]]:
    """Where the answer of each picture goes; no two go to one file, and none onto an original."""
    from urllib.parse import unquote, urlsplit

    word = "masks" if len(settings.filters) > 1 else settings.filters[0].name.replace(":", "-")
    word += "-sheet" if settings.sheet and word != "masks" else ""
    taken = {_spot(Path(source)) for source in sources if isinstance(source, Path)}
    for source in sources:
        path = source
        if isinstance(path, str):
            path = Path(Path(unquote(urlsplit(path).path)).name or "picture")
        folder = path.parent if out is None else out
        target = folder / f"{path.stem}.{word}.png"
        number = 1
        while _spot(target) in taken:
            number += 1
            target = folder / f"{path.stem}-{number}.{word}.png"
        taken.add(_spot(target))
        yield source, target


def _spot(path: Path) -> str:
    """The same for two spellings of one file, also where case does not count."""
    return os.path.normcase(os.path.abspath(path)).casefold()


def _filtered(source: Source, target: Path, settings: _Settings) -> dict[str, Any]:
    """Filter one picture, write what came of it, and say so."""
    from PIL import Image

    from sightline.core.files import atomic_file
    from sightline.inputs.convolution import filter_picture
    from sightline.inputs.grey_levels import to_grey
    from sightline.inputs.images import read_image
    from sightline.tasks.sheets import SheetItem, contact_sheet

    pixels = read_image(source)
    pixels = to_grey(pixels) if settings.grey else pixels
    answers: list[np.ndarray] = []
    ranges = []
    for chosen in settings.filters:
        answer, (low, high) = filter_picture(
            pixels, chosen, settings.border, settings.shown, settings.correlation
        )
        answers.append(answer)
        ranges.append({"mask": chosen.name, "lowest": low, "highest": high})
    picture = Image.fromarray(answers[0])
    if settings.sheet:
        names = ["original", *(chosen.name for chosen in settings.filters)]
        drawn = [Image.fromarray(array).convert("RGB") for array in (pixels, *answers)]
        picture = contact_sheet(map(SheetItem, drawn, names), thumbnail=256)
    with atomic_file(target) as temporary:
        picture.save(temporary, format="PNG")
    return {"file": os.fspath(source), "out": str(target), "answers": ranges}


def _list(call: Call) -> int:
    from sightline.inputs.filter_masks import Filter
    from sightline.inputs.named_masks import MASKS

    found = [Filter(name, masks) for name, masks in MASKS.items()]
    rows = [(f.name, " and ".join(mask["rows"] for mask in _described(f)["masks"])) for f in found]
    rows += [
        ("box:N", "the mean of N x N pixels, N from 1 to 201"),
        ("gaussian:S", "a Gaussian of deviation S pixels, S from 0.1 to 50"),
    ]
    call.table(("mask", "numbers"), rows)
    call.document({"masks": [_described(f) for f in found]})
    return 0


def _described(chosen: Filter) -> dict[str, Any]:
    from sightline.inputs.named_masks import written

    masks = [{"rows": written(mask), "sum": mask.total} for mask in chosen.masks]
    return {"name": chosen.name, "masks": masks}
