"""open_clip's layout (https://github.com/mlfoundations/open_clip).

A folder with open_clip_config.json (the network under `model_cfg`, the preprocessing under
`preprocess_cfg`), `open_clip_model.safetensors` or `open_clip_pytorch_model.bin`, and the files of
a tokenizer. CLIP's tensors have OpenAI's names; SigLIP's are in `open_clip_keys`. What is written
here loads there as `open_clip.create_model_and_transforms("local-dir:FOLDER")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, ConfigError, UnsafeCheckpointError
from sightline.hub.layouts.detect import OPEN_CLIP_CONFIG
from sightline.hub.layouts.table import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.core.interfaces import System
    from sightline.hub.contents import Contents
    from sightline.inputs.preprocessing import Fit, ImageSpec
    from sightline.inputs.tokenizers import TextSpec, TextTokenizer

TENSORS = "open_clip_model.safetensors"
PICKLES = ("open_clip_pytorch_model.bin", "open_clip_model.bin")
PUBLISHED_VOCABULARY = 49408
"""Words of OpenAI's tokenizer, which open_clip brings itself."""

_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_FITS: dict[str, Fit] = {"shortest": "shortest_then_crop", "squash": "square"}
_TEXT_LEVEL = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.",
               "text_projection")  # fmt: skip


