"""SigLIP: Sigmoid Loss for Language Image Pre-Training, and the fixed-resolution SigLIP 2.

Xiaohua Zhai, Basil Mustafa, Alexander Kolesnikov, Lucas Beyer, ICCV 2023,
https://arxiv.org/abs/2303.15343. SigLIP 2: Michael Tschannen et al. 2025,
https://arxiv.org/abs/2502.14786. Reads and writes the layout of the `google/siglip-*` and the
fixed-resolution `google/siglip2-*` checkpoints (transformers' SiglipModel); the two generations
share this network and differ in vocabulary and training.

Two different towers, nothing shared. The image tower is a ViT without class token; a learned
probe attends to its patches and becomes the picture's vector. The text tower sees the sentence in
both directions and takes its last token, padding or not: sentences are always padded to the full
length, and the padding is attended to, as in training. Each pair is judged on its own:
p(match) = sigmoid(exp(t) * cosine + b).

Differs from the paper: nothing in the network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.core.interfaces import PackedPatches, PatchBatch, System
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
from sightline.nn.norms import LayerNorm, at_least_float32, unit_length
from sightline.nn.patch_dropout import PatchDropout
from sightline.nn.patches import PatchEmbedding
from sightline.nn.pooling import AttentionPool
from sightline.nn.positions import GridPositions

Pictures = Float[Tensor, "B C H W"] | PatchBatch | PackedPatches
"""A batch, as the image tower takes it."""


@dataclass(frozen=True)
class ImageTowerConfig:
    """The vision transformer with its attention pool."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    patch_size: tuple[int, int] = (16, 16)
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    activation: str = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6


@dataclass(frozen=True)
class TextTowerConfig:
    """The bidirectional text transformer."""

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    vocab_size: int = 32000
    context_length: int = 64
    activation: str = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6
    pad_id: int = 1
    bos_id: int = 49406
    eos_id: int = 49407
    """Published files repeat CLIP's ids here; the tokenizer's own files are what counts."""


@dataclass(frozen=True)
class SigLIPConfig:
    """Both towers; the text is projected to `embedding_width`, the image tower's own width."""

    image: ImageTowerConfig
    text: TextTowerConfig

    @property
    def embedding_width(self) -> int:
        return self.image.width


# Table 1 of Alabdulmohsin et al. 2023 (arXiv:2305.13035) for So400m; section 4 of the paper for
# the rest; g-opt from SigLIP 2, where its text tower stays So400m's.
_SHAPES: dict[str, dict[str, Any]] = {
    "B": {"width": 768, "depth": 12, "num_heads": 12, "mlp_width": 3072},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "mlp_width": 4096},
    "So400m": {"width": 1152, "depth": 27, "num_heads": 16, "mlp_width": 4304},
    "g-opt": {"width": 1536, "depth": 40, "num_heads": 16, "mlp_width": 6144},
}


def _variant(
    shape: str, patch: int, size: int, vocab_size: int = 32000, context_length: int = 64
) -> SigLIPConfig:
    words = _SHAPES["So400m" if shape == "g-opt" else shape]
    return SigLIPConfig(
        ImageTowerConfig(**_SHAPES[shape], patch_size=(patch, patch), image_size=(size, size)),
        TextTowerConfig(**words, vocab_size=vocab_size, context_length=context_length),
    )


VARIANTS = {
    **{f"B/16-{size}": _variant("B", 16, size) for size in (224, 256, 384, 512)},
    "B/16-256-i18n": _variant("B", 16, 256, vocab_size=250000),
    "L/16-256": _variant("L", 16, 256),
    "L/16-384": _variant("L", 16, 384),
    "So400m/14-224": _variant("So400m", 14, 224, context_length=16),
    "So400m/14-384": _variant("So400m", 14, 384),
    "So400m/16-256-i18n": _variant("So400m", 16, 256, vocab_size=250000),
    **{f"2-B/16-{size}": _variant("B", 16, size, 256000) for size in (224, 256, 384, 512)},
    "2-B/32-256": _variant("B", 32, 256, 256000),
    **{f"2-L/16-{size}": _variant("L", 16, size, 256000) for size in (256, 384, 512)},
    "2-So400m/14-224": _variant("So400m", 14, 224, 256000),
    "2-So400m/14-384": _variant("So400m", 14, 384, 256000),
    **{f"2-So400m/16-{size}": _variant("So400m", 16, size, 256000) for size in (256, 384, 512)},
    "2-g-opt/16-256": _variant("g-opt", 16, 256, 256000),
    "2-g-opt/16-384": _variant("g-opt", 16, 384, 256000),
}

TINY = SigLIPConfig(
    ImageTowerConfig(
        width=24, depth=3, num_heads=3, mlp_width=40, patch_size=(8, 8), image_size=(24, 24)
    ),
    TextTowerConfig(width=20, depth=3, num_heads=2, mlp_width=36, vocab_size=99, context_length=9),
)


