"""Weights that exist only as a pickle: refused, or opened as tensors only and converted once."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import CheckpointError, HubDiskError, UnsafeCheckpointError
from sightline.core.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


def pickle_refusal(place: str, file: str, wanted: str = "model.safetensors") -> str:
    """Why a pickled weight file is not opened, and what to do instead."""
    return (
        f"{place} has its weights only as {file}, a pickle, which can run code when it is opened: "
        f"choose a repository or revision with {wanted}, or allow it with --allow-pickle / "
        "allow_pickle=True (tensors only, converted once to safetensors)"
    )


def converted(file: Path, cache: Path) -> Path:
    """The safetensors copy of a pickle of tensors, made on first use.

    The copy is named by the real path, size and time of the original: a blob of the hub's cache
    keeps its copy for ever, an edited local file gets a new one.
    """
    from safetensors.torch import save_file

    real = file.resolve()
    stat = real.stat()
    identity = f"{real}|{stat.st_size}|{stat.st_mtime_ns}".encode()
    target = cache / f"{hashlib.sha256(identity).hexdigest()[:32]}.safetensors"
    if not target.is_file():
        state = _unpickle(file)
        logger.info("converting %s to safetensors, once", file)
        try:
            with atomic_file(target) as temporary:
                save_file(state, os.fspath(temporary), metadata={"format": "pt"})
        except OSError as error:
            raise HubDiskError(
                f"{cache} cannot take the safetensors copy of {file.name} ({error.strerror}): make "
                "room, or point HF_HOME to a folder of yours"
            ) from None
    return target


def _unpickle(file: Path) -> dict[str, Tensor]:
    """A flat dict of tensors from a pickle, with the restricted unpickler and no other."""
    import torch

    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UnsafeCheckpointError(
            f"{file}: holds more than tensors, so that opening it could run code: refused; ask its "
            "publisher for safetensors"
        ) from None
    except Exception as error:  # a hostile stream makes the unpickler fail in any way it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: not a readable weight file ({reason})") from None
    for level in ("state_dict", "model"):  # what training loops put around the weights
        if isinstance(loaded, Mapping) and isinstance(loaded.get(level), Mapping):
            loaded = loaded[level]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in loaded.items()
    ):
        raise CheckpointError(f"{file}: expected a dictionary of names to tensors")
    # Tensors of one storage (tied weights) cannot share it in safetensors: each gets its own.
    return {name: value.detach().contiguous().clone() for name, value in loaded.items()}
