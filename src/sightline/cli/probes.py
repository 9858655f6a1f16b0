"""`sightline eval linear-probe|knn|few-shot --data PATH`: what frozen vectors tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.evaluate import data_options, finished, open_data
from sightline.cli.loading import load_model
from sightline.cli.options import (
    F,
    batch_option,
    label_option,
    shared_options,
    template_options,
)
from sightline.cli.output import Call
from sightline.cli.progress import Meter
from sightline.cli.words import label_words, templates_of

if TYPE_CHECKING:
    from sightline.evaluation.probe_data import ProbeData
    from sightline.evaluation.results import Result


ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True)
class Pictures:
    """The pictures of a probe, and where its result goes, as the command line says it."""

    data: str
    format_: str | None
    split: str | None
    images: str | None
    limit: int | None
    out: Path | None
    train_split: str | None
    batch: int

    def parts(self) -> ProbeData:
        """To learn from and to score.

        Raises:
            DataError, ConfigError: as `open_dataset` and `probe_data`.
        """
        from sightline.evaluation.probe_data import probe_data

        dataset = open_data(self.data, self.format_, None, self.images)
        return probe_data(dataset, self.train_split, self.split, self.limit)


def picture_options(function: F) -> F:
    """The options of `Pictures`; the function gets them as one `pictures`."""

    @wraps(function)
    def framed(*positional: Any, **options: Any) -> Any:
        pictures = Pictures(**{field.name: options.pop(field.name) for field in fields(Pictures)})
        return function(*positional, pictures=pictures, **options)

    train = click.option("--train-split", metavar="NAME",
                         help="Learn from this part. Default: train.")  # fmt: skip
    return data_options(train(batch_option(framed)))  # type: ignore[return-value]


@click.command()
@picture_options
@click.option("--penalty", type=ABOVE_ZERO, metavar="X",
              help="On squared weights, 1 / C. Default: chosen on held-out ones.")  # fmt: skip
@shared_options()
def linear_probe(call: Call, pictures: Pictures, penalty: float | None) -> int:
    """Measure a linear classifier trained on a model's frozen vectors.

    The data needs a label for each picture. Scored is --split, by default test; without splits a
    fifth is held out. The penalty is chosen on the split val, or on a fifth of the pictures to
    learn from, never on those that are scored.
    """
    from sightline.evaluation.probe import linear_probe as measure

    result = _measured(call, pictures, partial(measure, penalty=penalty))
    chosen, tried = result.settings["penalty"], len(result.settings["tried"])
    if tried:
        call.note(f"penalty {chosen:.3g}, the best of {tried} on held-out pictures")
    if not result.settings["converged"]:
        call.warn("the probe has not converged: its score may move with a larger --penalty")
    return finished(call, result, pictures.out)


@click.command()
@picture_options
@click.option("-k", "k", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
              help="Neighbours that vote.")  # fmt: skip
@click.option("--temperature", type=click.FloatRange(min=0), default=0.07, show_default=True,
              metavar="T", help="Of the votes exp(cosine / T); 0 gives one vote each.")  # fmt: skip
@shared_options()
def knn(call: Call, pictures: Pictures, k: int, temperature: float) -> int:
    """Measure classification by the nearest labelled pictures; nothing is trained.

    The data needs a label for each picture. Scored is --split, by default test; without splits a
    fifth is held out.
    """
    from sightline.evaluation.probe import knn as measure

    asked = partial(measure, k=k, temperature=temperature or None)
    result = _measured(call, pictures, asked)
    return finished(call, result, pictures.out)


@click.command()
@picture_options
@click.option("--shots", default="1,2,4,8,16", show_default=True, metavar="N,N",
              help="Pictures of each class.")  # fmt: skip
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Times that other pictures are drawn.")  # fmt: skip
@click.option("--penalty", type=ABOVE_ZERO, default=1.0, show_default=True, metavar="X",
              help="On squared weights, 1 / C.")  # fmt: skip
@label_option
@template_options
@shared_options()
def few_shot(
    call: Call,
    pictures: Pictures,
    shots: str,
    draws: int,
    penalty: float,
    labels: str | None,
    template: tuple[str, ...],
    templates: str | None,
) -> int:
    """Measure linear probes of a few labelled pictures of each class.

    Each number is the mean over draws of other pictures, with its interval. Beside them stands
    what the model scores by the names of the labels alone, if it reads words.
    """
    from sightline.evaluation.few_shot import few_shot as measure

    asked = partial(
        measure,
        shots=_counts(shots),
        draws=draws,
        penalty=penalty,
        labels=None if labels is None else label_words("--labels", labels),
        templates=templates_of(template, templates) or None,
    )
    return finished(call, _measured(call, pictures, asked), pictures.out)


def _measured(call: Call, pictures: Pictures, measure: Callable[..., Result]) -> Result:
    """Run a probe and say what it had to leave out."""
    parts = pictures.parts()
    model = load_model(call, "eval")
    with Meter(call) as meter:
        result = measure(model, parts, batch_size=pictures.batch, progress=meter.update)
    for line in result.settings["left_out"]:
        name, _, reason = line.partition(": ")
        call.warn(f"not learned from: {line}")
        call.failed.append({"file": name, "error": reason, "code": "image_unreadable"})
    unknown = result.settings["unknown_labels"]
    if unknown:
        call.warn(
            f"{len(unknown)} label(s) have no picture to learn from, and count as wrong: "
            + ", ".join(unknown[:5])
        )
    return result


def _counts(shots: str) -> list[int]:
    try:
        return [int(count) for count in shots.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{shots!r} are no numbers: write 1,2,4,8,16", param_hint="--shots"
        ) from None
