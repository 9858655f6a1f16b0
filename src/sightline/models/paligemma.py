"""PaliGemma: A versatile 3B VLM for transfer, and PaliGemma 2.

Lucas Beyer, Andreas Steiner, Andre Susano Pinto, Alexander Kolesnikov, Xiao Wang et al. 2024,
https://arxiv.org/abs/2407.07726. PaliGemma 2: Andreas Steiner et al. 2024,
https://arxiv.org/abs/2412.03555. Reads and writes the layout of the `google/paligemma-*` and
`google/paligemma2-*` checkpoints (transformers' PaliGemmaForConditionalGeneration).

SigLIP's image tower without its pool, one linear layer, and Gemma (PaliGemma 2: Gemma 2). A
picture's tokens stand in front of the words and enter the first block as they are, where vectors of
words carry Gemma's factor. Picture and question see each other in both directions, the answer is
causal (section 3.2.1):

    picture picture ... <bos> answer en what colour is it ? newline | red <eos>
    |______________________ prefix _________________________________|  suffix

The begin token comes behind the pictures; the newline is a token of its own. Boxes and masks are
answers in tokens of places (`inputs.coordinates`). Several pictures, or the frames of a video,
stand one behind the other.

Differs from the paper: nothing in the network. Positions are counted from 1, as transformers does;
only differences matter to rotary positions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, InputError
from sightline.core.interfaces import Prompt, System
from sightline.inputs.instructions import PALIGEMMA, Instructions
from sightline.inputs.preprocessing import ImageSpec
from sightline.inputs.tokenizers import TextSpec
from sightline.models import gemma, gemma2, siglip
from sightline.models.gemma import GemmaConfig
from sightline.models.gemma2 import Gemma2Config
from sightline.models.keys import KeyTable
from sightline.models.published import field, section
from sightline.models.siglip import ImageTower, ImageTowerConfig
from sightline.nn.linear import Linear
from sightline.nn.writer import Writer


@dataclass(frozen=True)
class PaliGemmaConfig:
    """The image tower, the decoder, and the token that stands for a picture in files of others."""

    image: ImageTowerConfig
    text: GemmaConfig
    image_token: int = 257152
    prefix_lm: bool = True
    """Whether pictures and prompt see each other in both directions. False is the paper's ablation
    (section 4.3); only files written here say so."""


_TOWER = siglip.VARIANTS["So400m/14-224"].image
# Gemma's vocabulary with 1024 places, 128 shapes of masks and a picture's token, padded.
_VOCABULARY = 257216


def _variant(text: GemmaConfig, size: int) -> PaliGemmaConfig:
    image = replace(_TOWER, image_size=(size, size))
    return PaliGemmaConfig(image, replace(text, vocab_size=_VOCABULARY))


_TEXTS = {
    "3B": gemma.VARIANTS["2B"],
    "2-3B": gemma2.VARIANTS["2B"],
    "2-10B": gemma2.VARIANTS["9B"],
    "2-28B": gemma2.VARIANTS["27B"],
}
VARIANTS = {
    f"{name}-{size}": _variant(text, size)
    for name, text in _TEXTS.items()
    for size in (224, 448, 896)
}

TINY = PaliGemmaConfig(
    ImageTowerConfig(
        width=24, depth=3, num_heads=3, mlp_width=40, patch_size=(8, 8), image_size=(24, 24)
    ),
    gemma.TINY,
    image_token=98,
)
TINY2 = replace(TINY, text=gemma2.TINY)
"""The second generation, which has the same system."""


class PaliGemma(Writer):
    """Pictures and words to words, boxes and masks."""

    def __init__(self, config: PaliGemmaConfig) -> None:
        text = config.text
        if isinstance(text, Gemma2Config):
            decoder = gemma2.decoder(text, first_position=1)
        else:
            decoder = gemma.decoder(text, first_position=1)
        super().__init__(decoder, prefix_lm=config.prefix_lm)
        self.image = ImageTower(config.image, pooled=False)
        self.projector = Linear(config.image.width, text.width)
        siglip.initialise(self.image)
        gemma.initialise(self.decoder)
        # so that the first step sees the words of the decoder as it was trained
        nn.init.zeros_(self.projector.weight)
        nn.init.zeros_(self.projector.bias)

    def parts_to_compile(self) -> list[nn.Module]:
        """The stacks of blocks."""
        return [*super().parts_to_compile(), self.image.transformer]

    def image_tokens(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P D"]:
        """Pictures of one size to the vectors that the decoder reads; unscaled."""
        return self.projector(self.image.tokens(pixels))

    def prompt_vectors(self, prompt: Prompt) -> list[Float[Tensor, "_ D"]]:
        """For each row its pictures, then its words."""
        words = self.token_vectors(prompt.ids, prompt.mask)
        if not any(prompt.pictures):
            return words
        if len(prompt.pictures) != len(words):
            raise InputError(
                f"{len(words)} prompts came with the pictures of {len(prompt.pictures)}"
            )
        seen = self._seen([picture for row in prompt.pictures for picture in row])
        rows = iter(seen)
        return [
            torch.cat([*(next(rows).to(own.dtype) for _ in row), own])
            for row, own in zip(prompt.pictures, words, strict=True)
        ]

    def _seen(self, pictures: list[Tensor]) -> list[Float[Tensor, "P D"]]:
        """The tokens of every picture; a tensor that comes again goes through the tower once, and
        those of one size go together."""
        distinct = {id(picture): picture for picture in pictures}
        tokens: dict[int, Tensor] = {}
        for shape in dict.fromkeys(picture.shape for picture in pictures):
            alike = {name: own for name, own in distinct.items() if own.shape == shape}
            stacked = torch.stack(list(alike.values()))
            tokens |= zip(alike, self.image_tokens(stacked), strict=True)
        return [tokens[id(picture)] for picture in pictures]


def preprocessing(config: PaliGemmaConfig) -> ImageSpec:
    """Squeezed to the exact size, bicubic, to -1..1."""
    return siglip.square(config.image.image_size)


def text(config: PaliGemmaConfig) -> TextSpec:
    """Nothing is added: `Instructions` frames a prompt. Places are no words of a person."""
    return TextSpec(
        pad_id=config.text.pad_id, add_special=False, control=(r"<loc\d+>", r"<seg\d+>")
    )


def instructions(config: PaliGemmaConfig) -> Instructions:
    """The prompts of pre-training and of the mix checkpoints (appendix B.1)."""
    (height, width), (tall, wide) = config.image.image_size, config.image.patch_size
    return replace(PALIGEMMA, picture_tokens=(height // tall) * (width // wide))


# What a config.json without the part means: transformers' own defaults, whose tower has an MLP of
# another width than the published ones.
_NO_TOWER = {
    "hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16,
    "intermediate_size": 4096, "patch_size": 14, "image_size": 224,
}  # fmt: skip
_NO_DECODER = {
    "hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 8,
    "num_key_value_heads": 1, "intermediate_size": 16384, "vocab_size": 257152,
}  # fmt: skip


def read_config(config: Mapping[str, Any]) -> PaliGemmaConfig:
    """A published config.json to ours; absent parts and fields take transformers' defaults.

    Raises:
        CheckpointError: a decoder that is neither Gemma nor Gemma 2, or a tower that is no SigLIP.
    """
    words = section(config, "text_config") or _NO_DECODER
    vision = section(config, "vision_config") or _NO_TOWER
    kind = field(words, "model_type", "gemma")
    readers = {"gemma": gemma.read_config, "gemma2": gemma2.read_config}
    if kind not in readers:
        raise CheckpointError(
            f"config.json: 'text_config' is a {kind!r}; a PaliGemma writes with gemma or gemma2"
        )
    tower = field(vision, "model_type", "siglip_vision_model")
    if tower != "siglip_vision_model":
        raise CheckpointError(f"config.json: 'vision_config' is a {tower!r}, not SigLIP's")
    return PaliGemmaConfig(
        image=siglip.read_image_config(vision),
        text=readers[kind](words),
        image_token=field(config, "image_token_index", 256000),
        prefix_lm=field(config, "prefix_lm", True),
    )


def write_config(config: PaliGemmaConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    second = isinstance(config.text, Gemma2Config)
    writer: Any = gemma2.write_config if second else gemma.write_config
    words = {name: value for name, value in writer(config.text).items() if name != "architectures"}
    width = config.text.width
    ablated = {} if config.prefix_lm else {"prefix_lm": False}
    return {
        **ablated,
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "image_token_index": config.image_token,
        "projection_dim": width,
        "hidden_size": width,
        "vocab_size": config.text.vocab_size,
        "tie_word_embeddings": True,
        "pad_token_id": config.text.pad_id,
        "bos_token_id": config.text.bos_id,
        "eos_token_id": config.text.eos_id,
        "text_config": words,
        "vision_config": {
            **siglip.write_image_config(config.image),
            "projection_dim": width,
            "vision_use_head": False,
        },
    }


def _keys(decoder: Mapping[str, str]) -> KeyTable:
    return KeyTable(
        {
            **siglip.image_keys("vision_tower"),
            "multi_modal_projector.linear.*": "projector.*",
            **{f"language_model.{published}": own for published, own in decoder.items()},
        },
        ignored=(
            *(f"language_model.{name}" for name in gemma.IGNORED),
            "vision_tower.embeddings.position_ids",
        ),
    )


KEYS = _keys(gemma.PAIRS)
KEYS2 = _keys(gemma2.PAIRS)
# Writers of transformers 4 put a level into the tower; those around 4.50, and the class in memory,
# one in front of everything, and take the decoder's own away.
_SPELLINGS = (
    (re.compile(r"^model\.(?=vision_tower\.|multi_modal_projector\.)"), ""),
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^language_model\.(?=(embed_tokens|layers|norm)\.)"), "language_model.model."),
    (re.compile(r"^vision_tower\.vision_model\."), "vision_tower."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
)


def _spelled(name: str) -> str:
    """The one spelling of a name that writers of several years spelled differently."""
    for pattern, instead in _SPELLINGS:
        name = pattern.sub(instead, name)
    return name


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors, in any writer's spelling, to ours."""
    named = {_spelled(name): tensor for name, tensor in state.items()}
    second = any(".pre_feedforward_layernorm." in name for name in named)
    return (KEYS2 if second else KEYS).read(named)


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the published tensors, as transformers 5 spells them."""
    second = any(".after1." in name for name in state)
    return (KEYS2 if second else KEYS).write(state)


def class_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of files to the same by those of transformers' class in memory."""
    return {
        f"model.{re.sub(r'^language_model.model.', 'language_model.', name)}": tensor
        for name, tensor in state.items()
    }


SYSTEM = System(
    name="paligemma",
    title="PaliGemma: A versatile 3B VLM for transfer (Beyer et al. 2024) and PaliGemma 2 (2024)",
    role="vision-language model",
    model_types=("paligemma",),
    build=PaliGemma,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    class_names=class_names,
    preprocessing=preprocessing,
    text=text,
    instructions=instructions,
    variants=VARIANTS,
    tiny=TINY,
    known_names={
        "PaliGemma-3B": "google/paligemma-3b-mix-224",
        "PaliGemma2-3B": "google/paligemma2-3b-mix-224",
        "PaliGemma2-10B": "google/paligemma2-10b-mix-448",
    },
)
