"""Checkpoints that are whole or not there, whenever the process dies.

    out/checkpoints/step-00000120/             complete from the moment it has this name
        training/state.safetensors             weights, average, moments
        training/shards/*.safetensors          the same of a sharded run, one file a process
        training/state.json                    everything else, with the SHA-256 of all
        recipe.json                            the settings of the run
        ...                                    whatever `save_model` writes: a loadable model
    out/checkpoints/last -> step-00000120      for people; resuming looks at the names above
    out/checkpoints/best -> step-00000080

A folder is written under a hidden name, synced to the disk and renamed once; no complete folder
is ever written to again, so the newest one is always readable. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sightline.core.errors import CheckpointError, TrainingError
from sightline.core.files import atomic_folder, write_json

# what reading a file of any content can raise, the last by JSON nested without end
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
FORMAT = "sightline-training-checkpoint"
WHOLE, SHARDED = 1, 2
"""Versions: tensors in one file, which the first Sightline reads too, and tensors in shards."""
VERSION = SHARDED
SHARDS = "training/shards"

logger = logging.getLogger(__name__)


Documents = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The state beside the tensors, and the settings of the run."""
ReadShards = Callable[[Path], dict[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read back whole."""

    folder: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_folders(root: Path) -> list[Path]:
    """Complete checkpoints, oldest first; later ones of the same step come later."""
    return sorted((path for path in root.glob("step-*") if path.is_dir()), key=_order)


def next_folder(root: Path, step: int) -> Path:
    """A name for the checkpoint of a step, that no folder has."""
    folder = root / f"step-{step:08d}"
    revision = 2
    while folder.exists():
        folder = root / f"step-{step:08d}.{revision}"
        revision += 1
    return folder


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    recipe: Mapping[str, Any],
    save_model: Callable[[Path], None] | None = None,
) -> None:
    """Write a complete checkpoint under a new name.

    Raises:
        TrainingError: the disk is full or may not be written to.
    """
    try:
        with atomic_folder(folder) as temporary:
            if save_model is not None:
                save_model(temporary)
            inner = temporary / "training"
            inner.mkdir()
            own, aliases = _without_aliases(tensors)
            save_file(own, inner / "state.safetensors")
            found = {"sha256": sha256_of(inner / "state.safetensors"), "aliases": aliases}
            _write_documents(temporary, WHOLE, found, state, recipe)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error, folder.parent) from error


def begin_shards(stack: ExitStack, folder: Path, save_model: Callable[[Path], None]) -> Path:
    """Begin a checkpoint whose tensors several processes write; where it stands for now.

    It gets its name when `stack` closes, and is gone when that is closed by an error.

    Raises:
        TrainingError: the disk is full or may not be written to.
    """
    try:
        temporary = stack.enter_context(atomic_folder(folder))
        save_model(temporary)
        (temporary / SHARDS).mkdir(parents=True)
        return temporary
    except OSError as error:
        raise cannot_write(folder, error, folder.parent) from error


def end_shards(
    stack: ExitStack,
    folder: Path,
    temporary: Path,
    digests: Mapping[str, str],
    documents: Documents,
) -> None:
    """Complete what `begin_shards` began, once every process has written its shards.

    Args:
        digests: the SHA-256 of every file of shards by name.

    Raises:
        TrainingError: the disk is full or may not be written to.
    """
    try:
        _write_documents(temporary, SHARDED, {"shards": dict(digests)}, *documents)
        stack.close()
    except OSError as error:
        raise cannot_write(folder, error, folder.parent) from error


def _write_documents(
    folder: Path,
    version: int,
    found: Mapping[str, Any],
    state: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> None:
    # as it will be read back, so that its checksum is the same then
    plain = json.loads(json.dumps(state, allow_nan=False))
    head = {"format": FORMAT, "version": version, **found}
    document = {**head, "state_sha256": _text_sha256(plain), "state": plain}
    write_json(folder / "training" / "state.json", document)
    write_json(folder / "recipe.json", recipe)


def cannot_write(path: Path, error: Exception, root: Path) -> TrainingError:
    """The error for a file that could not be written, naming the checkpoint to go on from."""
    done = checkpoint_folders(root)
    rest = f"the last complete checkpoint is {done[-1]}" if done else "no checkpoint exists yet"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return TrainingError(
        f"could not write {path}: {reason}; {rest}. Free some space or choose another folder, "
        "then start the same command again: it goes on from there"
    )


def read_newest(root: Path, tensors: bool = True) -> Checkpoint | None:
    """The newest checkpoint that can be read; None where there is none at all.

    Without `tensors` they are checked and not loaded.

    A damaged one is reported as a warning, set aside as `broken-...` and the one before it is
    taken.

    Raises:
        CheckpointError: every checkpoint is damaged, or one is of a newer version.
    """
    folders = checkpoint_folders(root)
    problems = []
    for folder in reversed(folders):
        try:
            return read_checkpoint(folder, load_tensors=load_tensors_of if tensors else None)
        except DamagedCheckpointError as error:
            problems.append(str(error))
            logger.warning("%s; stepping back to the checkpoint before it", error)
            os.replace(folder, root / f"broken-{folder.name}")
    if problems:
        raise CheckpointError(
            f"none of the {len(folders)} checkpoints in {root} can be read ({problems[0]}): "
            "start a new run in another folder"
        )
    return None


class DamagedCheckpointError(CheckpointError):
    """Files of a checkpoint are missing, cut off or changed."""


def load_tensors_of(
    folder: Path, document: Mapping[str, Any], read_shards: ReadShards | None = None
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whole unless `read_shards` cuts them otherwise."""
    if document["version"] == SHARDED:
        from sightline.training.shard_files import load_shards

        return (read_shards or load_shards)(folder / SHARDS)
    tensors = load_file(folder / "training" / "state.safetensors")
    return tensors | {name: tensors[own] for name, own in document["aliases"].items()}


LoadTensors = Callable[[Path, Mapping[str, Any]], dict[str, Tensor]]


def read_checkpoint(
    folder: Path, checked: bool = False, load_tensors: LoadTensors | None = load_tensors_of
) -> Checkpoint:
    """Read one checkpoint and check that it is whole.

    Args:
        checked: its checksums were compared already.
        load_tensors: how tensors are loaded; None leaves them where they are.

    Raises:
        DamagedCheckpointError: a file is missing, cut off or changed.
        CheckpointError: written by a newer version.
    """
    try:
        text = (folder / "training" / "state.json").read_text(encoding="utf-8")
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r} instead of {FORMAT!r}")
        version = int(document["version"])
        if version <= VERSION:
            if not checked:
                _compare_sums(folder, document)
            tensors = {} if load_tensors is None else load_tensors(folder, document)
            return Checkpoint(folder, tensors, dict(document["state"]))
    except (*DAMAGE, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DamagedCheckpointError(f"checkpoint {folder} is damaged ({reason})") from error
    raise CheckpointError(
        f"checkpoint {folder} has version {version}, this Sightline reads up to {VERSION}: "
        "install the newer Sightline that wrote it"
    )


def _compare_sums(folder: Path, document: Mapping[str, Any]) -> None:
    inner = folder / "training"
    if document["version"] == SHARDED:
        inner, sums = folder / SHARDS, dict(document["shards"])
        strangers = {path.name for path in inner.iterdir()} - sums.keys()
        if strangers:  # they would be read as shards
            raise ValueError(f"{min(strangers)} does not belong to it")
    else:
        sums = {"state.safetensors": document["sha256"]}
    for name, expected in sums.items():
        if sha256_of(inner / name) != expected:
            raise ValueError(f"{name} does not have the SHA-256 that it was given")
    if _text_sha256(document["state"]) != document["state_sha256"]:
        raise ValueError("state.json does not have the SHA-256 that it was given")


def point(root: Path, name: str, folder: Path) -> None:
    """Let `root/name` lead to a checkpoint, replacing the pointer in one step."""
    link = root / name
    if link.is_symlink() and os.readlink(link) == folder.name:
        return
    temporary = root / f".{name}.link"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder.name, target_is_directory=True)
        os.replace(temporary, link)
    except OSError as error:  # some file systems have no links; nothing depends on them
        logger.warning("could not let %s lead to %s: %s", link, folder.name, error)


def prune(root: Path, keep: int, spare: str | None) -> None:
    """Delete all but the `keep` newest checkpoints and the one named `spare`."""
    for folder in checkpoint_folders(root)[:-keep]:
        if folder.name != spare:
            # renamed first: a half-deleted folder must not look complete
            retired = folder.with_name(f".{folder.name}.old")
            os.replace(folder, retired)
            shutil.rmtree(retired, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what a killed process left half written or half deleted."""
    for path in root.glob(".*"):
        if path.suffix in (".part", ".old") and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _order(folder: Path) -> tuple[str, int]:
    name, _, revision = folder.name.partition(".")
    return name, int(revision) if revision.isdigit() else 0


def _without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors fit to be saved, and the further names of those that are shared (tied weights)."""
    own: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        # a copy: views into one storage cannot be saved side by side
        own[name] = tensor.detach().cpu().clone().contiguous()
    return own, aliases


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_sha256(state: Any) -> str:
    text = json.dumps(state, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
