"""Tensors of a sharded run on disk: each process writes its part, any number reads them back.

Through `torch.distributed.checkpoint`, which cuts saved parts anew to those that are wanted. Its
usual layout keeps an index that is read by `pickle`, and what is no tensor by `torch.load`; both
can run code. Here the parts are safetensors with their places in the header, and nothing else is
in the folder: reading them runs nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from sightline.training.checkpoints import cannot_write

Like = Callable[[str, Tensor], Tensor]
"""Name and a meta tensor of the saved shape and type, to the tensor that is to be filled."""


def on_the_cpu(name: str, empty: Tensor) -> Tensor:
    """The whole tensor, in memory."""
    return torch.empty_like(empty, device="cpu")


def save_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the tensors, each process its part; every process calls this.

    Raises:
        TrainingError: one of the processes could not write; in all of them.
    """
    detached = {name: tensor.detach() for name, tensor in tensors.items()}
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _without_remarks():
            save(detached, storage_writer=writer)
    except CheckpointException as error:
        number, (cause, _) = next(iter(error.failures.items()))
        reason = OSError(f"process {number}: {cause}")
        raise cannot_write(folder, reason, folder.parents[2]) from error


def load_shards(folder: Path, like: Like = on_the_cpu, alone: bool = True) -> dict[str, Tensor]:
    """Read tensors that were saved in parts.

    Args:
        like: says which part of each is wanted here, and where.
        alone: whether this process reads by itself, without asking the others.
    """
    described = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    wanted = {
        name: like(name, torch.empty(entry.size, dtype=entry.properties.dtype, device="meta"))
        for name, entry in described.items()
        if isinstance(entry, TensorStorageMetadata)  # safetensors hold nothing else
    }
    with _without_remarks():
        load(wanted, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)
    return wanted


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Torch warns of its own deprecations and of a missing group, which are not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