def read(path: Path, allow_pickle: bool) -> Contents:
    """A folder with an open_clip_config.json, or the weight file in it.

    Raises:
        CheckpointError: a broken file, or a network that no system here is.
        UnsafeCheckpointError: weights that exist only as a pickle, where none was allowed.
    """
    from sightline.hub.contents import assembled
    from sightline.hub.keys import own_state, without_wrappers
    from sightline.hub.layouts.files import tokenizer_beside, with_tokenizer_ids
    from sightline.inputs.processors import Processor, image_processor
    from sightline.inputs.published import read_object
    from sightline.models.published import section

    folder = path.parent if path.is_file() else path
    published = read_object(folder / OPEN_CLIP_CONFIG)
    state = without_wrappers(_tensors(folder, allow_pickle))
    try:
        cfg = section(published, "model_cfg")
        entry, config, reading = _described(folder, cfg, state)
        spec = _image_spec(section(published, "preprocess_cfg"), entry.preprocessing(config))
        text = _text_spec(section(cfg, "text_cfg"), entry, config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    words = tokenizer_beside(folder, text, config.text.vocab_size)
    if entry.score == "softmax":
        config = replace(config, text=with_tokenizer_ids(config.text, words))
    elif words is not None:
        config = _with_ids(config, words)
    processor = Processor(image_processor(spec), words, str(folder))
    own = own_state(reading, state, str(folder))
    return assembled("open_clip", entry, config, own, processor, folder)


def _described(
    folder: Path, cfg: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[System, Any, Any]:
    """System, configuration and the function that reads the names."""
    from sightline.hub.layouts import open_clip_config
    from sightline.hub.layouts.open_clip_keys import read_siglip
    from sightline.hub.openai_files import describe_openai
    from sightline.models.openai_layout import read_openai
    from sightline.models.published import section
    from sightline.models.table import system

    vision = section(cfg, "vision_cfg")
    if vision.get("timm_model_name"):
        return system("siglip"), open_clip_config.read_siglip(cfg), read_siglip
    if isinstance(vision.get("layers"), list):
        words = open_clip_config.read_clip_text(
            section(cfg, "text_cfg"), cfg.get("quick_gelu") is True
        )
        entry, config, reading = describe_openai(folder, _flat(state), words.activation)
        return entry, replace(config, text=words), lambda found: reading(_flat(found))
    config = open_clip_config.read_clip(cfg)
    return system("clip"), config, lambda found: read_openai(_flat(found))


def _flat(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names without the level that `custom_text` puts around the text tower."""
    flat = {}
    for name, tensor in state.items():
        inner = name.removeprefix("text.")
        flat[inner if inner.startswith(_TEXT_LEVEL) else name] = tensor
    if "logit_scale" in flat and flat["logit_scale"].shape == (1,):
        flat["logit_scale"] = flat["logit_scale"].reshape(())
    return flat


def _image_spec(cfg: Mapping[str, Any], default: ImageSpec) -> ImageSpec:
    """`preprocess_cfg` over open_clip's defaults; the size is the network's own."""
    fit = cfg.get("resize_mode") or "shortest"
    if fit not in _FITS:
        raise CheckpointError(
            f"{OPEN_CLIP_CONFIG}: 'resize_mode' is {fit!r}; readable are {', '.join(_FITS)}"
        )
    try:
        return replace(
            default,
            fit=_FITS[fit],
            shortest=None,
            filter=cfg.get("interpolation") or "bicubic",
            mean=_triple(cfg, "mean", _OPENAI_MEAN),
            std=_triple(cfg, "std", _OPENAI_STD),
        )
    except ConfigError as error:
        raise CheckpointError(f"{OPEN_CLIP_CONFIG}: {error}") from None


def _triple(
    cfg: Mapping[str, Any], name: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    value = cfg.get(name)
    if value is None:
        return default
    if isinstance(value, list) and len(value) == 3:
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == 3:
            return float(numbers[0]), float(numbers[1]), float(numbers[2])
    raise CheckpointError(f"{OPEN_CLIP_CONFIG}: {name!r} is {str(value)[:40]}, not three numbers")


def _text_spec(cfg: Mapping[str, Any], entry: System, config: Any) -> TextSpec:
    """How open_clip cleans text before its tokenizer: not, in lower case, or without punctuation.

    It pads every sentence to the full length; the system's own spec says whether that matters.
    """
    from sightline.models.published import section

    assert entry.text is not None, "both systems have a text tower"
    clean = section(cfg, "tokenizer_kwargs").get("clean", "whitespace")
    canonical = clean == "canonicalize"
    spec: TextSpec = entry.text(config)
    return replace(
        spec,
        lower_case=spec.lower_case or canonical or clean == "lower",
        strip_punctuation=spec.strip_punctuation or canonical,
        squeeze_whitespace=spec.squeeze_whitespace or canonical or clean == "lower",
    )


def _with_ids(config: Any, words: TextTokenizer) -> Any:
    """SigLIP's text tower with the ids of its tokenizer; they are only recorded."""
    ids = {"pad_id": words.pad_id, "bos_id": words.bos_id, "eos_id": words.eos_id}
    known = {name: value for name, value in ids.items() if value is not None}
    return replace(config, text=replace(config.text, **known))


def refusal(contents: Contents) -> str | None:
    """Why open_clip could not build this network or prepare its pictures."""
    config, spec = contents.config, getattr(contents.processor.image, "spec", None)
    if contents.system.name not in ("clip", "clip_resnet", "siglip"):
        return f"it builds its towers from fixed parts, and {contents.system.name} is none of them"
    if getattr(config.image, "channels", 3) != 3:
        return f"it takes pictures of three colours, not {config.image.channels}"
    reason = _spec_refusal(spec, config) or _activation_refusal(contents)
    if reason is not None:
        return reason
    if contents.system.name == "siglip" and config.image.norm_eps != 1e-6:
        return f"its SigLIP towers have norms of epsilon 1e-06, this one {config.image.norm_eps:g}"
    if (
        contents.system.name == "clip_resnet"
        and config.image.image_size[0] != (config.image.image_size[1])
    ):
        return "its ResNet towers take square pictures"
    return None


def _activation_refusal(contents: Contents) -> str | None:
    config, known = contents.config, {"gelu", "gelu_pytorch_tanh", "gelu_new"}
    image = getattr(config.image, "activation", config.text.activation)
    quick = {image, config.text.activation} == {"quick_gelu"}
    if contents.system.name == "siglip" or not quick:
        for activation in (image, config.text.activation):
            if contents.system.name != "clip_resnet" and activation not in known:
                return f"it cannot put {activation} into one of these towers"
    if contents.system.name == "clip_resnet" and config.text.activation not in (
        *known, "quick_gelu",
    ):  # fmt: skip
        return f"it cannot put {config.text.activation} into the text tower"
    return None


def _spec_refusal(spec: Any, config: Any) -> str | None:
    fit = getattr(spec, "fit", None)
    size = (getattr(spec, "height", 0), getattr(spec, "width", 0))
    whole = fit == "square" or (
        fit == "shortest_then_crop"
        and size[0] == size[1]
        and spec.shortest in (None, min(size))
        and spec.longest is None
    )
    if not whole or spec.filter not in ("bicubic", "bilinear") or spec.rescale != 1 / 255:
        return "it prepares pictures by the shorter side and a crop, or squeezed to a square only"
    if size != tuple(config.image.image_size):
        return (
            f"it prepares pictures at the size of the tower {config.image.image_size}, not {size}"
        )
    return None


def write(contents: Contents, folder: Path) -> None:
    """Configuration, one weight file and the tokenizer's files."""
    from sightline.core.files import write_json
    from sightline.hub.layouts.files import write_tensors
    from sightline.hub.layouts.open_clip_keys import write_siglip
    from sightline.models import clip_resnet, openai_layout

    writers = {
        "clip": openai_layout.write_openai,
        "clip_resnet": clip_resnet.write_state,
        "siglip": write_siglip,
    }
    cfg = _model_cfg(contents)
    words = contents.processor.text
    if words is not None:
        if words.vocab_size != PUBLISHED_VOCABULARY:
            cfg["text_cfg"]["hf_tokenizer_name"] = "."  # local-dir: always takes its own folder
            cfg["text_cfg"]["tokenizer_kwargs"] = {"clean": _cleaning(words)}
        words.save(folder)
    assert contents.processor.image is not None, "refused otherwise"
    spec: Any = contents.processor.image.spec
    preprocess = {
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.filter,
        "resize_mode": next(mode for mode, fit in _FITS.items() if fit == spec.fit),
    }
    config = {"model_cfg": cfg, "preprocess_cfg": preprocess}
    write_json(folder / OPEN_CLIP_CONFIG, config)
    write_tensors(writers[contents.system.name](contents.state), folder / TENSORS)


def _model_cfg(contents: Contents) -> dict[str, Any]:
    from sightline.hub.layouts import open_clip_config

    config = contents.config
    if contents.system.name == "siglip":
        return open_clip_config.write_siglip(config)
    if contents.system.name == "clip":
        return open_clip_config.write_clip(config)
    return {
        "embed_dim": config.embedding_width,
        "quick_gelu": config.text.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": config.image.image_size[0],
            "layers": list(config.image.depths),
            "width": config.image.width,
            "patch_size": None,
        },
        "text_cfg": open_clip_config.write_clip_text(config.text),
    }


def _cleaning(words: TextTokenizer) -> str:
    """open_clip's word for what this tokenizer does to text, found by asking it."""

    def same(one: str, other: str) -> bool:
        first, second = words([one, other]).ids
        return first.tolist() == second.tolist()

    if not same("A Ball", "a ball"):
        return "whitespace"
    return "canonicalize" if same("a ball.", "a ball") else "lower"


def _tensors(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    from sightline.hub.environment import converted_folder
    from sightline.hub.pickles import converted, pickle_refusal
    from sightline.hub.weights import read_safetensors

    if (folder / TENSORS).is_file():
        return read_safetensors(folder / TENSORS)
    found = [folder / name for name in PICKLES if (folder / name).is_file()]
    if not found:
        raise CheckpointError(f"{folder} has no weights: expected {TENSORS} or {PICKLES[0]}")
    if not allow_pickle:
        raise UnsafeCheckpointError(pickle_refusal(str(folder), found[0].name))
    return read_safetensors(converted(found[0], converted_folder()))


LAYOUT = Layout(
    "open_clip", "open_clip (https://github.com/mlfoundations/open_clip)", read, write, refusal
)
