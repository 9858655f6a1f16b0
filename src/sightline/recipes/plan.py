"""`sightline plan`: what a model needs in memory, and the largest batch that fits, before the run.

Nothing is fetched, loaded or allocated: the configuration says what the network looks like, and
`memory_model` follows one step of it. What the prediction leaves out: pictures that the loader
decodes ahead, evaluation between the steps, and the copy that saving a checkpoint may make. A
network that writes is trained on prompts and answers of one length, all of whose logits exist at
once. For a GPU that is not there the kernels of the CPU stand in, and what its driver and its
allocator keep is not counted. On a CPU the holes that the C library's heap keeps are part of it
(`heap`): in the step of small networks with micro-batches they were measured at up to as much again
as the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sightline.core.devices import choose_device, choose_dtype
from sightline.core.errors import CheckpointError, ConfigError, UnsupportedTaskError, unknown_name
from sightline.core.interfaces import System
from sightline.hub.catalogue import find
from sightline.hub.configuration import read_config_json
from sightline.hub.names import resolve
from sightline.models.table import SYSTEMS, system, system_for
from sightline.recipes.free_memory import free_memory, held_now
from sightline.recipes.memory_model import MemoryModel, memory_model, total
from sightline.recipes.rehearsal import INFERENCE, KINDS, Work

LARGEST_BATCH = 1 << 16
"""Where the search for the largest batch ends."""


@dataclass(frozen=True)
class Fit:
    """How far one kind of work can go."""

    kind: str
    batch: int
    """The largest that fits, up to `LARGEST_BATCH`; 0 where not even one picture does."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a run would hold at its worst moment."""

    model: str
    kind: str
    batch: int
    accumulate: int
    dtype: str
    device: str
    parameters: int
    parts: dict[str, int]
    """Bytes; "libraries" is what this process held before, on a CPU."""
    free: int | None
    """Bytes that the run may take, libraries included; None where nobody knows."""
    largest: tuple[Fit, ...]
    """Empty where `free` is None."""

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return total(self.parts)

    @property
    def fits(self) -> bool | None:
        """None where nobody knows what is free."""
        return None if self.free is None else self.total <= self.free

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {**asdict(self), "total": self.total, "fits": self.fits}


