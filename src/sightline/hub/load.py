"""From a name to a network with its weights and its preprocessing.

Built on the meta device, then each weight is taken from the mapped file in the number type where it
will live: the memory of a load is the memory of the network. Every tensor must fit, by name and by
shape. Nothing of a folder is executed: JSON and safetensors are read, code is not looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.devices import choose_device, choose_dtype, fast_bfloat16
from sightline.core.errors import ConfigError
from sightline.hub.adapters import Adapter, Origin, check_base, find_adapter, put_on
from sightline.hub.bundled import DRAWN_PARKS, read_card
from sightline.hub.contents import read_contents
from sightline.hub.names import Place, resolve
from sightline.hub.quantize import check_quantize, quantize_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sightline.core.interfaces import System
    from sightline.inputs.processors import Processor

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class Loaded:
    """A network that is ready to answer, and all that its folder says about it."""

    network: nn.Module
    processor: Processor
    config: Any
    """The system's own frozen config."""
    system: System
    name: str
    """The hub id, bundled name or folder that the weights came from, and the adapter on them."""
    revision: str | None
    """The commit of a hub model."""
    folder: Path
    device: torch.device
    dtype: torch.dtype
    """Number type of linears and convolutions."""
    bundled: bool
    domain: str | None
    """What the model knows, where that is narrow: "drawn parks"."""
    origin: Origin | None = None
    """What an adapter of this network is for, where the weights came from somewhere."""
    quantize: str | None = None
    """How the image tower is stored in fewer bits."""
    end_ids: tuple[int, ...] = ()
    """Tokens that end an answer; none for a network that does not write."""


def load_checkpoint(
    name: str | os.PathLike[str],
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    quantize: str | None = None,
    allow_pickle: bool = False,
) -> Loaded:
    """Load a model by folder, bundled name, known name ("ViT-B/32") or hub id ("org/name").

    Args:
        name: searched in this order: an existing folder, a bundled model, a known name, the hub.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: number type of linears and convolutions; "auto" is bfloat16 where the device is fast
            in it. Everything else stays float32.
        revision: branch, tag or commit of a hub model.
        adapter: folder or hub id of a LoRA adapter in PEFT's layout, put on top and not merged.
        quantize: "int8" turns the transformers that see pictures to 8-bit weights and activations,
            for answers on the CPU (`nn.quantised`); an adapter is merged first.
        allow_pickle: open weights that exist only as a pickle, as tensors only.

    Raises:
        HubError: and its kin, when a hub model cannot be fetched.
        CheckpointError: files that are broken, hostile or do not fit the network.
        ConfigError: an unknown device, dtype or combination, an adapter of another model, or a
            network without anything that `quantize` could turn.
    """
    import torch

    from sightline.nn.packed import pack

    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    check_quantize(quantize, chosen_device, chosen_dtype)
    place = resolve(os.fspath(name))
    worn = None if adapter is None else find_adapter(adapter, allow_pickle=allow_pickle)
    if worn is not None:
        check_base(worn, place)
    if place.folder is None:
        from sightline.hub.download import download

        folder = download(place.name, revision, allow_pickle=allow_pickle)
    else:
        if revision is not None:
            raise ConfigError(f"revision {revision!r} belongs to hub models; {name} is a folder")
        folder = place.folder
    loaded = _load_folder(folder, place, worn, chosen_device, chosen_dtype, allow_pickle)
    if quantize is not None:
        quantize_images(loaded.network, loaded.processor, loaded.system)
        loaded.quantize = quantize
    if chosen_dtype == torch.bfloat16 and chosen_device.type == "cpu" and fast_bfloat16("cpu"):
        pack(loaded.network)
    return loaded


def _load_folder(
    folder: Path,
    place: Place,
    worn: Adapter | None,
    device: torch.device,
    dtype: torch.dtype,
    allow_pickle: bool,
) -> Loaded:
    contents = read_contents(folder, allow_pickle=allow_pickle)
    network = contents.network
    _fill(network, contents.state, device, dtype)
    _fill_computed_buffers(network, contents.system, contents.config, device)
    whole: tuple[str, ...] = ()
    if worn is not None:
        whole = put_on(network, worn, contents.system, contents.config, allow_pickle)
    domain = read_card(folder).get("domain", DRAWN_PARKS if place.bundled else None)
    revision = folder.name if _COMMIT.fullmatch(folder.name) else None
    return Loaded(
        network=network.eval().requires_grad_(False),
        processor=contents.processor,
        config=contents.config,
        system=contents.system,
        name=place.name if worn is None else f"{place.name} + {worn.name}",
        revision=revision,
        folder=folder,
        device=device,
        dtype=dtype,
        bundled=place.bundled,
        domain=domain if isinstance(domain, str) else None,
        origin=Origin(_lasting_name(place), revision, whole),
        end_ids=contents.end_ids,
    )


def _lasting_name(place: Place) -> str:
    """The name of a model, a folder's from the root."""
    local = place.folder is not None and not place.bundled
    return os.path.abspath(place.name) if local else place.name


def _fill(
    network: nn.Module, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> None:
    """Put the weights in place, each read once and converted straight to its final type."""
    from sightline.nn.precision import lower

    lower(network, dtype)
    # bfloat16 and float16 files are widened wherever the network keeps float32. A copy even where
    # nothing changes: mapped tensors lie at odd addresses, which changes the last bits of products,
    # and a file that somebody truncates would take the process with it.
    final = {
        name: state[name].to(device=device, dtype=expected.dtype, copy=True)
        for name, expected in network.state_dict().items()
    }
    network.load_state_dict(final, strict=True, assign=True)


def _fill_computed_buffers(
    network: nn.Module, system: System, config: Any, device: torch.device
) -> None:
    """Give buffers that no file holds the values that their constructor computes.

    Only a build with memory knows them; systems without such buffers do not pay for it.
    """
    import torch

    empty = {name for name, buffer in network.named_buffers() if buffer.is_meta}
    if not empty:
        return
    with torch.device("cpu"):
        computed = dict(system.build(config).named_buffers())
    for name in empty:
        owner, _, own_name = name.rpartition(".")
        network.get_submodule(owner)._buffers[own_name] = computed[name].to(device)


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache is named after; None for other folders."""
    return folder.name if _COMMIT.fullmatch(folder.name) else None
