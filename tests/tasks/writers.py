"""Models that write: a tiny PaliGemma with random weights, and one that writes what it is told.

The vocabulary is made like Gemma's: letters, bytes for what has none, places and shapes as tokens
of their own behind them.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sightline.core.interfaces import Prompt
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.inputs.subwords import SubwordTokenizer
from sightline.inputs.tokenizer_files import TokenizerFiles
from sightline.models import mask_codec, paligemma
from sightline.tasks.model import Model
from tests.hub.tiny import randomise

NAMED = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
LETTERS = string.ascii_letters + string.digits + string.punctuation + "\u2581\n"
SCALE = 12.0
"""Logit of what the stand-in writes; all others have 0."""


def gemma_words() -> SubwordTokenizer:
    """Letters as Gemma has them; a space is a letter, and no letter is lost."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    vocabulary = {token: i for i, token in enumerate([*NAMED.values(), *bytes_, *LETTERS])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = [*NAMED.values(), "<image>"]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    places = [f"<loc{n:04d}>" for n in range(1024)] + [f"<seg{n:03d}>" for n in range(128)]
    backend.add_tokens([AddedToken(token, normalized=False) for token in places])
    files = TokenizerFiles(Path(), dict(NAMED), dict(NAMED))
    return SubwordTokenizer(backend, files, paligemma.text(paligemma.TINY))


WORDS = gemma_words()


def tiny_config() -> paligemma.PaliGemmaConfig:
    text = replace(paligemma.TINY.text, vocab_size=WORDS.vocab_size, context_length=400)
    return replace(paligemma.TINY, text=text, image_token=WORDS.token_id("<image>"))


def writing_model(network: nn.Module, folder: Path = Path("nowhere"), **changes: Any) -> Model:
    """A model of PaliGemma's system around a network."""
    config = tiny_config()
    processor = Processor(image_processor(paligemma.preprocessing(config)), WORDS)
    loaded = SimpleNamespace(
        origin=None, quantize=None, end_ids=(), name="writer", revision=None, folder=folder,
        config=config,
        system=paligemma.SYSTEM, network=network, processor=processor,
        device=torch.device("cpu"), dtype=torch.float32, bundled=False, domain=None,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(loaded, name, value)
    return Model(loaded)  # type: ignore[arg-type]


def random_writer(seed: int = 0) -> Model:
    """PaliGemma's own network, tiny, with every weight drawn anew."""
    return writing_model(randomise(paligemma.PaliGemma(tiny_config()), seed))


class Memory:
    """What the stand-in has yet to write, by row."""

    def __init__(self, rows: list[list[int]], read: list[int]) -> None:
        self.rows, self.read = rows, read

    @property
    def lengths(self) -> Tensor:
        return torch.tensor(self.read)

    def select(self, rows: Tensor) -> Memory:
        kept = rows.tolist()
        return Memory([list(self.rows[row]) for row in kept], [self.read[row] for row in kept])


class Scripted(nn.Module):
    """Writes what a function of the prompt's words and its pictures says, then the end token.

    Whatever is written, the next token is the likeliest at the next place.
    """

    def __init__(self, answer: Callable[[str, tuple[Tensor, ...]], str]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[str] = []
        self.ids: list[list[int]] = []
        self.pictures: list[int] = []
        self.dropout = nn.Dropout(0.5)

    def prefill(self, prompt: Prompt, room: int) -> tuple[Tensor, Memory]:
        assert not self.dropout.training
        rows, read = [], []
        for row, mask, pictures in zip(prompt.ids, prompt.mask, prompt.pictures, strict=True):
            own = row[mask].tolist()
            self.ids.append(own)
            self.pictures.append(len(pictures))
            words = WORDS.backend.decode(own, skip_special_tokens=False)
            self.asked.append(words)
            rows.append([*WORDS.encode(self.answer(words, pictures), trusted=True), WORDS.eos_id])
            read.append(len(own))
        memory = Memory(rows, read)
        return self._next(memory), memory

    def extend(self, ids: Tensor, cache: Memory, mask: Tensor | None = None) -> Tensor:
        logits = []
        for _ in range(ids.shape[1]):
            cache.rows = [row[1:] for row in cache.rows]
            logits.append(self._next(cache))
        return torch.stack(logits, dim=1)

    def _next(self, memory: Memory) -> Tensor:
        logits = torch.zeros(len(memory.rows), WORDS.vocab_size)
        for row, ids in enumerate(memory.rows):
            logits[row, ids[0] if ids else WORDS.eos_id] = SCALE
        return logits


def scripted(answer: str | Callable[[str, tuple[Tensor, ...]], str], **changes: Any) -> Model:
    """A model that writes this, or what this says."""
    write = answer if callable(answer) else lambda words, pictures: answer
    return writing_model(Scripted(write).eval(), **changes)


def small_codec(folder: Path) -> Path:
    """A small mask codec with random weights, of the size that models write for."""
    config = replace(mask_codec.VARIANTS["park"], width=8, code_width=4)
    entry = mask_codec.SYSTEM.for_config(config)
    save_checkpoint(randomise(mask_codec.MaskCodec(config)), None, config, entry, folder)
    return folder


def writing_folder(folder: Path, **card: Any) -> Path:
    """A random PaliGemma on disk that mostly ends its answers at once, with its mask codec."""
    model = random_writer()
    table = model.network.decoder.table.weight
    with torch.no_grad():
        # One number of a vector is the same for all words, larger for the end, and all that counts.
        table[:, 0] = 1.0
        table[WORDS.eos_id, 0] = 1.5
        model.network.decoder.norm.weight[1:] = -0.99
    save_checkpoint(
        model.network, model.processor, model.config, model.system, folder, metadata=card
    )
    small_codec(folder / "mask_codec")
    return folder
