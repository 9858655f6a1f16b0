"""SentencePiece models, and the canonical form that SigLIP puts its text into first."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.files import atomic_file
from sightline.inputs.tokenizer_files import TokenizerFiles, guarded
from sightline.inputs.tokenizers import TextSpec, TextTokenizer, write_config

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_SPACE = "\u2581"  # how SentencePiece writes a space
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class PieceTokenizer(TextTokenizer):
    """A SentencePiece model, with SigLIP's canonical form where the checkpoint is a SigLIP.

    Canonical: lower case, ASCII punctuation removed, white space squeezed; spaces at the front are
    kept by encoding the text behind the unknown token and dropping that token's pieces again.
    """

    def __init__(self, path: Path, files: TokenizerFiles, spec: TextSpec, canonical: bool) -> None:
        self.name = path.name
        self.model = path.read_bytes()
        self.pieces = guarded(path, lambda: _pieces(self.model))
        self.canonical = canonical
        self.lower_case = files.flag("do_lower_case", spec.lower_case)
        standard = {"eos_token": "</s>", "unk_token": "<unk>"}
        standard |= {"pad_token": "</s>"} if canonical and spec.pad_id is None else {}
        files = replace(files, special=standard | files.special)
        self.numbers = {t["content"]: i for i, t in files.added.items()}
        self.names = {i: token for token, i in self.numbers.items()}
        super().__init__(spec, files, [], [])
        self._frame()
        self._unknown = files.special["unk_token"]
        self._skipped = len(self.pieces.encode(self._unknown))
        spelled = sorted({*files.control(), *self.numbers}, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, spelled)) + ")")

    def _frame(self) -> None:
        begins = self.files.flag("add_bos_token", False) and not self.canonical
        ends = self.files.flag("add_eos_token", self.canonical)
        if self.spec.add_special and begins and self.bos_id is not None:
            self.prefix = [self.bos_id]
        if self.spec.add_special and ends and self.eos_id is not None:
            self.suffix = [self.eos_id]

    @property
    def vocab_size(self) -> int:
        return max([self.pieces.get_piece_size(), *(i + 1 for i in self.names)])

    def token_id(self, token: str) -> int | None:
        if token in self.numbers:
            return self.numbers[token]
        number: int = self.pieces.piece_to_id(token)
        return number if self.pieces.id_to_piece(number) == token else None

    def encode(self, text: str, trusted: bool = False) -> list[int]:
        if self.canonical:
            text = _SPACE + text.replace(_SPACE, " ")
        ids: list[int] = []
        for part in self._split.split(text) if trusted else [text]:
            known = self.token_id(part) if trusted and self._split.fullmatch(part) else None
            if known is not None:
                # A special token at the front swallows the space that was put there.
                lone = self.canonical and ids == [self.token_id(_SPACE)]
                ids = [known] if lone else [*ids, known]
            elif part:
                ids += self._text(part)
        return ids

    def _text(self, text: str) -> list[int]:
        if self.lower_case:
            text = text.lower()
        if not self.canonical:
            encoded: list[int] = self.pieces.encode(text)
            return encoded
        text = " ".join(text.translate(_NO_PUNCTUATION).split())
        encoded = self.pieces.encode(self._unknown + text)
        return encoded[self._skipped :] if len(encoded) >= self._skipped else encoded

    def _row(self, text: str, trusted: bool) -> list[int]:
        row = super()._row(text, trusted)
        # An end token that the prompt already wrote is not doubled.
        doubled = trusted and self.canonical and self.suffix and row[-2:] == self.suffix * 2
        return row[:-1] if doubled else row

    def decode(self, ids: Sequence[int]) -> str:
        control = {self.token_id(token) for token in self.files.control()}
        size = self.pieces.get_piece_size()
        kept = [i for i in map(int, ids) if 0 <= i < size and i not in control]
        text: str = self.pieces.decode(kept)
        return text.strip()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / self.name) as temporary:
            temporary.write_bytes(self.model)
        if self.canonical:
            write_config(self, folder, "SiglipTokenizer", do_lower_case=self.lower_case)
        else:
            write_config(self, folder, "LlamaTokenizer")


def _pieces(model: bytes) -> SentencePieceProcessor:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_proto=model)
    if not model or not pieces.get_piece_size():
        raise ValueError("the model is empty")
    return pieces
