"""A small vocabulary from a collection of texts, for models that are trained here.

Frequent words become one token, rare ones are spelled; the result is saved as a tokenizer.json
that transformers reads too.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from sightline.core.errors import ConfigError, unknown_name
from sightline.inputs.subwords import SubwordTokenizer, clip_backend
from sightline.inputs.tokenizer_files import TokenizerFiles
from sightline.inputs.tokenizers import Padding, TextSpec, TextTokenizer
from sightline.inputs.word_pieces import BERT_TOKENS, bert_backend

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Rules = Literal["siglip", "clip", "bert", "paligemma"]

_CLIP = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
_LEAST = {"siglip": 64, "clip": 600, "bert": 128, "paligemma": 1300}
_GEMMA = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
PLACES = tuple(f"<loc{number:04d}>" for number in range(1024))
SHAPES = tuple(f"<seg{number:03d}>" for number in range(128))
IMAGE = "<image>"
"""PaliGemma's tokens beside the words: places, shapes of masks, and where a picture stands."""
_SIGLIP = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}


def train_vocabulary(
    texts: Iterable[str],
    size: int,
    rules: Rules = "siglip",
    max_length: int = 16,
    keep_punctuation: bool = False,
) -> SubwordTokenizer:
    """Learn byte pairs (Sennrich et al. 2016, arXiv 1508.07909) from texts, lower-cased.

    For "bert" the symbols that the pairs make become word pieces, taken apart longest first.

    "siglip": every text ends in </s> (id 1) and is filled with it to `max_length`; <unk> is 2.
    "clip": <|startoftext|> and <|endoftext|> frame the text; they have the two highest ids, so
    that pooling at the largest id and at the end token agree. "bert": [PAD], [UNK], [CLS], [SEP]
    and [MASK] are 0 to 4, and [CLS] and [SEP] frame the text. "paligemma": <pad>, <eos>, <bos>,
    <unk> and the newline are 0 to 4, <image>, 1024 places and 128 shapes the last ids; punctuation
    is kept and nothing is added. Equal texts give equal vocabularies.

    Args:
        size: ids at most; fewer where the texts hold no more pairs.
        keep_punctuation: by default it is removed for "siglip"; the others always keep it.

    Raises:
        ConfigError: unknown rules, or a size below the alphabet.
    """
    if rules not in get_args(Rules):
        raise ConfigError(unknown_name("rules", rules, get_args(Rules)))
    least = _LEAST[rules]
    if size < least:
        raise ConfigError(f"a vocabulary of {size} ids: {rules!r} needs at least {least}")
    config: dict[str, Any] = {"model_max_length": max_length, "padding_side": "right"}
    if rules == "clip":
        backend, special = _clip(texts, size), _CLIP
        config["tokenizer_class"] = "CLIPTokenizer"
    elif rules == "bert":
        config |= {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        backend, special = _bert(texts, size), BERT_TOKENS
    elif rules == "paligemma":
        backend, special = _paligemma(texts, size), _GEMMA
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    else:
        backend, special = _siglip(texts, size, keep_punctuation), _SIGLIP
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    padding: Padding = "max_length" if rules == "siglip" else "longest"
    spec = TextSpec(max_length=max_length, padding=padding)
    files = TokenizerFiles(Path(), {**config, **special}, dict(special))
    return SubwordTokenizer(backend, files, spec)


def with_places(tokenizer: TextTokenizer, spec: TextSpec) -> TextTokenizer:
    """The vocabulary with PaliGemma's tokens of pictures, places and shapes behind its own.

    Args:
        spec: of the result.

    Raises:
        ConfigError: a vocabulary that cannot grow.
    """
    from tokenizers import AddedToken, Tokenizer

    wanted = (*PLACES, *SHAPES, IMAGE)
    if all(tokenizer.token_id(token) is not None for token in wanted):
        return tokenizer.with_spec(spec)
    if not isinstance(tokenizer, SubwordTokenizer):
        raise ConfigError(
            "a vocabulary in a SentencePiece file cannot take the tokens of places: give a folder "
            "with a tokenizer.json"
        )
    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_tokens([AddedToken(token, normalized=False) for token in (*PLACES, *SHAPES)])
    backend.add_special_tokens([AddedToken(IMAGE, normalized=False)])
    return SubwordTokenizer(backend, tokenizer.files, spec)


def _siglip(texts: Iterable[str], size: int, keep_punctuation: bool) -> Tokenizer:
    from tokenizers import processors

    special = ["<pad>", "</s>", "<unk>"]
    backend = _pairs(texts, size, special, keep_punctuation)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return backend


def _paligemma(texts: Iterable[str], size: int) -> Tokenizer:
    from tokenizers import AddedToken

    own = [*PLACES, *SHAPES, IMAGE]
    special = [*_GEMMA.values(), "\n"]
    backend = _pairs(texts, size - len(own), special, keep_punctuation=True)
    # Before normalisation, which would take them apart; the newline is no special token, as it is
    # none in Gemma's vocabulary, and places and shapes are part of an answer.
    backend.add_special_tokens(
        [AddedToken(token, normalized=False) for token in (*_GEMMA.values(), IMAGE)]
    )
    plain = [AddedToken(token, normalized=False) for token in ("\n", *PLACES, *SHAPES)]
    backend.add_tokens(plain)
    return backend


def _pairs(
    texts: Iterable[str], size: int, special: Sequence[str], keep_punctuation: bool
) -> Tokenizer:
    """Byte pairs of lower-cased words that begin with a mark for the space in front of them."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    steps: list[Any] = [normalizers.NFKC(), normalizers.Lowercase()]
    if not keep_punctuation:
        marks = "".join("\\" + mark for mark in string.punctuation)
        steps.append(normalizers.Replace(Regex(f"[{marks}]"), ""))
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence(steps)
    split: list[Any] = [pre_tokenizers.Metaspace(prepend_scheme="always")]
    if keep_punctuation:
        split.append(pre_tokenizers.Punctuation())
    backend.pre_tokenizer = pre_tokenizers.Sequence(split)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    letters = string.ascii_lowercase + string.digits
    letters += string.punctuation if keep_punctuation else ""
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=[*letters, "\u2581"],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _clip(texts: Iterable[str], size: int) -> Tokenizer:
    from tokenizers import AddedToken, pre_tokenizers, trainers

    start, end = _CLIP["bos_token"], _CLIP["eos_token"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = clip_backend({start: 0, end: 1}, [], _CLIP)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2,
        initial_alphabet=alphabet,
        # Listed, because the trainer would number them in no fixed order, and pairs after them.
        special_tokens=[letter + "</w>" for letter in alphabet],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for token in (start, end):
        vocabulary[token] = len(vocabulary)
    merges = [(left, right) for left, right in model["merges"]]
    backend = clip_backend(vocabulary, merges, _CLIP)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in (start, end)])
    return backend


def _bert(texts: Iterable[str], size: int) -> Tokenizer:
    from tokenizers import AddedToken, trainers

    sentences = list(texts)
    named = [BERT_TOKENS[f"{name}_token"] for name in ("pad", "unk", "cls", "sep", "mask")]
    files = TokenizerFiles(Path(), {}, dict(BERT_TOKENS))
    backend = bert_backend({token: number for number, token in enumerate(named)}, files)
    # Listed, because the trainer would number letters inside a word in no fixed order.
    alphabet = _word_letters(backend, sentences, (size - len(named)) // 2)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*named, *alphabet],
        limit_alphabet=0,
        show_progress=False,
    )
    backend.train_from_iterator(sentences, trainer)
    backend = bert_backend(json.loads(backend.to_str())["model"]["vocab"], files)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in named])
    return backend


def _word_letters(backend: Tokenizer, texts: Iterable[str], most: int) -> list[str]:
    """Letters alone and, where they go on, marked: the usual ones, then the most frequent."""
    seen: Counter[str] = Counter()
    inside: set[str] = set()
    for text in texts:
        words = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        for word, _ in words:
            seen.update(word)
            inside.update(word[1:])
    usual = [*string.ascii_lowercase, *string.digits]
    letters = [*usual, *(f"##{letter}" for letter in usual), *string.punctuation]
    by_count = sorted(seen.keys() - {*letters}, key=lambda letter: (-seen[letter], letter))
    for letter in by_count:
        forms = [letter, f"##{letter}"] if letter in inside else [letter]
        letters += forms if len(letters) + len(forms) <= most else []
    return letters
