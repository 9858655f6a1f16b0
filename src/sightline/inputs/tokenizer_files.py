"""What the JSON files beside a vocabulary say about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from sightline.core.errors import CheckpointError
from sightline.inputs.published import read_object

T = TypeVar("T")

VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
)
"""A folder with one of these has a tokenizer."""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Written for "no limit" by transformers: int(1e30).
_LONGEST = 1_000_000


@dataclass(frozen=True)
class TokenizerFiles:
    """tokenizer_config.json, special_tokens_map.json and added_tokens.json, joined."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    special: dict[str, str] = field(default_factory=dict)
    """Name to spelling: "eos_token" to "</s>"."""
    added: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Id to the fields of `tokenizers.AddedToken`."""
    extra: tuple[str, ...] = ()
    """Special tokens without a name of their own."""
    pad_id: int | None = None
    """From the padding section of tokenizer.json, where the folder names no pad token."""
    side: Literal["right", "left"] | None = None
    """From the same section."""

    @classmethod
    def read(cls, folder: Path) -> TokenizerFiles:
        """Read a folder; files that are not there say nothing.

        Raises:
            CheckpointError: a file that cannot be used.
        """
        config = _optional(folder / "tokenizer_config.json")
        named = _optional(folder / "special_tokens_map.json")
        special = {}
        for name in NAMED:
            value = config[name] if config.get(name) is not None else named.get(name)
            if value is not None:
                special[name] = _spelling(folder, name, value)
        extra: list[str] = []
        for source in (config, named):
            for name in ("additional_special_tokens", "extra_special_tokens"):
                values = source.get(name) or []
                values = list(values.values()) if isinstance(values, Mapping) else values
                if not isinstance(values, list):
                    raise _refuse(folder, name, values, "a list of tokens")
                extra += [_spelling(folder, name, value) for value in values]
        added = _added(folder, config)
        return cls(folder, config, special, added, tuple(dict.fromkeys(extra)))

    @property
    def class_name(self) -> str:
        """The reference's class, "CLIPTokenizer"; without the ending of its fast twin."""
        name = self.config.get("tokenizer_class")
        return name.removesuffix("Fast") if isinstance(name, str) else ""

    @property
    def max_length(self) -> int | None:
        """`model_max_length`, unless it stands for no limit."""
        value = self.config.get("model_max_length")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return int(value) if 1 <= value <= _LONGEST else None

    @property
    def padding_side(self) -> Literal["right", "left"] | None:
        """Where padding goes, or None where the folder does not say."""
        value = self.config.get("padding_side", self.side)
        if value not in (None, "left", "right"):
            raise _refuse(self.folder, "padding_side", value, "'left' or 'right'")
        if value is None and self.class_name == "Siglip2Tokenizer":
            return "left"  # the default of that class, which its files leave out
        return value

    def control(self) -> set[str]:
        """Spellings that untrusted text may not use."""
        marked = {t["content"] for t in self.added.values() if t.get("special", False)}
        return {*self.special.values(), *self.extra, *marked}

    def flag(self, name: str, default: bool) -> bool:
        """A true-or-false setting of tokenizer_config.json."""
        value = self.config.get(name)
        return value if isinstance(value, bool) else default


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds any vocabulary."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _spelling(folder: Path, name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("content")
    if not isinstance(value, str) or not value:
        raise _refuse(folder, name, value, "a token")
    return value


def _added(folder: Path, config: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    values = config.get("added_tokens_decoder") or {}
    if not isinstance(values, Mapping):
        raise _refuse(folder, "added_tokens_decoder", values, "an object of id to token")
    added: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        if not str(key).isdecimal() or not isinstance(value, Mapping):
            raise _refuse(folder, "added_tokens_decoder", key, "an object of id to token")
        flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
        fields: dict[str, Any] = {name: bool(value[name]) for name in flags if name in value}
        fields["content"] = _spelling(folder, "added_tokens_decoder", value)
        added[int(key)] = fields
    for token, number in _optional(folder / "added_tokens.json").items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise _refuse(folder, "added_tokens.json: " + token[:40], number, "an id")
        added.setdefault(number, {"content": token})
    return added


def _refuse(folder: Path, name: str, value: Any, allowed: str) -> CheckpointError:
    return CheckpointError(
        f"{folder / 'tokenizer_config.json'}: {name} is {repr(value)[:40]}; allowed: {allowed}. "
        "Correct the file or fetch it again"
    )


def guarded(path: Path, read: Callable[[], T]) -> T:
    """Run a reader of somebody's file; whatever it raises becomes one line about the file."""
    try:
        return read()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        # The tokenizers library panics on some broken files, and a panic is no Exception.
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{path}: cannot be read as a tokenizer ({reason}): fetch the file again"
        ) from None
