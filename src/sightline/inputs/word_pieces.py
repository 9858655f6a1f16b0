"""BERT's word pieces: how text is cleaned and cut, and the bare vocabulary file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.inputs.published import MAX_JSON_BYTES
from sightline.inputs.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""What BERT's vocabularies call their special tokens, where their files do not say."""


def bert_backend(vocabulary: dict[str, int], files: TokenizerFiles) -> Tokenizer:
    """BERT's word pieces (Devlin et al. 2019; Wu et al. 2016, arXiv:1609.08144, section 4.1).

    Text is cleaned, lower-cased and freed of accents as the files say, cut at white space,
    punctuation and Chinese characters; each word is taken apart by the longest pieces from its
    front, "##" marking those that go on, and is unknown as a whole where that fails or where it
    has more than 100 characters.

    Raises:
        ValueError: the vocabulary lacks the unknown, first or last token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    unknown, first, last = (files.special[n] for n in ("unk_token", "cls_token", "sep_token"))
    for token in (unknown, first, last):
        if token not in vocabulary:
            raise ValueError(f"the vocabulary lacks {token!r}")
    backend = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=unknown))
    backend.normalizer = bert_normalizer(files)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(
        (last, vocabulary[last]), (first, vocabulary[first])
    )
    return backend


def bert_normalizer(files: TokenizerFiles) -> Normalizer:
    """Control characters out, Chinese characters apart, case and accents as the files say."""
    from tokenizers import normalizers

    accents = files.config.get("strip_accents")
    return normalizers.BertNormalizer(
        lowercase=files.flag("do_lower_case", True),
        handle_chinese_chars=files.flag("tokenize_chinese_chars", True),
        strip_accents=accents if isinstance(accents, bool) else None,
    )


def with_bert_tokens(files: TokenizerFiles) -> TokenizerFiles:
    """The files with the usual names of special tokens where they name none."""
    return replace(files, special=BERT_TOKENS | files.special)


def read_words(path: Path) -> dict[str, int]:
    """A vocab.txt: one piece a line, numbered from 0; of one that stands twice the last counts.

    Raises:
        ValueError: a file that is no vocabulary by its size, or not UTF-8.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"larger than {MAX_JSON_BYTES >> 20} MB")
    # Not splitlines: a vocabulary of many languages holds other line separators as words.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return {token: number for number, token in enumerate(lines)}