# Twelve arguments, all but one with a default and passed by name: they are the command's options.
def plan(
    name: str,
    *,
    batch: int = 32,
    kind: str = INFERENCE,
    dtype: str = "auto",
    device: str = "auto",
    accumulate: int = 1,
    rank: int = 8,
    image_size: int | None = None,
    activation_checkpointing: bool = False,
    tokens: int = 64,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MemoryPlan:
    """Predict the memory of one step of training, or of one batch of answers.

    Args:
        name: a published size as "system:variant", a known or bundled name, or a folder.
        batch: pictures, and sentences, of a micro-batch.
        kind: "none" for inference, or one of `rehearsal.KINDS`.
        dtype: of the products; training keeps float32 weights and lowers products by autocast.
        accumulate: micro-batches of a step.
        rank: of the additions of "lora" and "qlora".
        image_size: pixels of a side, instead of the model's own.
        tokens: of a prompt and its answer, half each, for a model that writes.
        memory: bytes that may be used, instead of what is free here. With it, a GPU need not be
            present.
        progress: called with kinds of work looked at and their number.

    Raises:
        ConfigError: settings that do not exist or do not fit together.
        UnsupportedTaskError: what the model cannot do.
        HubNotFoundError: no model of that name.
    """
    if batch < 1:
        raise ConfigError(f"batch {batch}: use a number from 1 on")
    held, where = held_now(), planned_device(device, memory)
    libraries = held if where.type == "cpu" else 0
    free = memory
    if memory is None:
        rest = free_memory(where)
        free = None if rest is None else rest + libraries
    entry, config = find_network(name)
    if image_size is not None:
        config = with_image_size(config, image_size)
    number = planned_dtype(dtype, where)
    work = Work(entry, config, kind, number, accumulate, rank, activation_checkpointing, tokens)
    models = _models(work, where.type, free is not None, progress)
    chosen = models[kind]
    parts = {**chosen.peak(batch), "libraries": libraries}
    fits = () if free is None else tuple(
        Fit(each, largest_batch(model, free - libraries)) for each, model in models.items()
    )  # fmt: skip
    return MemoryPlan(
        name, kind, batch, accumulate, str(number).removeprefix("torch."), str(where),
        chosen.parameters, {part: n for part, n in parts.items() if n}, free, fits,
    )  # fmt: skip


def planned_device(name: str, memory: int | None) -> torch.device:
    """The device by name; where its memory is told, a GPU that is not in this machine too.

    Raises:
        ConfigError: see `core.devices.choose_device`.
    """
    if memory is not None and name.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        return torch.device("cuda")
    return choose_device(name)


def planned_dtype(name: str, where: torch.device) -> torch.dtype:
    """The number type of products; of a GPU that cannot be asked, bfloat16."""
    if name == "auto" and where.type == "cuda" and not torch.cuda.is_available():
        return torch.bfloat16
    return choose_dtype(name, where)


def _models(
    work: Work, device: str, all_kinds: bool, progress: Callable[[int, int], None] | None
) -> dict[str, MemoryModel]:
    """The model of memory by kind: the one asked for, and all that the system can do."""
    models = {}
    kinds: Sequence[str] = (INFERENCE, *KINDS) if all_kinds else (work.kind,)
    for number, kind in enumerate(kinds):
        try:
            models[kind] = memory_model(replace(work, kind=kind), device)
        except UnsupportedTaskError:
            if kind == work.kind:
                raise
        if progress is not None:
            progress(number + 1, len(kinds))
    return models


def largest_batch(model: MemoryModel, memory: int) -> int:
    """The largest micro-batch whose step stays within so many bytes; 0 when none does."""

    def fits(batch: int) -> bool:
        return total(model.peak(batch)) <= memory

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= LARGEST_BATCH and fits(high):
        low, high = high, 2 * high
    if high > LARGEST_BATCH:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def find_network(name: str) -> tuple[System, Any]:
    """The system and configuration behind a name, without fetching anything.

    Raises:
        ConfigError: an unknown variant, or a model whose configuration is not on this machine.
        HubNotFoundError: no model of that name.
        CheckpointError: a folder whose configuration cannot be read.
    """
    family, colon, variant = name.partition(":")
    if colon and family in SYSTEMS and not Path(name).is_dir():
        entry = system(family)
        if variant not in entry.variants:
            raise ConfigError(unknown_name(f"variant of {family}", variant, entry.variants))
        return entry, entry.variants[variant]
    place = resolve(name)
    folder = place.folder or _cached(place.name)
    if folder is None:
        known = find(place.name)
        if known is not None and known.variant:
            entry = system(known.system)
            return entry, entry.variants[known.variant]
        raise ConfigError(
            f"the configuration of {place.name} is not on this machine: run 'sightline pull "
            f"{place.name}', or name a published size as system:variant, such as clip:B/32"
        )
    published = read_config_json(folder)
    entry = system_for(published)
    try:
        return entry, entry.read_config(published)
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise CheckpointError(f"{folder}: {error}") from None


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    from sightline.hub.environment import cache_folder

    found = try_to_load_from_cache(name, "config.json", cache_dir=cache_folder())
    return Path(found).parent if isinstance(found, str) else None


def with_image_size(config: Any, size: int) -> Any:
    """The configuration for square pictures of that side.

    Raises:
        ConfigError: a network without pictures of one size, or a side that is not whole patches.
    """
    tower = config if hasattr(config, "image_size") else getattr(config, "image", None)
    if tower is None or not hasattr(tower, "image_size"):
        raise ConfigError("this model has no picture size to change: leave out the image size")
    patch = getattr(tower, "patch_size", (1, 1))
    rows = patch[0] if isinstance(patch, tuple) else int(patch)
    if size < rows or size % rows:
        raise ConfigError(f"image size {size}: use a multiple of the patch size, {rows}")
    square = (size, size) if isinstance(tower.image_size, tuple) else size
    changed = replace(tower, image_size=square)
    return changed if tower is config else replace(config, image=changed)
