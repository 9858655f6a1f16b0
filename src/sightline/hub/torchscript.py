"""The tensors of a TorchScript archive, read as data; nothing that it holds is run.

Such an archive is a zip file with program text, a pickle of a tree of objects, and the numbers of
each tensor as they lie in memory. `torch.jit.load` would compile the program and build the objects;
here the program is not opened, and the tree is walked by an unpickler that knows tensors, numbers
and plain containers and no class of the archive: an object becomes the table of its attributes. A
name that is neither is refused. The sizes that the tree claims are checked against the bytes that
are there before anything is made of them.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, UnsafeCheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_TREE = 64 << 20
"""Bytes of the pickled tree; those of published models are kilobytes."""
MAX_DEPTH = 64
"""Modules inside modules."""

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with program text and pickled constants."""
    if not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Every tensor of the archive's module by its dotted name, on the CPU.

    Parameters and buffers look alike in an archive; numbers that a module keeps as attributes are
    left out.

    Raises:
        CheckpointError: no such archive, a broken one, or one whose sizes do not add up.
        UnsafeCheckpointError: a tree that asks for anything but tensors and containers.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = _Members(file, archive)
            tree = _Tree(io.BytesIO(members.read("data.pkl", MAX_TREE))).load()
            found: dict[str, _Described] = {}
            _collect(tree, "", found, 0)
            return {name: members.tensor(name, described) for name, described in found.items()}
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a hostile stream makes the unpickler fail in any way it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: not a readable TorchScript archive ({reason})") from None


@dataclass(frozen=True)
class _Stored:
    """The numbers of one or several tensors."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class _Described:
    """One tensor, not made yet."""

    stored: _Stored
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Module:
    """An object of the archive, whatever its class: the table of its attributes."""

    attributes: Mapping[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, Mapping) else {}


def _describe(
    stored: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> _Described:  # fmt: skip
    if not isinstance(stored, _Stored):
        raise CheckpointError("a tensor without numbers")
    return _Described(stored, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _first(value: Any = None, *_: Any) -> Any:
    return value


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _describe,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "device"): str,
    **{
        ("torch.jit._pickle", name): _first
        for name in ("build_intlist", "build_floatlist", "build_doublelist", "build_boollist",
                     "build_tensorlist", "restore_type_tag")
    },
}  # fmt: skip


# The one written in Python: the one in C sets memory aside for whatever number a stream names.
class _Tree(pickle._Unpickler):
    """Tensors, numbers and containers; every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) not in _KNOWN:
            raise UnsafeCheckpointError(
                f"the archive asks for {f'{module}.{name}'[:80]!r}, which is neither a tensor nor "
                "a container, so that opening it could run code: refused"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> _Stored:
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in _STORAGES.values():
            raise CheckpointError("a stored object of an unknown kind")
        return _Stored(str(dtype), str(key), int(count))


def _collect(value: Any, name: str, found: dict[str, _Described], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CheckpointError(f"modules are nested more than {MAX_DEPTH} deep")
    if isinstance(value, _Described):
        found[name] = value
    elif isinstance(value, _Module):
        for part, inner in getattr(value, "attributes", {}).items():
            _collect(inner, f"{name}.{part}" if name else str(part), found, depth + 1)


class _Members:
    """The files inside the archive, below the one folder that it has."""

    def __init__(self, file: Path, archive: zipfile.ZipFile) -> None:
        self.file, self.archive = file, archive
        trees = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(trees) != 1:
            raise CheckpointError(f"{file}: not a TorchScript archive (no data.pkl)")
        self.folder = trees[0].removesuffix("data.pkl")
        order = self.folder + "byteorder"
        if order in archive.namelist() and self.read("byteorder", 16) != b"little":
            raise CheckpointError(f"{file}: its numbers are big-endian, which is not read here")
        self._numbers: dict[_Stored, Tensor] = {}

    def read(self, name: str, most: int) -> bytes:
        """One file, which must be stored uncompressed and no larger than `most`."""
        entry = self.archive.getinfo(self.folder + name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most:
            raise CheckpointError(
                f"{self.file}: {name} is compressed or {entry.file_size} bytes long, at most "
                f"{most} are expected"
            )
        return self.archive.read(entry)

    def tensor(self, name: str, described: _Described) -> Tensor:
        """The tensor, contiguous, in memory of its own."""
        import torch

        numbers = self._of(described.stored)
        shape, strides = described.shape, described.strides
        size = 1
        for side in shape:
            size *= side
        last = described.offset + sum(
            (side - 1) * step for side, step in zip(shape, strides, strict=True)
        )
        inside = size == 0 or last < numbers.numel()
        if min((described.offset, *shape, *strides)) < 0 or size > numbers.numel() or not inside:
            raise CheckpointError(
                f"{self.file}: tensor {name!r} of shape {list(shape)} reaches beyond its "
                f"{numbers.numel()} numbers"
            )
        part = numbers.as_strided(shape, strides, described.offset)
        return part.clone(memory_format=torch.contiguous_format)

    def _of(self, stored: _Stored) -> Tensor:
        import torch

        if stored not in self._numbers:
            dtype: torch.dtype = getattr(torch, stored.dtype)
            expected = stored.count * dtype.itemsize
            raw = self.read(f"data/{stored.key}", expected)
            if len(raw) != expected:
                raise CheckpointError(
                    f"{self.file}: truncated, data/{stored.key} has {len(raw)} bytes of {expected}"
                )
            self._numbers[stored] = (
                torch.frombuffer(bytearray(raw), dtype=dtype)
                if raw
                else torch.empty(0, dtype=dtype)
            )
        return self._numbers[stored]
