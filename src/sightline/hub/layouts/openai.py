"""OpenAI's own CLIP layout (https://github.com/openai/CLIP): tensors, and nothing that says whose.

Read are TorchScript archives, safetensors files with the same names, and a folder that holds one of
them, with a tokenizer beside it or not. Written is `model.safetensors` with a small mark and the
tokenizer's files; OpenAI's `clip.model.build_model` takes the tensors as its state dict. That
function reads the sizes off the shapes and fixes all the rest, so that only models that agree with
what it fixes can be written.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, UnsafeCheckpointError
from sightline.hub.layouts.detect import OPENAI_MARK, weight_file
from sightline.hub.layouts.table import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents
    from sightline.models.clip import TextTowerConfig

FORMAT, VERSION = "sightline-openai-layout", 1
TENSORS = "model.safetensors"


def read(path: Path, allow_pickle: bool) -> Contents:
    """A file in OpenAI's layout, or the folder that holds it.

    Raises:
        CheckpointError: a broken file, or one of another layout.
        UnsafeCheckpointError: a pickle, where none was allowed.
    """
    from sightline.hub.contents import assembled
    from sightline.hub.keys import own_state, without_wrappers
    from sightline.hub.layouts.files import tokenizer_beside, with_tokenizer_ids
    from sightline.hub.openai_files import describe_openai
    from sightline.inputs.processors import Processor, image_processor

    file = weight_file(path)
    assert file is not None, "found by its weight file"
    _refuse_newer(file.parent)
    published = without_wrappers(_tensors(file, allow_pickle))
    entry, config, reading = describe_openai(file, published, "quick_gelu")
    state = own_state(reading, published, str(file))
    words = None
    if entry.text is not None:
        words = tokenizer_beside(file.parent, entry.text(config), config.text.vocab_size)
    config = replace(config, text=with_tokenizer_ids(config.text, words))
    images = image_processor(entry.preprocessing(config))
    return assembled("openai", entry, config, state, Processor(images, words, str(file)), file)


def refusal(contents: Contents) -> str | None:
    """Why OpenAI's code could not build this network from its tensors alone."""
    from sightline.models.clip import CLIPConfig
    from sightline.models.clip_resnet import CLIPResNetConfig

    config = contents.config
    if not isinstance(config, CLIPConfig | CLIPResNetConfig):
        return f"it holds CLIP and no {contents.system.name}"
    spec = getattr(contents.processor.image, "spec", None)
    if spec != contents.system.preprocessing(config):
        return "it always prepares pictures as CLIP does, and this model wants them otherwise"
    reason = text_refusal(config.text)
    if reason is None and isinstance(config, CLIPConfig):
        reason = _tower_refusal("image", config.image) or _picture_refusal(config.image)
    if reason is None and config.image.image_size[0] != config.image.image_size[1]:
        reason = "it knows square pictures only"
    return reason


def text_refusal(config: TextTowerConfig) -> str | None:
    """Why the text tower cannot be held; its end of text must be the highest id."""
    if config.eos_id not in (2, config.vocab_size - 1):
        return (
            f"it takes the highest id for the end of text, and here that is {config.eos_id} of "
            f"{config.vocab_size}"
        )
    return _tower_refusal("text", config)


def _tower_refusal(tower: str, config: Any) -> str | None:
    fixed = {
        "channels in a head": (config.width / config.num_heads, 64),
        "times the width in its MLP": (config.mlp_width / config.width, 4),
    }
    for what, (found, expected) in fixed.items():
        if found != expected:
            return f"it has always {expected} {what}, the {tower} tower has {found:g}"
    if config.activation != "quick_gelu":
        return f"it always computes quick_gelu, the {tower} tower {config.activation}"
    if config.norm_eps != 1e-5:
        return f"its norms have an epsilon of 1e-05, those of the {tower} tower {config.norm_eps:g}"
    return None


def _picture_refusal(config: Any) -> str | None:
    (height, width), (tall, wide) = config.image_size, config.patch_size
    if config.channels != 3 or tall != wide or height % tall or width % wide:
        return "it knows square patches of three colours that fill the picture only"
    return None


def write(contents: Contents, folder: Path) -> None:
    """Tensors under OpenAI's names, a mark, and the tokenizer's files."""
    from sightline.core.files import write_json
    from sightline.hub.layouts.files import write_tensors
    from sightline.models import clip_resnet, openai_layout

    write_state = (
        clip_resnet.write_state
        if contents.system.name == "clip_resnet"
        else openai_layout.write_openai
    )
    write_tensors(write_state(contents.state), folder / TENSORS)
    mark = {"format": FORMAT, "version": VERSION, "build": "clip.model.build_model(state_dict)"}
    write_json(folder / OPENAI_MARK, mark)
    if contents.processor.text is not None:
        contents.processor.text.save(folder)


def _tensors(file: Path, allow_pickle: bool) -> dict[str, Tensor]:
    from sightline.hub.environment import converted_folder
    from sightline.hub.openai_files import read_openai_file
    from sightline.hub.pickles import converted, pickle_refusal
    from sightline.hub.torchscript import is_torchscript
    from sightline.hub.weights import read_safetensors

    if file.suffix == ".safetensors" or is_torchscript(file):
        return read_openai_file(file)
    if not allow_pickle:
        raise UnsafeCheckpointError(pickle_refusal(str(file.parent), file.name))
    return read_safetensors(converted(file, converted_folder()))


def _refuse_newer(folder: Path) -> None:
    from sightline.inputs.published import read_object

    mark = folder / OPENAI_MARK
    if not mark.is_file():
        return
    found = read_object(mark)
    if (found.get("format"), found.get("version")) != (FORMAT, VERSION):
        raise CheckpointError(
            f"{mark}: written as {found.get('format')!r} version {found.get('version')!r}, this "
            f"Sightline reads {FORMAT!r} version {VERSION}: upgrade sightline"
        )


LAYOUT = Layout("openai", "OpenAI CLIP (https://github.com/openai/CLIP)", read, write, refusal)
