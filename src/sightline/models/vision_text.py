"""Vision-text dual encoder: any image encoder and any text encoder, joined by two projections.

The recipe that grew out of CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020) for towers
that somebody else trained: ResNet-50 with BERT as tutorials print it, ViT with BERT, CLIP's image
tower with an Italian BERT (Bianchi et al. 2021, https://arxiv.org/abs/2108.08688). Reads and
writes the layout of transformers' VisionTextDualEncoderModel.

Each tower gives one vector, a linear map without bias takes it to the shared space, both come to
unit length, and the cosine times a learned scale is the logit of the pair. Towers are systems of
this library under their own names: any image encoder, the image half of CLIP or of SigLIP, and
any text encoder. Weights of two towers make a start, not a model: the projections are new and have
to be trained. Without `image_projection` the text is taken to the picture's own vector instead,
as LiT does with a locked image tower (Zhai et al. 2022, https://arxiv.org/abs/2111.07991).

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

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.errors import CheckpointError, ConfigError, unknown_name
from sightline.core.interfaces import System
from sightline.core.outputs import PairScores
from sightline.models import bert, clip, resnet, vit
from sightline.models.keys import KeyTable
from sightline.models.published import field, section
from sightline.models.table import SYSTEMS, system
from sightline.nn.linear import Linear
from sightline.nn.norms import at_least_float32, unit_length

IMAGE_POOLINGS = ("pooler", "trunk")
"""How a picture's vector is taken."""

HALVES = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
"""`model_type` of an image half to the dual encoder whose half it is."""


@dataclass(frozen=True)
class VisionTextConfig:
    """Two towers by name, each with its own system's config, and the space they meet in.

    Raises:
        ConfigError: an unknown pooling, or no image projection between spaces of unequal width.
    """

    image_system: str
    """A system of the role "image encoder", or "clip" or "siglip" for the half of it."""
    image: Any
    text_system: str
    """A system of the role "text encoder"."""
    text: Any
    embedding_width: int = 512
    image_pooling: str = "pooler"
    """One of `IMAGE_POOLINGS`: through the tanh layer of pre-training, where the tower has one
    (ViT), or as the trunk gives it."""
    image_projection: bool = True
    """Whether pictures are projected; without it the shared space is the image tower's."""

    def __post_init__(self) -> None:
        if self.image_pooling not in IMAGE_POOLINGS:
            raise ConfigError(unknown_name("image pooling", self.image_pooling, IMAGE_POOLINGS))
        if not self.image_projection and self.embedding_width != self.image.width:
            raise ConfigError(
                f"without an image projection the shared space is the image tower's: "
                f"embedding_width is {self.embedding_width}, expected {self.image.width}"
            )

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
    # LiT-B16B pairs these towers, and takes the text to the picture's space; its weights are JAX's.
    "vit-B/16+bert-base-locked": VisionTextConfig(
        "vit", vit.VARIANTS["B/16"], "bert", replace(_BERT, pooling="cls"), 768,
        image_pooling="trunk", image_projection=False,
    ),
}  # fmt: skip

TINY = VisionTextConfig("vit", vit.TINY, "bert", bert.TINY, embedding_width=16)


