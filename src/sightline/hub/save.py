"""A network to a model folder that transformers reads as its own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.devices import DTYPES
from sightline.core.errors import ConfigError, unknown_name
from sightline.core.files import atomic_folder, write_json
from sightline.core.interfaces import WRITING_ROLES
from sightline.core.version import __version__
from sightline.hub.bundled import CARD_FORMAT, CARD_VERSION
from sightline.hub.configuration import CHECKPOINT_FORMAT, CHECKPOINT_VERSION
from sightline.hub.generation_config import write_generation_config
from sightline.hub.weights import SAFETENSORS, SAFETENSORS_INDEX

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sightline.core.interfaces import System
    from sightline.inputs.processors import Processor

LARGEST_SHARD = 5_000_000_000
"""Bytes in one weight file; the layout's usual limit."""

_DESCRIPTIONS = frozenset(
    {"config.json", "open_clip_config.json", "openai_layout.json", "onnx.json"}
)
"""A folder with one of these is a model folder, in one layout or another."""

_MODEL_FILE = re.compile(
    r"(config|open_clip_config|openai_layout|onnx|card|processor_config|preprocessor_config"
    r"|tokenizer|tokenizer_config|vocab"
    r"|special_tokens_map|added_tokens|generation_config|chat_template|recipe)\.json"
    r"|[\w.-]+\.safetensors(\.index\.json)?|(image|text)\.onnx(\.data)?"
    r"|mask_codec|merges\.txt|vocab\.txt|(spiece|tokenizer)\.model"
    r"|README\.md|LICENSE.*|\.git.*"
)


def save_checkpoint(
    network: nn.Module,
    processor: Processor | None,
    config: Any,
    system: System,
    folder: str | os.PathLike[str],
    dtype: str | torch.dtype | None = None,
    metadata: Mapping[str, Any] | None = None,
    beside: Mapping[str, Path] | None = None,
    end_ids: Sequence[int] = (),
) -> Path:
    """Write config.json, weights and the processor's files; the folder is whole or untouched.

    Args:
        network: any device; nothing of it is changed. Additions (`nn.lora`) are written into the
            weights that they are added to.
        processor: its files are written beside the weights; None writes none.
        config: the system's own config.
        system: the system that built the network.
        folder: replaced if it is a model folder already.
        dtype: number type of the stored floating-point tensors; None keeps each as it is.
        metadata: written as `card.json`.
        beside: folders that belong to the model, copied into its own under these names.
        end_ids: tokens that end an answer of a network that writes; none for the config's own.

    Returns:
        The folder.

    Raises:
        ConfigError: a folder that holds other things than a model, an unknown dtype, or values
            that the dtype cannot hold.
    """
    from sightline.nn.lora import merged_state

    target = Path(folder)
    refuse_other_contents(target)
    own = {name: tensor.detach() for name, tensor in merged_state(network).items()}
    state = {
        name: stored_tensor(name, tensor, stored_dtype(dtype))
        for name, tensor in system.for_config(config).write_state(own).items()
    }
    with atomic_folder(target) as temporary:
        written = system.write_config(config)
        written.setdefault("architectures", [type(network).__name__])
        written["dtype"] = _main_dtype(state)
        written["sightline"] = {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "written_by": __version__,
        }
        write_json(temporary / "config.json", written)
        _write_weights(state, temporary)
        if processor is not None:
            told = system.instructions(config) if system.instructions is not None else None
            processor.save(temporary, system.name, told.picture_tokens if told is not None else 0)
        if system.role in WRITING_ROLES:
            write_generation_config(temporary, config, end_ids)
        if metadata is not None:
            card = {"format": CARD_FORMAT, "version": CARD_VERSION, **metadata}
            write_json(temporary / "card.json", card)
        for name, source in (beside or {}).items():
            shutil.copytree(source, temporary / name)
    return target


def refuse_other_contents(
    target: Path,
    descriptions: frozenset[str] = _DESCRIPTIONS,
    ours: re.Pattern[str] = _MODEL_FILE,
    kind: str = "model",
) -> None:
    """Refuse to replace a folder that holds anything but what is to be written.

    Args:
        descriptions: names of files of which such a folder has one.
        ours: names of the files that such a folder may have.
        kind: what the folder is of, for the message.

    Raises:
        ConfigError: a file, another kind of folder, or one with other files in it.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"{target} is a file: give the name of a folder to save to")
    names = sorted(entry.name for entry in target.iterdir())
    if not names:
        return
    if not descriptions.intersection(names):
        raise ConfigError(
            f"{target} is not empty and no {kind} folder: saving would replace it; give a new "
            "folder"
        )
    strangers = [name for name in names if not ours.fullmatch(name)]
    if strangers:
        raise ConfigError(
            f"{target} holds {strangers[0]!r} beside a {kind}: saving would delete it; move it "
            "away or give a new folder"
        )


def stored_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    import torch

    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES or dtype == "auto":
        raise ConfigError(unknown_name("dtype", dtype, [d for d in DTYPES if d != "auto"]))
    stored: torch.dtype = getattr(torch, dtype)
    return stored


def stored_tensor(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor as the file holds it: on the CPU, dense, in a storage of its own."""
    import torch

    if dtype is not None and tensor.is_floating_point():
        cast = tensor.to(dtype)
        if bool(torch.isinf(cast).any()) and not bool(torch.isinf(tensor).any()):
            raise ConfigError(
                f"tensor {name!r} has values that {str(dtype).removeprefix('torch.')} cannot hold: "
                "save as bfloat16 or float32"
            )
        tensor = cast
    tensor = tensor.cpu().contiguous()
    # Tensors mapped from one file share its storage, which safetensors takes for tied weights.
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor


def _main_dtype(state: Mapping[str, Tensor]) -> str:
    """The number type that most of the weights have."""
    sizes: dict[str, int] = {"float32": 0}
    for tensor in state.values():
        if tensor.is_floating_point():
            name = str(tensor.dtype).removeprefix("torch.")
            sizes[name] = sizes.get(name, 0) + tensor.numel()
    return max(sizes, key=lambda name: sizes[name])


def _write_weights(state: Mapping[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    shards = _shards(state)
    if len(shards) == 1:
        save_file(shards[0], os.fspath(folder / SAFETENSORS), metadata={"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, os.fspath(folder / file), metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(folder / SAFETENSORS_INDEX, index)


def _shards(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in their order, cut wherever the next one would overfill a file."""
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in state.items():
        if filled and filled + tensor.nbytes > LARGEST_SHARD:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    return shards
