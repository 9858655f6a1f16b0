"""CLIP: Learning Transferable Visual Models From Natural Language Supervision.

Alec Radford, Jong Wook Kim, Chris Hallacy, Aditya Ramesh et al., ICML 2021,
https://arxiv.org/abs/2103.00020. Reads and writes the layout of the `openai/clip-vit-*` and
`laion/CLIP-ViT-*` checkpoints (transformers' CLIPModel).

Two towers meet in one space. The image tower is a ViT with one more norm in front of its blocks
and its class token as the picture's vector. The text tower is a GPT: causal, so the end-of-text
token is the only one that has seen the whole sentence, and it becomes the sentence's vector. Each
vector is projected without bias and brought to unit length; the cosine times a learned scale is
the logit of the pair.

Differs from the paper: the scale is not clamped here; training keeps it at most 100 (section 2.5)
by clamping the parameter between steps. The ResNet image towers are `clip_resnet`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.interfaces import System
from sightline.core.outputs import EncodedImage, EncodedText, PairScores
from sightline.inputs.preprocessing import ImageSpec
from sightline.inputs.tokenizers import TextSpec
from sightline.models.keys import KeyTable, encoder_keys
from sightline.models.published import (
    as_written,
    field,
    pair,
    read_transformer,
    section,
    write_transformer,
)
from sightline.nn.blocks import Block, Transformer
from sightline.nn.linear import Linear
from sightline.nn.masks import causal
from sightline.nn.norms import LayerNorm, at_least_float32, unit_length
from sightline.nn.patch_dropout import PatchDropout
from sightline.nn.patches import PatchEmbedding
from sightline.nn.pooling import at_index
from sightline.nn.positions import GridPositions

LARGEST_SCALE = 100.0
"""Training keeps exp(logit_scale) at most here (section 2.5)."""


@dataclass(frozen=True)
class ImageTowerConfig:
    """The vision transformer."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    patch_size: tuple[int, int]
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class TextTowerConfig:
    """The causal text transformer."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    vocab_size: int = 49408
    context_length: int = 77
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    eos_id: int = 49407
    """2 marks configurations written before the id was recorded: the end of text is then the
    highest id of the sequence, which holds for OpenAI's vocabulary."""
    bos_id: int = 49406
    pad_id: int = 1


@dataclass(frozen=True)
class CLIPConfig:
    """Both towers and the space they meet in."""

    image: ImageTowerConfig
    text: TextTowerConfig
    embedding_width: int = 512


# Table 20 of the paper; the H and bigG towers as LAION trained them (exact GELU, head size 80
# and 104), https://laion.ai/blog/large-openclip.
_B = {"width": 768, "depth": 12, "num_heads": 12, "mlp_width": 3072}
_L = {"width": 1024, "depth": 24, "num_heads": 16, "mlp_width": 4096}
_TEXT_B = {"width": 512, "depth": 12, "num_heads": 8, "mlp_width": 2048}
_TEXT_L = {"width": 768, "depth": 12, "num_heads": 12, "mlp_width": 3072}


def _variant(
    image: dict[str, Any], text: dict[str, Any], patch: int, width: int, size: int = 224,
    activation: str = "quick_gelu",
) -> CLIPConfig:  # fmt: skip
    return CLIPConfig(
        ImageTowerConfig(
            **image, patch_size=(patch, patch), image_size=(size, size), activation=activation
        ),
        TextTowerConfig(**text, activation=activation),
        width,
    )


VARIANTS = {
    "B/32": _variant(_B, _TEXT_B, 32, 512),
    "B/16": _variant(_B, _TEXT_B, 16, 512),
    "L/14": _variant(_L, _TEXT_L, 14, 768),
    "L/14@336": _variant(_L, _TEXT_L, 14, 768, size=336),
    "B/32-laion2B": _variant(_B, _TEXT_B, 32, 512, activation="gelu"),
    "L/14-laion2B": _variant(_L, _TEXT_L, 14, 768, activation="gelu"),
    "H/14-laion2B": _variant(
        {"width": 1280, "depth": 32, "num_heads": 16, "mlp_width": 5120},
        {"width": 1024, "depth": 24, "num_heads": 16, "mlp_width": 4096},
        14, 1024, activation="gelu",
    ),
    "bigG/14-laion2B": _variant(
        {"width": 1664, "depth": 48, "num_heads": 16, "mlp_width": 8192},
        {"width": 1280, "depth": 32, "num_heads": 20, "mlp_width": 5120},
        14, 1280, activation="gelu",
    ),
}  # fmt: skip

