"""Byte pairs, unigrams and word pieces, run by the `tokenizers` library."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError
from sightline.core.files import atomic_file
from sightline.inputs.published import MAX_JSON_BYTES, read_object
from sightline.inputs.tokenizer_files import TokenizerFiles, guarded
from sightline.inputs.tokenizers import TextSpec, TextTokenizer, write_config
from sightline.inputs.word_pieces import (
    bert_backend,
    bert_normalizer,
    read_words,
    with_bert_tokens,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_START, _END = "<|startoftext|>", "<|endoftext|>"

# Classes trained on lower-cased text that kept its punctuation (SigLIP 2 uses Gemma's vocabulary).
_KEEP_PUNCTUATION = ("GemmaTokenizer", "Siglip2Tokenizer")


class SubwordTokenizer(TextTokenizer):
    """Byte pairs, unigrams or word pieces, run by the `tokenizers` library.

    Begin and end tokens are those of the file's post-processing; `add_bos_token` and
    `add_eos_token` beside a tokenizer.json are not read, as in the reference.
    """

    def __init__(self, backend: Tokenizer, files: TokenizerFiles, spec: TextSpec) -> None:
        backend.no_truncation()
        backend.no_padding()
        _canonical(backend, files, spec)
        self.backend = backend
        prefix, suffix = _frame(backend)
        super().__init__(spec, files, prefix, suffix)

    @classmethod
    def from_json(cls, path: Path, files: TokenizerFiles, spec: TextSpec) -> SubwordTokenizer:
        """Read a tokenizer.json.

        Raises:
            CheckpointError: the file cannot be used.
        """
        from tokenizers import Tokenizer
        from tokenizers.models import WordPiece

        backend = guarded(path, lambda: Tokenizer.from_file(str(path)))
        padding = backend.padding or {}
        files = replace(files, pad_id=padding.get("pad_id"), side=padding.get("direction"))
        said = files.class_name == "BertTokenizer" or "do_lower_case" in files.config
        if said and isinstance(backend.model, WordPiece):
            # The class rules over the file, whose two halves may disagree about case.
            files = with_bert_tokens(files)
            backend.normalizer = bert_normalizer(files)
        _add(backend, files, path)
        return cls(backend, files, spec)

    @classmethod
    def from_merges(cls, folder: Path, files: TokenizerFiles, spec: TextSpec) -> SubwordTokenizer:
        """Read CLIP's vocab.json and merges.txt: byte pairs that end their words with `</w>`.

        Raises:
            CheckpointError: the files cannot be used, or belong to another kind of vocabulary.
        """
        vocabulary = read_object(folder / "vocab.json")
        if not any(token.endswith("</w>") for token in vocabulary):
            raise CheckpointError(
                f"{folder / 'vocab.json'}: not CLIP's kind of byte pairs (no token ends in </w>); "
                "a tokenizer.json beside it would be read: save the tokenizer in that form"
            )
        defaults = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
        if files.config or files.special:
            # A folder that names its tokens and leaves padding out means the spec's pad id.
            defaults.pop("pad_token") if spec.pad_id is not None else None
        files = replace(files, special=defaults | files.special)
        path = folder / "merges.txt"
        merges = guarded(path, lambda: _read_merges(path))
        backend = guarded(path, lambda: clip_backend(vocabulary, merges, files.special))
        _add(backend, files, path)
        if not files.class_name:
            files.config.setdefault("tokenizer_class", "CLIPTokenizer")
        return cls(backend, files, spec)

    @classmethod
    def from_words(cls, path: Path, files: TokenizerFiles, spec: TextSpec) -> SubwordTokenizer:
        """Read BERT's vocab.txt: word pieces, one a line.

        Raises:
            CheckpointError: the file cannot be used.
        """
        files = with_bert_tokens(files)
        backend = guarded(path, lambda: bert_backend(read_words(path), files))
        _add(backend, files, path)
        if not files.class_name:
            files.config.setdefault("tokenizer_class", "BertTokenizer")
        return cls(backend, files, spec)

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def token_id(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def encode(self, text: str, trusted: bool = False) -> list[int]:
        ids = self.backend.encode(text, add_special_tokens=False).ids
        if trusted or self._control_ids.isdisjoint(ids):
            return ids
        # Only a text that spells a special token comes here.
        return self._literal.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        size = self.vocab_size
        text = self.backend.decode([i for i in map(int, ids) if 0 <= i < size])
        suffix = getattr(self.backend.model, "end_of_word_suffix", None)
        return text.replace(suffix, " ").strip() if suffix else text

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / "tokenizer.json") as temporary:
            temporary.write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        write_config(self, folder, "PreTrainedTokenizerFast")

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        added = self.backend.get_added_tokens_decoder().items()
        shapes = [re.compile(pattern) for pattern in self.spec.control]
        marked = {i for i, t in added if t.special or any(s.fullmatch(t.content) for s in shapes)}
        spelled = {self.backend.token_to_id(token) for token in self.files.control()}
        return frozenset(marked | {i for i in spelled if i is not None})

    @cached_property
    def _literal(self) -> Tokenizer:
        """The same vocabulary with its special tokens renamed to what nobody can spell.

        Removing them would shift ids, and switching their recognition off is not enough: a unigram
        or word vocabulary finds "</s>" among its ordinary pieces.
        """
        from tokenizers import Tokenizer

        state = json.loads(self.backend.to_str())
        model = state["model"]
        secret = secrets.token_hex(16)
        names = {self.backend.id_to_token(i): f"{secret}{i}" for i in self._control_ids}
        state["added_tokens"] = [
            t for t in state["added_tokens"] if t["id"] not in self._control_ids
        ]
        kept = model.get("unk_token")  # looked up by its spelling, so it keeps it
        if isinstance(model["vocab"], dict):
            names.pop(kept, None)
            model["vocab"] = {names.get(t, t): i for t, i in model["vocab"].items()}
            gone = {*names, kept}
            if "merges" in model:
                model["merges"] = [m for m in model["merges"] if not _touches(m, gone)]
        else:
            model["vocab"] = [[names.get(t, t), score] for t, score in model["vocab"]]
        state["post_processor"] = None
        return Tokenizer.from_str(json.dumps(state))


def _touches(merge: list[str] | str, tokens: set[str | None]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in tokens or right in tokens or left + right in tokens


def clip_backend(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], special: dict[str, str]
) -> Tokenizer:
    """CLIP's byte pairs (Radford et al. 2021): NFC, one space, lower case, words of the pattern."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    start, end = special["bos_token"], special["eos_token"]
    for token in (start, end):
        if token not in vocabulary:
            raise ValueError(f"the vocabulary lacks {token!r}")
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=special["unk_token"],
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
        )
    )
    one_space = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), one_space, normalizers.Lowercase()]
    )
    framed = "|".join(re.escape(token) for token in (_START, _END))
    words = framed + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(words), behavior="removed", invert=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        (end, vocabulary[end]), (start, vocabulary[start]), trim_offsets=False,
        add_prefix_space=False,
    )  # fmt: skip
    return backend


