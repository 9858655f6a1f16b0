"""What an evaluation is handed: a model's public methods and a sequence of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor

from sightline.core.outputs import Label


class RecordLike(Protocol):
    """One picture of a data set with what is known about it."""

    @property
    def id(self) -> str: ...
    @property
    def image(self) -> Any: ...
    @property
    def captions(self) -> tuple[str, ...]: ...
    @property
    def label(self) -> str | None: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


class DatasetLike(Protocol):
    """Records by number; `sightline.data.records.Dataset` is one."""

    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> RecordLike: ...


class EmbeddingModel(Protocol):
    """The part of a loaded model that retrieval needs; `sightline.load` returns one.

    Read where a model has them, and left out of the result where not: `name`, `sha256` (of the
    weights), `system.default_template` and `system.score` (the prompt of its own classification,
    softmax or sigmoid), `network.pair_scale` (scale and bias, for calibration).
    """

    def embed_images(self, images: Sequence[Any], batch_size: int = 32) -> Float[Tensor, "N D"]: ...
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "N D"]: ...


class ClassifyingModel(Protocol):
    """The part of a loaded model that scores labels without embeddings, by likelihood."""

    def classify(
        self, image: Any, labels: Sequence[str], templates: Sequence[str] | None = None
    ) -> Sequence[Label]: ...


class MatchingModel(Protocol):
    """The part of a loaded model that says how probable each text is for a picture."""

    def match(self, image: Any, texts: Sequence[str]) -> Float[Tensor, " M"]: ...


class LikelihoodModel(Protocol):
    """The part of a generating model that gives the likelihood of texts after a picture."""

    def logprob(self, image: Any, prompt: str, texts: Sequence[str]) -> Float[Tensor, " M"]: ...


Model = EmbeddingModel | ClassifyingModel