TINY = CLIPConfig(
    ImageTowerConfig(
        width=24, depth=3, num_heads=3, mlp_width=40, patch_size=(8, 8), image_size=(24, 24)
    ),
    TextTowerConfig(
        width=20, depth=3, num_heads=2, mlp_width=36, vocab_size=99, context_length=11,
        eos_id=98, bos_id=97,
    ),
    embedding_width=16,
)  # fmt: skip


class ImageTower(nn.Module):
    """Pixels to one vector a patch and one a picture."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.patches = PatchEmbedding(config.patch_size, config.channels, config.width, bias=False)
        self.class_token = nn.Parameter(torch.zeros(config.width))
        grid = self.patches.grid(*config.image_size)
        self.positions = GridPositions(grid, config.width, prefix=1)
        self.patch_dropout = PatchDropout(prefix=1)
        self.norm_in = LayerNorm(config.width, eps=config.norm_eps)
        self.transformer = Transformer(
            Block(
                config.width,
                config.num_heads,
                config.mlp_width,
                activation=config.activation,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.depth)
        )
        self.norm = LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> EncodedImage:
        """Tokens as the last block leaves them; only the pooled class token goes through `norm`."""
        patches = self.patches(pixels)  # [B P D]
        class_token = self.class_token.expand(len(patches), 1, -1)  # [B 1 D]
        grid = self.patches.grid(*pixels.shape[-2:])
        x = torch.cat([class_token, patches], dim=1) + self.positions(grid)  # [B 1+P D]
        tokens = self.transformer(self.norm_in(self.patch_dropout(x)))  # [B 1+P D]
        return EncodedImage(tokens=tokens, pooled=self.norm(tokens[:, 0]))


class TextTower(nn.Module):
    """Token ids to one vector a token and one a sentence."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.eos_id = config.eos_id
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.transformer = Transformer(
            Block(
                config.width,
                config.num_heads,
                config.mlp_width,
                activation=config.activation,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.depth)
        )
        self.norm = LayerNorm(config.width, eps=config.norm_eps)
        initialise_blocks(self.transformer, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, ids: Int[Tensor, "B T"]) -> EncodedText:
        """Padding needs no mask: it stands behind the end of text, which cannot look ahead."""
        length = ids.shape[1]
        x = self.embedding(ids) + self.positions[:length]  # [B T D]
        tokens = self.norm(self.transformer(x, causal(length, ids.device)))  # [B T D]
        return EncodedText(tokens=tokens, pooled=at_index(tokens, self._end_of_text(ids)))

    def _end_of_text(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, " B"]:
        if self.eos_id == 2:
            return ids.argmax(dim=-1)
        return (ids == self.eos_id).int().argmax(dim=-1)  # the first one; 0 where there is none


