"""Keys and values of what was read and written so far, so that a further token costs one token.

A row's slot i holds its position i. Rows of unequal lengths share a tensor, the shorter ones with
free slots behind; a mask keeps what lies there unseen until it is overwritten.

    row 0   a b c d e . . .        lengths 5, 3; room for 8
    row 1   a b c . . . . .
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Rows:
    """How far each row of a cache is filled; shared by the cache and its layers.

    Layers that knew their cache would be a circle, and keys and values would stay until the garbage
    collector comes by.
    """

    def __init__(self, filled: Sequence[int], room: int) -> None:
        self.filled = list(filled)
        """Positions of each row that are filled; on the host, so that nothing waits for a GPU."""
        self.room = room
        self._slots: tuple[Tensor, Tensor] | None = None

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        return torch.tensor(self.filled)

    @property
    def even(self) -> bool:
        """Whether all rows are equally long."""
        return min(self.filled) == max(self.filled)

    def places(self, count: int) -> Int[Tensor, "B T"]:
        """Positions of the next `count` tokens of each row."""
        return self.lengths[:, None] + torch.arange(count)  # [B T]

    def slots(
        self, count: int, device: torch.device
    ) -> tuple[Int[Tensor, "B 1"], Int[Tensor, "B T"]]:
        """Rows and places of the next `count` tokens, for an index; made once for all layers."""
        if self._slots is None or self._slots[1].shape[1] != count:
            rows = torch.arange(len(self.filled), device=device)[:, None]
            self._slots = rows, self.places(count).to(device)
        return self._slots

    def advance(self, counts: Sequence[int]) -> None:
        """See `KeyValueCache.advance`."""
        self._slots = None
        self.filled = [length + count for length, count in zip(self.filled, counts, strict=True)]


class KeyValueCache:
    """What the blocks of a decoder remember; a value that its caller owns, copies and drops.

    Tensors are made at the first write, of the type and on the device of what is written, and grow
    by doubling where the room was too small. Sliding windows keep all keys.

    Args:
        blocks: number of attention layers.
        lengths: positions that each row has already; 0 for a fresh one.
        room: slots to begin with.
    """

    def __init__(self, blocks: int, lengths: Sequence[int], room: int) -> None:
        self.rows = Rows(lengths, room)
        self.memories = [Memory(self.rows) for _ in range(blocks)]

    @property
    def filled(self) -> list[int]:
        """See `Rows`."""
        return self.rows.filled

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        return self.rows.lengths

    @property
    def even(self) -> bool:
        """Whether all rows are equally long."""
        return self.rows.even

    def places(self, count: int) -> Int[Tensor, "B T"]:
        """Positions of the next `count` tokens of each row."""
        return self.rows.places(count)

    def advance(self, counts: Sequence[int]) -> None:
        """Take so many of the tokens that were just written into each row as its own."""
        self.rows.advance(counts)

    def select(self, rows: Int[Tensor, " R"]) -> KeyValueCache:
        """The rows, in that order, in a cache of its own; a row may be taken more than once."""
        chosen = rows.tolist()
        other = KeyValueCache(
            len(self.memories), [self.filled[row] for row in chosen], self.rows.room
        )
        for own, new in zip(self.memories, other.memories, strict=True):
            if own.keys is not None and own.values is not None:
                index = rows.to(own.keys.device)
                new.keys, new.values = own.keys[index], own.values[index]
        return other


class Memory:
    """Keys and values of one attention layer."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.keys: Float[Tensor, "B G room K"] | None = None
        self.values: Float[Tensor, "B G room K"] | None = None

    def append(
        self, k: Float[Tensor, "B G T K"], v: Float[Tensor, "B G T K"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Write behind each row; returns all keys and values up to the end of the longest row.

        The rows grow by `KeyValueCache.advance`, once all layers have written.
        """
        rows, count = self.rows, k.shape[2]
        end = max(rows.filled) + count
        keys, values = self.keys, self.values
        if keys is None or values is None or keys.shape[2] < end:
            keys, values = self._larger(keys, k, end), self._larger(values, v, end)
            self.keys, self.values = keys, values
        if rows.even:
            keys.narrow(2, end - count, count).copy_(k)
            values.narrow(2, end - count, count).copy_(v)
        else:
            own, places = rows.slots(count, k.device)
            keys[own, :, places] = k.transpose(1, 2)
            values[own, :, places] = v.transpose(1, 2)
        return keys.narrow(2, 0, end), values.narrow(2, 0, end)

    def _larger(self, old: Tensor | None, new: Float[Tensor, "B G T K"], end: int) -> Tensor:
        """A tensor with room for `end` slots, and what was in the old one."""
        slots = max(self.rows.room, end if old is None else 2 * end)
        # zeros: a masked slot that is not a number would still spoil its row
        larger = new.new_zeros(new.shape[0], new.shape[1], slots, new.shape[3])
        if old is not None:
            larger[:, :, : old.shape[2]] = old
        return larger
