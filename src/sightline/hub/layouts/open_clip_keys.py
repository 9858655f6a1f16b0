"""The names of SigLIP's tensors as open_clip writes them.

The image tower is timm's (`visual.trunk.*`, with queries, keys and values fused), the text tower
is open_clip's own (`text.*`, fused as in OpenAI's files), scale and bias are numbers without axes.
CLIP's names are OpenAI's: `models.openai_layout`.
Source: mlfoundations/open_clip, src/open_clip/model.py and timm_model.py.
"""

from collections.abc import Mapping

from torch import Tensor

from sightline.hub.layouts.timm_keys import block_keys
from sightline.models.keys import KeyTable, join_thirds, split_thirds
from sightline.models.openai_layout import transformer_keys

_TRUNK = "visual.trunk"

_KEYS = KeyTable(
    {
        f"{_TRUNK}.patch_embed.proj.*": "image.patches.projection.*",
        f"{_TRUNK}.pos_embed": "image.positions.table",
        **block_keys(f"{_TRUNK}.blocks", "image.transformer.blocks"),
        f"{_TRUNK}.norm.*": "image.norm.*",
        f"{_TRUNK}.attn_pool.latent": "image.pool.probe",
        f"{_TRUNK}.attn_pool.q.*": "image.pool.q.*",
        f"{_TRUNK}.attn_pool.kv.*": "image.pool.kv.*",
        f"{_TRUNK}.attn_pool.proj.*": "image.pool.out.*",
        f"{_TRUNK}.attn_pool.norm.*": "image.pool.norm.*",
        f"{_TRUNK}.attn_pool.mlp.fc1.*": "image.pool.mlp.fc1.*",
        f"{_TRUNK}.attn_pool.mlp.fc2.*": "image.pool.mlp.fc2.*",
        "text.token_embedding.weight": "text.embedding.weight",
        "text.positional_embedding": "text.positions",
        **transformer_keys("text.transformer", "text.transformer"),
        "text.ln_final.*": "text.norm.*",
        "text.text_projection.*": "text.head.*",
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
    }
)

_FUSED_IMAGE = {
    f".attn.qkv.{kind}": (f".attn.q.{kind}", f".attn.k.{kind}", f".attn.v.{kind}")
    for kind in ("weight", "bias")
}
_FUSED_TEXT = {
    f".attn.in_proj_{kind}": (f".attn.q.{kind}", f".attn.k.{kind}", f".attn.v.{kind}")
    for kind in ("weight", "bias")
}
_AXES = {"image.positions.table": 1, "image.pool.probe": 2}
"""Axes of size one that the file has in front of ours."""


def read_siglip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors to those of `models.siglip.SigLIP`."""
    own = _KEYS.read(split_thirds(split_thirds(state, _FUSED_IMAGE), _FUSED_TEXT))
    for name, axes in _AXES.items():
        if name in own:
            own[name] = own[name].flatten(0, axes)
    for name in ("logit_scale", "logit_bias"):
        if name in own:
            own[name] = own[name].reshape(1)
    return own


def write_siglip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `read_siglip`."""
    own = dict(state)
    for name, axes in _AXES.items():
        own[name] = own[name][(None,) * axes]
    for name in ("logit_scale", "logit_bias"):
        own[name] = own[name].reshape(())
    published = _KEYS.write(own)
    image = {name: tensor for name, tensor in published.items() if name.startswith("visual.")}
    words = {name: tensor for name, tensor in published.items() if name not in image}
    return {**join_thirds(image, _FUSED_IMAGE), **join_thirds(words, _FUSED_TEXT)}
