"""How an answer is written: how long, how freely, and where it stops."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from sightline.core.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is written. `read_options` makes them from what a person typed.

    Raises:
        ConfigError: a value that is not allowed, or two that exclude each other.
    """

    max_new_tokens: int
    """The longest answer, in tokens, the end token included."""
    temperature: float = 0.0
    """0 takes the likeliest token; 1 draws from the network's own distribution, less is bolder."""
    top_k: int | None = None
    """Draw among so many of the likeliest tokens only."""
    top_p: float | None = None
    """Draw among the fewest likeliest tokens that hold this much of the probability."""
    beams: int = 1
    """Answers that are followed at a time; 1 is no search."""
    length_penalty: float = 1.0
    """Beams are compared by log-probability / tokens ** this: above 0, longer ones gain."""
    early_stopping: bool = False
    """End a search with as many finished answers as beams, even if an open one could be better."""
    repetition_penalty: float = 1.0
    """Above 1, scores of tokens that the prompt or the answer holds already are lowered by it."""
    no_repeat_ngram: int = 0
    """No sequence of so many tokens is written twice, that of the prompt included; 0: no rule."""
    seed: int = 0
    """Every row draws from a generator of its own that starts here."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are no part of it."""

    def __post_init__(self) -> None:
        for name, (fits, allowed) in _ALLOWED.items():
            value = getattr(self, name)
            if not fits(value):
                raise ConfigError(f"{name} is {value!r}: it must be {allowed}")
        if self.beams > 1 and self.sampled:
            raise ConfigError(
                f"beams is {self.beams} and temperature {self.temperature}: a search for the "
                "likeliest answer draws nothing; leave one of them out"
            )
        for name in ("top_k", "top_p"):
            value = getattr(self, name)
            if value is not None and value != 1.0 and not self.sampled:
                raise ConfigError(
                    f"{name} is {value} but temperature is 0, which always takes the likeliest "
                    f"token: set temperature (1 is the network's own), or leave {name} out"
                )

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn by chance."""
        return self.temperature > 0


def read_options(given: Mapping[str, Any], **defaults: Any) -> GenerationOptions:
    """The options that a person gave, over a task's defaults.

    Args:
        given: options by name; `stop` may be one text or a list.

    Raises:
        ConfigError: an unknown name, with the nearest; a value that is not allowed.
    """
    names = [field.name for field in fields(GenerationOptions)]
    for name in given:
        if name == "schema":
            raise ConfigError(
                "schema: answers that follow a schema cannot be written yet; "
                "leave it out, or give the possible answers as choices"
            )
        if name not in names:
            raise ConfigError(unknown_name("option", name, names))
    merged = {**defaults, **given}
    stop = merged.get("stop", ())
    if isinstance(stop, (str, list)):
        merged["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    return GenerationOptions(**merged)


def _whole(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most
    )


def _number(fits: Callable[[float], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and fits(float(value))
    )


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) and text for text in value)


_ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (_whole(0), "a whole number, 0 or more"),
    # Below that, scores divided by it leave float32.
    "temperature": (_number(lambda t: t == 0 or t >= 0.001), "0 (greedy) or at least 0.001"),
    "top_k": (_or_none(_whole(1)), "a whole number of tokens, 1 or more"),
    "top_p": (_or_none(_number(lambda p: 0 < p <= 1)), "above 0 and at most 1"),
    "beams": (_whole(1, 1024), "a whole number from 1 to 1024"),
    "length_penalty": (_number(lambda p: True), "a finite number"),
    "early_stopping": (lambda value: isinstance(value, bool), "true or false"),
    "repetition_penalty": (_number(lambda p: p > 0), "above 0; 1 changes nothing"),
    "no_repeat_ngram": (_whole(0), "a whole number of tokens; 0 is no rule"),
    "seed": (_whole(0, 2**63 - 1), "a whole number from 0 to 2**63 - 1"),
    "stop": (_texts, "a tuple of texts, none of them empty"),
}
"""For each option, what fits and how to say it."""
