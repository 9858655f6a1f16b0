"""Batches as the loop sees them: something with tensors in it, from a loader that can resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from sightline.core.errors import DataError

Batch = Any


class Loader(Protocol):
    """Batches in a repeatable order.

    `state_dict` is the state after the batch that was handed out last, whatever was fetched
    ahead: after `load_state_dict`, iterating begins with the following batch. It must be made of
    what JSON can hold.
    """

    def __iter__(self) -> Iterator[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


def endless(loader: Loader) -> Iterator[Batch]:
    """The loader's batches, beginning again whenever it ends.

    Raises:
        DataError: the loader gave no batch at all in two passes.
    """
    empty_passes = 0
    while empty_passes < 2:  # resuming at the very end of an epoch gives one empty pass
        empty_passes += 1
        for batch in loader:
            empty_passes = 0
            yield batch
    raise DataError(
        "the data loader gave no batch: are there fewer examples than one batch holds? "
        "Use a smaller batch size or more data"
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor in it on `device`.

    Looks into mappings, lists, tuples (named ones too) and dataclasses; the rest stays as it is.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = [field.name for field in dataclasses.fields(batch) if field.init]
        moved = {name: to_device(getattr(batch, name), device) for name in fields}
        return dataclasses.replace(batch, **moved)
    return batch


def count_pictures(batch: Batch) -> int:
    """Pictures in a batch: the length of the first tensor in it, or of the batch itself."""
    first = _first_tensor(batch)
    if first is not None:
        return int(first.shape[0]) if first.ndim else 1
    return len(batch) if hasattr(batch, "__len__") else 1


def _first_tensor(batch: Batch) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch
    values: list[Any] = []
    if isinstance(batch, Mapping):
        values = list(batch.values())
    elif isinstance(batch, list | tuple):
        values = list(batch)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    for value in values:
        found = _first_tensor(value)
        if found is not None:
            return found
    return None
