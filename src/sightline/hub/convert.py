"""One model into another project's layout, with a proof in numbers.

The result is written beside its place, loaded back from there and compared with the source: the
same pictures and the same ids through both networks, every tensor, every token. Only a folder that
passed takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import CheckpointError, ConfigError, unknown_name
from sightline.core.files import atomic_folder
from sightline.hub.contents import Contents, Provenance, read_contents
from sightline.hub.layouts.table import LAYOUTS, WRITTEN, Layout, layout
from sightline.hub.proof import Proof, answers, apart, bytes_in, rounding, same_tokens

if TYPE_CHECKING:
    from torch import Tensor


def convert(
    source: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
) -> Proof:
    """Write a model in the layout `to`, prove that it is the same, and return the proof.

    Args:
        source: anything that `sightline.load` takes, in any layout that is read here.
        to: "transformers", "openai", "open_clip", "ait" or "onnx".
        out: a folder; replaced if it is a model folder already.
        dtype: number type of the stored tensors; None keeps each as it is.
        revision: branch, tag or commit of a hub model.
        allow_pickle: read weights that exist only as a pickle, as tensors only.

    Raises:
        ConfigError: an unknown layout, one that cannot hold this model (with the reason), or a
            folder that holds other things.
        CheckpointError: a source that cannot be read, or a result that is not the same.
        HubError: the source could not be fetched.
    """
    from sightline.hub.save import refuse_other_contents, stored_dtype, stored_tensor

    target = Path(out)
    _check_target(to, dtype)
    refuse_other_contents(target)
    path = _located(os.fspath(source), revision, allow_pickle)
    contents = read_contents(path, allow_pickle=allow_pickle)
    contents.provenance = _provenance(os.fspath(source), path)
    _refuse_unholdable(contents, to, os.fspath(source))
    kind = stored_dtype(dtype)
    before = answers(contents)
    stored = replace(
        contents, state={n: stored_tensor(n, t, kind) for n, t in contents.state.items()}
    )
    with atomic_folder(target) as temporary:
        write, check = layout(to).write, layout(to).prove or prove
        assert write is not None, "checked above"
        write(stored, temporary)
        proof = check(stored, before, temporary)
        if not proof.holds:
            raise CheckpointError(_broken(to, proof))
    return proof


def prove(written: Contents, before: Mapping[str, Tensor], folder: Path) -> Proof:
    """Read a folder back and compare what came with what was written.

    Args:
        written: the contents that went into the folder.
        before: the answers of the source, before its numbers were rounded to another type.
        folder: what was written.
    """
    import torch

    found = read_contents(folder)
    ours, theirs = answers(written), answers(found)
    equal = [
        name
        for name, tensor in written.state.items()
        if name in found.state and torch.equal(tensor, found.state[name].to(tensor.dtype))
    ]
    return Proof(
        differences={name: apart(ours[name], theirs[name]) for name in ours},
        largest={name: float(value.abs().max()) for name, value in ours.items()},
        tensors=len(written.state),
        equal_tensors=len(equal),
        parameters=sum(p.numel() for p in written.network.parameters()),
        bytes=bytes_in(folder),
        tokens=same_tokens(written.processor.text, found.processor.text),
        rounding=rounding(before, ours),
    )


def _check_target(to: str, dtype: str | None) -> None:
    if to not in LAYOUTS:
        raise ConfigError(unknown_name("layout", to, WRITTEN))
    target = layout(to)
    if target.write is None:
        raise ConfigError(f"{to} is only read here: choose one of {', '.join(WRITTEN)}")
    if dtype is not None and target.dtypes is not None and dtype not in target.dtypes:
        allowed = " or ".join(target.dtypes)
        raise ConfigError(f"the {to} layout does not store {dtype}: choose {allowed}")


def _provenance(name: str, path: Path) -> Provenance:
    """Where a model came from; of a folder only its own name, for the rest is nobody's business."""
    from sightline.hub.bundled import read_card
    from sightline.hub.catalogue import find
    from sightline.hub.load import commit_of
    from sightline.hub.names import resolve

    place = resolve(name)
    local = place.folder is not None and not place.bundled
    entry = None if local else find(place.name)
    licence = entry.licence if entry is not None else read_card(path).get("licence")
    return Provenance(
        path.resolve().name if local else place.name,
        commit_of(path),
        licence if isinstance(licence, str) else None,
    )


def _refuse_unholdable(contents: Contents, to: str, name: str) -> None:
    target = layout(to)
    reason = target.refusal(contents) if target.refusal is not None else None
    if reason is None:
        return
    others = [other for other in WRITTEN if other != to and _can_hold(layout(other), contents)]
    hint = f"; {' and '.join(others)} can" if others else ""
    raise ConfigError(f"the {to} layout cannot hold {name}: {reason}{hint}")


def _can_hold(other: Layout, contents: Contents) -> bool:
    """Whether a layout that is read back here could take the model instead."""
    if other.refusal is None or other.prove is not None:
        return False
    return other.refusal(contents) is None


def _located(name: str, revision: str | None, allow_pickle: bool) -> Path:
    """The folder or file of a model, fetched where it is on the hub."""
    from sightline.hub.names import resolve

    place = resolve(name)
    if place.folder is not None:
        if revision is not None:
            raise ConfigError(f"revision {revision!r} belongs to hub models; {name} is a folder")
        return place.folder
    from sightline.hub.download import download

    return download(place.name, revision, allow_pickle=allow_pickle)


def _broken(to: str, proof: Proof) -> str:
    worst = max(proof.differences, key=lambda name: proof.differences[name])
    return (
        f"the model that came back from the {to} layout is not the same: {worst} differ by "
        f"{proof.differences[worst]:g}, {proof.equal_tensors} of {proof.tensors} tensors are equal,"
        f" tokens {proof.tokens}; nothing was written"
    )
