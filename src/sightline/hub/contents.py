"""What a model on disk holds, in any layout that is read here: system, config, tensors, processor.

`load` puts the tensors to work, `convert` writes them in another layout; both begin here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sightline.core.errors import CheckpointError
from sightline.hub.configuration import read_config_json
from sightline.hub.environment import converted_folder
from sightline.hub.generation_config import read_end_ids
from sightline.hub.keys import check_state, own_state
from sightline.hub.weights import read_weights
from sightline.models.table import SYSTEMS, system, system_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sightline.core.interfaces import System
    from sightline.inputs.processors import Processor


class Provenance(NamedTuple):
    """Where a model came from, for those who get a copy in another layout."""

    name: str
    """Hub id, bundled name, or the folder's own name."""
    revision: str | None
    """The commit of a hub model."""
    licence: str | None
    """As its card states it, where that is known."""


@dataclass
class Contents:
    """One model as its files describe it; every tensor fits the network."""

    layout: str
    """"transformers", or a name of `hub.layouts`."""
    system: System
    config: Any
    """The system's own frozen config."""
    network: nn.Module
    """Built without memory."""
    state: dict[str, Tensor]
    """Tensors by the network's own names, with the number types that the file has."""
    processor: Processor
    provenance: Provenance | None = None
    """Set by who knows the name; files do not say it."""
    end_ids: tuple[int, ...] = ()
    """Tokens that end an answer; none for a network that does not write."""


def read_contents(path: Path, *, allow_pickle: bool = False) -> Contents:
    """Read a model folder or file, whatever its layout; nothing of it is executed.

    Raises:
        CheckpointError: files that are broken, hostile or do not fit the network.
        UnsafeCheckpointError: weights that exist only as a pickle, which was not allowed.
    """
    from sightline.hub.layouts.detect import layout_of
    from sightline.hub.layouts.table import layout

    name = layout_of(path)
    if name is not None:
        return layout(name).read(path, allow_pickle)
    return _read_transformers(path, allow_pickle)


def assembled(
    layout: str,
    entry: System,
    config: Any,
    state: dict[str, Tensor],
    processor: Processor,
    source: Path,
) -> Contents:
    """The contents of a foreign layout, after the proof that the tensors fit the network.

    Raises:
        CheckpointError: a config that cannot be built, or tensors that do not fit it.
    """
    network = _built(source, entry, config)
    check_state(network, state, str(source), entry.name)
    return Contents(layout, entry, config, network, state, processor)


def _read_transformers(folder: Path, allow_pickle: bool) -> Contents:
    from sightline.inputs.processors import Processor

    published = read_config_json(folder)
    entry = _system(folder, published)
    config, network = _described(folder, entry, published)
    weights = read_weights(folder, allow_pickle=allow_pickle, cache=converted_folder())
    if entry.match_config is not None:
        settled = entry.match_config(config, weights)
        if settled != config:
            config, network = settled, _without_memory(entry, settled)
    entry = entry.for_config(config)
    state = own_state(entry.read_state, weights, str(folder))
    check_state(network, state, str(folder), entry.name)
    words = entry.text(config) if entry.text is not None else None
    processor = Processor.load(folder, entry.preprocessing(config), words)
    ends = read_end_ids(folder, entry, config)
    return Contents("transformers", entry, config, network, state, processor, end_ids=ends)


def _system(folder: Path, published: Mapping[str, Any]) -> System:
    """The system that reads this configuration; half models and foreign code get their sentence."""
    kind = published.get("model_type")
    whole = {kind for name in SYSTEMS for kind in system(name).model_types}
    for part, word in (("_vision_model", "picture"), ("_text_model", "text")):
        if isinstance(kind, str) and kind.endswith(part) and kind.removesuffix(part) in whole:
            raise CheckpointError(
                f"{folder} holds only the {word} half of a {kind.removesuffix(part)} model "
                f"(model_type {kind!r}): fetch the whole one"
            )
    try:
        return system_for(published)
    except CheckpointError as error:
        code = "; the code it brings (auto_map) is never run" if "auto_map" in published else ""
        raise CheckpointError(f"{folder}: {error}{code}") from None


def _described(
    folder: Path, entry: System, published: Mapping[str, Any]
) -> tuple[Any, nn.Module]:  # fmt: skip
    """Config and network, the latter without memory."""
    try:
        config = entry.read_config(published)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    except _UNBUILDABLE as error:
        raise _not_buildable(folder, "config.json", error) from None
    return config, _built(folder, entry, config)


_UNBUILDABLE = (ValueError, TypeError, RuntimeError, ArithmeticError, KeyError, AssertionError)


def _built(source: Path, entry: System, config: Any) -> nn.Module:
    try:
        return _without_memory(entry, config)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    except _UNBUILDABLE as error:
        raise _not_buildable(source, "config.json", error) from None


def _not_buildable(source: Path, file: str, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{source}: {file} describes no network that can be built ({reason})"
    )  # fmt: skip


def _without_memory(entry: System, config: Any) -> nn.Module:
    from sightline.nn.meta import without_memory

    with without_memory():
        return entry.build(config)
