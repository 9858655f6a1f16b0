"""The options of commands that write."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--max-new-tokens", type=click.IntRange(min=0), metavar="N",
                 help="The longest answer, in tokens."),
    click.option("--temperature", type=float, metavar="T",
                 help="0 takes the likeliest token (default); 1 draws as the model has it."),
    click.option("--top-k", type=click.IntRange(min=1), metavar="K",
                 help="Draw among so many of the likeliest tokens only."),
    click.option("--top-p", type=float, metavar="P",
                 help="Draw among the fewest tokens that hold this much probability."),
    click.option("--beams", type=click.IntRange(min=1), metavar="N",
                 help="Answers that are followed at a time; 1 is no search."),
    click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of chance. Default: 0."),
    click.option("--stop", multiple=True, metavar="TEXT",
                 help="A text that ends the answer; several times."),
)  # fmt: skip
NAMES = ("max_new_tokens", "temperature", "top_k", "top_p", "beams", "seed", "stop")


def generation_options(function: Callable[..., int]) -> Callable[..., int]:
    """How answers are written; the function gets those that were given as `options`."""

    @functools.wraps(function)
    def gathered(*arguments: Any, **given: Any) -> int:
        chosen = {name: given.pop(name) for name in NAMES}
        kept = {name: value for name, value in chosen.items() if value not in (None, ())}
        return function(*arguments, options=kept, **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def streamable(options: Mapping[str, Any]) -> bool:
    """Whether an answer with these options is known piece by piece."""
    return int(options.get("beams", 1)) == 1
