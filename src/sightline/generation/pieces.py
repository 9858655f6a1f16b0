"""Ids to text while they come: what is settled, what has to wait, and where an answer stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
"""Ids to text. Further ids may complete the characters at its end, and change nothing before."""

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class TextPieces:
    """The text of one answer, in pieces that are never taken back.

    Two things wait: a character of which only some bytes came (a tokenizer shows U+FFFD for it),
    and an end that may be the beginning of a stop text. Only the last tokens are decoded at each
    step, behind those that gave the piece before, since a tokenizer treats the beginning of a text
    in its own way (it drops a leading space).
    """

    def __init__(self, decode: Decode, stop: tuple[str, ...] = ()) -> None:
        self.decode, self.stop = decode, stop
        self.text = ""
        """What was handed out."""
        self.stopped = False
        """Whether a stop text came; nothing is handed out behind it."""
        self._context: tuple[int, ...] = ()  # tokens of the last piece
        self._shown = ""  # their text
        self._waiting: tuple[int, ...] = ()  # tokens without settled text
        self._held = ""  # settled, but perhaps the beginning of a stop text

    def copy(self) -> TextPieces:
        """The same text, to be continued in another way."""
        other = TextPieces(self.decode, self.stop)
        other.__dict__.update(self.__dict__)
        return other

    def push(self, token: int) -> str:
        """Add a token: the text that is settled by it, often none."""
        self._waiting += (token,)
        text = self._behind_context()
        if not text or text.endswith(_BROKEN):
            return ""
        self._context, self._waiting = self._waiting, ()
        self._shown = self.decode(self._context)
        return self._hand_out(text)

    def close(self) -> str:
        """The rest, when no token follows: half a character as U+FFFD, and what was held back."""
        rest = self._hand_out(self._behind_context()) if self._waiting else ""
        if not self.stopped:
            rest += self._held
            self.text += self._held
        self._waiting, self._held = (), ""
        return rest

    def _behind_context(self) -> str:
        """The text of the tokens that wait."""
        together = self.decode(self._context + self._waiting)
        if together.startswith(self._shown):
            return together[len(self._shown) :]
        return self.decode(self._waiting)  # bytes that make a whole run of them unreadable

    def _hand_out(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        self._held = ""
        ends = [
            (text.index(word) + len(word), text.index(word)) for word in self.stop if word in text
        ]
        if ends:  # the stop text that is complete first, however the text was cut into tokens
            self.stopped = True
            text = text[: min(ends)[1]]
        else:
            held = max((_overlap(text, word) for word in self.stop), default=0)
            text, self._held = text[: len(text) - held], text[len(text) - held :]
        self.text += text
        return text


def _overlap(text: str, word: str) -> int:
    """How many letters at the end of the text begin the word, the whole word excepted."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1)
                 if word.startswith(text[-n:])), 0)  # fmt: skip
