"""The weight files of a model folder, read without trusting them.

safetensors files are mapped, not copied. Their header is read first by code of our own, because a
file that claims too much must fail with a sentence and not with the memory of the machine. A pickle
is opened only when the caller allows it, only for tensors, and once: its safetensors copy is used
from then on.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, UnsafeCheckpointError
from sightline.hub.pickles import converted, pickle_refusal

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"

MAX_HEADER = 100_000_000
"""Bytes; the limit that the format's own library has."""
MAX_INDEX = 50_000_000
"""Bytes of an index file that we are willing to parse."""

_SHARD = re.compile(r"(?P<stem>[\w.-]+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
           "BOOL": 1}  # fmt: skip


@dataclass(frozen=True)
class WeightFiles:
    """Which files hold the weights of a folder, and whether they are pickles."""

    files: tuple[Path, ...]
    pickled: bool


def find_weights(folder: Path) -> WeightFiles:
    """The weight files of a model folder; safetensors wins wherever it is there.

    Raises:
        CheckpointError: no weights, an index that names files outside the folder, missing shards.
    """
    if (folder / SAFETENSORS).is_file():
        return WeightFiles((folder / SAFETENSORS,), pickled=False)
    if (folder / SAFETENSORS_INDEX).is_file():
        return WeightFiles(_indexed(folder / SAFETENSORS_INDEX, ".safetensors"), pickled=False)
    if shards := _numbered(folder):
        return WeightFiles(shards, pickled=False)
    if (folder / PICKLE).is_file():
        return WeightFiles((folder / PICKLE,), pickled=True)
    if (folder / PICKLE_INDEX).is_file():
        return WeightFiles(_indexed(folder / PICKLE_INDEX, ".bin"), pickled=True)
    raise CheckpointError(
        f"{folder} has no weights: expected {SAFETENSORS}, {SAFETENSORS_INDEX} or {PICKLE}"
    )


def read_weights(folder: Path, *, allow_pickle: bool, cache: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder by its published name, mapped from the files.

    Args:
        folder: a model folder.
        allow_pickle: whether a `.bin` may be opened; it is converted once, into `cache`.
        cache: where converted copies are kept.

    Raises:
        UnsafeCheckpointError: the weights are pickled and `allow_pickle` is False, or the pickle
            holds more than tensors.
        CheckpointError: a file that is broken or hostile, or one name in two files.
    """
    found = find_weights(folder)
    files = found.files
    if found.pickled:
        if not allow_pickle:
            raise UnsafeCheckpointError(pickle_refusal(str(folder), files[0].name))
        files = tuple(converted(file, cache) for file in files)
    state: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_safetensors(file).items():
            if name in state:
                raise CheckpointError(f"{file}: tensor {name!r} is in more than one weight file")
            state[name] = tensor
    return state


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file by name, mapped.

    Raises:
        CheckpointError: not safetensors, truncated, duplicate names, an unsupported number type.
    """
    from safetensors import SafetensorError, safe_open

    check_header(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from None


def check_header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name to number type and shape, from the header alone; refuses what does not add up.

    Layout: 8 bytes little-endian length, that many bytes of JSON, then the numbers.
    Source: the safetensors format description.

    Raises:
        CheckpointError: with the file and what is wrong in it.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(8)
            if len(start) < 8:
                raise CheckpointError(f"{file}: {size} bytes is too short for safetensors")
            (length,) = struct.unpack("<Q", start)
            if length > min(MAX_HEADER, size - 8):
                raise CheckpointError(
                    f"{file}: the header claims {length} bytes in a file of {size}: the file is "
                    "truncated or not safetensors; fetch it again"
                )
            raw = opened.read(length)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except _DuplicateNameError as error:
        raise CheckpointError(f"{file}: tensor {error} is in the header twice") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: the header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: the header is not a JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(file, name, value) for name, value in header.items()}
    end = max((last for *_, last in entries.values()), default=0)
    if 8 + length + end > size:
        raise CheckpointError(
            f"{file}: truncated, {size} bytes where the header needs {8 + length + end}: "
            "fetch it again"
        )
    return {name: (dtype, shape) for name, (dtype, shape, _) in entries.items()}


class _DuplicateNameError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise _DuplicateNameError(repr(name))
        result[name] = value
    return result


def _entry(file: Path, name: str, value: Any) -> tuple[str, tuple[int, ...], int]:
    """Number type, shape and last byte of one tensor, checked against each other."""
    try:
        dtype, shape = value["dtype"], tuple(int(n) for n in value["shape"])
        first, last = (int(n) for n in value["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file}: tensor {name!r} has a malformed header entry") from None
    if dtype not in _WIDTHS:
        raise CheckpointError(
            f"{file}: tensor {name!r} has number type {dtype!r}, which this version does not read "
            "(float64, float32, float16, bfloat16 and integers are read)"
        )
    count = 1
    for n in shape:
        count *= n
    if min(shape, default=0) < 0 or first < 0 or last - first != count * _WIDTHS[dtype]:
        raise CheckpointError(
            f"{file}: tensor {name!r} of shape {list(shape)} {dtype} does not fill its "
            f"{last - first} bytes"
        )
    return dtype, shape, last


def _indexed(index: Path, suffix: str) -> tuple[Path, ...]:
    """The shards that an index names, refused where a name leaves the folder."""
    try:
        if index.stat().st_size > MAX_INDEX:
            raise CheckpointError(f"{index}: larger than {MAX_INDEX} bytes, not a weight index")
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: not a weight index (JSON with a 'weight_map')") from None
    for name in names:
        if not isinstance(name, str) or not safe_file_name(name) or not name.endswith(suffix):
            raise CheckpointError(
                f"{index}: shard name {name!r} is not a plain '*{suffix}' file name in the same "
                "folder: refused"
            )
    files = tuple(index.parent / name for name in sorted(names))
    if not files:
        raise CheckpointError(f"{index}: names no shards")
    _require(index.parent, files)
    return files


def safe_file_name(name: str) -> bool:
    """Whether a name from a repository is a plain file name and no path."""
    return bool(re.fullmatch(r"[\w.-]+", name)) and name not in (".", "..")


def _numbered(folder: Path) -> tuple[Path, ...]:
    """A complete set `NAME-0000i-of-0000n.safetensors` that came without an index."""
    matches = [m for m in (_SHARD.fullmatch(f.name) for f in folder.iterdir()) if m]
    if not matches:
        return ()
    sets = {(m["stem"], m["count"]) for m in matches}
    if len(sets) > 1:
        raise CheckpointError(
            f"{folder} has several sets of weight shards and no {SAFETENSORS_INDEX}: keep one of "
            + ", ".join(f"{stem}-*-of-{count}" for stem, count in sorted(sets))
        )
    ((stem, count),) = sets
    if int(count) > 10_000:
        raise CheckpointError(f"{folder}: {int(count)} weight shards are more than any model has")
    files = tuple(
        folder / f"{stem}-{n:05d}-of-{count}.safetensors" for n in range(1, int(count) + 1)
    )
    _require(folder, files)
    return files


def _require(folder: Path, files: Iterable[Path]) -> None:
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise CheckpointError(f"{folder}: weight shard {absent[0]}{more} is missing: fetch again")
