"""What every recipe settles, and `--set key=value`: text into the typed fields of one."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from sightline.core.errors import ConfigError, unknown_name

R = TypeVar("R")

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


OF_PHASES = "phase_settings"
"""The field of a recipe of several phases that keys such as transfer.lr go to."""


class RunSettings(Protocol):
    """The settings that any run has, whatever it trains; meanings as in `DualEncoderRecipe`."""

    @property
    def system(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def shapes(self) -> tuple[str, ...]: ...
    @property
    def seed(self) -> int: ...
    @property
    def image_size(self) -> int | None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def beta2(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def ema(self) -> float | None: ...
    @property
    def freeze(self) -> tuple[str, ...]: ...
    @property
    def autocast(self) -> str: ...
    @property
    def compile(self) -> bool: ...
    @property
    def parallel(self) -> str: ...
    @property
    def activation_checkpointing(self) -> bool: ...
    @property
    def device(self) -> str: ...
    @property
    def test_share(self) -> float: ...
    @property
    def eval_every(self) -> int | None: ...
    @property
    def eval_limit(self) -> int: ...
    @property
    def save_every(self) -> int | None: ...


class StageSettings(RunSettings, Protocol):
    """Of a run of one stage."""

    @property
    def epochs(self) -> float: ...
    @property
    def most_steps(self) -> int: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup(self) -> float: ...


def parse_assignments(assignments: Iterable[str], option: str = "--set") -> dict[str, str]:
    """["lr=1e-3", ...] to {"lr": "1e-3"}.

    Args:
        option: that they were given by, for the messages.

    Raises:
        ConfigError: no equals sign, or a key given twice.
    """
    found: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{option} {assignment!r}: write key=value, such as lr=0.001")
        if key.strip() in found:
            raise ConfigError(f"{option} {key.strip()!r} is given twice")
        found[key.strip()] = value.strip()
    return found


def override(recipe: R, settings: Mapping[str, str]) -> R:
    """The recipe with some of its fields replaced by values written as text.

    Raises:
        ConfigError: no such field, or text that is no value of its type.
    """
    kinds = get_type_hints(type(recipe))
    names = [f.name for f in fields(recipe)]  # type: ignore[arg-type]  # a dataclass by contract
    changed: dict[str, Any] = {}
    for key, text in settings.items():
        if "." in key and OF_PHASES in names:
            changed[OF_PHASES] = {**changed.get(OF_PHASES, getattr(recipe, OF_PHASES)), key: text}
            continue
        if key not in names or key == OF_PHASES:
            known = [name for name in names if name != OF_PHASES]
            raise ConfigError(unknown_name("setting", key, known))
        changed[key] = parse(key, text, kinds[key])
    return replace(recipe, **changed)  # type: ignore[type-var]


def parse(key: str, text: str, kind: Any) -> Any:
    """One value of type int, float, bool, str, a tuple of one of these, or one of them or None."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return None if text.lower() in ("none", "") else parse(key, text, inner[0])
    if get_origin(kind) is tuple:
        each, parts = get_args(kind)[0], [part.strip() for part in text.split(",")]
        return tuple(parse(key, part, each) for part in parts if part)
    if kind is str:
        return text
    try:
        return _BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ConfigError(
            f"setting {key!r} is {text!r}: write a value of type {kind.__name__}"
        ) from None
