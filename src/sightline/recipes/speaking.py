"""The PaliGemma that a run starts from: somebody's, one joined of a tower and a decoder, or new."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.inputs.preprocessing import ImageProcessor
from sightline.inputs.processors import Processor, image_processor
from sightline.inputs.tokenizers import TextSpec
from sightline.inputs.vocabulary import IMAGE, train_vocabulary, with_places
from sightline.models import paligemma
from sightline.models.gemma import GemmaConfig
from sightline.models.paligemma import PaliGemmaConfig
from sightline.models.siglip import ImageTowerConfig
from sightline.nn import four_bit, lora
from sightline.nn.positions import resample_grid
from sightline.recipes.splits import PARK_SIZE
from sightline.recipes.start import Start

if TYPE_CHECKING:
    from sightline.hub.adapters import Origin
    from sightline.hub.load import Loaded
    from sightline.inputs.tokenizers import TextTokenizer
    from sightline.recipes.phases import Phase

LONGEST_TEXT = 8192
"""Tokens that a new vocabulary's folder allows."""
POSITIONS = "image.positions.table"
TABLE = "decoder.table.weight"
NEW_TOKENS = 0.02
"""Standard deviation of the vectors of tokens that a known vocabulary gets besides."""
ROUND = 64
"""Rows of a table that grows are a multiple of this, as in the published ones."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of what is new in a network; recipes give them their own defaults."""

    image_size: int | None = None
    patch_size: int = 8
    image_width: int = 64
    image_depth: int = 3
    width: int = 96
    depth: int = 3
    num_heads: int = 4
    kv_heads: int = 2
    mlp_width: int = 256
    vocab_size: int = 1600

    @property
    def image_heads(self) -> int:
        """Of the image tower: 32 components each."""
        return self.image_width // 32


def weights_of(name: str) -> tuple[Start, Origin | None]:
    """A whole PaliGemma, ready to learn, and what an adapter of it is for.

    Raises:
        ConfigError: a model of another system.
        HubError: the weights cannot be fetched.
    """
    from sightline.hub.load import load_checkpoint

    loaded = load_checkpoint(name, device="cpu", dtype="float32")
    if loaded.system.name != paligemma.SYSTEM.name:
        raise ConfigError(
            f"{name} is a {loaded.system.name} model and the recipe trains paligemma: give it as "
            "init_image or init_text where it is a tower or a decoder"
        )
    return Start.tuning(loaded), loaded.origin


def joined(
    sizes: Sizes, image: str | None, text: str | None, texts: Iterable[str], seed: int
) -> Start:
    """A network of a tower and a decoder, each given or new, with a new layer between them.

    Args:
        image: weights with the image tower of a SigLIP.
        text: weights with the decoder of a PaliGemma or a Gemma.
        texts: what the vocabulary of a new decoder is learned from.

    Raises:
        ConfigError: weights without such a part, or a vocabulary without places.
        HubError: weights that cannot be fetched.
    """
    tower = part_of(image, ("siglip", "paligemma"))
    decoder = part_of(text, ("gemma", "gemma2", "paligemma"))
    known = decoder.processor.tokenizer if decoder else new_vocabulary(texts, sizes.vocab_size)
    return join(sizes, tower, decoder, known, seed)


