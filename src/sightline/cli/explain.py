"""`sightline explain FILE... "text"`: which pixels spoke for it, as a picture and as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.loading import load_model
from sightline.cli.options import shared_options
from sightline.cli.output import FAILED, Call, one_line
from sightline.cli.pictures import Source, answers, expand
from sightline.cli.words import word_list
from sightline.core.errors import SightlineError
from sightline.core.files import atomic_file
from sightline.tasks.abilities import EXPLAIN_METHODS

if TYPE_CHECKING:
    import numpy as np

    from sightline.tasks.explain import Explanation
    from sightline.tasks.model import Model
    from sightline.tasks.occlusion import Occlusion

ALL = "all"


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.argument("text")
@click.option("--method", type=click.Choice([*EXPLAIN_METHODS, ALL]),
              help="Default: the best that the network allows.")  # fmt: skip
@click.option("--against", metavar="A,B|@FILE",
              help="Other texts: what speaks for them alike falls away.")  # fmt: skip
@click.option("--window", type=click.IntRange(min=1), metavar="PIXELS",
              help="Side of what occlusion covers, in the picture as the network gets it. "
              "Default: a quarter of its shorter side.")  # fmt: skip
@click.option("--stride", type=click.IntRange(min=1), metavar="PIXELS",
              help="From one place of it to the next. Default: half of it.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png",
              default="explained.png", show_default=True,
              help="Where the pictures go, with heat over them.")  # fmt: skip
@click.option("--numbers", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.npy",
              help="Write the map as float32[H, W] for numpy too.")  # fmt: skip
@shared_options()
def explain(
    call: Call,
    files: tuple[str, ...],
    text: str,
    method: str | None,
    against: str | None,
    window: int | None,
    stride: int | None,
    out: Path,
    numbers: Path | None,
) -> int:
    """Show which pixels of each picture spoke for a text.

    Writes one sheet with heat over the pictures; each row says the score that is explained and the
    box of the hottest region. For a classifier the text is one of its labels. Heat says where the
    score came from, not what is there, and "rollout" does not depend on the text at all.
    """
    sources = expand(call, files)
    if numbers is not None and (len(sources) != 1 or method == ALL):
        raise click.UsageError("--numbers holds one map: give one picture and one method")
    if not sources:
        call.document({"text": text, "results": []})
        return FAILED
    if any(isinstance(source, Path) and source.resolve() == out.resolve() for source in sources):
        raise click.UsageError(f"--out {out} is one of the pictures: name another file")
    others = [] if against is None else word_list("--against", against)
    from sightline.tasks.occlusion import Occlusion

    covering = Occlusion(window, stride)
    model = load_model(call, "explain")
    results, rows = [], []
    stream = _explained(model, sources, text, method, others, covering)
    for name, (pixels, found) in answers(call, sources, stream, beside_rows=True):
        described = [_described(one) for one in found]
        results.append({"file": name, "explanations": described})
        rows.append(_drawn(name, pixels, found))
        for one in described:
            call.line("\t".join((one_line(name), *_row(one))))
        if numbers is not None:
            _write_numbers(numbers, found[0])
    if rows:
        _write_sheet(out, rows, text)
        call.note(f"wrote {out}")
    call.document({"text": text, "against": others, "out": str(out) if rows else None,
                   "numbers": None if numbers is None else str(numbers),
                   "results": results})  # fmt: skip
    return call.exit_code(len(results))


def _explained(
    model: Model, sources: Sequence[Source], text: str, method: str | None,
    against: Sequence[str], covering: Occlusion,
) -> Iterator[Any]:  # fmt: skip
    """Pixels and the maps of every method for each picture, or why it could not be read.

    Each is read once, whatever the number of methods.
    """
    from sightline.tasks.batching import Failed, read_named, source_name
    from sightline.tasks.explain import explain_each, methods_of

    at_hand: list[np.ndarray] = []
    streams = [
        explain_each(model, (at_hand[0] for _ in sources), text, one, against, covering, "collect")
        for one in (methods_of(model) if method == ALL else [method])
    ]
    for place, source in enumerate(sources):
        try:
            at_hand[:] = [read_named(source, place)]
        except SightlineError as error:
            yield Failed(source_name(source, place), error)
            continue
        found = [next(stream) for stream in streams]
        failed = [one for one in found if isinstance(one, Failed)]
        yield failed[0] if failed else (at_hand[0], found)


def _drawn(name: str, pixels: np.ndarray, found: Sequence[Explanation]) -> Any:
    from sightline.tasks.overlay import heat_items

    maps = [(f"{one.method}, score {one.score:.2f}", one.heat) for one in found]
    return heat_items(pixels, maps, Path(name).name)


def _write_sheet(out: Path, rows: Sequence[Any], text: str) -> None:
    from sightline.tasks.overlay import heat_sheet

    with atomic_file(out) as temporary:
        heat_sheet(rows, f"What spoke for “{text}”").save(temporary, format="PNG", optimize=True)


def _write_numbers(path: Path, found: Explanation) -> None:
    import numpy as np

    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, found.heat)


def _described(found: Explanation) -> dict[str, Any]:
    """A map as JSON; without heat there is no region."""
    from sightline.tasks.heat import hottest_region

    region = hottest_region(found.heat)
    where = None if region is None else {"box": region.box, "centre": region.centre}
    return {"method": found.method, "score": found.score, "region": where}


def _row(described: Mapping[str, Any]) -> tuple[str, ...]:
    region = described["region"]
    box = "-" if region is None else ",".join(f"{end:.0f}" for end in region["box"])
    return described["method"], f"{described['score']:.3f}", box
