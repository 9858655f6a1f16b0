"""Words to ids and back, exactly as a checkpoint's own files say.

`TextSpec` is what a system adds to those files (length, padding, canonical form);
`load_tokenizer` joins the two. Each kind of vocabulary is in `subwords` and `pieces`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from sightline.core.errors import CheckpointError, ConfigError, TextError, unknown_name
from sightline.core.files import write_json
from sightline.core.interfaces import TextBatch
from sightline.inputs.tokenizer_files import NAMED, VOCABULARIES, TokenizerFiles

Padding = Literal["max_length", "longest"]
Side = Literal["right", "left"]

MAX_CHARACTERS = 1_000_000
"""One text; a longer one is an accident, and would hold the tokenizer for seconds."""


@dataclass(frozen=True)
class TextSpec:
    """How a system wants its text; the folder's own files decide what they speak about.

    - `max_length`: tokens at most, the special ones included; text is cut at its end and the end
      token stays. None takes the folder's `model_max_length`, or no limit.
    - `padding`: every text to "max_length" (SigLIP attends to its padding), or to the "longest".
    - `pad_id`: used where the folder names no pad token; after that the end token, after that 0.
    - `lower_case`, `strip_punctuation`, `squeeze_whitespace`: the canonical form of training,
      applied on top of the folder's own normalisation, which may contain it already.
    - `padding_side`: used where the folder names none.
    - `add_special`: whether begin and end tokens are added at all.
    - `end_token`: whether the end token is among them.
    - `control`: regular expressions of whole tokens that untrusted text may not become either, such
      as those of places in a picture.

    Raises:
        ConfigError: an unknown padding, or padding to a length that is not given.
    """

    max_length: int | None = None
    padding: Padding = "longest"
    pad_id: int | None = None
    lower_case: bool = False
    strip_punctuation: bool = False
    squeeze_whitespace: bool = False
    padding_side: Side = "right"
    add_special: bool = True
    end_token: bool = True
    control: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.padding not in get_args(Padding):
            raise ConfigError(unknown_name("padding", self.padding, get_args(Padding)))
        if self.padding_side not in get_args(Side):
            raise ConfigError(unknown_name("padding side", self.padding_side, get_args(Side)))
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError(f"max_length is {self.max_length}; at least one token is needed")


class TextTokenizer(ABC):
    """What every vocabulary shares: checks, special tokens, cutting and padding.

    Plays `core.interfaces.Tokenizer`. Text is untrusted unless the caller says otherwise: a text
    that spells a special token ("</s>", "<|endoftext|>") is encoded as those letters.

    Args:
        files: what the folder's JSON files say.
        prefix: ids before every text.
        suffix: ids after every text.
    """

    def __init__(
        self, spec: TextSpec, files: TokenizerFiles, prefix: list[int], suffix: list[int]
    ) -> None:
        self.spec, self.files = spec, files
        self._framing = (prefix, suffix)
        self.prefix = prefix if spec.add_special else []
        self.suffix = suffix if spec.add_special and spec.end_token else []
        self.max_length = spec.max_length or files.max_length
        if spec.padding == "max_length" and self.max_length is None:
            raise ConfigError("padding to 'max_length' needs `max_length` in the TextSpec")
        fixed = len(self.prefix) + len(self.suffix)
        if self.max_length is not None and self.max_length <= fixed:
            raise ConfigError(
                f"max_length {self.max_length} leaves no room beside {fixed} special tokens"
            )

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""

    @abstractmethod
    def token_id(self, token: str) -> int | None:
        """The id of one exact token, or None."""

    @abstractmethod
    def encode(self, text: str, trusted: bool = False) -> list[int]:
        """Ids of the text alone: nothing added, nothing cut."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; special tokens and ids outside the vocabulary are left out."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write files that `load_tokenizer` and transformers read back."""

    @property
    def eos_id(self) -> int | None:
        """The end token, or None where the vocabulary has none."""
        return self._named("eos_token")

    @property
    def bos_id(self) -> int | None:
        """The begin token, or None where the vocabulary has none."""
        return self._named("bos_token")

    @property
    def pad_id(self) -> int:
        """What fills a batch: the folder's pad token, else the spec's, else the end token, or 0."""
        for candidate in (self._named("pad_token"), self.files.pad_id, self.spec.pad_id):
            if candidate is not None:
                return candidate
        return self.eos_id or 0

    @property
    def padding_side(self) -> Side:
        return self.files.padding_side or self.spec.padding_side

    def _named(self, name: str) -> int | None:
        token = self.files.special.get(name)
        return None if token is None else self.token_id(token)

    def with_spec(self, spec: TextSpec) -> Self:
        """The same vocabulary with other lengths, padding and special tokens.

        Its canonical form stays that of the spec it was made with.
        """
        other = copy(self)
        TextTokenizer.__init__(other, spec, self.files, *self._framing)
        return other

    def __call__(self, texts: Sequence[str], trusted: bool = False) -> TextBatch:
        """Texts to ids int64[B, T] and mask bool[B, T], cut and padded as the spec says.

        Args:
            trusted: whether spelled special tokens count as such, as in a prompt that the caller
                wrote; labels, questions and queries of others stay text.

        Raises:
            TextError: something that is not a list of strings, a lone surrogate, or a text of more
                than a million characters.
        """
        import torch

        if isinstance(texts, str):
            raise TextError("texts must be a list of strings, not one string: write [text]")
        rows = [self._row(check_text(text), trusted) for text in texts]
        length = max(map(len, rows), default=0)
        if self.spec.padding == "max_length":
            length = self.max_length or length
        ids = torch.full((len(rows), length), self.pad_id, dtype=torch.int64)
        mask = torch.zeros((len(rows), length), dtype=torch.bool)
        for index, row in enumerate(rows):
            start = length - len(row) if self.padding_side == "left" else 0
            ids[index, start : start + len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[index, start : start + len(row)] = True
        return TextBatch(ids, mask)

    def _row(self, text: str, trusted: bool) -> list[int]:
        ids = self.encode(text, trusted)
        if self.max_length is not None:
            ids = ids[: self.max_length - len(self.prefix) - len(self.suffix)]
        return [*self.prefix, *ids, *self.suffix]


def check_text(text: object) -> str:
    """The text, if a tokenizer can take it.

    Raises:
        TextError: not a string, too long, or half of a surrogate pair, which no encoding of
            Unicode can hold.
    """
    if not isinstance(text, str):
        raise TextError(f"a text must be a string, not {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise TextError(
            f"a text of {len(text)} characters: allowed are {MAX_CHARACTERS}. Cut it first"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"a text with half of a surrogate pair at character {error.start}: "
            "decode its bytes as UTF-8 with errors='replace'"
        ) from None
    return text


def load_tokenizer(folder: Path, spec: TextSpec) -> TextTokenizer:
    """The tokenizer that a checkpoint's folder describes.

    Reads tokenizer.json, or vocab.json with merges.txt (CLIP), or spiece.model / tokenizer.model
    (SentencePiece), or vocab.txt (BERT), with tokenizer_config.json, special_tokens_map.json and
    added_tokens.json beside it.

    Raises:
        CheckpointError: no tokenizer in the folder, or a file that cannot be used, by name.
    """
    # Both import this file for what they share.
    from sightline.inputs.pieces import PieceTokenizer
    from sightline.inputs.subwords import SubwordTokenizer

    folder = Path(folder)
    files = TokenizerFiles.read(folder)
    siglip = files.class_name == "SiglipTokenizer" or (
        not files.class_name and spec.strip_punctuation
    )
    # Published SigLIP folders hold a tokenizer.json too; it lacks the canonical form of training.
    if siglip and (folder / "spiece.model").is_file():
        return PieceTokenizer(folder / "spiece.model", files, spec, canonical=True)
    if (folder / "tokenizer.json").is_file():
        return SubwordTokenizer.from_json(folder / "tokenizer.json", files, spec)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return SubwordTokenizer.from_merges(folder, files, spec)
    for name in ("spiece.model", "tokenizer.model"):
        if (folder / name).is_file():
            return PieceTokenizer(folder / name, files, spec, canonical=False)
    if (folder / "vocab.txt").is_file():
        return SubwordTokenizer.from_words(folder / "vocab.txt", files, spec)
    raise CheckpointError(
        f"{folder}: no tokenizer here; expected one of {', '.join(VOCABULARIES)} "
        "(vocab.json together with merges.txt)"
    )


def write_config(tokenizer: TextTokenizer, folder: Path, class_name: str, **more: object) -> None:
    """Write tokenizer_config.json and special_tokens_map.json; what the folder said stays."""
    files = tokenizer.files
    config = dict(files.config)
    config.setdefault("tokenizer_class", class_name)
    config.setdefault("padding_side", tokenizer.padding_side)
    if tokenizer.max_length is not None:
        config.setdefault("model_max_length", tokenizer.max_length)
    if tokenizer.spec.padding == "max_length":  # padding is attended to: no mask, as in training
        config.setdefault("model_input_names", ["input_ids"])
    special = {name: files.special[name] for name in NAMED if name in files.special}
    for name, token in special.items():
        config.setdefault(name, token)
    for name, value in more.items():
        config.setdefault(name, value)
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", special)
