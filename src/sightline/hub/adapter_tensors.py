"""The tensors of an adapter, between PEFT's names and the network's own.

A module is called what transformers' class calls it. Names are translated by the system's own
`read_state` and `write_state`, as those of whole checkpoints are, so that there is one table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, UnsafeCheckpointError
from sightline.hub.adapter_config import AdapterConfig
from sightline.hub.download import ADAPTER_PICKLE, ADAPTER_SAFETENSORS
from sightline.hub.environment import converted_folder
from sightline.hub.pickles import converted, pickle_refusal
from sightline.hub.weights import read_safetensors

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.core.interfaces import System

FORMAT, VERSION = "sightline-adapter", "1"
"""Written into the header of the tensors, where PEFT does not look."""
PREFIX = "base_model.model."
"""What PEFT puts around its base."""

_ADDITION = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight")
_FUSED = "in_proj_weight"
"""The weight of `torch.nn.MultiheadAttention`, which calls no linear layer for its projections."""


@dataclass
class AdapterTensors:
    """The tensors of an adapter under the network's own names."""

    own: dict[str, Tensor] = field(default_factory=dict)
    """By "layer.lora_A" and "layer.lora_B", or by the name of a parameter that is replaced; a name
    that says nothing here stays as it is, to be listed."""
    modules: dict[str, str] = field(default_factory=dict)
    """Own name to the file's, of every layer with an addition."""
    whole: list[str] = field(default_factory=list)
    """Own names of parameters that are replaced."""


def read_adapter_tensors(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    """The tensors of an adapter folder by the file's names.

    Raises:
        UnsafeCheckpointError: they exist only as a pickle, which was not allowed.
        CheckpointError: absent, broken, hostile, or written by a newer version.
    """
    from safetensors import safe_open

    file, pickle = folder / ADAPTER_SAFETENSORS, folder / ADAPTER_PICKLE
    if not file.is_file() and pickle.is_file():
        if not allow_pickle:
            raise UnsafeCheckpointError(
                pickle_refusal(str(folder), ADAPTER_PICKLE, ADAPTER_SAFETENSORS)
            )
        file = converted(pickle, converted_folder())
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {ADAPTER_SAFETENSORS}: fetch the adapter again")
    tensors = read_safetensors(file)
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata() or {}
    if "sightline" in told and told["sightline"] != f"{FORMAT} {VERSION}":
        raise CheckpointError(
            f"{file}: written as {told['sightline']!r}, this Sightline reads {FORMAT} {VERSION}: "
            "upgrade sightline"
        )
    return tensors


def own_tensors(
    system: System, stated: AdapterConfig, tensors: Mapping[str, Tensor]
) -> AdapterTensors:
    """The tensors of a file under the network's own names.

    Args:
        system: bound to the network's config.
        stated: the configuration beside the tensors.
        tensors: by the file's names.

    Raises:
        CheckpointError: two names that mean the same tensor.
    """
    found = AdapterTensors()
    for key, tensor in tensors.items():
        count = len(found.own)
        plain = key.removeprefix(PREFIX)
        addition = _ADDITION.fullmatch(plain)
        if addition is not None:
            layer = _own_name(system, f"{addition['module']}.weight").removesuffix(".weight")
            found.modules[layer] = addition["module"]
            found.own[f"{layer}.lora_{addition['half']}"] = tensor
        elif stated.learned_whole(plain.rpartition(".")[0]):
            name = _own_name(system, plain)
            found.whole.append(name)
            found.own[name] = tensor
        else:
            found.own[key] = tensor
        if len(found.own) == count:
            raise CheckpointError(f"the adapter has {key} a second time, in another spelling")
    return found


def _own_name(system: System, published: str) -> str:
    import torch

    # one element: no part of a fused weight, so that a fused name comes back unchanged
    return next(iter(system.read_state({published: torch.empty(1)})), published)


def published_modules(system: System, state: Mapping[str, Any]) -> dict[str, str]:
    """Own name to transformers' name, of every layer whose weight is one layer's weight there too.

    Left out is what a published weight joins from several of ours, and what lies inside torch's
    fused attention: PEFT keeps an addition to its output there and never computes it.

    Args:
        system: bound to the network's config.
        state: all tensors of the network without additions.
    """
    written = (system.class_names or dict)(system.write_state(state))
    names = {id(tensor): name for name, tensor in written.items()}
    found = {}
    for own, tensor in state.items():
        name = names.get(id(tensor), "")
        module = name.removesuffix(".weight")
        inside = f"{module.rpartition('.')[0]}.{_FUSED}" in written
        if own.endswith(".weight") and name.endswith(".weight") and not inside:
            found[own.removesuffix(".weight")] = module
    return found
