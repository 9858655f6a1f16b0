"""LoRA adapters in PEFT's layout, both ways: adapter_config.json and adapter_model.safetensors.

PEFT puts on transformers' class what was trained here, and here goes on what PEFT trained. Nothing
of a folder is executed.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import (
    CheckpointError,
    ConfigError,
    HubNotFoundError,
    UnsupportedTaskError,
)
from sightline.core.files import atomic_folder, write_json
from sightline.hub.adapter_config import AdapterConfig, read_adapter_config
from sightline.hub.adapter_tensors import (
    FORMAT,
    PREFIX,
    VERSION,
    AdapterTensors,
    own_tensors,
    published_modules,
    read_adapter_tensors,
)
from sightline.hub.download import ADAPTER_CONFIG, ADAPTER_SAFETENSORS, download_adapter
from sightline.hub.keys import check_tensors
from sightline.hub.names import Place, is_hub_id, resolve
from sightline.hub.save import refuse_other_contents, stored_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sightline.core.interfaces import System
    from sightline.nn.lora import LoRALinear

logger = logging.getLogger(__name__)

_DESCRIPTIONS = frozenset({ADAPTER_CONFIG})
_FILE = re.compile(r"adapter_config\.json|adapter_model\.safetensors|README\.md|LICENSE.*|\.git.*")


@dataclass(frozen=True)
class Adapter:
    """An adapter folder whose configuration was read and is supported."""

    name: str
    """The folder or hub id."""
    folder: Path
    config: AdapterConfig


@dataclass(frozen=True)
class Origin:
    """What an adapter belongs to, as its folder will say."""

    base: str | None
    """Hub id or folder of the model below it."""
    revision: str | None = None
    whole: tuple[str, ...] = ()
    """Own names of parameters that learned as a whole."""


def find_adapter(name: str | os.PathLike[str], *, allow_pickle: bool = False) -> Adapter:
    """An adapter by folder or hub id ("org/name"), fetched if need be.

    Raises:
        HubError: and its kin, when it cannot be fetched.
        CheckpointError: no adapter, or one that is not supported.
    """
    text = os.fspath(name)
    folder = Path(text).expanduser()
    if not os.path.isdir(folder):
        if os.path.exists(folder) or not is_hub_id(text):
            raise HubNotFoundError(
                f"no adapter {text!r}: give the folder that holds {ADAPTER_CONFIG}, or a hub id "
                "'organisation/adapter'"
            )
        folder = download_adapter(text, allow_pickle=allow_pickle)
    return Adapter(text, folder, read_adapter_config(folder))


def check_base(adapter: Adapter, place: Place) -> None:
    """Refuse to put an adapter on another model than it was trained on.

    Two hub ids are compared, and two folders that are both there. Whether a folder holds the model
    of a hub id nobody knows: there the shapes alone speak.

    Raises:
        ConfigError: another model.
    """
    wanted = adapter.config.base
    if wanted is None:
        return
    try:
        base = resolve(wanted)
    except (HubNotFoundError, ConfigError):
        logger.info("adapter %s was trained on %s, which is not here", adapter.name, wanted)
        return
    if (base.folder is None) != (place.folder is None):
        return
    if base.folder is None or place.folder is None:
        same = base.name.lower() == place.name.lower()
    else:
        same = os.path.realpath(base.folder) == os.path.realpath(place.folder)
    if not same:
        raise ConfigError(
            f"adapter {adapter.name} was trained on {wanted} and would be put on {place.name}: "
            f"load {wanted} with it. If both are the same weights, set base_model_name_or_path to "
            f"null in {adapter.folder / ADAPTER_CONFIG}"
        )


def put_on(
    network: nn.Module, adapter: Adapter, system: System, config: Any, allow_pickle: bool = False
) -> tuple[str, ...]:
    """Give a network the additions of an adapter, in place.

    Returns:
        Own names of the parameters that the adapter replaces as a whole (`modules_to_save`).

    Raises:
        UnsafeCheckpointError: tensors that exist only as a pickle, which was not allowed.
        CheckpointError: tensors that are broken or do not fit the network, in a list of what is
            missing (-), unexpected (+) and different (!).
    """
    import torch

    from sightline.nn import lora

    stated, bound = adapter.config, system.for_config(config)
    found = own_tensors(bound, stated, read_adapter_tensors(adapter.folder, allow_pickle))
    own = lora.base_state(network, values=False)
    _leave_out_uncomputed(adapter, found, published_modules(bound, own))
    check_tensors(_expected(network, stated, found), found.own, str(adapter.folder), system.name)
    for name, module in found.modules.items():
        rank, alpha = stated.rank_of(module), stated.alpha_of(module)
        lora.add(network, rank, alpha, [name], dropout=stated.dropout, rslora=stated.rslora)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, tensor in found.own.items():
            parameters[name].copy_(tensor)
    return tuple(found.whole)


def _leave_out_uncomputed(
    adapter: Adapter, found: AdapterTensors, computed: Mapping[str, str]
) -> None:
    """Additions that PEFT keeps and never computes; trained by it, their B is still zero.

    Raises:
        CheckpointError: one that is not zero.
    """
    for layer, module in list(found.modules.items()):
        learned = found.own.get(f"{layer}.lora_B")
        if layer == module or layer in computed or learned is None:
            continue
        if bool(learned.any()):
            raise CheckpointError(
                f"{adapter.folder}: the addition to {module} is not zero, and PEFT never computes "
                "it, because it lies inside torch's own attention: merge the adapter with PEFT, or "
                "train it without this module"
            )
        del found.modules[layer]
        for half in "AB":
            found.own.pop(f"{layer}.lora_{half}", None)


def _expected(
    network: nn.Module, stated: AdapterConfig, found: AdapterTensors
) -> dict[str, Tensor]:
    """Tensors without memory in the place of those that the adapter must have."""
    import torch

    from sightline.nn.lora import is_adaptable

    own = network.state_dict()
    expected = {name: own[name] for name in found.whole if name in own}
    linear = {name: m for name, m in network.named_modules() if is_adaptable(m)}
    for name, module in found.modules.items():
        if name in linear:
            rank, layer = stated.rank_of(module), linear[name]
            shapes = {"A": (rank, layer.in_features), "B": (layer.out_features, rank)}
            for half, shape in shapes.items():
                expected[f"{name}.lora_{half}"] = torch.empty(shape, device="meta")
    return expected


def adapted_names(network: nn.Module, system: System, config: Any) -> dict[str, str]:
    """Own name to transformers' name, of every layer with an addition.

    Raises:
        UnsupportedTaskError: none has one, or one is no linear layer of its own there.
    """
    from sightline.nn import lora

    layers = lora.layers(network)
    if not layers:
        raise UnsupportedTaskError("the network carries no additions: there is no adapter to save")
    state = lora.base_state(network, values=False)
    computed = published_modules(system.for_config(config), state)
    for name in layers:
        if name not in computed:
            raise UnsupportedTaskError(
                f"{name} is no linear layer of its own in the published layout of {system.name}, "
                "so that no other program could put the addition on: save the merged model, or "
                "choose other targets"
            )
    return {name: computed[name] for name in layers}


def save_adapter(
    network: nn.Module,
    system: System,
    config: Any,
    folder: str | os.PathLike[str],
    origin: Origin,
) -> Path:
    """Write the additions of a network as an adapter folder, whole or untouched.

    Args:
        folder: replaced if it is an adapter folder already.
        origin: what the adapter was trained on.

    Raises:
        UnsupportedTaskError: see `adapted_names`.
        ConfigError: a folder that holds other things, or additions that one configuration cannot
            describe.
    """
    from safetensors.torch import save_file

    from sightline.nn import lora

    target = Path(folder)
    refuse_other_contents(target, _DESCRIPTIONS, _FILE, "adapter")
    names = adapted_names(network, system, config)
    layers = lora.layers(network)
    tensors = {
        f"{PREFIX}{names[name]}.lora_{half}.weight": value
        for name, layer in layers.items()
        for half, value in (("A", layer.lora_A), ("B", layer.lora_B))
    }
    whole = _whole_modules(network, system.for_config(config), origin.whole)
    stated = _described(layers, names, origin, sorted({n.rpartition(".")[0] for n in whole}))
    state = {n: stored_tensor(n, t.detach(), None) for n, t in {**tensors, **whole}.items()}
    with atomic_folder(target) as temporary:
        write_json(temporary / ADAPTER_CONFIG, stated.to_json(names.values()))
        header = {"format": "pt", "sightline": f"{FORMAT} {VERSION}"}
        save_file(state, os.fspath(temporary / ADAPTER_SAFETENSORS), metadata=header)
    return target


def _whole_modules(
    network: nn.Module, system: System, replaced: Sequence[str]
) -> dict[str, Tensor]:
    """Published tensors of parameters that learned as a whole, with PEFT's prefix."""
    from sightline.nn import lora

    state = lora.base_state(network, values=False)
    wanted = {id(state[name]) for name in replaced}
    written = (system.class_names or dict)(system.write_state(state))
    return {f"{PREFIX}{name}": t for name, t in written.items() if id(t) in wanted}


def _described(
    layers: Mapping[str, LoRALinear], names: Mapping[str, str], origin: Origin, whole: Sequence[str]
) -> AdapterConfig:
    """One configuration for all additions, those of the most layers first."""
    kinds = {(layer.dropout, layer.rslora) for layer in layers.values()}
    if len(kinds) > 1:
        raise ConfigError(
            "the additions differ in dropout or in rsLoRA, which one adapter cannot say: save the "
            "merged model"
        )
    ((dropout, rslora),) = kinds
    (rank, alpha), _ = Counter((x.rank, x.alpha) for x in layers.values()).most_common(1)[0]
    return AdapterConfig(
        origin.base, origin.revision, rank, alpha, dropout, rslora,
        ranks={names[n]: x.rank for n, x in layers.items() if x.rank != rank},
        alphas={names[n]: x.alpha for n, x in layers.items() if x.alpha != alpha},
        whole=tuple(name.removeprefix(PREFIX) for name in whole),
    )  # fmt: skip
