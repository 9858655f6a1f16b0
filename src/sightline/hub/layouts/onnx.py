"""Graphs of the towers (https://onnx.ai), which onnxruntime runs without this library.

    image.onnx   pixels float32[batch, 3, H, W] to embeddings float32[batch, D] of unit length;
                 of a classifier also logits float32[batch, V]
    text.onnx    ids int64[batch, length], and mask bool[batch, length] where padding has to be
                 told apart, to embeddings float32[batch, D] of unit length
    onnx.json    what a program must know: preparation of pictures, length of sentences, scale and
                 bias, labels, source and licence; each graph carries it too, as metadata

with the processor's files beside them. Only written: a graph is the network and its numbers in one,
and nothing here would run it better than the weights it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError
from sightline.core.interfaces import WRITING_ROLES
from sightline.core.version import __version__
from sightline.hub.layouts.detect import ONNX_DESCRIPTION
from sightline.hub.layouts.table import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents
    from sightline.hub.proof import Proof

FORMAT, VERSION = "sightline-onnx", 1


def read(path: Path, allow_pickle: bool) -> Contents:
    """Never: the folder is for runtimes of graphs.

    Raises:
        CheckpointError: always, with the model that can be loaded instead.
    """
    from sightline.inputs.published import read_object

    source = read_object(path / ONNX_DESCRIPTION).get("source")
    raise CheckpointError(
        f"{path} holds graphs for onnxruntime and no weights to load: load the model that they "
        f"were made from ({source if isinstance(source, str) else 'not named there'})"
    )


def refusal(contents: Contents) -> str | None:
    """Why a graph cannot hold this model."""
    from sightline.inputs.preprocessing import ImageSpec

    if contents.system.role in WRITING_ROLES:
        return "a network that writes keeps a cache between its tokens, and a graph keeps nothing"
    if contents.system.role == "mask codec":
        return "a graph is written for a tower, and a mask codec has none"
    if contents.processor.image is None:
        return None
    spec = contents.processor.image.spec
    if not isinstance(spec, ImageSpec):
        return (
            "its pictures keep their shapes, and the positions of each are resampled to its own "
            "grid by a program that no fixed graph can hold"
        )
    if spec.fit in ("shortest", "keep"):
        return "its preparation gives every picture a size of its own, and a graph has one"
    return None


def write(contents: Contents, folder: Path) -> None:
    """The graphs, their description, and the processor's files.

    Raises:
        ConfigError: a network that torch's exporter cannot follow.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
    """
    import torch

    from sightline.core.files import write_json
    from sightline.core.lazy import require
    from sightline.hub.layouts.onnx_graph import PURPOSE, write_graph
    from sightline.hub.layouts.onnx_towers import towers_of
    from sightline.hub.proof import filled

    require("onnxruntime", "export", PURPOSE)  # before minutes are spent on what cannot be proved
    network = filled(contents)
    about = describe(contents, network)
    half = any(tensor.dtype == torch.float16 for tensor in contents.state.values())
    carried = {name: _as_text(value) for name, value in about.items()}
    for tower in towers_of(contents, network):
        file = about[tower.name]["file"]
        about[tower.name]["inputs"] = write_graph(tower, folder / file, carried, half)
    write_json(folder / ONNX_DESCRIPTION, about)
    contents.processor.save(folder, contents.system.name)


def describe(contents: Contents, network: Any) -> dict[str, Any]:
    """What `onnx.json` says, in plain JSON values; the inputs are known when the graphs are."""
    from sightline.hub.layouts.onnx_graph import OPSET

    origin, entry = contents.provenance, contents.system.for_config(contents.config)
    about: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": __version__,
        "opset": OPSET,
        "system": entry.name,
        "title": entry.title,
        "source": origin.name if origin is not None else None,
        "revision": origin.revision if origin is not None else None,
        "licence": origin.licence if origin is not None else None,
    }
    if contents.processor.image is not None:
        spec = contents.processor.image.spec
        about["image"] = {"file": "image.onnx", "preparation": spec.to_dict()}
    if entry.text is not None:
        about["text"] = {"file": "text.onnx", **_words(contents)}
    if entry.role == "dual encoder":
        scale, bias = (float(number) for number in network.pair_scale())
        about |= {"scale": scale, "bias": bias, "score": entry.score,
                  "template": entry.default_template}  # fmt: skip
    if labels := getattr(contents.config, "labels", ()):
        about["labels"] = list(labels)
    return about


def _words(contents: Contents) -> dict[str, Any]:
    """How long sentences are, what fills them, and the form they are put into."""
    from sightline.hub.layouts.onnx_towers import context_length, is_padded_to_the_end

    words = contents.processor.text
    said: dict[str, Any] = {
        "context_length": context_length(contents),
        "padding": "max_length" if is_padded_to_the_end(contents) else "longest",
    }
    if words is not None:
        spec = words.spec
        said |= {"pad_id": words.pad_id, "padding_side": words.padding_side}
        said |= {name: getattr(spec, name) for name in _FORM}
    return said


_FORM = ("lower_case", "strip_punctuation", "squeeze_whitespace", "end_token")


def _as_text(value: Any) -> str:
    """As the metadata of a graph holds it: strings as they are, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def prove(written: Contents, before: Mapping[str, Tensor], folder: Path) -> Proof:
    """The graphs beside the network, in batches of 1 and 3."""
    from sightline.hub.layouts.onnx_proof import prove as by_runtime

    return by_runtime(written, before, folder)


LAYOUT = Layout(
    "onnx",
    "ONNX (https://onnx.ai)",
    read,
    write,
    refusal,
    prove,
    dtypes=("float32", "float16"),
)
