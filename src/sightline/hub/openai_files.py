"""OpenAI's own CLIP files, which are no model folders, and how they become some.

Each is one TorchScript archive with weights and a program, without configuration and tokenizer.
`convert_openai` reads the weights as data (`hub.torchscript`; the program is never run), reads the
configuration off their shapes, and writes a folder that `sightline.load` takes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, UnsafeCheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.core.interfaces import System

_STORE = "https://openaipublic.azureedge.net/clip/models"

SHA256: Mapping[str, str] = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
}
"""Models that OpenAI publishes as files only, each at an address that holds the SHA-256 of the
file. Source: openai/CLIP, clip/clip.py."""

TOKENIZER = "openai/clip-vit-base-patch32"
"""A model whose tokenizer files fit every one of these."""

_RESNET, _VIT = "visual.layer1.0.conv1.weight", "visual.conv1.weight"


def only_as_a_file(name: str) -> str | None:
    """What to do about a model that is published as a file; None for every other name."""
    known = next((known for known in SHA256 if known.lower() == name.lower()), None)
    if known is None:
        return None
    return (
        f"{known} is not on the hub: OpenAI publishes it as a file. Fetch "
        f"{_STORE}/{SHA256[known]}/{known}.pt, turn it into a folder with "
        f"sightline.hub.openai_files.convert_openai('{known}.pt', '{known}', tokenizer=FOLDER of "
        f"{TOKENIZER}), and load that folder"
    )


def convert_openai(
    file: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | None = None,
    activation: str = "quick_gelu",
) -> Path:
    """Write the model folder of a file in OpenAI's layout, ResNet or ViT; numbers stay as stored.

    Args:
        file: a TorchScript archive of OpenAI ("RN50.pt"), or a safetensors file with the same
            names (open_clip's "open_clip_model.safetensors").
        folder: where to write; replaced if it is a model folder already.
        tokenizer: a folder with CLIP's tokenizer files; without them the model reads no text.
        activation: "quick_gelu" for OpenAI's weights, "gelu" for most of open_clip's. The file
            does not say.

    Returns:
        The folder.

    Raises:
        CheckpointError: a file that is broken, or not in OpenAI's layout.
        UnsafeCheckpointError: a pickle that is no TorchScript archive.
        ConfigError: a folder that holds other things than a model.
    """
    from sightline.hub.keys import check_state, own_state
    from sightline.hub.save import save_checkpoint
    from sightline.inputs.preprocessing import ImageProcessor
    from sightline.inputs.processors import Processor
    from sightline.inputs.tokenizer_files import has_tokenizer
    from sightline.inputs.tokenizers import load_tokenizer
    from sightline.nn.meta import without_memory

    source = Path(file)
    state = read_openai_file(source)
    entry, config, own = describe_openai(source, state, activation)
    with without_memory():
        network = entry.build(config)
    named = own_state(own, state, str(source))
    check_state(network, named, str(source), entry.name)
    network.load_state_dict(named, assign=True)
    words = None
    if tokenizer is not None and entry.text is not None:
        if not has_tokenizer(Path(tokenizer)):
            raise CheckpointError(
                f"{tokenizer} has no tokenizer files: give the folder of {TOKENIZER}"
            )
        words = load_tokenizer(Path(tokenizer), entry.text(config))
    processor = Processor(ImageProcessor(entry.preprocessing(config)), words)
    return save_checkpoint(network, processor, config, entry, folder)


def read_openai_file(file: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive or of a safetensors file; no code is run.

    Raises:
        CheckpointError: no such file, or a broken one.
        UnsafeCheckpointError: another kind of pickle.
    """
    from sightline.hub.torchscript import is_torchscript, read_torchscript
    from sightline.hub.weights import read_safetensors

    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    if is_torchscript(file):
        return read_torchscript(file)
    raise UnsafeCheckpointError(
        f"{file}: neither a TorchScript archive of OpenAI nor safetensors; a pickle can run code "
        "when it is opened: convert it to safetensors where you trust it"
    )


def describe_openai(
    source: Path, state: Mapping[str, Tensor], activation: str
) -> tuple[System, Any, Any]:
    """System, configuration and the function that reads the names."""
    from sightline.models import clip_resnet, openai_layout
    from sightline.models.table import system

    try:
        if _RESNET in state:
            entry = system("clip_resnet")
            return entry, clip_resnet.config_of(state, activation), entry.read_state
        if _VIT in state:
            config = openai_layout.config_of(state, activation)
            return system("clip"), config, openai_layout.read_openai
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    raise CheckpointError(
        f"{source}: no tensor {_VIT!r}: these are not the weights of a CLIP model in OpenAI's "
        "layout"
    )
