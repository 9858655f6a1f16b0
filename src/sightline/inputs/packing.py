"""Several pictures in one row of patches: which goes where, and the packed tensors.

First fit: a picture goes into the first row that still has room for it. The assignment depends on
the order of the pictures alone, so whoever counts beforehand and whoever packs afterwards agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sightline.core.errors import ConfigError
from sightline.core.interfaces import PackedPatches, PatchBatch


@dataclass
class OpenRows:
    """Rows of a fixed length that are being filled.

    Raises:
        ConfigError: a row without room.
    """

    length: int
    """Patches that a row holds."""
    most: int | None = None
    """Rows at most; None opens as many as are needed."""
    filled: list[int] = field(default_factory=list)
    """Patches in each row so far."""

    def __post_init__(self) -> None:
        if self.length < 1 or (self.most is not None and self.most < 1):
            raise ConfigError(f"{self.most} rows of {self.length} patches: both must be at least 1")

    def place(self, count: int) -> tuple[int, int] | None:
        """Row and first place of a picture of so many patches; None when no row has room.

        Raises:
            ConfigError: no row could ever hold it.
        """
        if not 1 <= count <= self.length:
            raise ConfigError(
                f"a picture of {count} patches does not fit into a row of {self.length}: give "
                "longer rows, or lower max_num_patches"
            )
        for row, filled in enumerate(self.filled):
            if filled + count <= self.length:
                self.filled[row] += count
                return row, filled
        if self.most is not None and len(self.filled) == self.most:
            return None
        self.filled.append(count)
        return len(self.filled) - 1, 0


def first_fit(counts: Iterable[int], length: int) -> list[tuple[int, int]]:
    """Row and first place in it of each picture, in as many rows as it takes.

    Raises:
        ConfigError: a picture that no row can hold.
    """
    rows = OpenRows(length)
    placed = [rows.place(count) for count in counts]
    return [place for place in placed if place is not None]


def pack(batch: PatchBatch, length: int, rows: int | None = None) -> PackedPatches:
    """One picture a row to several pictures a row.

    Args:
        batch: pictures of mixed sizes.
        length: L, patches that a row holds.
        rows: R; None takes what first fit needs. A fixed number keeps the shape the same from
            batch to batch.

    Raises:
        ConfigError: a picture longer than a row, or more pictures than the rows hold.
    """
    import torch

    counts = batch.grids.prod(dim=1).tolist()
    placed = first_fit(counts, length)
    needed = 1 + max((row for row, _ in placed), default=-1)
    if rows is not None and needed > rows:
        raise ConfigError(
            f"{sum(counts)} patches of {len(counts)} pictures need {needed} rows of {length}, "
            f"{rows} are given: use fewer pictures or more rows"
        )
    shape = (needed if rows is None else rows, length)
    patches = batch.patches.new_zeros(*shape, batch.patches.shape[2])  # [R L values]
    owners = torch.full(shape, -1, dtype=torch.int64, device=batch.mask.device)  # [R L]
    for picture, ((row, start), count) in enumerate(zip(placed, counts, strict=True)):
        patches[row, start : start + count] = batch.patches[picture, :count]
        owners[row, start : start + count] = picture
    return PackedPatches(patches, owners, batch.grids)
