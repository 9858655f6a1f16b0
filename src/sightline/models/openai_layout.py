"""The layout of OpenAI's own CLIP files (https://github.com/openai/CLIP), which open_clip shares.

Query, key and value projections are one fused tensor, both projections into the common space are
(in, out) matrices, and the text tower has no level of its own. `read_openai` and `write_openai`
translate the ViT models to and from the network of `models.clip`; the ResNet models are read by
`models.clip_resnet`, with the parts of this file. The files carry no configuration: `config_of`
reads it off the shapes of the tensors, as far as shapes say it.
"""

from collections.abc import Mapping
from math import isqrt

from torch import Tensor, cat

from sightline.core.errors import CheckpointError
from sightline.models.clip import CLIPConfig, ImageTowerConfig, TextTowerConfig
from sightline.models.keys import KeyTable

HEAD_SIZE = 64
"""Channels of one attention head in every model that OpenAI published; shapes do not show it."""

BOOKKEEPING = ("input_resolution", "context_length", "vocab_size")
"""Numbers that the archives store beside the weights; the shapes say the same."""

_PARTS = ("q", "k", "v")


def transformer_keys(published: str, own: str) -> dict[str, str]:
    """The pairs of one transformer after its fused projections were taken apart.

    Args:
        published: where it is in the file, "visual.transformer".
        own: where it is in the network, "image.transformer".
    """
    layer, block = f"{published}.resblocks.*", f"{own}.blocks.*"
    return {
        f"{layer}.ln_1.*": f"{block}.norm1.*",
        **{f"{layer}.attn.{part}.*": f"{block}.attention.{part}.*" for part in _PARTS},
        f"{layer}.attn.out_proj.*": f"{block}.attention.out.*",
        f"{layer}.ln_2.*": f"{block}.norm2.*",
        f"{layer}.mlp.c_fc.*": f"{block}.mlp.fc1.*",
        f"{layer}.mlp.c_proj.*": f"{block}.mlp.fc2.*",
    }


TEXT_KEYS = {
    "token_embedding.weight": "text.embedding.weight",
    "positional_embedding": "text.positions",
    **transformer_keys("transformer", "text.transformer"),
    "ln_final.*": "text.norm.*",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
"""The text tower and what both towers share."""

VIT_KEYS = KeyTable(
    {
        "visual.class_embedding": "image.class_token",
        "visual.conv1.weight": "image.patches.projection.weight",
        "visual.positional_embedding": "image.positions.table",
        "visual.ln_pre.*": "image.norm_in.*",
        **transformer_keys("visual.transformer", "image.transformer"),
        "visual.ln_post.*": "image.norm.*",
        "visual.proj": "image_projection.weight",
        **TEXT_KEYS,
    },
    ignored=BOOKKEEPING,
)

_MATRICES = ("text_projection", "visual.proj")
"""Stored (in, out), where a linear layer holds (out, in)."""


def read_layout(state: Mapping[str, Tensor], keys: KeyTable) -> dict[str, Tensor]:
    """OpenAI's tensors under a network's own names: projections apart, matrices transposed."""
    parted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        owner, fused, kind = name.partition(".attn.in_proj_")
        if fused:
            for part, piece in zip(_PARTS, tensor.chunk(3), strict=True):
                parted[f"{owner}.attn.{part}.{kind}"] = piece
        else:
            # A transposed view would be multiplied in another order, to other last bits.
            parted[name] = tensor.T.contiguous() if name in _MATRICES else tensor
    return keys.read(parted)


def write_layout(state: Mapping[str, Tensor], keys: KeyTable) -> dict[str, Tensor]:
    """The inverse of `read_layout`."""
    fused: dict[str, Tensor] = {}
    parted = keys.write(state)
    for name, tensor in parted.items():
        owner, inside, rest = name.partition(".attn.")
        part, _, kind = rest.partition(".")
        if not inside or part not in _PARTS:
            fused[name] = tensor.T if name in _MATRICES else tensor
        elif part == "q":
            pieces = [parted[f"{owner}.attn.{other}.{kind}"] for other in _PARTS]
            fused[f"{owner}.attn.in_proj_{kind}"] = cat(pieces)
    return fused


def read_openai(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a ViT model in OpenAI's layout to those of `models.clip.CLIP`."""
    return read_layout(state, VIT_KEYS)


def write_openai(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `models.clip.CLIP` to OpenAI's layout."""
    return write_layout(state, VIT_KEYS)


def config_of(state: Mapping[str, Tensor], activation: str = "quick_gelu") -> CLIPConfig:
    """The configuration of a ViT model, read off the shapes of its tensors in OpenAI's layout.

    Args:
        state: tensors by OpenAI's names; the meta device will do.
        activation: OpenAI trained with "quick_gelu", most of open_clip's models with "gelu".

    Raises:
        CheckpointError: a tensor is missing, or heads of 64 channels or a square picture do not
            explain its shape.
    """
    width, channels, height, across = shape_of(state, "visual.conv1.weight", 4)
    (places, _), (_, embedding_width) = (
        shape_of(state, name, 2) for name in ("visual.positional_embedding", "visual.proj")
    )
    side = isqrt(places - 1)
    if side * side != places - 1:
        raise CheckpointError(
            f"'visual.positional_embedding' has {places} rows: a class token and a square grid are "
            "expected"
        )
    image = ImageTowerConfig(
        width=width,
        depth=count(state, "visual.transformer.resblocks.", 3),
        num_heads=heads(width),
        mlp_width=shape_of(state, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        patch_size=(height, across),
        image_size=(side * height, side * across),
        channels=channels,
        activation=activation,
    )
    return CLIPConfig(image, text_config_of(state, activation), embedding_width)


def text_config_of(
    state: Mapping[str, Tensor], activation: str = "quick_gelu"
) -> TextTowerConfig:  # fmt: skip
    """The text tower's configuration; the end of text has the highest id, the start the one below.

    Raises:
        CheckpointError: as `config_of`.
    """
    vocabulary, width = shape_of(state, "token_embedding.weight", 2)
    return TextTowerConfig(
        width=width,
        depth=count(state, "transformer.resblocks.", 2),
        num_heads=heads(width),
        mlp_width=shape_of(state, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        vocab_size=vocabulary,
        context_length=shape_of(state, "positional_embedding", 2)[0],
        activation=activation,
        eos_id=vocabulary - 1,
        bos_id=vocabulary - 2,
        pad_id=0,
    )


def shape_of(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape of one tensor, which must be there and have that many axes.

    Raises:
        CheckpointError: it is not there, or has another number of axes.
    """
    if name not in state:
        raise CheckpointError(
            f"no tensor {name!r}: these are not the weights of a CLIP model in OpenAI's layout"
        )
    shape = tuple(state[name].shape)
    if len(shape) != axes:
        raise CheckpointError(f"tensor {name!r} has shape {list(shape)}, {axes} axes are expected")
    return shape


def count(state: Mapping[str, Tensor], prefix: str, level: int) -> int:
    """How many different names stand at that level (from 0) below the prefix."""
    return len({name.split(".")[level] for name in state if name.startswith(prefix)})


def heads(width: int) -> int:
    """Heads of 64 channels.

    Raises:
        CheckpointError: a width that 64 does not divide.
    """
    if width % HEAD_SIZE:
        raise CheckpointError(
            f"a width of {width} is not made of heads of {HEAD_SIZE} channels, and shapes do not "
            "show how many heads there are: write a config.json"
        )
    return width // HEAD_SIZE
