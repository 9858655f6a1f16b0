"""What comes back: answers, and the pieces in which they come."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from sightline.core.errors import ConfigError, SightlineError
from sightline.generation.options import GenerationOptions
from sightline.generation.pieces import Decode, TextPieces


class Generated(NamedTuple):
    """One answer."""

    ids: list[int]
    """Every token that was written, an end token or those of a stop text included."""
    logprobs: list[float]
    """For each of them log p(token | all before) by the network itself: no option has a part in it.
    Their sum is the log-probability of the answer."""
    reason: str
    """Why it ends: "end" (an end token came, or a constraint lets nothing follow), "stop" (a stop
    text came) or "length" (max_new_tokens are written)."""
    text: str | None
    """Without end token and stop text; None where ids cannot be decoded."""


class Piece(NamedTuple):
    """One step of one answer."""

    row: int
    """Which prompt it answers."""
    id: int | None
    """The token; None where a constraint lets nothing follow."""
    logprob: float
    """log p(id | all before) by the network itself; 0 without a token."""
    text: str
    """What became certain of the text: often empty, and sometimes the words of several tokens."""
    reason: str | None
    """Why the answer ends here, as in `Generated`; None where it goes on."""


class Answer:
    """An answer that is being written: knows when it ends."""

    def __init__(
        self, row: int, options: GenerationOptions, end_ids: Collection[int], decode: Decode | None
    ) -> None:
        self.row, self.room, self.end_ids = row, options.max_new_tokens, end_ids
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.pieces = TextPieces(decode, options.stop) if decode is not None else None
        self.reason = None if self.room else "length"

    def copy(self) -> Answer:
        """The same beginning, to be continued in another way."""
        other = Answer.__new__(Answer)
        other.__dict__.update(self.__dict__)
        other.ids, other.logprobs = self.ids[:], self.logprobs[:]
        other.pieces = self.pieces and self.pieces.copy()
        return other

    def add(self, token: int, logprob: float) -> Piece:
        """Write a token; `reason` is set when it is the last.

        Raises:
            SightlineError: a log-probability that is not a number.
        """
        self.ids.append(token)
        self.logprobs.append(checked(logprob))
        text = ""
        if token in self.end_ids:
            self.reason = "end"
        else:
            text = self.pieces.push(token) if self.pieces else ""
            if self.pieces and self.pieces.stopped:
                self.reason = "stop"
            elif len(self.ids) >= self.room:
                self.reason = "length"
        return Piece(self.row, token, logprob, text + self._rest(), self.reason)

    def nothing_follows(self) -> Piece:
        """End here, without a token."""
        self.reason = "end"
        return Piece(self.row, None, 0.0, self._rest(), self.reason)

    def generated(self) -> Generated:
        """The finished answer."""
        assert self.reason is not None, "the answer is not finished"
        text = None if self.pieces is None else self.pieces.text
        return Generated(self.ids, self.logprobs, self.reason, text)

    def _rest(self) -> str:
        return self.pieces.close() if self.reason is not None and self.pieces else ""


def new_answers(
    rows: int, options: GenerationOptions, end_ids: Collection[int], decode: Decode | None
) -> list[Answer]:
    """An empty answer for each row.

    Raises:
        ConfigError: stop texts, and no way to see text.
    """
    if options.stop and decode is None:
        raise ConfigError(
            f"stop is {list(options.stop)} but ids cannot be read as text here: "
            "pass decode, the tokenizer's callable from ids to text"
        )
    ends = frozenset(int(token) for token in end_ids)
    return [Answer(row, options, ends, decode) for row in range(rows)]


def checked(logprob: float) -> float:
    """A log-probability that is a number.

    Raises:
        SightlineError: it is none.
    """
    if math.isnan(logprob):
        raise SightlineError(
            "the network's scores are not numbers (nan or infinity): its weights are damaged, or "
            "its number type is too small for them; try float32"
        )
    return logprob
