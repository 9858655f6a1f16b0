"""What comes back: one NamedTuple per role of a network, one per kind of answer.

Shape letters of the whole library: B batch, F frames, C channels, H W pixels, P patches,
T text tokens, L fused sequence, S source length, D width, N heads, K head size, V vocabulary,
Q queries, M a second batch (texts beside pictures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels of the original picture after its EXIF orientation.

x2 and y2 are exclusive."""


class EncodedImage(NamedTuple):
    """Output of the role ImageEncoder."""

    tokens: Tensor
    """float[B, P, D]: one vector a patch (a class token first, where the system has one)."""
    pooled: Tensor
    """float[B, D]: one vector a picture, as the system pools it."""


class EncodedText(NamedTuple):
    """Output of the role TextEncoder."""

    tokens: Tensor
    """float[B, T, D]"""
    pooled: Tensor
    """float[B, D]"""


class PairScores(NamedTuple):
    """Output of the role DualEncoder: both embeddings and what turns their cosine into a logit."""

    image_embeddings: Tensor
    """float32[B, D], unit length."""
    text_embeddings: Tensor
    """float32[M, D], unit length."""
    scale: Tensor
    """float32[]: the factor on the cosine, already exponentiated."""
    bias: Tensor
    """float32[]: added to the scaled cosine; 0 where the system has none."""

    @property
    def logits(self) -> Tensor:
        """float32[B, M]: scale * cosine + bias."""
        return self.scale * (self.image_embeddings @ self.text_embeddings.T) + self.bias  # [B M]


class NextTokens(NamedTuple):
    """Output of the roles language model and vision-language model."""

    logits: Tensor
    """float32[B, M, V]: for each token that is written behind a prompt, what was likely to stand in
    its place, given everything before it."""


class CodedMasks(NamedTuple):
    """Output of the role MaskCodec: masks through few tokens and back, with what training needs."""

    masks: Tensor
    """float[B, H, W]: about -1 to 1, above 0 inside."""
    indices: Tensor
    """int64[B, P]: the tokens, row by row."""
    features: Tensor
    """float[B, P, D]: what the encoder said, before rounding."""
    codewords: Tensor
    """float[B, P, D]: what it was rounded to."""


class Label(NamedTuple):
    """A name and how strongly it was found."""

    label: str
    score: float


class Detection(NamedTuple):
    """A named box. `score` is None where the model gives no confidence."""

    label: str
    score: float | None
    box: Box


class Segment(NamedTuple):
    """A named box with the pixels it covers."""

    label: str
    score: float | None
    box: Box
    mask: np.ndarray
    """bool[H, W]"""


class Hit(NamedTuple):
    """One answer of a search: which record, and how well it fits."""

    id: str
    score: float