class SoftmaxPairs(nn.Module):
    """Two towers whose vectors are projected into one space, pairs judged against each other.

    What CLIP and its relatives share: towers and projections are given.

    Args:
        scale: what cosines are multiplied by at the beginning (section 2.5).
    """

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        image_projection: Linear,
        text_projection: Linear,
        scale: float = 1 / 0.07,
    ) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.image_projection = image_projection
        self.text_projection = text_projection
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def encode_images(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors, float32."""
        return unit_length(self.image_projection(self.image(pixels).pooled))  # [B D]

    def encode_texts(
        self, ids: Int[Tensor, "M T"], mask: Bool[Tensor, "M T"] | None = None
    ) -> Float[Tensor, "M D"]:
        """Unit vectors, float32. `mask` is accepted for the role's sake and changes nothing."""
        return unit_length(self.text_projection(self.text(ids).pooled))  # [M D]

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
        """Every picture against every sentence (figure 3 of the paper)."""
        return PairScores(
            self.encode_images(pixels), self.encode_texts(ids, mask), *self.pair_scale()
        )


class CLIP(SoftmaxPairs):
    """Pictures and sentences in one space."""

    image: ImageTower
    text: TextTower

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(
            ImageTower(config.image),
            TextTower(config.text),
            Linear(config.image.width, config.embedding_width, bias=False),
            Linear(config.text.width, config.embedding_width, bias=False),
        )
        self._initialise()

    def _initialise(self) -> None:
        """As the released code does; the text tower has begun by itself."""
        image_width = self.image.norm.weight.numel()
        initialise_blocks(self.image.transformer, image_width)
        nn.init.normal_(self.image.class_token, std=image_width**-0.5)
        nn.init.normal_(self.image.positions.table, std=image_width**-0.5)
        nn.init.normal_(self.image_projection.weight, std=image_width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=self.text.norm.weight.numel() ** -0.5)


def initialise_blocks(transformer: Transformer, width: int) -> None:
    """Section 2.4 and the released code: deviations shrink with width and depth."""
    depth = len(transformer.blocks)
    for name, parameter in transformer.named_parameters():
        if name.endswith(("q.weight", "k.weight", "v.weight")):
            nn.init.normal_(parameter, std=width**-0.5)
        elif name.endswith(("out.weight", "fc2.weight")):
            nn.init.normal_(parameter, std=(2 * depth * width) ** -0.5)
        elif name.endswith("fc1.weight"):
            nn.init.normal_(parameter, std=(2 * width) ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def preprocessing(config: CLIPConfig) -> ImageSpec:
    """Shortest side to the size, bicubic, then the centre; the training mean and deviation."""
    height, width = config.image.image_size
    return ImageSpec(
        height=height,
        width=width,
        fit="shortest_then_crop",
        filter="bicubic",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )


def text(config: CLIPConfig) -> TextSpec:
    """At most `context_length` ids, start and end of text included; the files lower-case."""
    return TextSpec(max_length=config.text.context_length, padding="longest")


def read_config(config: Mapping[str, Any]) -> CLIPConfig:
    """A published config.json to ours; absent fields take transformers' defaults.

    Old files repeat the explicit fields of a tower as `vision_config_dict`, which then rules.
    """
    vision = {**section(config, "vision_config"), **section(config, "vision_config_dict")}
    words = {**section(config, "text_config"), **section(config, "text_config_dict")}
    return CLIPConfig(
        image=ImageTowerConfig(
            **read_transformer(vision, 768, 12, 12, 3072, "quick_gelu", 1e-5),
            patch_size=pair(vision, "patch_size", 32),
            image_size=pair(vision, "image_size", 224),
            channels=field(vision, "num_channels", 3),
        ),
        text=read_text_config(words),
        embedding_width=field(config, "projection_dim", 512),
    )


def read_text_config(words: Mapping[str, Any]) -> TextTowerConfig:
    """The `text_config` of a published config.json to ours."""
    return TextTowerConfig(
        **read_transformer(words, 512, 12, 8, 2048, "quick_gelu", 1e-5),
        vocab_size=field(words, "vocab_size", 49408),
        context_length=field(words, "max_position_embeddings", 77),
        eos_id=field(words, "eos_token_id", 49407),
        bos_id=field(words, "bos_token_id", 49406),
        pad_id=field(words, "pad_token_id", 1),
    )


def write_config(config: CLIPConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    image = config.image
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embedding_width,
        "logit_scale_init_value": 2.6592,
        "vision_config": {
            "model_type": "clip_vision_model",
            **write_transformer(image),
            "patch_size": as_written(image.patch_size),
            "image_size": as_written(image.image_size),
            "num_channels": image.channels,
            "projection_dim": config.embedding_width,
        },
        "text_config": {**write_text_config(config.text), "projection_dim": config.embedding_width},
    }


def write_text_config(words: TextTowerConfig) -> dict[str, Any]:
    """Ours to the `text_config` of a published config.json."""
    return {
        "model_type": "clip_text_model",
        **write_transformer(words),
        "vocab_size": words.vocab_size,
        "max_position_embeddings": words.context_length,
        "eos_token_id": words.eos_id,
        "bos_token_id": words.bos_id,
        "pad_token_id": words.pad_id,
    }


KEYS = KeyTable(
    {
        "vision_model.embeddings.class_embedding": "image.class_token",
        "vision_model.embeddings.patch_embedding.weight": "image.patches.projection.weight",
        "vision_model.embeddings.position_embedding.weight": "image.positions.table",
        "vision_model.pre_layrnorm.*": "image.norm_in.*",  # spelt so in every published file
        **encoder_keys("vision_model", "image"),
        "vision_model.post_layernorm.*": "image.norm.*",
        "visual_projection.weight": "image_projection.weight",
        "text_model.embeddings.token_embedding.weight": "text.embedding.weight",
        "text_model.embeddings.position_embedding.weight": "text.positions",
        **encoder_keys("text_model", "text"),
        "text_model.final_layer_norm.*": "text.norm.*",
        "text_projection.weight": "text_projection.weight",
        "logit_scale": "logit_scale",
    },
    # Writers before 4.31 stored these ranges as buffers.
    ignored=("*.embeddings.position_ids",),
)

SYSTEM = System(
    name="clip",
    title="CLIP (Radford et al. 2021)",
    role="dual encoder",
    model_types=("clip",),
    build=CLIP,
    read_config=read_config,
    write_config=write_config,
    read_state=KEYS.read,
    write_state=KEYS.write,
    preprocessing=preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    default_template="a photo of a {}.",
    score="softmax",
    known_names={
        "ViT-B/32": "openai/clip-vit-base-patch32",
        "ViT-B/16": "openai/clip-vit-base-patch16",
        "ViT-L/14": "openai/clip-vit-large-patch14",
        "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
    },
)
