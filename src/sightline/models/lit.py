"""LiT: Zero-Shot Transfer with Locked-image text Tuning.

Xiaohua Zhai, Xiao Wang, Basil Mustafa, Andreas Steiner, Daniel Keysers, Alexander Kolesnikov, Lucas
Beyer, CVPR 2022, https://arxiv.org/abs/2111.07991. Reads the files that the authors released
(https://github.com/google-research/big_vision, `configs/proj/image_text/README_lit.md`), which are
JAX's: `LiT-B16B.npz`, `LiT-B16B_2.npz` and `LiT-L16L.npz` of gs://vit_models/lit, and coco_B16B's
`checkpoint.npz`. None of them is on the hub: fetch the file and the `.txt` vocabulary beside it
into a folder of their own, and load that.

The image tower is somebody's good classifier and stays as it is: its class token is the picture's
vector, and the space of that vector is the space that pictures and sentences meet in. Only the text
tower learns, BERT with its [CLS] and a linear layer over it, until its sentences lie beside the
pictures that they describe. Both come to unit length, the cosine times a learned scale is the logit
of a pair, and the loss is CLIP's. The image tower's vectors never change, so that they can be
computed once (`sightline train lit`). SigLiT is the same with SigLIP's loss (Zhai et al. 2023,
https://arxiv.org/abs/2303.15343): each pair on its own, with a bias that starts at -2.71 here,
where SigLIP's starts at -10.

A sentence is [CLS] and at most 15 word pieces; there is no [SEP] behind them. The first release
(B16B) has a linear layer over the picture's vector too, the later ones have none and are better.

Published, not measured here: ImageNet's classes without training on them 72.1 % (B16B), 73.9 %
(B16B_2), 75.7 % (L16L) and 20.7 % (coco_B16B, which saw COCO's captions alone); COCO's captions
found first from their picture 49.4 %, 51.5 %, 48.5 % and 47.2 %, the picture from its caption
31.1 %, 31.8 %, 31.2 % and 32.1 %.

Any image encoder of this library, and the image half of CLIP or of SigLIP, can be the locked tower.

Differs from the paper: its text towers that are no BERT are not here, nor are those of the released
LiT-L16S and LiT-L16Ti. Differs from the release: TensorFlow shrinks pictures without low-pass
filter and cuts values to whole numbers, which a picture with fine detail tells apart from Pillow's
bilinear filter. Differs from transformers: no class of it is this network. Its nearest,
VisionTextDualEncoderModel, puts tanh layers behind both towers and projects both without bias; in a
folder of ours it finds the towers themselves, draws what it misses at random and leaves the biases
out, so that its answers mean nothing. `model_type` is therefore a name of its own, which
transformers refuses.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.interfaces import System
from sightline.core.outputs import PairScores
from sightline.models import bert, towers, vit
from sightline.models.keys import KeyTable
from sightline.models.published import field
from sightline.models.towers import (
    Towers,
    image_tower,
    read_towers,
    text_tower,
    unbound,
    with_tower_names,
    without_pooler,
    write_towers,
)
from sightline.nn.linear import Linear
from sightline.nn.norms import at_least_float32, unit_length

FIRST_SCALE, FIRST_BIAS = 10.0, -2.71
"""Where scale and bias start (`temperature_init` and `bias_init` of the released configuration)."""

SCORES = ("softmax", "sigmoid")


@dataclass(frozen=True)
class LiTConfig(Towers):
    """Two towers by name, each with its own system's config, and how sentences reach the pictures.

    Raises:
        ConfigError: an unknown score, a sentence length below 2, or a text tower that does not
            give its [CLS] as it is.
    """

    image_head: int = 0
    """Width of a linear layer over the picture's vector, and of the shared space; 0: there is
    none, and the shared space is the image tower's."""
    score: str = "softmax"
    """One of `SCORES`: what the loss was, hence how logits become scores. "sigmoid" is SigLiT."""
    max_tokens: int = 16
    """Of a sentence, [CLS] included; the positions of the text tower may be more."""

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ConfigError(unknown_name("score", self.score, SCORES))
        if self.max_tokens < 2 or self.image_head < 0:
            raise ConfigError(
                f"max_tokens {self.max_tokens} and image_head {self.image_head}: a sentence has "
                "[CLS] and at least one more token, and a width is not negative"
            )
        if getattr(self.text, "pooling", "cls") != "cls":
            raise ConfigError(
                f"LiT's sentence vector is [CLS] as it is: the text tower has pooling "
                f"{self.text.pooling!r}, expected 'cls'"
            )

    @property
    def embedding_width(self) -> int:
        """Of the shared space."""
        return int(self.image_head or self.image.width)


