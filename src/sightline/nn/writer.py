"""What every network shares that reads a prompt and writes on: the role `TextGenerator`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.errors import InputError
from sightline.core.interfaces import Prompt, TextBatch
from sightline.core.outputs import NextTokens
from sightline.nn.decoder import Decoder
from sightline.nn.memory import KeyValueCache
from sightline.nn.sequences import lay_out


class Writer(nn.Module):
    """A decoder behind prompts. A system with pictures overrides `prompt_vectors`.

    Args:
        decoder: what reads and writes.
        prefix_lm: whether a prompt sees itself in both directions; causal otherwise.
    """

    def __init__(self, decoder: Decoder, *, prefix_lm: bool = False) -> None:
        super().__init__()
        self.decoder = decoder
        self.prefix_lm = prefix_lm

    def parts_to_compile(self) -> list[nn.Module]:
        """What `torch.compile` can make faster: around it are loops over rows."""
        return [self.decoder]

    def prompt_vectors(self, prompt: Prompt) -> list[Float[Tensor, "_ D"]]:
        """What the decoder reads of each row, unequally long.

        Raises:
            InputError: pictures, for a network that reads words alone.
        """
        if any(prompt.pictures):
            raise InputError("this network reads words alone: leave the pictures out")
        return self.token_vectors(prompt.ids, prompt.mask)

    def token_vectors(
        self, ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> list[Float[Tensor, "_ D"]]:
        """The vectors of each row's own tokens."""
        vectors = self.decoder.look_up(ids[mask])  # [S D]
        return list(vectors.split(mask.sum(dim=1).tolist()))

    def hidden(
        self,
        prompt: Prompt,
        suffix: TextBatch,
        rows: Sequence[int] | None = None,
        slots: int | None = None,
    ) -> Float[Tensor, "B M D"]:
        """What predicts each token of the suffixes, for `logits`; for training and scoring.

        Args:
            prompt: pictures and words in front.
            suffix: what is written behind, its end token included; padded on the right.
            rows: sequences with one number share a row and do not see each other; None gives each
                its own row.
            slots: length of a row; None for the longest. A fixed one keeps shapes alike.
        """
        return self.hidden_behind(self.prompt_vectors(prompt), suffix, rows, slots)

    def hidden_behind(
        self,
        prompts: Sequence[Float[Tensor, "_ D"]],
        suffix: TextBatch,
        rows: Sequence[int] | None = None,
        slots: int | None = None,
    ) -> Float[Tensor, "B M D"]:
        """`hidden` for prompts whose vectors are known already."""
        # nobody reads on from the last token; shifting the mask drops it for all rows at once
        tails = self.token_vectors(suffix.ids, F.pad(suffix.mask[:, 1:], (0, 1)))
        written = suffix.mask.sum(dim=1).tolist()
        layout = lay_out([len(head) for head in prompts], written, rows, slots, suffix.ids.device)
        parts = [p for pair in zip(prompts, tails, strict=True) for p in pair]
        hidden = self.decoder(
            layout.place(torch.cat(parts)),
            layout.prefix if self.prefix_lm else None,
            layout.positions,
            layout.owners,
        )
        return layout.predictions(hidden, suffix.mask)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Float32[*B, V] of what `hidden` gives."""
        return self.decoder.logits(hidden)

    def forward(
        self, prompt: Prompt, suffix: TextBatch, rows: Sequence[int] | None = None
    ) -> NextTokens:
        """For each token of the suffixes, what was likely to stand in its place."""
        return NextTokens(self.logits(self.hidden(prompt, suffix, rows)))

    def prefill(self, prompt: Prompt, room: int) -> tuple[Float[Tensor, "B V"], KeyValueCache]:
        """Read the prompts: what comes behind each, and a cache with room for so many tokens."""
        return self.prefill_behind(self.prompt_vectors(prompt), room)

    def prefill_behind(
        self, heads: Sequence[Float[Tensor, "_ D"]], room: int
    ) -> tuple[Float[Tensor, "B V"], KeyValueCache]:
        """`prefill` for prompts whose vectors are known already."""
        lengths = [len(head) for head in heads]
        layout = lay_out(lengths, [1] * len(lengths), device=heads[0].device)
        prefix = layout.prefix if self.prefix_lm else None
        hidden, cache = self.decoder.start(
            layout.place(torch.cat(list(heads))), lengths, prefix, room
        )
        last = hidden.flatten(0, 1)[layout.predicting]  # [B D]
        return self.logits(last), cache

    def extend(
        self,
        ids: Int[Tensor, "B T"],
        cache: KeyValueCache,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Write tokens behind each row: what comes behind each of them."""
        return self.logits(self.decoder.go_on(ids, cache, mask))
