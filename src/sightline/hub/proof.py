"""What a network answers to seeded pictures and ids, and how far apart two such answers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.interfaces import WRITING_ROLES, Prompt, TextBatch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sightline.hub.contents import Contents
    from sightline.inputs.tokenizers import TextTokenizer

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
    """Of the network; 0 where the result holds no tensors by name (a graph)."""
    equal_tensors: int
    """Tensors that came back with the same values."""
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


def answers(contents: Contents) -> dict[str, Tensor]:
    """The outputs of the network in float32 for seeded pictures and ids, prepared as it wants."""
    import torch

    network = filled(contents)
    config = contents.config
    with torch.no_grad():
        if contents.system.role in WRITING_ROLES:
            return {"logits": network(*seeded_prompts(contents)).logits}
        pixels = None if contents.processor.image is None else seeded_pixels(contents)
        if contents.system.role == "dual encoder":
            ids = seeded_ids(config)
            scores = network(pixels, ids, torch.ones_like(ids, dtype=torch.bool))
            return {
                "image vectors": scores.image_embeddings,
                "text vectors": scores.text_embeddings,
                "logits": scores.logits,
            }
        if contents.system.role == "mask codec":
            coded = network(seeded_masks(config.mask_size))
            return {"masks": coded.masks, "tokens": coded.indices, "features": coded.features}
        if contents.system.role == "text encoder":
            ids = seeded_ids(config)
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


def seeded_pixels(contents: Contents) -> Any:
    """Three seeded pictures, prepared as the model wants them."""
    import numpy as np

    dice = np.random.default_rng(SEED)
    sizes: tuple[tuple[int, int], ...] = _PICTURES
    spec = getattr(contents.processor.image, "spec", None)
    if getattr(spec, "fit", "") in ("keep", "shortest"):  # one size only in a batch
        sizes = ((64, 64),) * len(_PICTURES)
    pictures = [dice.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return contents.processor.images(pictures)


def seeded_prompts(contents: Contents) -> tuple[Prompt, TextBatch]:
    """Drawn prompts of eight tokens, with a picture each where the model takes some, and suffixes
    of four."""
    import torch

    words = getattr(contents.config, "text", contents.config)
    shape = (len(_PICTURES), 12)
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(0, words.vocab_size, shape, generator=generator)
    there = torch.ones_like(ids, dtype=torch.bool)
    seen = () if contents.processor.image is None else seeded_pixels(contents)
    pictures = tuple((picture,) for picture in seen)
    return Prompt(ids[:, :8], there[:, :8], pictures), TextBatch(ids[:, 8:], there[:, 8:])


def seeded_masks(size: int) -> Tensor:
    """float32[3, size, size]: seeded values around 0, which no codec was made for."""
    import torch

    return torch.randn(3, size, size, generator=torch.Generator().manual_seed(SEED))


def seeded_ids(config: Any) -> Tensor:
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


def same_tokens(ours: TextTokenizer | None, theirs: TextTokenizer | None) -> str:
    """What `Proof.tokens` says of two tokenizers."""
    import torch

    if ours is None:
        return "no tokenizer"
    if theirs is None:
        return "different"
    first, second = ours(list(_SENTENCES)), theirs(list(_SENTENCES))
    return "equal" if torch.equal(first.ids, second.ids) else "different"


def rounding(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Mapping[str, float]:
    """What storing other numbers changed in each output; empty where nothing was."""
    changed = {name: apart(before[name], after[name]) for name in after}
    return changed if any(changed.values()) else {}


def bytes_in(folder: Path) -> int:
    """Of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def apart(one: Tensor, two: Tensor) -> float:
    """The largest difference; infinite for other shapes or where one is no number."""
    if one.shape != two.shape:
        return float("inf")
    gap = (one - two).abs().max()
    return float("inf") if bool(gap.isnan()) else float(gap)
