"""Tiny models of every system, with weights drawn anew and a vocabulary of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.core.interfaces import System
from sightline.hub.save import save_checkpoint
from sightline.inputs.processors import Processor, image_processor
from sightline.inputs.tokenizers import TextTokenizer
from sightline.inputs.vocabulary import Rules, train_vocabulary
from sightline.models.table import system

RULES: dict[str, Rules] = {
    "clip": "clip", "clip_resnet": "clip", "unicl": "clip", "bert": "bert", "vision_text": "bert",
    "lit": "bert",
}  # fmt: skip
"""Rules of a system's vocabulary, where they are not SigLIP's."""

WORDS = ["a red ball on the grass", "a blue car beside a tree", "two ducks in the water"]


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter anew, so that defaults of 0 and 1 hide nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        spread = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = centre + spread * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def tiny(name: str) -> tuple[System, Any, nn.Module, Processor]:
    """The system, its tiny config (its vocabulary as large as the tokenizer's), network, inputs."""
    entry = system(name)
    config, words = entry.tiny, None
    if entry.text is not None:
        length = getattr(config, "text", config).context_length
        words = train_vocabulary(WORDS, 640, RULES.get(name, "siglip"), max_length=length)
        config = with_vocabulary(config, words)
    spec = entry.preprocessing(config)
    processor = Processor(None if spec is None else image_processor(spec), words)
    return entry, config, randomise(entry.build(config)), processor


def with_vocabulary(config: Any, words: TextTokenizer) -> Any:
    """The config of a network, or of its text tower, with the ids that a tokenizer has."""
    if hasattr(config, "text"):
        return replace(config, text=with_vocabulary(config.text, words))
    ids = {"eos_id": words.eos_id, "bos_id": words.bos_id, "pad_id": words.pad_id}
    known = {name: i for name, i in ids.items() if hasattr(config, name) and i is not None}
    return replace(config, vocab_size=words.vocab_size, **known)


def tiny_folder(name: str, folder: Path, **options: Any) -> nn.Module:
    """Save a tiny model; returns the network that was saved."""
    entry, config, network, processor = tiny(name)
    save_checkpoint(network, processor, config, entry, folder, **options)
    return network