def _read_merges(path: Path) -> list[tuple[str, str]]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"larger than {MAX_JSON_BYTES >> 20} MB")
    merges = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        parts = line.split(" ")
        if len(parts) == 2 and not line.startswith("#version"):
            merges.append((parts[0], parts[1].rstrip("\r")))
    return merges


def _canonical(backend: Tokenizer, files: TokenizerFiles, spec: TextSpec) -> None:
    """Put the spec's canonical form before the file's own normalisation."""
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if spec.lower_case:
        steps.append(normalizers.Lowercase())
    if spec.strip_punctuation and files.class_name not in _KEEP_PUNCTUATION:
        ascii_marks = "[" + re.escape(string.punctuation) + "]"
        steps.append(normalizers.Replace(Regex(ascii_marks), ""))
    if spec.squeeze_whitespace:
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    own = backend.normalizer
    if own is not None:
        steps.append(own)
    if len(steps) > (own is not None):
        backend.normalizer = normalizers.Sequence(steps)


def _frame(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the file's post-processing puts before and after a text."""
    for probe in ("a", "the", "1", "?"):
        bare = backend.encode(probe, add_special_tokens=False).ids
        full = backend.encode(probe, add_special_tokens=True).ids
        for start in range(len(full) - len(bare) + 1):
            if bare and full[start : start + len(bare)] == bare:
                return full[:start], full[start + len(bare) :]
    return [], []


def _add(backend: Tokenizer, files: TokenizerFiles, path: Path) -> None:
    """Make the folder's special and added tokens known, at the ids that it says."""
    from tokenizers import AddedToken

    present = {t.content for t in backend.get_added_tokens_decoder().values()}
    for number, fields in sorted(files.added.items()):
        if fields["content"] in present:
            continue
        backend.add_tokens([AddedToken(**fields)])
        if backend.token_to_id(fields["content"]) != number:
            raise CheckpointError(
                f"{path}: token {fields['content']!r} should have id {number}, but the vocabulary "
                f"gives it {backend.token_to_id(fields['content'])}: fetch the files again"
            )
        present.add(fields["content"])
    for token in (*files.special.values(), *files.extra):
        if token not in present and backend.token_to_id(token) is not None:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
