"""open_clip_config.json to the configurations of CLIP and SigLIP, and back.

open_clip builds many networks from flags; those that change the network in a way that no system
here has are refused by name, never skipped.
Source: mlfoundations/open_clip, src/open_clip/model.py (CLIPVisionCfg, CLIPTextCfg) and the names
of timm's SigLIP towers, timm/models/vision_transformer.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sightline.core.errors import CheckpointError
from sightline.models import clip, siglip
from sightline.models.published import as_written, field, pair, section

_MODEL = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text", "init_logit_scale",
          "init_logit_bias", "nonscalar_logit_scale", "cast_dtype", "output_dict"}  # fmt: skip
_SHARED = {"layers", "width", "mlp_ratio", "act_kwargs", "norm_kwargs"}
_IMAGE = _SHARED | {"head_width", "patch_size", "image_size", "patch_dropout"}
_TRUNK = {"image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj",
          "timm_model_kwargs", "timm_drop", "timm_drop_path"}  # fmt: skip
_TEXT = _SHARED | {"heads", "context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs",
                   "tokenizer_mode", "pad_id", "bos_id", "eos_id", "pool_type", "proj_bias",
                   "no_causal_mask"}  # fmt: skip
_HARMLESS: dict[str, Any] = {
    "pool_type": "tok", "pos_embed_type": "learnable", "proj_type": "linear", "text_arch": "clip",
    "attn_pooler_queries": 256, "attn_pooler_heads": 8, "output_tokens": True, "block_type":
    "default",
}  # fmt: skip
"""Defaults that some configurations spell out."""

_NAME = re.compile(
    r"vit_(?P<size>base|large|so400m|giantopt)_patch(?P<patch>\d+)_siglip_(?P<side>\d+)"
)
_TRUNKS = {
    "base": (768, 12, 12, 4.0),
    "large": (1024, 24, 16, 4.0),
    "so400m": (1152, 27, 16, 3.7362),
    "giantopt": (1536, 40, 16, 4.0),
}
"""Width, depth, heads and MLP ratio of timm's SigLIP towers."""
_TANH = re.compile(r".*(giantopt_.*|so400m_patch16_.*|base_patch32_.*|large_patch16_siglip_512)")
"""timm's towers of SigLIP 2 compute the tanh form of GELU, the older ones the exact one."""
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
TRUNK_EPS = 1e-6


def read_clip(cfg: Mapping[str, Any]) -> clip.CLIPConfig:
    """A `model_cfg` with open_clip's own image tower.

    Raises:
        CheckpointError: a field that changes the network, or has another type than it should.
    """
    vision, words = section(cfg, "vision_cfg"), section(cfg, "text_cfg")
    _only(cfg, _MODEL, "model_cfg")
    _only(vision, _IMAGE, "vision_cfg")
    quick = field(cfg, "quick_gelu", False)
    width = field(vision, "width", 768)
    image = clip.ImageTowerConfig(
        width=width,
        depth=field(vision, "layers", 12),
        num_heads=width // max(1, field(vision, "head_width", 64)),
        mlp_width=int(width * field(vision, "mlp_ratio", 4.0)),
        patch_size=pair(vision, "patch_size", 16),
        image_size=pair(vision, "image_size", 224),
        activation=_activation(vision, quick),
        norm_eps=_eps(vision),
    )
    return clip.CLIPConfig(image, read_clip_text(words, quick), field(cfg, "embed_dim", 512))


def read_clip_text(words: Mapping[str, Any], quick: bool) -> clip.TextTowerConfig:
    """A `text_cfg` of a causal tower without a bias in its projection."""
    _only(words, _TEXT, "text_cfg")
    pool = field(words, "pool_type", "argmax")
    if pool not in ("argmax", "eos"):
        raise _refused("text_cfg", "pool_type", pool)
    for flag in ("no_causal_mask", "proj_bias"):
        if words.get(flag):
            raise _refused("text_cfg", flag, words[flag])
    width, vocabulary = field(words, "width", 512), field(words, "vocab_size", 49408)
    end = vocabulary - 1 if pool == "argmax" else field(words, "eos_id", vocabulary - 1)
    return clip.TextTowerConfig(
        width=width,
        depth=field(words, "layers", 12),
        num_heads=field(words, "heads", 8),
        mlp_width=int(width * field(words, "mlp_ratio", 4.0)),
        vocab_size=vocabulary,
        context_length=field(words, "context_length", 77),
        activation=_activation(words, quick),
        norm_eps=_eps(words),
        eos_id=end,
        bos_id=field(words, "bos_id", max(0, vocabulary - 2)),
        pad_id=field(words, "pad_id", 0),
    )


