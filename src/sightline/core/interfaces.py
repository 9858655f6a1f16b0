"""Roles: what a network or a helper must be able to do. Nobody inherits them.

A task names the role it needs; a system's table entry names the roles its network plays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sightline.core.outputs import CodedMasks, EncodedImage, EncodedText, PairScores


class TextBatch(NamedTuple):
    """Tokenised text, ready for a network."""

    ids: Tensor
    """int64[B, T]"""
    mask: Tensor
    """bool[B, T]: True where a token is text, False where it is padding."""


class PatchBatch(NamedTuple):
    """Pictures of mixed sizes as rows of flattened patches, one picture a row."""

    patches: Tensor
    """float[B, P, p*p*C]: raster order; within a patch (row, column, channel). 0 in the padding."""
    mask: Tensor
    """bool[B, P]: True where a patch belongs to the picture, False behind its last one."""
    grids: Tensor
    """int64[B, 2]: rows and columns of patches; their product is the number of True."""

    def to(self, device: torch.device | str) -> PatchBatch:
        """Patches and mask on that device; the grids decide shapes and stay where they are."""
        return self._replace(patches=self.patches.to(device), mask=self.mask.to(device))


class PackedPatches(NamedTuple):
    """Pictures of mixed sizes, several in one row of patches (NaViT, arXiv:2307.06304)."""

    patches: Tensor
    """float[R, L, p*p*C]: as in `PatchBatch`, pictures one behind the other, then 0."""
    pictures: Tensor
    """int64[R, L]: which picture, 0 to B - 1, a patch belongs to; -1 for padding."""
    grids: Tensor
    """int64[B, 2]: rows and columns of patches of each picture."""

    def to(self, device: torch.device | str) -> PackedPatches:
        """Patches and owners on that device; the grids decide shapes and stay where they are."""
        return self._replace(patches=self.patches.to(device), pictures=self.pictures.to(device))


class Prompt(NamedTuple):
    """What a network writes on from: pictures and words, one row an answer."""

    ids: Tensor
    """int64[B, T]: the tokens of each row, padded on the right."""
    mask: Tensor
    """bool[B, T]: True where a token is the row's own."""
    pictures: tuple[tuple[Tensor, ...], ...] = ()
    """For each row its pictures in reading order, float32[3, H, W] each, of any sizes; a row may
    have none. Empty where no row has one. They stand in front of the words, or where a system's own
    token marks their places."""


@runtime_checkable
class Cache(Protocol):
    """What a network remembers of the sequences that it is writing. The caller owns it."""

    @property
    def lengths(self) -> Tensor:
        """int64[B]: positions of each row that are filled, those of pictures included."""
        ...

    def select(self, rows: Tensor) -> Cache:
        """The cache of the rows int64[R], in that order; a row may be taken more than once.

        A cache of its own: what is written to one is not seen in the other.
        """
        ...


@runtime_checkable
class TextGenerator(Protocol):
    """A network that writes: what the next token is likely to be, after a prompt and after each
    further token."""

    def prefill(self, prompt: Prompt, room: int) -> tuple[Tensor, Cache]:
        """Logits float32[B, V] of the token behind each prompt, and a cache with room for so many
        more tokens."""
        ...

    def extend(self, ids: Tensor, cache: Cache, mask: Tensor | None = None) -> Tensor:
        """Append int64[B, T] to the rows of the cache: logits float32[B, T, V] behind each token.

        `mask` bool[B, T], True where a token is the row's own, where rows grow unequally (padded on
        the right).
        """
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Words to ids and back, with the canonicalisation that the checkpoint was trained with."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def eos_id(self) -> int | None: ...
    def __call__(self, texts: Sequence[str]) -> TextBatch: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@runtime_checkable
class StoredPicture(Protocol):
    """A picture inside a larger file (a member of a tar, a cell of a table), undecoded."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def read_stored(self) -> bytes:
        """The bytes as they were stored.

        Raises:
            ImageError: they are not there any more, or too many.
        """
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """A picture to vectors."""

    def __call__(self, pixels: Tensor) -> EncodedImage: ...


@runtime_checkable
class Classifier(ImageEncoder, Protocol):
    """An image encoder with a classification layer; the config's `labels` name its columns."""

    def class_logits(self, pooled: Tensor) -> Tensor: ...


