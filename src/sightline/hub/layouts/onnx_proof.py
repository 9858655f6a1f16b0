"""Exported graphs, run by onnxruntime beside the network that they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.lazy import require
from sightline.hub.layouts.onnx_graph import PURPOSE
from sightline.hub.layouts.onnx_towers import is_padded_to_the_end
from sightline.hub.proof import (
    Proof,
    answers,
    apart,
    bytes_in,
    filled,
    rounding,
    same_tokens,
    seeded_ids,
    seeded_pixels,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.hub.contents import Contents

BATCHES = (1, 3)
TOWERS = ("image", "text")


def prove(written: Contents, before: Mapping[str, Tensor], folder: Path) -> Proof:
    """Run every graph on batches of 1 and 3, read the description back, and compare.

    Args:
        written: the contents that were exported.
        before: the answers of the source, before its numbers were rounded to another type.
        folder: what was written.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    differences: dict[str, float] = {}
    largest: dict[str, float] = {}
    for name, ours, theirs in _answers(written, folder):
        differences[name] = apart(ours, theirs)
        largest[name] = float(ours.abs().max())
    return Proof(
        differences=differences,
        largest=largest,
        tensors=0,
        equal_tensors=0,
        parameters=sum(p.numel() for p in written.network.parameters()),
        bytes=bytes_in(folder),
        tokens=same_tokens(written.processor.text, _tokenizer(written, folder)),
        rounding=rounding(before, answers(written)),
    )


def _answers(written: Contents, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, the network's answer, the graphs'."""
    about = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
    sessions = {name: _session(folder / about[name]["file"]) for name in TOWERS if name in about}
    network = filled(written)
    for count in BATCHES:
        inputs = _inputs(written, count)
        ours, theirs = _of_network(written, network, inputs), _of_graphs(sessions, about, inputs)
        for name, answer in ours.items():
            yield f"{name}, batch of {count}", answer, theirs[name]


def _of_network(
    contents: Contents, network: Any, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The answers by way of `forward`, which the graphs do not take."""
    import torch
    from torch.nn.functional import normalize

    with torch.no_grad():
        if contents.system.role == "dual encoder":
            scores = network(**inputs)
            return {
                "image embeddings": scores.image_embeddings,
                "text embeddings": scores.text_embeddings,
                "logits": scores.logits,
            }
        pooled = network(**inputs).pooled  # [B D]
        found = {f"{'image' if 'pixels' in inputs else 'text'} embeddings": normalize(pooled)}
        if getattr(contents.config, "labels", ()):
            found["image logits"] = network.class_logits(pooled)
    return found


def _of_graphs(
    sessions: Mapping[str, Any], about: Mapping[str, Any], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What a program gets that knows the graphs and their description alone."""
    import torch

    found: dict[str, Tensor] = {}
    for tower, session in sessions.items():
        feeds = {name: inputs[name].numpy() for name in about[tower]["inputs"]}
        outputs = [output.name for output in session.get_outputs()]
        for name, value in zip(outputs, session.run(outputs, feeds), strict=True):
            found[f"{tower} {name}"] = torch.from_numpy(value)
    if "scale" in about:
        cosines = found["image embeddings"] @ found["text embeddings"].T  # [B M]
        found["logits"] = about["scale"] * cosines + about["bias"]
    return found


def _session(file: Path) -> Any:
    """A checked graph, ready to run on the processor."""
    checker = require("onnx.checker", "export", PURPOSE)
    runtime = require("onnxruntime", "export", PURPOSE)
    checker.check_model(str(file))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _inputs(contents: Contents, count: int) -> dict[str, Tensor]:
    """Seeded pictures, and sentences of unequal length, shorter than the context where they may."""
    import torch

    found: dict[str, Tensor] = {}
    if contents.processor.image is not None:
        found["pixels"] = seeded_pixels(contents)[:count].contiguous()
    if contents.system.text is not None:
        ids = seeded_ids(contents.config)
        lengths = torch.linspace(ids.shape[1] // 2, ids.shape[1] - 1, len(ids)).long() + 1  # [4]
        ids, lengths = ids[:count], lengths[:count]
        if not is_padded_to_the_end(contents):
            ids = ids[:, : int(lengths.max())]
        found["ids"] = ids.contiguous()
        found["mask"] = torch.arange(ids.shape[1]) < lengths[:, None]  # [B T]
    return found


def _tokenizer(contents: Contents, folder: Path) -> Any:
    from sightline.inputs.tokenizers import load_tokenizer

    if contents.processor.text is None:
        return None
    assert contents.system.text is not None, "only such systems have a tokenizer"
    return load_tokenizer(folder, contents.system.text(contents.config))
