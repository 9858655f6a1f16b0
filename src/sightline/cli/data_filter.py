"""`sightline data filter PATH --out FILE`: keep the records that pass every rule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.data_sets import Source, check_free, fail, saved_vectors, source_options
from sightline.cli.loading import load_model
from sightline.cli.options import shared_options
from sightline.cli.output import FAILED, Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sightline.data.curation.filters import Filtered, LanguageOf, Rule
    from sightline.data.records import Dataset

PRESETS = ("datacomp-basic", "image-based-captions")


@dataclass(frozen=True)
class Asked:
    """The rules that the command line asks for; None and 0 ask for nothing."""

    preset: str | None
    language: str | None
    language_by: str | None
    min_words: int | None
    min_characters: int | None
    max_characters: int | None
    min_side: int | None
    max_aspect: float | None
    original_sizes: bool
    score_above: float | None
    score_fraction: float | None
    like: str | None
    clusters: int | None
    embeddings: tuple[str, ...]
    batch: int

    @property
    def scored(self) -> bool:
        """Whether a model has to look at every picture and caption."""
        return self.score_above is not None or self.score_fraction is not None


def rule_options(function: Callable[..., int]) -> Callable[..., int]:
    """Every rule as an option; the function gets them as one `asked`."""

    @functools.wraps(function)
    def framed(*positional: Any, **options: Any) -> int:
        asked = Asked(**{field.name: options.pop(field.name) for field in fields(Asked)})
        return function(*positional, asked=asked, **options)

    for option in reversed(_rule_options()):
        framed = option(framed)
    return framed


def _rule_options() -> list[Callable[[Any], Any]]:
    whole = click.IntRange(min=1)
    return [
        click.option("--preset", type=click.Choice(PRESETS),
                     help="datacomp-basic: English, 3 words, 6 characters, side 200, aspect 3. "
                     "image-based-captions: English, 2 fastText tokens, 6 characters."),
        click.option("--language", metavar="CODE", help="Captions in this language, such as en."),
        click.option("--language-by", metavar="MODULE:FUNCTION",
                     help="A function of yours, from a caption to a language code."),
        click.option("--min-words", type=whole, metavar="N", help="Least words a caption."),
        click.option("--min-characters", type=whole, metavar="N",
                     help="Least characters a caption."),
        click.option("--max-characters", type=whole, metavar="N",
                     help="Most characters a caption."),
        click.option("--min-side", type=whole, metavar="PIXELS", help="Least shorter side."),
        click.option("--max-aspect", type=click.FloatRange(min=1), metavar="RATIO",
                     help="Most of longer side over shorter, inclusive."),
        click.option("--original-sizes", is_flag=True,
                     help="Sizes from the columns original_width and original_height."),
        click.option("--score-above", type=float, metavar="COSINE",
                     help="Least cosine of picture and caption, by --model."),
        click.option("--score-fraction", type=click.FloatRange(0, 1, min_open=True), metavar="F",
                     help="The best fraction by that cosine: down to the value at index int(n F) "
                     "of all n records, ties included."),
        click.option("--like", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
                     help="Pictures in the k-means clusters of these embeddings."),
        click.option("--clusters", type=whole, metavar="K",
                     help="For --like. Default: the root of the number of pictures."),
        click.option("--embeddings", multiple=True, metavar="FILE",
                     type=click.Path(exists=True, dir_okay=False),
                     help="Vectors of PATH's pictures for --like; else the model makes them."),
        click.option("--batch", type=whole, default=32, show_default=True, metavar="N",
                     help="Pictures through the network at once."),
    ]  # fmt: skip


@click.command()
@source_options
@rule_options
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the records that stay as JSON lines.")  # fmt: skip
@click.option("--uids", type=click.Path(dir_okay=False, path_type=Path), metavar="NPY",
              help="Write their uids as DataComp does: sorted (u8, u8).")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@shared_options()
def filter(
    call: Call,
    source: Source,
    asked: Asked,
    out: Path | None,
    uids: Path | None,
    overwrite: bool,
) -> int:
    """Keep the records that pass every rule, and say how many fell to which.

    \b
    sightline data filter PATH --preset datacomp-basic --out kept.jsonl
    sightline data filter PATH --score-fraction 0.3 --model NAME --out kept.jsonl
    sightline data filter PATH --like GOOD.safetensors --embeddings ALL.safetensors --out FILE

    Rules apply in the order of the options. A caption that fails is removed; a picture falls with
    its last caption. Language is guessed from small words, leniently, unless --language-by names a
    function. Nothing is deleted: FILE lists what stays, and every command reads it.
    """
    check_free(out, overwrite)
    check_free(uids, overwrite, "--uids")
    detect = _detector(asked.language_by)
    _check_asked(asked)
    dataset = source.open(listed=out is not None)
    rules = _rules(call, dataset, asked, detect)
    found = _filtered(call, dataset, rules, asked.original_sizes)
    rows = [
        ("records", f"{found.total:,}"),
        *((name, f"-{count:,}" if count else "0") for name, count in found.fell.items()),
    ]
    call.table(("rule", "records"), [*rows, ("kept", f"{len(found.records):,}")])
    if not found.records:
        call.warn("no record passes every rule, so nothing is written: relax one of them")
        call.document(found.to_json())
        return FAILED
    call.document({**found.to_json(), **_write(call, found, out, uids, overwrite)})
    return call.exit_code(len(found.records))


def _filtered(call: Call, dataset: Dataset, rules: list[Rule], original_sizes: bool) -> Filtered:
    from sightline.data.curation.filters import filter_records
    from sightline.data.curation.picture_size import original_size
    from sightline.inputs.picture_size import picture_size

    with Meter(call, "records") as meter:
        found = filter_records(
            dataset,
            rules,
            (lambda record: original_size(record.id, record.extra))
            if original_sizes
            else (lambda record: picture_size(record.image)),
            meter.update,
        )
    for id, reason in found.broken.items():
        fail(call, id, reason)
    return found


def _rules(call: Call, dataset: Dataset, asked: Asked, detect: LanguageOf) -> list[Rule]:
    from sightline.data.curation import filters

    rules: list[Rule] = []
    if asked.preset == "datacomp-basic":
        rules += filters.datacomp_basic(detect)
    elif asked.preset is not None:
        rules += filters.image_based_captions(detect)
    if asked.language is not None:
        rules.append(filters.language(asked.language, detect))
    simple: list[tuple[Any, Callable[[Any], Rule]]] = [
        (asked.min_words, filters.min_words),
        (asked.min_characters, filters.min_characters),
        (asked.max_characters, filters.max_characters),
        (asked.min_side, filters.min_side),
        (asked.max_aspect, filters.max_aspect),
    ]
    rules += [rule(value) for value, rule in simple if value is not None]
    if asked.scored:
        scores = _scores(call, dataset, asked.batch)
        if asked.score_above is not None:
            rules.append(filters.score_at_least(scores, asked.score_above))
        if asked.score_fraction is not None:
            rules.append(filters.score_fraction(scores, asked.score_fraction))
    if asked.like is not None:
        rules.append(_near_targets(call, dataset, asked))
    return rules


def _scores(call: Call, dataset: Dataset, batch: int) -> NDArray[np.floating]:
    from sightline.evaluation.alignment import alignment

    model = load_model(call, "similarity")
    with Meter(call) as meter:
        found = alignment(model, dataset, batch, meter.update)
    for line in found.missing:
        id, _, reason = line.partition(": ")
        fail(call, id, reason, logged=False)
    scores: NDArray[np.floating] = found.scores.numpy()
    return scores


def _near_targets(call: Call, dataset: Dataset, asked: Asked) -> Rule:
    from sightline.cli.data_sets import load_embeddings, vectors_of
    from sightline.data.curation.filters import near_targets

    assert asked.like is not None, "asked before"
    targets = load_embeddings([*asked.embeddings, asked.like])[-1]
    if asked.embeddings:
        vectors = saved_vectors(call, dataset, asked.embeddings)
    else:
        call.model_name = call.model_name or targets.model
        vectors = vectors_of(call, dataset, (), asked.batch)
    return near_targets(vectors, targets.vectors.numpy(), asked.clusters)


def _write(
    call: Call, found: Filtered, out: Path | None, uids: Path | None, overwrite: bool
) -> dict[str, str]:
    from sightline.data.curation.listing import write_listing, write_uids

    written = {}
    if uids is not None:
        write_uids(found.records, uids)
        written["uids"] = str(uids)
    if out is not None:
        count = write_listing(found.records, out, overwrite)
        written["out"] = str(out)
        call.note(f"wrote {count:,} records to {out}")
    return written


def _detector(name: str | None) -> LanguageOf:
    """A function by the name MODULE:FUNCTION, the offline guess without one."""
    from sightline.data.curation.language import language_of

    if name is None:
        return language_of
    from importlib import import_module

    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(
            f"{name!r} is not importable as MODULE:FUNCTION ({error})", param_hint="--language-by"
        ) from None
    return lambda text: str(found(text))


def _check_asked(asked: Asked) -> None:
    if asked.clusters is not None and asked.like is None:
        raise click.UsageError("--clusters belongs to --like")
    rules = (
        asked.preset, asked.language, asked.min_words, asked.min_characters, asked.max_characters,
        asked.min_side, asked.max_aspect, asked.score_above, asked.score_fraction, asked.like,
    )  # fmt: skip
    if all(rule is None for rule in rules):
        raise click.UsageError("no rule: give --preset, --min-side, --score-above ... (--help)")