class ImageTower(nn.Module):
    """Pixels to one vector a patch and one a picture.

    Args:
        config: of the tower.
        pooled: without it there is no pool, and `forward` cannot be called (PaliGemma's tower).
    """

    def __init__(self, config: ImageTowerConfig, *, pooled: bool = True) -> None:
        super().__init__()
        self.patches = PatchEmbedding(config.patch_size, config.channels, config.width, bias=True)
        self.positions = GridPositions(self.patches.grid(*config.image_size), config.width)
        self.patch_dropout = PatchDropout()
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
        if pooled:
            self.pool = AttentionPool(
                config.width,
                config.num_heads,
                config.mlp_width,
                activation=config.activation,
                norm_eps=config.norm_eps,
            )

    def tokens(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P D"]:
        """Pictures of any size that divides into patches; positions are resampled to the grid."""
        grid = self.patches.grid(*pixels.shape[-2:])
        x = self.patches(pixels) + self.positions(grid)  # [B P D]
        return self.norm(self.transformer(self.patch_dropout(x)))  # [B P D]

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> EncodedImage:
        """Pictures of any size, as `tokens`."""
        tokens = self.tokens(pixels)
        return EncodedImage(tokens=tokens, pooled=self.pool(tokens))


class TextTower(nn.Module):
    """Token ids to one vector a token and one a sentence, projected to the shared space."""

    def __init__(self, config: TextTowerConfig, embedding_width: int) -> None:
        super().__init__()
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
        self.head = Linear(config.width, embedding_width)

    def forward(self, ids: Int[Tensor, "B T"]) -> EncodedText:
        """No mask on purpose: padding was attended to in training and the last token is taken."""
        x = self.embedding(ids) + self.positions[: ids.shape[1]]  # [B T D]
        tokens = self.norm(self.transformer(x))  # [B T D]
        return EncodedText(tokens=tokens, pooled=self.head(tokens[:, -1]))


class SigmoidPairs(nn.Module):
    """An image tower and the text tower in one space, each pair judged on its own.

    What SigLIP and its flexible successor share: the image tower is given, and decides what a
    batch of pictures is.
    """

    def __init__(self, image: nn.Module, text: TextTower) -> None:
        super().__init__()
        self.image = image
        self.text = text
        # Section 3.2: t' = log 10 and b = -10, so that training starts from the prior that almost
        # no pair of a batch matches.
        self.logit_scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        self.logit_bias = nn.Parameter(torch.tensor([-10.0]))
        initialise(self)

    def encode_images(self, pixels: Pictures) -> Float[Tensor, "B D"]:
        """Unit vectors, float32."""
        return unit_length(self.image(pixels).pooled)  # [B D]

    def encode_texts(
        self, ids: Int[Tensor, "M T"], mask: Bool[Tensor, "M T"] | None = None
    ) -> Float[Tensor, "M D"]:
        """Unit vectors, float32, of sentences padded to the full length.

        `mask` is accepted for the role's sake and changes nothing: padding counts.
        """
        return unit_length(self.text(ids).pooled)  # [M D]

    def pair_scale(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What turns a cosine into a logit: exp(t') and b."""
        scale = at_least_float32(self.logit_scale).exp()
        return scale.squeeze(0), at_least_float32(self.logit_bias).squeeze(0)

    def forward(
        self,
        pixels: Pictures,
        ids: Int[Tensor, "M T"],
        mask: Bool[Tensor, "M T"] | None = None,
    ) -> PairScores:
        """Every picture against every sentence."""
        return PairScores(
            self.encode_images(pixels), self.encode_texts(ids, mask), *self.pair_scale()
        )


class SigLIP(SigmoidPairs):
    """Square pictures and sentences."""

    def __init__(self, config: SigLIPConfig) -> None:
        super().__init__(ImageTower(config.image), TextTower(config.text, config.embedding_width))


def initialise(network: nn.Module) -> None:
    """First values of every parameter but norms, logit scale and logit bias, as published."""
    for name, parameter in network.named_parameters():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            continue
        if name in ("logit_scale", "logit_bias"):
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith(("positions.table", "text.positions", "embedding.weight")):
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        elif name.endswith("probe"):
            nn.init.normal_(parameter, std=parameter.shape[0] ** -0.5)
        elif name.endswith("projection.weight"):
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.xavier_uniform_(parameter)


def preprocessing(config: SigLIPConfig) -> ImageSpec:
    """Squeezed to the exact size, bicubic, to -1..1 (no crop)."""
    return square(config.image.image_size)


def square(size: tuple[int, int]) -> ImageSpec:
    """Squeezed to an exact size, bicubic, to -1..1."""
    return ImageSpec(
        height=size[0],
        width=size[1],
        fit="square",
        filter="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def text(config: SigLIPConfig) -> TextSpec:
    """Always padded to the full context, as in training."""
    return TextSpec(max_length=config.text.context_length, padding="max_length")


def read_config(config: Mapping[str, Any]) -> SigLIPConfig:
    """A published config.json to ours; absent fields take transformers' defaults."""
    return SigLIPConfig(
        image=read_image_config(section(config, "vision_config")),
        text=read_text_config(section(config, "text_config")),
    )


def read_image_config(vision: Mapping[str, Any]) -> ImageTowerConfig:
    """A published vision_config to ours; absent fields take transformers' defaults."""
    return ImageTowerConfig(
        **read_transformer(vision, 768, 12, 12, 3072, "gelu_pytorch_tanh", 1e-6),
        patch_size=pair(vision, "patch_size", 16),
        image_size=pair(vision, "image_size", 224),
        channels=field(vision, "num_channels", 3),
    )


def read_text_config(words: Mapping[str, Any]) -> TextTowerConfig:
    """A published text_config to ours; absent fields take transformers' defaults."""
    return TextTowerConfig(
        **read_transformer(words, 768, 12, 12, 3072, "gelu_pytorch_tanh", 1e-6),
        vocab_size=field(words, "vocab_size", 32000),
        context_length=field(words, "max_position_embeddings", 64),
        pad_id=field(words, "pad_token_id", 1),
        bos_id=field(words, "bos_token_id", 49406),
        eos_id=field(words, "eos_token_id", 49407),
    )


def write_config(config: SigLIPConfig) -> dict[str, Any]:
    """Ours to what transformers reads."""
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "vision_config": write_image_config(config.image),
        "text_config": write_text_config(config.text, config.embedding_width, "siglip_text_model"),
    }


def write_image_config(image: ImageTowerConfig) -> dict[str, Any]:
    """Ours to the vision_config that transformers reads."""
    return {
        "model_type": "siglip_vision_model",
        **write_transformer(image),
        "patch_size": as_written(image.patch_size),
        "image_size": as_written(image.image_size),
        "num_channels": image.channels,
    }


def write_text_config(
    words: TextTowerConfig, embedding_width: int, model_type: str
) -> dict[str, Any]:
    """Ours to the text_config that transformers reads."""
    return {
        "model_type": model_type,
        **write_transformer(words),
        "vocab_size": words.vocab_size,
        "max_position_embeddings": words.context_length,
        "pad_token_id": words.pad_id,
        "bos_token_id": words.bos_id,
        "eos_token_id": words.eos_id,
        "projection_size": embedding_width,
    }


def image_keys(published: str) -> dict[str, str]:
    """The pairs of an image tower without its pool, which a file spells behind `published`."""
    return {
        f"{published}.embeddings.patch_embedding.*": "image.patches.projection.*",
        f"{published}.embeddings.position_embedding.weight": "image.positions.table",
        **encoder_keys(published, "image"),
        f"{published}.post_layernorm.*": "image.norm.*",
    }


KEYS = KeyTable(
    {
        **image_keys("vision_model"),
        "vision_model.head.probe": "image.pool.probe",
        "vision_model.head.attention.out_proj.*": "image.pool.out.*",
        "vision_model.head.layernorm.*": "image.pool.norm.*",
        "vision_model.head.mlp.fc1.*": "image.pool.mlp.fc1.*",
        "vision_model.head.mlp.fc2.*": "image.pool.mlp.fc2.*",
        "text_model.embeddings.token_embedding.weight": "text.embedding.weight",
        "text_model.embeddings.position_embedding.weight": "text.positions",
        **encoder_keys("text_model", "text"),
        "text_model.final_layer_norm.*": "text.norm.*",
        "text_model.head.*": "text.head.*",
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
    },
    # Writers before 4.38 stored these ranges as buffers.
    ignored=("*.embeddings.position_ids",),
)
_IN_PROJ = "vision_model.head.attention.in_proj_"


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors to ours: the pool's query rows part from its key and value rows."""
    published = dict(state)
    split = {}
    for kind in ("weight", "bias"):
        if f"{_IN_PROJ}{kind}" in published:
            fused = published.pop(f"{_IN_PROJ}{kind}")
            width = len(fused) // 3
            split[f"image.pool.q.{kind}"] = fused[:width]
            split[f"image.pool.kv.{kind}"] = fused[width:]
    own = KEYS.read(published) | split
    if "image.pool.probe" in own:
        own["image.pool.probe"] = own["image.pool.probe"].flatten()  # published as [1 1 D]
    return own


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the published tensors."""
    own = dict(state)
    fused = {
        f"{_IN_PROJ}{kind}": torch.cat(
            [own.pop(f"image.pool.q.{kind}"), own.pop(f"image.pool.kv.{kind}")]
        )
        for kind in ("weight", "bias")
    }
    own["image.pool.probe"] = own["image.pool.probe"][None, None]
    return KEYS.write(own) | fused


SYSTEM = System(
    name="siglip",
    title="SigLIP (Zhai et al. 2023) and SigLIP 2 (Tschannen et al. 2025), fixed resolution",
    role="dual encoder",
    model_types=("siglip",),
    build=SigLIP,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    default_template="This is a photo of {}.",
    score="sigmoid",
    known_names={
        "SigLIP-B/16": "google/siglip-base-patch16-224",
        "SigLIP-So400m/14": "google/siglip-so400m-patch14-384",
        "SigLIP2-B/16": "google/siglip2-base-patch16-224",
        "SigLIP2-So400m/14": "google/siglip2-so400m-patch14-384",
    },
)