def read_siglip(cfg: Mapping[str, Any]) -> siglip.SigLIPConfig:
    """A `model_cfg` with one of timm's SigLIP towers.

    Raises:
        CheckpointError: a field that changes the network, or has another type than it should.
    """
    vision, words = section(cfg, "vision_cfg"), section(cfg, "text_cfg")
    _only(cfg, _MODEL, "model_cfg")
    _only(vision, _TRUNK, "vision_cfg")
    _only(words, _TEXT, "text_cfg")
    wanted = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    for name, value in wanted.items():
        if words.get(name) != value:
            raise _refused("text_cfg", name, words.get(name))
    for name, value in {"timm_pool": "map", "timm_proj": "none"}.items():
        if vision.get(name) != value:
            raise _refused("vision_cfg", name, vision.get(name))
    width = field(words, "width", 512)
    text = siglip.TextTowerConfig(
        width=width,
        depth=field(words, "layers", 12),
        num_heads=field(words, "heads", 8),
        mlp_width=int(width * field(words, "mlp_ratio", 4.0)),
        vocab_size=field(words, "vocab_size", 49408),
        context_length=field(words, "context_length", 77),
        activation=_activation(words, field(cfg, "quick_gelu", False)),
        norm_eps=_eps(words),
    )
    return siglip.SigLIPConfig(_trunk(vision), text)


def _trunk(vision: Mapping[str, Any]) -> siglip.ImageTowerConfig:
    name = field(vision, "timm_model_name", "")
    match = _NAME.fullmatch(name)
    if match is None:
        raise _refused("vision_cfg", "timm_model_name", name)
    changed = section(vision, "timm_model_kwargs")
    _only(changed, {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio",
                    "act_layer"}, "timm_model_kwargs")  # fmt: skip
    width, depth, heads, ratio = _TRUNKS[match["size"]]
    width = field(changed, "embed_dim", width)
    act = field(changed, "act_layer", "gelu_tanh" if _TANH.fullmatch(name) else "gelu")
    if act not in _ACTIVATIONS:
        raise _refused("timm_model_kwargs", "act_layer", act)
    return siglip.ImageTowerConfig(
        width=width,
        depth=field(changed, "depth", depth),
        num_heads=field(changed, "num_heads", heads),
        mlp_width=int(width * field(changed, "mlp_ratio", ratio)),
        patch_size=pair(changed, "patch_size", int(match["patch"])),
        image_size=pair(changed, "img_size", int(match["side"])),
        activation=_ACTIVATIONS[act],
        norm_eps=TRUNK_EPS,
    )


def write_clip(config: clip.CLIPConfig) -> dict[str, Any]:
    """The inverse of `read_clip`."""
    image = config.image
    vision = {
        "image_size": as_written(image.image_size),
        "layers": image.depth,
        "width": image.width,
        "head_width": image.width // image.num_heads,
        "patch_size": as_written(image.patch_size),
        **_written(image),
    }
    return {
        "embed_dim": config.embedding_width,
        "quick_gelu": image.activation == "quick_gelu",
        "vision_cfg": vision,
        "text_cfg": write_clip_text(config.text),
    }


def write_clip_text(words: clip.TextTowerConfig) -> dict[str, Any]:
    """The inverse of `read_clip_text`."""
    written = {**_text(words), **_written(words)}
    if words.eos_id not in (2, words.vocab_size - 1):
        written |= {"pool_type": "eos", "eos_id": words.eos_id}
    return written


def write_siglip(config: siglip.SigLIPConfig) -> dict[str, Any]:
    """The inverse of `read_siglip`."""
    name = _nearest_trunk(config.image)
    vision: dict[str, Any] = {
        "image_size": as_written(config.image.image_size),
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    }
    changed = _changes(config.image, name)
    if changed:
        vision["timm_model_kwargs"] = changed
    return {
        "embed_dim": config.embedding_width,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": vision,
        "text_cfg": {
            **_text(config.text), **_written(config.text),
            "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
        },
    }  # fmt: skip