class VisionText(nn.Module):
    """Pictures and sentences in one space, through towers of other systems."""

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__()
        self.image_pooling, self.pad_id = config.image_pooling, config.text.pad_id
        self.image = image_tower(config.image_system).build(config.image)
        self.text = text_tower(config.text_system).build(config.text)
        self.image_projection = (
            Linear(config.image.width, config.embedding_width, bias=False)
            if config.image_projection
            else None
        )
        self.text_projection = Linear(config.text.width, config.embedding_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for projection in (self.image_projection, self.text_projection):
            if projection is not None:
                nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def encode_images(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors, float32."""
        vectors = self.image_vectors(pixels)  # [B D]
        if self.image_projection is not None:
            vectors = self.image_projection(vectors)  # [B D]
        return unit_length(vectors)

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

    def pair_scale(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What turns a cosine into a logit: the scale, and a bias of 0."""
        scale = at_least_float32(self.logit_scale).exp()
        return scale, torch.zeros_like(scale)

    def forward(
        self,
        pixels: Float[Tensor, "B C H W"],
        ids: Int[Tensor, "M T"],
        mask: Bool[Tensor, "M T"] | None = None,
    ) -> PairScores:
        """Every picture against every sentence."""
        return PairScores(
            self.encode_images(pixels), self.encode_texts(ids, mask), *self.pair_scale()
        )


def image_tower(name: str) -> System:
    """The image encoder of that name; for a dual encoder its image half, as a system.

    Raises:
        ConfigError: no such system, or one without an image tower that stands alone.
    """
    if name in HALVES.values():
        return _half(system(name))
    found = _towers("image encoder")
    if name not in found.values():
        raise ConfigError(unknown_name("image tower", name, [*found.values(), *HALVES.values()]))
    return system(name)


def text_tower(name: str) -> System:
    """The text encoder of that name.

    Raises:
        ConfigError: no such system, or one that is no text encoder.
    """
    found = _towers("text encoder")
    if name not in found.values():
        raise ConfigError(unknown_name("text tower", name, found.values()))
    return system(name)


def trunk(tower: System, config: Any) -> Any:
    """The config of a tower without the heads that its own checkpoint may carry."""
    return _read_trunk(tower, tower.write_config(config))


def _read_trunk(tower: System, published: Mapping[str, Any]) -> Any:
    # What a nested "architectures" says is where the tower came from; the whole trunk is built.
    return tower.read_config({k: v for k, v in published.items() if k != "architectures"})


def _towers(role: str) -> dict[str, str]:
    """`model_type` to name, of every system with that role."""
    entries = [system(name) for name in SYSTEMS if SYSTEMS[name] != __name__]
    return {kind: e.name for e in entries if e.role == role for kind in e.model_types}


def _half(whole: System) -> System:
    """The image tower of a dual encoder as a system of its own, through what the whole one does."""

    def around(config: Any) -> Any:
        return replace(whole.tiny, image=config)

    def build(config: Any) -> nn.Module:
        tower = whole.build(around(config)).image
        assert isinstance(tower, nn.Module)
        return tower

    def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Files of the 4.x era have the level twice.
        named = {f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in state.items()}
        return {k.removeprefix("image."): v for k, v in whole.read_state(named).items()}

    def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        written = whole.write_state({f"image.{k}": v for k, v in state.items()})
        return {k.removeprefix("vision_model."): v for k, v in written.items()}

    return replace(
        whole,
        role="image encoder",
        model_types=tuple(kind for kind, name in HALVES.items() if name == whole.name),
        build=build,
        read_config=lambda published: whole.read_config({"vision_config": published}).image,
        write_config=lambda config: whole.write_config(around(config))["vision_config"],
        read_state=read_state,
        write_state=write_state,
        preprocessing=lambda config: whole.preprocessing(around(config)),
        text=None,
        variants={name: config.image for name, config in whole.variants.items()},
        tiny=whole.tiny.image,
    )


def preprocessing(config: VisionTextConfig) -> Any:
    """The image tower's own."""
    return image_tower(config.image_system).preprocessing(config.image)


def text(config: VisionTextConfig) -> Any:
    """The text tower's own."""
    spec = text_tower(config.text_system).text
    assert spec is not None
    return spec(config.text)


def read_config(config: Mapping[str, Any]) -> VisionTextConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    Raises:
        CheckpointError: towers that no system here reads.
    """
    vision, words = section(config, "vision_config"), section(config, "text_config")
    # Early files nest the whole CLIP under the name of its half.
    vision = section(vision, "vision_config") or vision
    image_kinds = _towers("image encoder") | HALVES | {name: name for name in HALVES.values()}
    image = image_tower(_named("vision_config", vision, "vit", image_kinds))
    texts = text_tower(_named("text_config", words, "bert", _towers("text encoder")))
    return VisionTextConfig(
        image_system=image.name,
        image=_read_trunk(image, vision),
        text_system=texts.name,
        text=_read_trunk(texts, words),
        embedding_width=field(config, "projection_dim", 512),
        image_pooling=field(config, "image_pooling", "pooler"),
        image_projection=field(config, "image_projection", True),
    )


def _named(part: str, config: Mapping[str, Any], default: str, known: Mapping[str, str]) -> str:
    kind = field(config, "model_type", default)
    if kind not in known:
        raise CheckpointError(f"config.json, {part}: {unknown_name('model_type', kind, known)}")
    return known[kind]


def write_config(config: VisionTextConfig) -> dict[str, Any]:
    """Ours to what transformers reads; what it has no name for is written only where it is used."""
    vision = image_tower(config.image_system).write_config(config.image)
    written = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "projection_dim": config.embedding_width,
        "logit_scale_init_value": 2.6592,
        # ResNet's own configuration lacks the width that the joint class asks each tower for.
        "vision_config": {"hidden_size": config.image.width, **vision},
        "text_config": text_tower(config.text_system).write_config(config.text),
    }
    if config.image_pooling != "pooler":
        written["image_pooling"] = config.image_pooling
    if not config.image_projection:
        written["image_projection"] = False
    return written


KEYS = KeyTable(
    {
        "visual_projection.weight": "image_projection.weight",
        "text_projection.weight": "text_projection.weight",
        "logit_scale": "logit_scale",
    }
)


def bind(config: VisionTextConfig) -> System:
    """This system with the names that a file with these two towers has.

    Where pictures are not projected, a file of transformers' layout says so with the identity.
    """
    towers = {
        "vision_model.": ("image.", image_tower(config.image_system)),
        "text_model.": ("text.", text_tower(config.text_system)),
    }

    def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rest = {k: v for k, v in state.items() if not k.startswith(tuple(towers))}
        if not config.image_projection and _is_identity(rest.get("visual_projection.weight")):
            del rest["visual_projection.weight"]
        own = KEYS.read(rest)
        for published, (prefix, tower) in towers.items():
            part = tower.read_state(_below(published, state))
            own |= {prefix + name: tensor for name, tensor in part.items()}
        return own

    def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prefixes = tuple(prefix for prefix, _ in towers.values())
        written = KEYS.write({k: v for k, v in state.items() if not k.startswith(prefixes)})
        if not config.image_projection:
            like = written["text_projection.weight"]
            written["visual_projection.weight"] = torch.eye(len(like)).to(like)
        for published, (prefix, tower) in towers.items():
            part = tower.write_state(_below(prefix, state))
            written |= {published + name: tensor for name, tensor in part.items()}
        return written

    def class_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {k: v for k, v in state.items() if not k.startswith(tuple(towers))}
        for published, (_, tower) in towers.items():
            part = (tower.class_names or dict)(_below(published, state))
            named |= {published + name: tensor for name, tensor in part.items()}
        return named

    return replace(SYSTEM, read_state=read_state, write_state=write_state, class_names=class_names)


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _is_identity(matrix: Tensor | None) -> bool:
    return matrix is not None and torch.equal(matrix, torch.eye(len(matrix)).to(matrix))


def _unbound(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    raise ConfigError("the names of its tensors depend on the towers: ask System.for_config")


SYSTEM = System(
    name="vision_text",
    title="Vision-text dual encoder: two towers of other systems, joined",
    role="dual encoder",
    model_types=("vision-text-dual-encoder",),
    build=VisionText,
    read_config=read_config,
    write_config=write_config,
    read_state=_unbound,
    write_state=_unbound,
    preprocessing=preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    bind=bind,
    default_template="a photo of a {}.",
)
