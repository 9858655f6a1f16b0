"""UniCL: Unified Contrastive Learning in Image-Text-Label Space, the objective of Florence (2021).

Jianwei Yang, Chunyuan Li, Pengchuan Zhang, Bin Xiao, Ce Liu, Lu Yuan and Jianfeng Gao, CVPR 2022,
https://arxiv.org/abs/2204.03610. Reads and writes the tensors of the released Swin models
(https://github.com/microsoft/UniCL, release v1.0) under every spelling that its code has had. The
release has no config.json, and its files are pickles: put one as `pytorch_model.bin` beside a
config.json that says `{"model_type": "unicl"}` (Swin-T; for Swin-B also `"vision_config":
{"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}`) and the tokenizer files
of `openai/clip-vit-base-patch32`, and load the folder with `allow_pickle=True`, which takes tensors
and refuses everything else.

A picture with a class and a picture with a caption are the same thing here: a picture, a text (the
caption, or the class in a prompt) and a label. Pictures with the same class share their label, so
each of them may pick the text of any other; a caption has a label of its own, unless it occurs
twice. The loss (`objectives.unicl`) is CLIP's when every label is unique and supervised
contrastive learning when every picture has a class. The image tower is a Swin whose last map is
averaged; the text tower is CLIP's causal transformer, which pools at the highest id, the end of
the text. Both vectors are projected without bias and brought to unit length.

Florence (Yuan et al. 2021, https://arxiv.org/abs/2111.11432) is this objective with larger parts.
Here are its shape of two towers, with a Swin for its CoSwin, its loss, and training on classes and
captions together. Not here: CoSwin-H (a Swin of 637 M parameters whose patches are made by
convolutions), the 900 M pairs of FLD-900M, Dynamic Head for detection, METER's fusion for
questions, and the tokens and kernels for video. Its weights were never released. It is not
Florence-2 (2023), a sequence model.

Published, not measured here: Florence reaches 83.74 % (top 1) and 97.18 % (top 5) on ImageNet-1K
without training on it, 62.4 mAP on COCO detection, 80.36 on VQA and 87.8 on Kinetics-600 (abstract
of its paper). On ImageNet-1K without training on it, UniCL with Swin-T reaches 30.1 % from
YFCC-14M and 40.5 % from ImageNet-21K with YFCC-14M, with Swin-B 44.3 % (its repository's tables).

Differs from the paper: nothing in the network. The scale begins at e, as the released code has it,
and not at CLIP's 1/0.07; it is not clamped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from sightline.core.interfaces import System
from sightline.inputs.preprocessing import ImageSpec
from sightline.inputs.tokenizers import TextSpec
from sightline.models import swin
from sightline.models.clip import (
    SoftmaxPairs,
    TextTower,
    TextTowerConfig,
    read_text_config,
    write_text_config,
)
from sightline.models.keys import KeyTable, join_thirds, split_thirds
from sightline.models.openai_layout import transformer_keys
from sightline.models.published import field, section
from sightline.models.swin import Swin, SwinConfig
from sightline.nn.linear import Linear

HIGHEST_ID = 2
"""As `eos_id`: the text tower pools at the highest id, the first where there are several."""


@dataclass(frozen=True)
class UniCLConfig:
    """Both towers and the space they meet in."""

    image: SwinConfig
    text: TextTowerConfig
    embedding_width: int = 512


# The configurations of the repository; epsilon as its own norm of the text tower has it.
_TEXT = TextTowerConfig(
    width=512, depth=12, num_heads=8, mlp_width=2048, norm_eps=1e-12, eos_id=HIGHEST_ID,
    pad_id=49407,
)  # fmt: skip
VARIANTS = {
    "Swin-T": UniCLConfig(replace(swin.VARIANTS["T"], branch_drop=0.2), _TEXT),
    "Swin-B": UniCLConfig(replace(swin.VARIANTS["B"], branch_drop=0.5), _TEXT),
}

TINY = UniCLConfig(
    replace(swin.TINY, image_size=(36, 48)),
    TextTowerConfig(
        width=20, depth=3, num_heads=2, mlp_width=80, vocab_size=99, context_length=11,
        norm_eps=1e-12, eos_id=HIGHEST_ID, bos_id=97, pad_id=98,
    ),
    embedding_width=16,
)  # fmt: skip


class UniCL(SoftmaxPairs):
    """Pictures and sentences in one space."""

    def __init__(self, config: UniCLConfig) -> None:
        super().__init__(
            Swin(config.image),
            TextTower(config.text),
            Linear(config.image.width, config.embedding_width, bias=False),
            Linear(config.text.width, config.embedding_width, bias=False),
            scale=math.e,
        )
        self._initialise()

    def _initialise(self) -> None:
        """As the released code: deviation 0.02, cut at 2; queries, keys and values by Xavier, as
        one matrix of three times the height."""
        for name, parameter in self.text.named_parameters():
            if name.endswith((".q.weight", ".k.weight", ".v.weight")):
                nn.init.xavier_uniform_(parameter, gain=2**-0.5)
            elif parameter.ndim == 2:
                nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.trunc_normal_(self.image_projection.weight, std=0.02)
        nn.init.trunc_normal_(self.text_projection.weight, std=0.02)


def preprocessing(config: UniCLConfig) -> ImageSpec:
    """Shortest side to 8/7 of the size, bicubic, then the centre; ImageNet's mean and deviation."""
    height, width = config.image.image_size
    return ImageSpec(
        height=height,
        width=width,
        fit="shortest_then_crop",
        shortest=min(height, width) * 256 // 224,
        filter="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def text(config: UniCLConfig) -> TextSpec:
    """At most `context_length` ids of CLIP's vocabulary, start and end of text included."""
    return TextSpec(max_length=config.text.context_length, padding="longest")


def read_config(config: Mapping[str, Any]) -> UniCLConfig:
    """A config.json of ours; absent fields are those of Swin-T.

    Raises:
        CheckpointError: a field that no network of ours has.
    """
    vision = {"drop_path_rate": 0.2, **section(config, "vision_config")}
    words = {
        "layer_norm_eps": _TEXT.norm_eps,
        "eos_token_id": _TEXT.eos_id,
        "pad_token_id": _TEXT.pad_id,
        **section(config, "text_config"),
    }
    return UniCLConfig(
        image=swin.read_config(vision),
        text=read_text_config(words),
        embedding_width=field(config, "projection_dim", 512),
    )


def write_config(config: UniCLConfig) -> dict[str, Any]:
    """Ours to config.json; each tower as transformers describes it."""
    return {
        "architectures": ["UniCL"],
        "model_type": "unicl",
        "projection_dim": config.embedding_width,
        "vision_config": swin.write_config(config.image),
        "text_config": write_text_config(config.text),
    }


_IMAGE, _TEXT_LEVEL = "image_encoder.", "text_encoder."
_OLD_LEVELS = {"visual.": _IMAGE, "text.": _TEXT_LEVEL, "lang_encoder.": _TEXT_LEVEL}
"""Levels that the repository has had before; its own renaming still writes the third."""

_MATRICES = ("image_projection", "text_projection")
"""Stored (in, out), where a linear layer holds (out, in)."""

_THIRDS = {
    f".attn.in_proj_{kind}": (f".attn.q.{kind}", f".attn.k.{kind}", f".attn.v.{kind}")
    for kind in ("weight", "bias")
}
_KEYS = KeyTable(
    {
        "text_encoder.token_embedding.weight": "text.embedding.weight",
        "text_encoder.positional_embedding": "text.positions",
        **transformer_keys("text_encoder", "text.transformer"),
        "text_encoder.ln_final.*": "text.norm.*",
        "image_projection": "image_projection.weight",
        "text_projection": "text_projection.weight",
    }
)


def read_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors, of any age, to ours."""
    tower, rest = {}, {}
    for name, tensor in state.items():
        name = _today(name)
        if name.startswith(_IMAGE):
            tower[name.removeprefix(_IMAGE)] = tensor
        else:
            # A transposed view would keep its strides, and products their order of summation.
            rest[name] = tensor.T.contiguous() if name in _MATRICES else tensor
    image = {f"image.{name}": tensor for name, tensor in swin.read_released(tower).items()}
    return {**image, **_KEYS.read(split_thirds(rest, _THIRDS))}


def write_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the names and shapes of the repository's present code."""
    own = {
        name.removeprefix("image."): tensor
        for name, tensor in state.items()
        if name.startswith("image.")
    }
    image = {_IMAGE + name: tensor for name, tensor in swin.write_released(own).items()}
    rest = _KEYS.write({k: tensor for k, tensor in state.items() if not k.startswith("image.")})
    for name in _MATRICES:
        rest[name] = rest[name].T
    return {**image, **join_thirds(rest, _THIRDS)}


def _today(name: str) -> str:
    """The present spelling of a name of any age."""
    if name == "vision_projection":
        return "image_projection"
    for old, new in _OLD_LEVELS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


SYSTEM = System(
    name="unicl",
    title="UniCL and Florence (Yang et al. 2022, Yuan et al. 2021)",
    role="dual encoder",
    model_types=("unicl",),
    build=UniCL,
    read_config=read_config,
    write_config=write_config,
    read_state=read_state,
    write_state=write_state,
    preprocessing=preprocessing,
    text=text,
    variants=VARIANTS,
    tiny=TINY,
    default_template="a photo of a {}.",
    score="softmax",
)