def join(
    sizes: Sizes,
    tower: Loaded | None,
    decoder: Loaded | None,
    known: TextTokenizer,
    seed: int,
    prefix_lm: bool = True,
) -> Start:
    """A network of the parts, those that are None new, with a new layer between them.

    Args:
        known: the decoder's vocabulary, which gets the tokens of places where it has none.
        prefix_lm: whether the prefix sees all of itself.
    """
    words = with_places(known, TextSpec(add_special=False))
    config = replace(_joined_config(sizes, tower, decoder, words), prefix_lm=prefix_lm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = paligemma.PaliGemma(config)
        if decoder is None:
            # a decoder that never learned anything has no words to be spared: patches begin at
            # full length
            nn.init.normal_(network.projector.weight, std=config.image.width**-0.5)
    for part, loaded in (("image.", tower), ("decoder.", decoder)):
        if loaded is not None:
            _take(network, loaded.network, part)
    pictures = tower.processor.image if tower else image_processor(paligemma.preprocessing(config))
    processor = Processor(pictures, words.with_spec(paligemma.text(config)))
    return Start(network, processor, config, paligemma.SYSTEM)


def _take(network: nn.Module, source: nn.Module, part: str) -> None:
    """Copy a part; tokens that a table has got besides have small vectors."""
    own, given = network.state_dict(), source.state_dict()
    for name in [name for name in own if name.startswith(part)]:
        if name == TABLE and len(given[name]) < len(own[name]):
            own[name].mul_(NEW_TOKENS / own[name].std())
            own[name][: len(given[name])] = given[name]
        else:
            own[name] = given[name]
    network.load_state_dict(own)


def part_of(name: str | None, systems: tuple[str, ...]) -> Loaded | None:
    """The weights that a part of a network is taken from.

    Raises:
        ConfigError: a model of none of the systems.
        HubError: weights that cannot be fetched.
    """
    if name is None:
        return None
    from sightline.hub.load import load_checkpoint

    loaded = load_checkpoint(name, device="cpu", dtype="float32")
    if loaded.system.name not in systems:
        raise ConfigError(
            f"{name} is a {loaded.system.name} model: this part of a paligemma comes from a "
            f"{' or a '.join(systems)}"
        )
    return loaded


def new_vocabulary(
    texts: Iterable[str], size: int, max_length: int = LONGEST_TEXT
) -> TextTokenizer:
    """Byte pairs of the texts, beside PaliGemma's places and shapes."""
    return train_vocabulary(texts, size, rules="paligemma", max_length=max_length)


def _joined_config(
    sizes: Sizes, tower: Loaded | None, decoder: Loaded | None, words: TextTokenizer
) -> PaliGemmaConfig:
    image_token = words.token_id(IMAGE)
    assert image_token is not None
    tokens = ROUND * math.ceil(words.vocab_size / ROUND)
    side, patch = (sizes.image_size or PARK_SIZE,) * 2, (sizes.patch_size,) * 2
    image = tower.config.image if tower else ImageTowerConfig(
        sizes.image_width, sizes.image_depth, sizes.image_heads, 4 * sizes.image_width, patch, side
    )  # fmt: skip
    text = GemmaConfig(
        sizes.width, sizes.depth, sizes.num_heads, sizes.kv_heads, sizes.width // sizes.num_heads,
        sizes.mlp_width, words.vocab_size,
    )  # fmt: skip
    if decoder is not None:
        text = getattr(decoder.config, "text", decoder.config)
        text = replace(text, vocab_size=max(text.vocab_size, tokens))
    return PaliGemmaConfig(image, text, image_token)


def resized(start: Start, size: int) -> Start:
    """The same network for pictures of another size: positions are resampled (section 3.2.3).

    On pictures of the new size the network answers exactly as it did before.

    Raises:
        ConfigError: a size that is no whole number of patches.
    """
    config: PaliGemmaConfig = start.config
    patch, old = config.image.patch_size, config.image.image_size
    if size % patch[0] or size % patch[1]:
        raise ConfigError(
            f"image_size {size} is no whole number of patches of {patch[0]} x {patch[1]} pixels"
        )
    if old == (size, size):
        return start
    config = replace(config, image=replace(config.image, image_size=(size, size)))
    grids = [(side[0] // patch[0], side[1] // patch[1]) for side in (old, (size, size))]
    state = start.network.state_dict()
    state[POSITIONS] = resample_grid(state[POSITIONS], *grids)
    with torch.device("meta"):
        network = paligemma.PaliGemma(config)
    network.load_state_dict(state, assign=True)
    network.requires_grad_(True)
    assert isinstance(start.processor.image, ImageProcessor)
    spec = replace(start.processor.image.spec, height=size, width=size)
    return replace(
        start,
        network=network,
        config=config,
        processor=Processor(image_processor(spec), start.processor.text),
    )


def with_additions(start: Start, phase: Phase, origin: Origin | None, seed: int) -> Start:
    """Low-rank additions to a network, whose weights may be stored in 4 bits first.

    Raises:
        ConfigError: patterns that fit no layer.
    """
    network: Any = start.network
    if phase.four_bit:
        four_bit.quantise(network, phase.four_bit)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lora.add(
            network, phase.lora_rank, phase.lora_alpha, phase.lora_targets,
            dropout=phase.lora_dropout, rslora=phase.lora_rslora,
        )  # fmt: skip
    return replace(start, adapter=origin)
