"""One model into another project's layout, with a proof in numbers.

The result is written beside its place, loaded back from there and compared with the source: the
same pictures and the same ids through both networks, every tensor, every token. Only a folder that
passed takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import CheckpointError, ConfigError, unknown_name
from sightline.core.files import atomic_folder
from sightline.hub.contents import Contents, read_contents
from sightline.hub.layouts.table import LAYOUTS, WRITTEN, layout

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-5
"""Of the largest value of an output, or of 1 where that is larger: the project's parity."""

SEED = 20250101
_PICTURES = ((61, 83), (90, 47), (48, 48))
"""Heights and widths of the pictures that both models are given."""
_SENTENCES = ("a photo of a cat.", "Two red BALLS, one green car!", "")
_SEQUENCES = 4


@dataclass(frozen=True)
class Proof:
    """What was compared after a conversion, and how far apart it was."""

    differences: Mapping[str, float]
    """Name of an output to its largest difference; 0 means equal in every bit."""
    largest: Mapping[str, float]
    """Name of an output to its largest absolute value in the source."""
    tensors: int
    equal_tensors: int
    """Tensors of the network that came back with the same values."""
    parameters: int
    bytes: int
    """Of all files that were written."""
    tokens: str
    """"equal" where both tokenizers gave the same ids, "no tokenizer" where the source has none."""
    rounding: Mapping[str, float]
    """What storing in another number type changed in each output; empty where nothing was."""

    @property
    def holds(self) -> bool:
        """Whether every output is within the tolerance and every tensor came back."""
        near = all(
            self.differences[name] <= TOLERANCE * max(1.0, self.largest[name])
            for name in self.differences
        )
        return near and self.equal_tensors == self.tensors and self.tokens != "different"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "holds": self.holds}


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
        to: "transformers", "openai" or "open_clip".
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
    _check_target(to)
    refuse_other_contents(target)
    path = _located(os.fspath(source), revision, allow_pickle)
    contents = read_contents(path, allow_pickle=allow_pickle)
    _refuse_unholdable(contents, to, os.fspath(source))
    kind = stored_dtype(dtype)
    before = answers(contents)
    stored = replace(
        contents, state={n: stored_tensor(n, t, kind) for n, t in contents.state.items()}
    )
    with atomic_folder(target) as temporary:
        write = layout(to).write
        assert write is not None, "checked above"
        write(stored, temporary)
        proof = prove(stored, read_contents(temporary), before, temporary)
        if not proof.holds:
            raise CheckpointError(_broken(to, proof))
    return proof


def prove(
    written: Contents, found: Contents, before: Mapping[str, Tensor], folder: Path
) -> Proof:  # fmt: skip
    """Compare what was written with what came back.

    Args:
        written: the contents that went into the folder.
        found: the same, read back from there.
        before: the answers of the source, before its numbers were rounded to another type.
        folder: what was written.
    """
    import torch

    ours, theirs = answers(written), answers(found)
    equal = [
        name
        for name, tensor in written.state.items()
        if name in found.state and torch.equal(tensor, found.state[name].to(tensor.dtype))
    ]
    rounded = {name: _apart(before[name], ours[name]) for name in ours}
    return Proof(
        differences={name: _apart(ours[name], theirs[name]) for name in ours},
        largest={name: float(value.abs().max()) for name, value in ours.items()},
        tensors=len(written.state),
        equal_tensors=len(equal),
        parameters=sum(p.numel() for p in written.network.parameters()),
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        tokens=_tokens(written, found),
        rounding=rounded if any(rounded.values()) else {},
    )


def answers(contents: Contents) -> dict[str, Tensor]:
    """The outputs of the network in float32 for seeded pictures and ids, prepared as it wants."""
    import torch

    network = filled(contents)
    config = contents.config
    with torch.no_grad():
        pixels = None if contents.processor.image is None else _pixels(contents)
        if contents.system.role == "dual encoder":
            ids = _ids(config)
            scores = network(pixels, ids, torch.ones_like(ids, dtype=torch.bool))
            return {
                "image vectors": scores.image_embeddings,
                "text vectors": scores.text_embeddings,
                "logits": scores.logits,
            }
        if contents.system.role == "text encoder":
            ids = _ids(config)
            encoded = network(ids, torch.ones_like(ids, dtype=torch.bool))
        else:
            encoded = network(pixels)
        found = {"tokens": encoded.tokens, "pooled": encoded.pooled}
        if getattr(config, "labels", ()):
            found["class logits"] = network.class_logits(encoded.pooled)
    return found


def filled(contents: Contents) -> Any:
    """A network of its own with these tensors in float32, ready to answer.

    Built with memory: buffers that no file holds are computed while building.
    """
    import torch

    with torch.device("cpu"):
        network: nn.Module = contents.system.build(contents.config)
    # A copy of each: mapped tensors lie at odd addresses, which changes the last bits of products.
    state = {
        name: contents.state[name].to(expected.dtype, copy=True)
        for name, expected in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _pixels(contents: Contents) -> Any:
    import numpy as np

    dice = np.random.default_rng(SEED)
    sizes: tuple[tuple[int, int], ...] = _PICTURES
    spec = getattr(contents.processor.image, "spec", None)
    if getattr(spec, "fit", "") in ("keep", "shortest"):  # one size only in a batch
        sizes = ((64, 64),) * len(_PICTURES)
    pictures = [dice.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return contents.processor.images(pictures)


def _ids(config: Any) -> Tensor:
    """int64[4, T]: drawn ids, each sentence with its end at another place."""
    import torch

    words = getattr(config, "text", config)
    length, vocabulary = int(words.context_length), int(words.vocab_size)
    end = int(getattr(words, "eos_id", vocabulary - 1))
    end = vocabulary - 1 if end == 2 or end >= vocabulary else end
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(0, max(1, min(end, vocabulary - 1)), (_SEQUENCES, length),
                        generator=generator)  # fmt: skip
    for row, place in enumerate(torch.linspace(length // 2, length - 1, _SEQUENCES).long()):
        ids[row, place] = end
    return ids


def _tokens(one: Contents, two: Contents) -> str:
    import torch

    ours, theirs = one.processor.text, two.processor.text
    if ours is None:
        return "no tokenizer"
    if theirs is None:
        return "different"
    first, second = ours(list(_SENTENCES)), theirs(list(_SENTENCES))
    return "equal" if torch.equal(first.ids, second.ids) else "different"


def _apart(one: Tensor, two: Tensor) -> float:
    if one.shape != two.shape:
        return float("inf")
    gap = (one - two).abs().max()
    return float("inf") if bool(gap.isnan()) else float(gap)


def _check_target(to: str) -> None:
    if to not in LAYOUTS:
        raise ConfigError(unknown_name("layout", to, WRITTEN))
    if layout(to).write is None:
        raise ConfigError(f"{to} is only read here: choose one of {', '.join(WRITTEN)}")


def _refuse_unholdable(contents: Contents, to: str, name: str) -> None:
    target = layout(to)
    reason = target.refusal(contents) if target.refusal is not None else None
    if reason is None:
        return
    others = [
        other
        for other in WRITTEN
        if other != to and (check := layout(other).refusal) is not None and check(contents) is None
    ]
    hint = f"; {' and '.join(others)} can" if others else ""
    raise ConfigError(f"the {to} layout cannot hold {name}: {reason}{hint}")


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
