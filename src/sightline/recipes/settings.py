"""What every recipe settles, and `--set key=value`: text into the typed fields of one."""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sightline.core.errors import ConfigError, unknown_name

R = TypeVar("R")

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


OF_PHASES = "phase_settings"
"""The field of a recipe of several phases that keys such as transfer.lr go to."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(ABC):
    """The settings that any run has, whatever it trains; recipes add theirs, and own defaults."""

    data: str = ""
    shapes: tuple[str, ...] = ()
    """Of drawn parks: heights and widths that take turns, such as 64x64,48x96; mixed for four of
    them. None given draws squares."""
    seed: int = 0

    # optimisation
    batch_size: int = 64
    """Pictures of all processes together."""
    accumulate: int = 1
    """Micro-batches of `batch_size` that make one batch, with the gradient of the whole."""
    beta2: float = 0.98
    clip: float = 1.0
    ema: float | None = None
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that do not learn: image.*"""
    autocast: str = "auto"
    compile: bool = False
    parallel: str = "auto"
    """How several processes share the work: ddp (the whole network in each; auto takes it) or fsdp
    (each keeps a part)."""
    activation_checkpointing: bool = False
    """Compute each block's inner values again on the way back: less memory, more time."""
    device: str = "auto"

    # around it
    test_share: float = 0.1
    eval_every: int | None = None
    """Steps; None evaluates ten times a run."""
    eval_limit: int = 1000
    save_every: int | None = None
    workers: int = 1

    @property
    @abstractmethod
    def system(self) -> str:
        """Name of the system that is trained."""

    @property
    @abstractmethod
    def image_size(self) -> int | None:
        """Pixels of a side; None takes the size of the pictures."""


@dataclass(frozen=True, kw_only=True)
class StageSettings(RunSettings):
    """Of a run of one stage."""

    epochs: float = 60.0
    most_steps: int = 3000
    """What `epochs` may come to; the rate reaches its end there."""
    steps: int | None = None
    """Instead of epochs."""
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    """Share of the steps."""


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


def settings_of(recipe: Any) -> dict[str, Any]:
    """The resolved recipe as JSON values, for the file beside each checkpoint."""
    return {"recipe": type(recipe).__name__, **asdict(recipe)}