def _nearest_trunk(image: siglip.ImageTowerConfig) -> str:
    """timm's name of this tower, or of one that differs least."""
    known = {shape[:2]: size for size, shape in _TRUNKS.items()}
    size = known.get((image.width, image.depth), "base")
    name = f"vit_{size}_patch{image.patch_size[0]}_siglip_{image.image_size[0]}"
    sides = {f"base_patch16_siglip_{n}" for n in (224, 256, 384, 512)}
    sides |= {f"large_patch16_siglip_{n}" for n in (256, 384, 512)} | {"base_patch32_siglip_256"}
    sides |= {f"so400m_patch14_siglip_{n}" for n in (224, 378, 384)}
    sides |= {f"so400m_patch16_siglip_{n}" for n in (256, 384, 512)}
    sides |= {f"giantopt_patch16_siglip_{n}" for n in (256, 384)}
    return name if name.removeprefix("vit_") in sides else "vit_base_patch16_siglip_224"


def _changes(image: siglip.ImageTowerConfig, name: str) -> dict[str, Any]:
    """What timm must be told beside the name."""
    plain = _trunk({"timm_model_name": name})
    acts = {own: published for published, own in _ACTIVATIONS.items()}
    acts["gelu_new"] = "gelu_tanh"
    pairs: dict[str, tuple[Any, Any]] = {
        "img_size": (as_written(image.image_size), as_written(plain.image_size)),
        "patch_size": (as_written(image.patch_size), as_written(plain.patch_size)),
        "embed_dim": (image.width, plain.width),
        "depth": (image.depth, plain.depth),
        "num_heads": (image.num_heads, plain.num_heads),
        "act_layer": (acts.get(image.activation), acts[plain.activation]),
    }
    changed = {key: mine for key, (mine, theirs) in pairs.items() if mine != theirs}
    if (image.width, image.mlp_width) != (plain.width, plain.mlp_width):
        changed["mlp_ratio"] = mlp_ratio(image.width, image.mlp_width)
    return changed


def mlp_ratio(width: int, mlp_width: int) -> float:
    """A ratio that gives back exactly this width of the MLP after int(width * ratio)."""
    ratio = mlp_width / width
    return ratio if int(width * ratio) == mlp_width else (mlp_width + 0.5) / width


def _text(words: clip.TextTowerConfig | siglip.TextTowerConfig) -> dict[str, Any]:
    return {
        "context_length": words.context_length,
        "vocab_size": words.vocab_size,
        "width": words.width,
        "heads": words.num_heads,
        "layers": words.depth,
    }


def _written(tower: Any) -> dict[str, Any]:
    """What differs from open_clip's defaults."""
    written: dict[str, Any] = {}
    if tower.mlp_width != 4 * tower.width:
        written["mlp_ratio"] = mlp_ratio(tower.width, tower.mlp_width)
    if tower.activation in ("gelu_pytorch_tanh", "gelu_new"):
        written["act_kwargs"] = {"approximate": "tanh"}
    if tower.norm_eps != 1e-5:
        written["norm_kwargs"] = {"eps": tower.norm_eps}
    return written


def _activation(part: Mapping[str, Any], quick: bool) -> str:
    kwargs = section(part, "act_kwargs")
    if quick:
        if kwargs:
            raise _refused("act_kwargs", *next(iter(kwargs.items())))
        return "quick_gelu"
    _only(kwargs, {"approximate"}, "act_kwargs")
    known = {"none": "gelu", "tanh": "gelu_pytorch_tanh"}
    found = field(kwargs, "approximate", "none")
    if found not in known:
        raise _refused("act_kwargs", "approximate", found)
    return known[found]


def _eps(part: Mapping[str, Any]) -> float:
    kwargs = section(part, "norm_kwargs")
    _only(kwargs, {"eps"}, "norm_kwargs")
    return field(kwargs, "eps", 1e-5)


def _only(part: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse a field that is neither known nor off."""
    for name, value in part.items():
        off = value is None or value is False or value == "" or value == _HARMLESS.get(name, ...)
        if name not in known and not off:
            raise _refused(where, name, value)


def _refused(where: str, name: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"open_clip_config.json: {where} has {name!r} = {str(value)[:60]!r}, a network that no "
        "system here is; readable are CLIP with ViT or ResNet towers and SigLIP"
    )
