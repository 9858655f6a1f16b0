"""Whether a resumed run has the settings that it was started with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sightline.core.errors import ConfigError
from sightline.training.distributed import exchange, rank

HARMLESS = frozenset(
    "out minutes save_every eval_every log_every keep plot resume allow_changes device workers "
    "progress parallel activation_checkpointing".split()
)
"""Names that may differ at any depth: they change no weight."""


def as_json(value: Any) -> Any:
    """The value as JSON would give it back; paths and other objects become their text."""
    return json.loads(json.dumps(value, default=str))


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], out: object) -> None:
    """Compare the settings of the checkpoint with those of the run that would go on from it.

    Raises:
        ConfigError: they differ in what matters, with a list of - old and + new lines.
    """
    lines = changes(before, now)
    if lines:
        raise ConfigError(
            f"the run in {out} was started with other settings:\n"
            + "\n".join(lines)
            + "\nUse these again, choose another folder, or set allow_changes=True to go on with "
            "the new ones"
        )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "- name = old" and "+ name = new" for every setting that matters and differs.

    A setting that is None now and that the older side does not know has changed nothing: the run
    was started before it existed.
    """
    old, new = _flat(before), _flat(now)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, ...) == new.get(name, ...) or (name not in old and new[name] is None):
            continue
        if name in old:
            lines.append(f"- {name} = {old[name]!r}")
        if name in new:
            lines.append(f"+ {name} = {new[name]!r}")
    return lines


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{k}" if prefix else str(k), v) for k, v in value.items()
                 if k not in HARMLESS]  # fmt: skip
    elif isinstance(value, list):
        items = [(f"{prefix}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in items:
        flat |= _flat(inner, name)
    return flat


def agree(**things: Any) -> None:
    """Refuse to begin where the processes that train together were given different things.

    Raises:
        ConfigError: naming the first thing that differs, in every process.
    """
    own = {name: hashlib.sha256(_canonical(value)).hexdigest() for name, value in things.items()}
    for number, other in enumerate(exchange(own)):
        for name, digest in own.items():
            if other.get(name) != digest:
                raise ConfigError(
                    f"the processes that train together were given different {name} (processes "
                    f"{rank()} and {number}): start all with the same command on the same files"
                )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
