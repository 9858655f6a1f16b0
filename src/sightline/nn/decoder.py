"""The stack that writes: vectors in, one after the other, and what the next token may be.

Knows nothing of pictures: whoever has some puts their vectors in front of those of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.nn.blocks import DecoderBlock
from sightline.nn.linear import TokenTable
from sightline.nn.masks import prefix_causal, same_owner
from sightline.nn.memory import KeyValueCache
from sightline.nn.norms import at_least_float32
from sightline.nn.rotary import Turns


class Decoder(nn.Module):
    """Blocks under one mask, a norm, and the tokens' own table as the last product.

    Args:
        table: looks tokens up and scores them.
        blocks: given built.
        norm: behind the last block.
        turns: positions to rotary angles.
        windows: how far each block's queries see, None for everything; one for each block.
        cap: bound of the logits, cap * tanh(logit / cap); None for no bound.
        first_position: number of the first position; 1 where a system counts so.
    """

    def __init__(
        self,
        table: TokenTable,
        blocks: Iterable[DecoderBlock],
        norm: nn.Module,
        turns: Callable[[Int[Tensor, "B L"]], Turns],
        *,
        windows: Sequence[int | None] = (),
        cap: float | None = None,
        first_position: int = 0,
    ) -> None:
        super().__init__()
        self.table = table
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.turns = turns
        self.windows = tuple(windows) or (None,) * len(self.blocks)
        self.cap, self.first_position = cap, first_position

    def look_up(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """The vectors of tokens, as the first block takes them."""
        return self.table.look_up(ids)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Behind each vector, what the next token may be; float32 or wider."""
        scores = at_least_float32(self.table(hidden))
        return scores if self.cap is None else self.cap * torch.tanh(scores / self.cap)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        prefix: Int[Tensor, " B"] | Int[Tensor, "B L"] | None = None,
        positions: Int[Tensor, "B L"] | None = None,
        owners: Int[Tensor, "B L"] | None = None,
        shared: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Whole sequences at once, padded on the right.

        Args:
            prefix: positions below this one see each other in both directions; None for causal.
                Where `owners` are given it is that of each element's own sequence, [B, L].
            positions: of each element in its own sequence; None for 0, 1, 2...
            owners: which sequence an element belongs to, where several are packed into a row.
            shared: elements that all sequences of a row see: a picture in front of many questions.
        """
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)[None].expand(len(x), -1)
        masks = {
            window: _whole(positions, prefix, owners, shared, window)
            for window in set(self.windows)
        }
        return self._walk(x, positions, masks, None)

    def start(
        self,
        x: Float[Tensor, "B L D"],
        lengths: Sequence[int],
        prefix: Int[Tensor, " B"] | None,
        room: int,
    ) -> tuple[Float[Tensor, "B L D"], KeyValueCache]:
        """Read sequences, padded on the right, into a new cache.

        Args:
            lengths: how much of each row is its own.
            prefix: as in `forward`.
            room: further tokens that the cache shall hold.
        """
        cache = KeyValueCache(len(self.blocks), [0] * len(x), x.shape[1] + room)
        hidden = self._further(x, cache, prefix)
        cache.advance(lengths)
        return hidden, cache

    def go_on(
        self, ids: Int[Tensor, "B T"], cache: KeyValueCache, mask: Bool[Tensor, "B T"] | None
    ) -> Float[Tensor, "B T D"]:
        """Write tokens behind each row of the cache; `mask` is False behind a row's last one."""
        hidden = self._further(self.look_up(ids), cache, None)
        counts = [ids.shape[1]] * len(ids) if mask is None else mask.sum(dim=1).tolist()
        cache.advance(counts)
        return hidden

    def _further(
        self, x: Float[Tensor, "B L D"], cache: KeyValueCache, prefix: Int[Tensor, " B"] | None
    ) -> Float[Tensor, "B L D"]:
        positions = cache.places(x.shape[1]).to(x.device)  # [B L]
        end = max(cache.filled) + x.shape[1]
        keys = torch.arange(end, device=x.device)[None]  # [1 S]
        bound = None if prefix is None else prefix[:, None]
        # a single token of rows of one length sees everything there is
        plain = x.shape[1] == 1 and cache.even
        masks = {
            window: None
            if plain and (window is None or end <= window)
            else prefix_causal(positions, keys, bound, window)
            for window in set(self.windows)
        }
        return self._walk(x, positions, masks, cache)

    def _walk(
        self,
        x: Float[Tensor, "B L D"],
        positions: Int[Tensor, "B L"],
        masks: dict[int | None, Tensor | None] | dict[int | None, Tensor],
        cache: KeyValueCache | None,
    ) -> Float[Tensor, "B L D"]:
        turns = self.turns(positions + self.first_position)
        for number, (block, window) in enumerate(zip(self.blocks, self.windows, strict=True)):
            memory = None if cache is None else cache.memories[number]
            x = block(x, masks[window], turns, memory)
        return self.norm(x)


def _whole(
    positions: Int[Tensor, "B L"],
    prefix: Tensor | None,
    owners: Int[Tensor, "B L"] | None,
    shared: Bool[Tensor, "B L"] | None,
    window: int | None,
) -> Bool[Tensor, "B 1 L L"]:
    """The mask of whole sequences, several of them in a row where `owners` are given."""
    if owners is None:
        bound = None if prefix is None else prefix[:, None]
        return prefix_causal(positions, positions, bound, window)
    seen = prefix_causal(positions, positions, prefix, window)
    return seen & same_owner(owners, shared)
