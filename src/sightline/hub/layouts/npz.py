"""Arrays of an .npz file, read without trusting it.

The file is a zip of .npy members. What the members claim is checked against the bytes that are
there before anything is made of them, and objects, which would be pickles, are refused.
Source: the format description of numpy.lib.format.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sightline.core.errors import CheckpointError, UnsafeCheckpointError

if TYPE_CHECKING:
    from torch import Tensor

MOST_MEMBERS = 100_000
SMALL = 64 << 20
"""Bytes that a file may always unpack to; beyond, at most `RATIO` times its own size."""
RATIO = 16


def read_npz(file: Path) -> dict[str, Tensor]:
    """Every array by its name, as tensors; numpy's two-byte voids are bfloat16.

    Raises:
        CheckpointError: not such a file, a broken one, or one that claims more than it holds.
        UnsafeCheckpointError: an array of objects.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_sizes(file, members)
            return {
                member.filename.removesuffix(".npy"): _array(file, archive, member)
                for member in members
            }
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, zlib.error) as e:
        raise CheckpointError(f"{file}: not a readable .npz file ({e}): fetch it again") from None


def _check_sizes(file: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    total = sum(member.file_size for member in members)
    limit = max(SMALL, RATIO * file.stat().st_size)
    if len(names) > MOST_MEMBERS or len(set(names)) != len(names):
        raise CheckpointError(f"{file}: {len(names)} arrays, some twice or too many: refused")
    if total > limit:
        raise CheckpointError(
            f"{file}: would unpack to {total} bytes, more than {limit}: no weights do, refused"
        )
    strange = next((name for name in names if not name.endswith(".npy")), None)
    if strange is not None:
        raise CheckpointError(f"{file}: holds {strange[:60]!r}, which is no array")


def _array(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    import torch

    with archive.open(member) as opened:
        try:
            shape, fortran, dtype = _header(opened)
        except ValueError as error:
            raise CheckpointError(
                f"{file}: array {member.filename[:60]!r} has a broken header ({str(error)[:60]})"
            ) from None
        if dtype.hasobject:
            raise UnsafeCheckpointError(
                f"{file}: array {member.filename[:60]!r} holds objects, which are pickles and can "
                "run code: refused"
            )
        if dtype.kind not in "fiuV" or (dtype.kind == "V" and dtype.itemsize != 2):
            raise CheckpointError(f"{file}: array {member.filename[:60]!r} has type {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if size > member.file_size:
            raise CheckpointError(
                f"{file}: array {member.filename[:60]!r} of shape {list(shape)} is truncated"
            )
        raw = opened.read(size)
    if len(raw) != size:
        raise CheckpointError(f"{file}: array {member.filename[:60]!r} is truncated")
    plain = np.dtype(np.int16) if dtype.kind == "V" else dtype
    array = np.frombuffer(raw, plain).reshape(shape, order="F" if fortran else "C")
    tensor = torch.from_numpy(np.array(array, dtype=plain.newbyteorder("="), order="C"))
    return tensor.view(torch.bfloat16) if dtype.kind == "V" else tensor


def _header(opened: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(opened)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(opened)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(opened)
    raise ValueError(f"version {version}")