# Flax computes the tanh form of GELU, and its norms have 1e-6; flaxformer's BERT keeps 1e-12.
_GELU = "gelu_pytorch_tanh"
_B16, _L16 = (
    without_pooler(replace(vit.VARIANTS[size], activation=_GELU, norm_eps=1e-6))
    for size in ("B/16", "L/16")
)
_BASE, _LARGE = (
    without_pooler(replace(bert.VARIANTS[f"{size}-uncased"], activation=_GELU))
    for size in ("base", "large")
)
# https://github.com/google-research/vision_transformer, vit_jax/configs/models.py, and big_vision's
# configs/proj/image_text/siglip_lit_coco.py for the last two.
VARIANTS = {
    "LiT-B16B": LiTConfig("vit", _B16, "bert", _BASE, image_head=768),
    "LiT-B16B_2": LiTConfig("vit", _B16, "bert", _BASE),
    "LiT-L16L": LiTConfig("vit", _L16, "bert", _LARGE),
    "coco_B16B": LiTConfig("vit", _B16, "bert", _BASE),
    "SigLiT-B16B": LiTConfig("vit", _B16, "bert", _BASE, score="sigmoid"),
}

TINY = LiTConfig(
    "vit", without_pooler(vit.TINY), "bert", without_pooler(bert.TINY), image_head=18,
    score="sigmoid", max_tokens=9,
)  # fmt: skip


class LiT(nn.Module):
    """Pictures and sentences in the space of the image tower."""

    def __init__(self, config: LiTConfig) -> None:
        super().__init__()
        self.pad_id = config.text.pad_id
        self.image = image_tower(config.image_system).build(config.image)
        self.image_head = (
            Linear(config.image.width, config.image_head) if config.image_head else None
        )
        self.text = text_tower(config.text_system).build(config.text)
        self.text_head = Linear(config.text.width, config.embedding_width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.logit_bias = (
            nn.Parameter(torch.tensor(FIRST_BIAS)) if config.score == "sigmoid" else None
        )
        for head in (self.image_head, self.text_head):
            if head is not None:
                nn.init.normal_(head.weight, std=head.in_features**-0.5)
                nn.init.zeros_(head.bias)

    def encode_images(self, pixels: Float[Tensor, "B ..."]) -> Float[Tensor, "B D"]:
        """Unit vectors, float32, of what the image tower takes: pixels float[B, C, H, W]."""
        vectors = self.image(pixels).pooled  # [B D]
        return unit_length(vectors if self.image_head is None else self.image_head(vectors))

    def encode_texts(
        self, ids: Int[Tensor, "M T"], mask: Bool[Tensor, "M T"] | None = None
    ) -> Float[Tensor, "M D"]:
        """Unit vectors, float32. Without a mask every padding id is taken for padding."""
        mask = ids != self.pad_id if mask is None else mask
        return unit_length(self.text_head(self.text(ids, mask).pooled))  # [M D]

    def pair_scale(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What turns a cosine into a logit: the scale, and the bias (0 for the softmax)."""
        scale = at_least_float32(self.logit_scale).exp()
        if self.logit_bias is None:
            return scale, torch.zeros_like(scale)
        return scale, at_least_float32(self.logit_bias)

    def forward(
        self,
        pixels: Float[Tensor, "B ..."],
        ids: Int[Tensor, "M T"],
        mask: Bool[Tensor, "M T"] | None = None,
    ) -> PairScores:
        """Every picture against every sentence."""
        return PairScores(
            self.encode_images(pixels), self.encode_texts(ids, mask), *self.pair_scale()
        )


def text(config: LiTConfig) -> Any:
    """The text tower's own, cut to `max_tokens`, without an end token."""
    return replace(towers.text(config), max_length=config.max_tokens, end_token=False)


def read_config(config: Mapping[str, Any]) -> LiTConfig:
    """Our config.json; absent fields take the values of the released models.

    Raises:
        CheckpointError: towers that no system here reads.
    """
    given = read_towers(config)
    bare = replace(given, image=without_pooler(given.image), text=without_pooler(given.text))
    return LiTConfig(
        **vars(bare),
        image_head=field(config, "image_head", 0),
        score=field(config, "score", "softmax"),
        max_tokens=field(config, "max_tokens", 16),
    )


def write_config(config: LiTConfig) -> dict[str, Any]:
    """The inverse of `read_config`."""
    return {
        "architectures": ["LiT"],
        "model_type": "lit",
        "image_head": config.image_head,
        "score": config.score,
        "max_tokens": config.max_tokens,
        **write_towers(config),
    }


KEYS = KeyTable(
    {
        "visual_projection.*": "image_head.*",
        "text_projection.*": "text_head.*",
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
    }
)


def bind(config: LiTConfig) -> System:
    """This system with the names of these towers, and the score of this config."""
    return replace(with_tower_names(SYSTEM, config, KEYS), score=config.score)


SYSTEM = System(
    name="lit",
    title="LiT (Zhai et al. 2022)",
    role="dual encoder",
    model_types=("lit",),
    build=LiT,
    read_config=read_config,
    write_config=write_config,
    read_state=unbound,
    write_state=unbound,
    preprocessing=towers.preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    bind=bind,
    default_template="a photo of a {}.",
)
