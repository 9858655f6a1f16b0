"""The adapter_config.json of PEFT's layout: which additions an adapter holds, and their scale.

A field that this file does not know and that says anything is refused by its name: skipped, it
would make the answers others than those that the adapter was trained for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline.core.errors import CheckpointError
from sightline.hub.download import ADAPTER_CONFIG
from sightline.inputs.published import read_object

LARGEST_RANK = 1 << 14

_READ = frozenset(
    "peft_type base_model_name_or_path revision r lora_alpha lora_dropout use_rslora rank_pattern "
    "alpha_pattern modules_to_save init_lora_weights bias".split()
)
_WITHOUT_EFFECT = frozenset(
    # The tensors say which modules are adapted, so that no pattern of somebody else's is run;
    # the rest is about training, about PEFT's own classes, or belongs to fields that are refused.
    "target_modules exclude_modules layers_to_transform layers_pattern auto_mapping peft_version "
    "task_type inference_mode runtime_config megatron_core qalora_group_size eva_config".split()
)
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
"""Beginnings that take something out of the base weights before the adapter is trained."""
_PLAIN = re.compile(r"\^?[\w.-]+\$?")


@dataclass(frozen=True)
class AdapterConfig:
    """What the configuration says, checked."""

    base: str | None
    """What the adapter was trained on: a hub id or a folder."""
    revision: str | None
    """Of the base."""
    rank: int
    alpha: float
    dropout: float
    rslora: bool
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Ranks of modules that have one of their own, by full name or end of it."""
    alphas: Mapping[str, float] = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    """Modules that learned all of their parameters (`modules_to_save`)."""

    def rank_of(self, module: str) -> int:
        """The rank of one module's addition, by its name in the file."""
        return int(_pattern_value(self.ranks, module, self.rank))

    def alpha_of(self, module: str) -> float:
        """The alpha of one module's addition."""
        return _pattern_value(self.alphas, module, self.alpha)

    def learned_whole(self, module: str) -> bool:
        """Whether a module learned all of its parameters."""
        return any(_ends(module, name) for name in self.whole)

    def to_json(self, modules: Iterable[str]) -> dict[str, Any]:
        """The document that PEFT reads.

        Args:
            modules: full names of the adapted modules.
        """
        return {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": self.base,
            "revision": self.revision,
            "r": self.rank,
            "lora_alpha": _short(self.alpha),
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "rank_pattern": dict(self.ranks),
            "alpha_pattern": {name: _short(alpha) for name, alpha in self.alphas.items()},
            "target_modules": sorted(modules),
            "modules_to_save": list(self.whole) or None,
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "inference_mode": True,
        }


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The configuration of an adapter folder.

    Raises:
        CheckpointError: absent, broken, of another kind of adapter, or with features that are not
            supported.
    """
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no {ADAPTER_CONFIG}: it is not an adapter in PEFT's layout"
        )
    config = read_object(file)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{file}: an adapter of type {kind!r}; this version reads LORA")
    _refuse_unsupported(file, config)
    rank = _number(file, config, "r", 8)
    if rank != int(rank):
        raise CheckpointError(f"{file}: 'r' is {rank}, where a whole number is expected")
    ranks = _patterns(file, config, "rank_pattern")
    dropout = float(_value(file, config, "lora_dropout", (int, float), 0.0))
    if not 0 <= dropout < 1:
        raise CheckpointError(
            f"{file}: 'lora_dropout' is {dropout}, where a share from 0 to below 1 is expected"
        )
    return AdapterConfig(
        base=_value(file, config, "base_model_name_or_path", (str,), None) or None,
        revision=_value(file, config, "revision", (str,), None) or None,
        rank=int(rank),
        alpha=_number(file, config, "lora_alpha", 8),
        dropout=dropout,
        rslora=_value(file, config, "use_rslora", (bool,), False),
        ranks={name: int(value) for name, value in ranks.items()},
        alphas=_patterns(file, config, "alpha_pattern"),
        whole=_names(file, config, "modules_to_save"),
    )


def _refuse_unsupported(file: Path, config: Mapping[str, Any]) -> None:
    start = config.get("init_lora_weights")
    changed = isinstance(start, str) and start.lower().startswith(_OTHER_BASES)
    told = [name for name, value in config.items() if value and name not in _READ | _WITHOUT_EFFECT]
    if config.get("bias") not in (None, "none"):
        told.append("bias")
    if changed:
        told.append("init_lora_weights")
    if told:
        name = told[0]
        raise CheckpointError(
            f"{file}: {name} = {str(config[name])[:60]!r} is not supported: merge the adapter into "
            "its base model with PEFT and load the merged model"
        )


def _value(file: Path, config: Mapping[str, Any], name: str, kinds: Any, default: Any) -> Any:
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise CheckpointError(
            f"{file}: {name!r} is {str(value)[:60]!r}, where a value like {default!r} is expected"
        )
    return value


def _number(file: Path, config: Mapping[str, Any], name: str, default: float) -> float:
    """A number of which neither 0 nor infinity makes sense; ranks stay within bounds."""
    value = float(_value(file, config, name, (int, float), default))
    if not math.isfinite(value) or value == 0 or (name == "r" and not 1 <= value <= LARGEST_RANK):
        raise CheckpointError(f"{file}: {name!r} is {value}, which no addition has")
    return value


def _patterns(file: Path, config: Mapping[str, Any], name: str) -> dict[str, float]:
    """Numbers by full names of modules or ends of them.

    Raises:
        CheckpointError: names that are regular expressions; somebody else's could take for ever.
    """
    table = _value(file, config, name, (dict,), {})
    inner = "r" if name == "rank_pattern" else "lora_alpha"
    found = {}
    for key, value in table.items():
        if not _PLAIN.fullmatch(key):
            raise CheckpointError(
                f"{file}: {name} has {key[:60]!r}, a regular expression; names of modules and ends "
                "of them are read"
            )
        found[key] = _number(file, {inner: value}, inner, 1)
    return found


def _names(file: Path, config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    names = _value(file, config, name, (list,), [])
    if not all(isinstance(each, str) for each in names):
        raise CheckpointError(f"{file}: {name!r} is no list of names")
    return tuple(names)


def _pattern_value(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: the first key that is the name, or the end of it behind a dot."""
    for key, value in patterns.items():
        plain = key.removeprefix("^").removesuffix("$")
        if plain == module or (not key.startswith("^") and _ends(module, plain)):
            return value
    return default


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _short(number: float) -> int | float:
    return int(number) if number == int(number) else number
