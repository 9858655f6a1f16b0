"""A module to a file of ONNX, by torch's exporter (torch.export, then onnxscript).

The graph computes in float32. float16 is a way to store: a tensor that float16 holds without loss
is kept so, with a cast behind it, which runtimes fold when they open the file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ConfigError
from sightline.core.lazy import require
from sightline.core.version import __version__

if TYPE_CHECKING:
    from sightline.hub.layouts.onnx_towers import Tower

OPSET = 20
"""The first in which GELU is one operation, of both kinds."""
LARGEST_FILE = 1_800_000_000
"""Bytes of weights inside the file: a message of protobuf ends at 2 GiB. More lie beside it."""
_HALVED_FROM = 1024
"""Numbers of a tensor that is worth a cast."""
PURPOSE = "exporting to ONNX"


def write_graph(tower: Tower, file: Path, about: Mapping[str, str], half: bool) -> tuple[str, ...]:
    """Export one tower.

    Args:
        tower: the module with examples of its inputs.
        file: "image.onnx"; weights that do not fit lie beside it in "image.onnx.data".
        about: written into the file as its metadata.
        half: store as float16 what float16 holds without loss.

    Returns:
        The names of the inputs; one that changes nothing is left out.

    Raises:
        ConfigError: a network that torch's exporter cannot follow.
        MissingDependencyError: onnx or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "export", PURPOSE)
    ir = require("onnx_ir", "export", PURPOSE)
    model = _exported(tower).model
    inputs = _used_inputs(model.graph)
    _tidy(model)
    if half:
        _store_half(ir, model.graph)
    model.producer_name, model.producer_version = "sightline", __version__
    model.metadata_props.update(about)
    held = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    beside = f"{file.name}.data" if held > LARGEST_FILE else None
    ir.save(model, file, external_data=beside)
    return inputs


def _exported(tower: Tower) -> Any:
    import torch

    try:
        with _without_chatter(), _shapes_unchecked(), torch.no_grad():
            return torch.onnx.export(
                tower.module,
                tuple(tower.inputs.values()),
                input_names=list(tower.inputs),
                output_names=list(tower.outputs),
                dynamic_shapes=tuple(dict(tower.free[name]) for name in tower.inputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), "no reason given")
        raise ConfigError(f"torch cannot export the {tower.name} tower: {reason}") from error


@contextmanager
def _without_chatter() -> Iterator[None]:
    """The exporter warns of its own internals and of packages that this library never has."""
    log = logging.getLogger("torch.onnx._internal.exporter")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _shapes_unchecked() -> Iterator[None]:
    """Without jaxtyping's checks, where somebody has them on: a checked length is a constant."""
    from jaxtyping import config

    was = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", was)


def _used_inputs(graph: Any) -> tuple[str, ...]:
    """Take out the inputs that nothing reads (a mask, where padding needs none)."""
    for value in list(graph.inputs):
        if not value.uses() and not value.is_graph_output():
            graph.inputs.remove(value)
    return tuple(value.name for value in graph.inputs)


def _tidy(model: Any) -> None:
    """Without the exporter's notes, which hold the paths of this installation."""
    model.metadata_props.clear()
    model.doc_string = None
    for graph in model.graphs():
        graph.metadata_props.clear()
        graph.doc_string = None
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()


def _store_half(ir: Any, graph: Any) -> None:
    import numpy as np

    for value in list(graph.initializers.values()):
        if value.dtype != ir.DataType.FLOAT or value.is_graph_output():
            continue
        numbers = value.const_value.numpy()
        with np.errstate(over="ignore"):
            halved = numbers.astype(np.float16)
        if numbers.size < _HALVED_FROM or not np.array_equal(halved.astype(np.float32), numbers):
            continue
        name = value.name
        value.name = f"{name}.float32"
        stored = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT16),
            shape=value.shape,
            const_value=ir.tensor(halved, name=name),
        )
        cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT})
        cast.outputs[0].name = value.name + ".cast"
        value.replace_all_uses_with(cast.outputs[0])
        del graph.initializers[value.name]
        graph.register_initializer(stored)
        graph.insert_before(graph[0], cast)
