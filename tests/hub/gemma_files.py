"""Folders as Google publishes them: a small Gemma-like vocabulary, and whole tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.models.writers import new_reference, randomise, transformers

CORPUS = [
    "caption en", "describe en", "answer en what colour is the ball?", "detect ball ; tree",
    "segment house", "a red ball on the grass", "two blue cars beside a tree", "ocr",
]  # fmt: skip
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


def tokenizer() -> Any:
    """Gemma's kind: byte pairs over the whole string, spaces as U+2581, bytes for the rest.

    Newlines are tokens: one, and two of them together.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=[*SPECIAL, *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator([*CORPUS, "\n\n", "\n\n"], trainer)
    return transformers.GemmaTokenizer(**_model(backend))


def _model(backend: Any) -> dict[str, Any]:
    model = json.loads(backend.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def processor() -> Any:
    """PaliGemma's, which adds the tokens of pictures, places and shapes to the vocabulary."""
    images = transformers.SiglipImageProcessor(
        size={"height": 24, "width": 24}, image_seq_length=9, resample=3
    )
    return transformers.PaliGemmaProcessor(images, tokenizer())


def folder(name: str, target: Path, **options: Any) -> tuple[Any, Any]:
    """A model folder as the reference writes it: (network, processor).

    Args:
        options: of `save_pretrained`.
    """
    if name.startswith("gemma"):
        words = tokenizer()
        network = randomise(new_reference(name, vocab_size=len(words)))
    else:
        words = processor()
        count = len(words.tokenizer) + 7  # padded, as the published tables are
        network = new_reference(name, vocab_size=count)
        network.config.image_token_index = words.image_token_id
        network.config.image_token_id = words.image_token_id
        network = randomise(network)
    network.save_pretrained(target, **options)
    words.save_pretrained(target)
    return network, words
