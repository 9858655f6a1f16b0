"""What the allocator of the C library keeps, of a sequence of requests and returns.

A process holds more than its tensors: blocks that are given back in the middle of the heap stay
with the process, and only what fits is put there again. The model follows glibc's malloc (its
manual, "The GNU Allocator" and "Malloc Tunable Parameters"): the smallest free block that fits,
neighbours joined, the rest of a block free again; else the end of the heap; and a map of its own
for a large request, whose size at its return becomes the new meaning of large, up to 32 MiB.

Tensors are aligned, and an aligned request looks for a block with room to move in. So a tensor
does not fit into the hole that one of the same size left, unless a neighbour is free as well. What
alignment leaves in front of a tensor is a lead of some bytes. While a graph is built, small blocks
of its nodes settle there (edges, shapes) and outlive the tensor: its hole then has no neighbour to
grow by until the backward pass comes to that node. Replaying all requests of a real step, leaving
out those below 128 bytes took the holes away. Which leads are settled in depends on the malloc's
caches; one in two is what measured processes come to (`sightline bench plan`).
"""

from __future__ import annotations

from bisect import bisect_left, insort

_HEADER, _ROOM = 16, 64 + 32
"""Bytes of a block's header, and those that an aligned request looks for beyond its size."""
_LEAD, _SETTLED = 64, 2
"""Bytes that alignment leaves in front of a block, and how many of them it takes until small blocks
have settled in one."""
_FIRST_LARGE, _LARGEST_LARGE = 128 * 1024, 32 * 1024 * 1024
"""Where the meaning of large begins, and its bound."""
_PADDING = 128 * 1024
"""What the heap grows by beyond the request."""


class Heap:
    """Blocks by number; `resident` is what the process holds for them."""

    def __init__(self) -> None:
        self.most = 0
        """Bytes resident at the worst moment."""
        self._large = _FIRST_LARGE
        self._trim = 2 * _FIRST_LARGE
        self._top = self._end = self._mapped = 0
        self._blocks: dict[int, tuple[int, int]] = {}  # start, size; start -1 is a map
        self._free: list[tuple[int, int]] = []  # size, start
        self._starts: dict[int, int] = {}  # of free blocks: start to size
        self._ends: dict[int, int] = {}  # of free blocks: end to start
        self._graph: dict[int, list[int]] = {}  # blocks by age: starts of leads that end with them
        self._count = 0

    @property
    def resident(self) -> int:
        """Bytes now."""
        return self._end + self._mapped

    def take(self, number: int, size: int, graph: bool = False) -> None:
        """A block of so many bytes.

        Args:
            graph: whether it belongs to a computation whose graph is kept for the way back.
        """
        need = (size + _HEADER + 15) // 16 * 16
        lead = self._lead() if graph else 0
        place = bisect_left(self._free, (need + _ROOM, -1))
        if place < len(self._free):
            start = self._split(*self._free[place], lead + need)
        elif need >= self._large and self._end - self._top < need + _ROOM:
            self._mapped += need
            start, lead = -1, 0
        else:
            start = self._top
            self._top += lead + need
            if self._top + _ROOM > self._end:
                self._end = self._top + _PADDING
        self._blocks[number] = (start + lead, need)
        if graph:
            self._graph[number] = [start] if lead else []
        self.most = max(self.most, self.resident)

    def give(self, number: int) -> None:
        """The block is no longer needed."""
        start, size = self._blocks.pop(number)
        if start < 0:
            self._mapped -= size
            if self._large < size <= _LARGEST_LARGE:
                self._large, self._trim = size, 2 * size
        else:
            self._return(start, size)
        for lead in self._leads_to_end(number):
            self._return(lead, _LEAD)

    def _lead(self) -> int:
        self._count += 1
        return _LEAD if self._count % _SETTLED == 0 else 0

    def _leads_to_end(self, number: int) -> list[int]:
        """Leads live on with the youngest block that is older than the one that ends."""
        leads = self._graph.get(number, [])
        if leads:
            ages = reversed(self._graph)  # what ends is mostly young
            next(each for each in ages if each == number)
            older = next(ages, None)
            if older is not None:
                self._graph[older] += leads
                leads = []
        self._graph.pop(number, None)
        return leads

    def _return(self, start: int, size: int) -> None:
        if start in self._ends:
            before = self._ends[start]
            size += start - before
            start = before
            self._remove(start)
        if start + size in self._starts:
            size += self._remove(start + size)
        if start + size == self._top:
            self._top = start
            if self._end - self._top > self._trim:
                self._end = self._top + _PADDING
        else:
            self._add(start, size)

    def _split(self, size: int, start: int, need: int) -> int:
        self._remove(start)
        if size > need:
            self._add(start + need, size - need)
        return start

    def _add(self, start: int, size: int) -> None:
        insort(self._free, (size, start))
        self._starts[start] = size
        self._ends[start + size] = start

    def _remove(self, start: int) -> int:
        size = self._starts.pop(start)
        del self._ends[start + size]
        del self._free[bisect_left(self._free, (size, start))]
        return size