@runtime_checkable
class TextEncoder(Protocol):
    """A sentence to vectors. The mask is not optional: padding is attended to without it."""

    def __call__(self, ids: Tensor, mask: Tensor) -> EncodedText: ...


@runtime_checkable
class DualEncoder(Protocol):
    """Pictures and sentences to one space, where the cosine says whether they belong together."""

    def encode_images(self, pixels: Tensor) -> Tensor: ...
    def encode_texts(self, ids: Tensor, mask: Tensor | None = None) -> Tensor: ...
    def __call__(self, pixels: Tensor, ids: Tensor, mask: Tensor | None = None) -> PairScores: ...


@runtime_checkable
class MaskCodec(Protocol):
    """A mask to a few tokens of a small vocabulary, and back."""

    @property
    def mask_size(self) -> int:
        """H and W of the masks that it takes and gives."""
        ...

    def encode(self, masks: Tensor) -> Tensor:
        """float[B, H, W] of -1 outside to 1 inside, to tokens int64[B, P]."""
        ...

    def decode(self, indices: Tensor) -> Tensor:
        """Tokens int64[B, P] to float[B, H, W]: above 0 inside."""
        ...

    def __call__(self, masks: Tensor) -> CodedMasks: ...


WRITING_ROLES = ("language model", "vision-language model")
"""Roles whose networks are `TextGenerator`s."""


@dataclass(frozen=True)
class System:
    """One published system, as its file in `models` declares it; loaders need nothing else.

    Every callable is pure. `read_state` and `write_state` translate between the published key
    spellings and the network's own.
    """

    name: str
    """Short name: "clip"."""
    title: str
    """The paper's title, authors and year, on one line."""
    role: str
    """"image encoder", "text encoder", "dual encoder", "mask codec", "language model" or
    "vision-language model" (more with later systems)."""
    model_types: tuple[str, ...]
    """Values of `model_type` in a published config.json that this system reads."""
    build: Callable[[Any], nn.Module]
    """Config to network, with fresh weights on the default device."""
    read_config: Callable[[Mapping[str, Any]], Any]
    """A published config.json, parsed, to the system's frozen config."""
    write_config: Callable[[Any], dict[str, Any]]
    """The inverse: what transformers reads."""
    read_state: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Published tensors by published name to the network's own names and shapes; what it knowingly
    ignores is left out, an unknown name is passed on unchanged so that the loader reports it."""
    write_state: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """The inverse: the network's own tensors to published names and shapes."""
    preprocessing: Callable[[Any], Any]
    """Config to the `inputs.preprocessing.ImageSpec` of the published checkpoints; to None for a
    network without pictures."""
    text: Callable[[Any], Any] | None
    """Config to the `inputs.tokenizers.TextSpec`; None for a network without text."""
    variants: Mapping[str, Any]
    """Published sizes by name, with their citation beside the table in the file."""
    tiny: Any
    """A config with broken symmetries that builds and runs in milliseconds, for the contracts."""
    instructions: Callable[[Any], Any] | None = None
    """Config to the `inputs.instructions.Instructions` of a system that writes; None for others."""
    default_template: str | None = None
    """Prompt that classification fills, "a photo of a {}."."""
    score: str = "softmax"
    """How logits become scores: "softmax" over the labels, or "sigmoid" each on its own."""
    match_config: Callable[[Any, Mapping[str, Tensor]], Any] | None = None
    """Config and published tensors to the config that these tensors fill, where config.json leaves
    something open (whether a BERT file carries its pooler); None where it says everything."""
    bind: Callable[[Any], System] | None = None
    """Config to this system with the key spellings and the score of that config, where they depend
    on it (a system that is made of others); None where they do not."""
    class_names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    """Tensors by the names of files to the same by the names that transformers' class has in
    memory, by which adapters are named; None where both are one. `read_state` reads either."""
    known_names: Mapping[str, str] = field(default_factory=dict)
    """Names people say to hub ids: "ViT-B/32" to "openai/clip-vit-base-patch32"."""

    def for_config(self, config: Any) -> System:
        """This system, ready to read, write and judge a network with that config."""
        return self if self.bind is None else self.bind(config)
