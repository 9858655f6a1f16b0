"""Tensors and tokenizers in the folders of other layouts."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.inputs.tokenizers import TextSpec, TextTokenizer
    from sightline.models.clip import TextTowerConfig

logger = logging.getLogger(__name__)


def write_tensors(state: Mapping[str, Tensor], file: Path) -> None:
    """One safetensors file, each tensor dense and in a storage of its own."""
    from safetensors.torch import save_file

    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    owned = {
        name: t.clone() if t.untyped_storage().nbytes() != t.nbytes else t
        for name, t in dense.items()
    }
    with atomic_file(file) as temporary:
        save_file(owned, os.fspath(temporary), metadata={"format": "pt"})


def tokenizer_beside(
    folder: Path, spec: TextSpec, vocab_size: int, listed: Path | None = None
) -> TextTokenizer | None:
    """The tokenizer in a folder, if there is one and the network knows all its words.

    A file may lie in a folder with somebody else's tokenizer; one of more words is not its own.

    Args:
        listed: BERT's words, one a line, under another name than vocab.txt; taken where the folder
            has no tokenizer.
    """
    from sightline.inputs.subwords import SubwordTokenizer
    from sightline.inputs.tokenizer_files import TokenizerFiles, has_tokenizer
    from sightline.inputs.tokenizers import load_tokenizer

    if has_tokenizer(folder):
        words: TextTokenizer = load_tokenizer(folder, spec)
    elif listed is not None and listed.is_file():
        words = SubwordTokenizer.from_words(listed, TokenizerFiles(folder), spec)
    else:
        return None
    if words.vocab_size > vocab_size:
        logger.warning(
            "the tokenizer in %s has %d words and the network %d: left aside",
            folder, words.vocab_size, vocab_size,
        )  # fmt: skip
        return None
    return words


def with_tokenizer_ids(config: TextTowerConfig, words: TextTokenizer | None) -> TextTowerConfig:
    """CLIP's text tower with the ids that its tokenizer says.

    These layouts take the highest id of a sentence for its end and record no ids at all. Where the
    tokenizer's end is not the highest id that there is, 2 stands for that rule.
    """
    if words is None:
        return config
    highest = config.vocab_size - 1
    return replace(
        config,
        eos_id=highest if words.eos_id == highest else 2,
        bos_id=config.bos_id if words.bos_id is None else words.bos_id,
        pad_id=words.pad_id,
    )
