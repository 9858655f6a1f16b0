"""Vision-text dual encoder: any image encoder and any text encoder, joined by two projections.

The recipe that grew out of CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020) for towers
that somebody else trained: ResNet-50 with BERT as tutorials print it, ViT with BERT, CLIP's image
tower with an Italian BERT (Bianchi et al. 2021, https://arxiv.org/abs/2108.08688). Reads and
writes the layout of transformers' VisionTextDualEncoderModel.

Each tower gives one vector, a linear map without bias takes it to the shared space, both come to
unit length, and the cosine times a learned scale is the logit of the pair. Towers are systems of
this library under their own names: any image encoder, the image half of CLIP or of SigLIP, and
any text encoder (`models/towers.py`). Weights of two towers make a start, not a model: the
projections are new and have to be trained. LiT (`models/lit.py`) joins towers without a projection
of pictures, whose tower stays as it is.

What is known about the ResNet-50 and BERT program that is printed in many places, and wrong with
it: it calls numpy without importing it, so that building the model stops with a NameError; it asks
torchvision for pretrained weights by a switch that was replaced; it accepts a width for the shared
space and never uses it, so that two towers told to end in different widths meet in a product that
fails; its text calls the labels a diagonal matrix where the code passes the numbers 0 to N-1, which
is right; nothing keeps the scale below 100; and the tokenizer sits inside the network. The idea
stands, and is here: `VARIANTS["resnet-50+bert-base"]`, with raw [CLS] as its text vector.

Differs from that program: projections have no bias. Differs from transformers: the text vector may
be BERT's [CLS] as it is ("pooling" of the text tower), and the picture's may be the trunk's own
instead of a tanh layer over it (`image_pooling`); such a folder loads there too, but is answered
with the tanh layers. There, ResNet's pooled map has two axes too many for the projection, so that
its pairs with BERT can be saved and not run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.errors import ConfigError, unknown_name
from sightline.core.interfaces import System
from sightline.models import bert, clip, resnet, vit
from sightline.models.keys import KeyTable
from sightline.models.published import field
from sightline.models.towers import (
    Towers,
    image_tower,
    preprocessing,
    read_towers,
    text,
    text_tower,
    unbound,
    with_tower_names,
    write_towers,
)
from sightline.nn.linear import Linear
from sightline.nn.norms import unit_length

IMAGE_POOLINGS = ("pooler", "trunk")
"""How a picture's vector is taken."""


@dataclass(frozen=True)
class VisionTextConfig(Towers):
    """Two towers by name, each with its own system's config, and the space they meet in.

    Raises:
        ConfigError: an unknown pooling.
    """

    embedding_width: int = 512
    image_pooling: str = "pooler"
    """One of `IMAGE_POOLINGS`: through the tanh layer of pre-training, where the tower has one
    (ViT), or as the trunk gives it."""

    def __post_init__(self) -> None:
        if self.image_pooling not in IMAGE_POOLINGS:
            raise ConfigError(unknown_name("image pooling", self.image_pooling, IMAGE_POOLINGS))

    @property
    def text_pooling(self) -> str:
        """How the text tower takes a sentence's vector; it is the tower's own setting."""
        return str(self.text.pooling)


_BERT = bert.VARIANTS["base-uncased"]
VARIANTS = {
    "vit-B/16+bert-base": VisionTextConfig("vit", vit.VARIANTS["B/16"], "bert", _BERT),
    "resnet-50+bert-base": VisionTextConfig(
        "resnet", resnet.VARIANTS["50"], "bert", replace(_BERT, pooling="cls")
    ),
    # The towers that the card of clip-italian names; its BERT has 32,102 rows for 31,102 pieces.
    "clip-B/32+bert-base-italian": VisionTextConfig(
        "clip", clip.VARIANTS["B/32"].image, "bert", replace(_BERT, vocab_size=32102)
    ),
}

TINY = VisionTextConfig("vit", vit.TINY, "bert", bert.TINY, embedding_width=16)


class VisionText(clip.SoftmaxPairs):
    """Pictures and sentences in one space, through towers of other systems."""

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__(
            image_tower(config.image_system).build(config.image),
            text_tower(config.text_system).build(config.text),
            Linear(config.image.width, config.embedding_width, bias=False),
            Linear(config.text.width, config.embedding_width, bias=False),
        )
        self.image_pooling, self.pad_id = config.image_pooling, config.text.pad_id
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def encode_images(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors, float32."""
        return unit_length(self.image_projection(self.image_vectors(pixels)))  # [B D]

    def encode_texts(
        self, ids: Int[Tensor, "M T"], mask: Bool[Tensor, "M T"] | None = None
    ) -> Float[Tensor, "M D"]:
        """Unit vectors, float32. Without a mask every padding id is taken for padding."""
        mask = ids != self.pad_id if mask is None else mask
        return unit_length(self.text_projection(self.text(ids, mask).pooled))  # [M D]

    def image_vectors(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """The image tower's vector of each picture, before the projection."""
        pooled = self.image(pixels).pooled  # [B D]
        pre_logits: Callable[[Tensor], Tensor] | None = getattr(self.image, "pre_logits", None)
        if self.image_pooling == "trunk" or pre_logits is None:
            return pooled
        return pre_logits(pooled)


def read_config(config: Mapping[str, Any]) -> VisionTextConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    Raises:
        CheckpointError: towers that no system here reads.
    """
    return VisionTextConfig(
        **vars(read_towers(config)),
        embedding_width=field(config, "projection_dim", 512),
        image_pooling=field(config, "image_pooling", "pooler"),
    )


def write_config(config: VisionTextConfig) -> dict[str, Any]:
    """Ours to what transformers reads; what it has no name for is written only where it is used."""
    written = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "projection_dim": config.embedding_width,
        "logit_scale_init_value": 2.6592,
        **write_towers(config),
    }
    if config.image_pooling != "pooler":
        written["image_pooling"] = config.image_pooling
    return written


KEYS = KeyTable(
    {
        "visual_projection.weight": "image_projection.weight",
        "text_projection.weight": "text_projection.weight",
        "logit_scale": "logit_scale",
    }
)


def bind(config: VisionTextConfig) -> System:
    """This system with the names that a file with these two towers has."""
    return with_tower_names(SYSTEM, config, KEYS)


SYSTEM = System(
    name="vision_text",
    title="Vision-text dual encoder: two towers of other systems, joined",
    role="dual encoder",
    model_types=("vision-text-dual-encoder",),
    build=VisionText,
    read_config=read_config,
    write_config=write_config,
    read_state=unbound,
    write_state=unbound,
    preprocessing=preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    bind=bind,
    default_template="a photo of a {}.",
)
