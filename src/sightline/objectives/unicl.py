"""Contrast over pictures, texts and labels (UniCL; Yang et al. 2022, arXiv:2204.03610, section 3).

Pairs that share a label are true pairs, whichever picture and text meet. With a label for every
pair of its own this is CLIP's loss; with a class for every picture it is supervised contrastive
learning between the two towers. Devices and memory are handled as in `objectives.contrastive`.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sightline.core.errors import ConfigError, InputError, unknown_name
from sightline.nn.norms import at_least_float32
from sightline.nn.precision import without_autocast
from sightline.objectives.blockwise import Place, blocks, check_chunk, sum_over_columns
from sightline.objectives.exchange import Gather, Ring, alone

DIRECTIONS = ("sum", "mean")
"""What becomes of the losses of the two directions."""


def label_contrastive(
    image_embeddings: Float[Tensor, "B D"],
    text_embeddings: Float[Tensor, "B D"],
    scale: Float[Tensor, ""],
    labels: Int[Tensor, " B"],
    *,
    directions: str = "sum",
    chunk: int | None = None,
    gather: Gather | Ring = alone,
) -> Float[Tensor, ""]:
    """UniCL's loss: each picture picks all texts of its label, each text all pictures of its own.

    For a picture i with the P(i) texts of its label,

        -1/|P(i)| sum_{k in P(i)} log softmax_j(scale x_i.y_j)_k

    and the mean over pictures (equation 3); the same from texts to pictures (equation 4). The
    logarithm is inside the sum over P(i): every text of the label is to be picked, not any one.

    Args:
        labels: equal numbers belong together, across devices too; see `group_labels`. The gather
            brings them as it brings rows; they say what belongs together, so no first row is
            needed.
        directions: "sum" of the two, as in equation 2, or their "mean", whose size and gradient
            are those of CLIP's loss, so that learning rates carry over.

    Raises:
        ConfigError: an unknown word for `directions`, or a chunk below 1.
    """
    check_chunk(chunk)
    if directions not in DIRECTIONS:
        raise ConfigError(unknown_name("directions", directions, DIRECTIONS))
    with without_autocast(image_embeddings.device):
        image, text = at_least_float32(image_embeddings), at_least_float32(text_embeddings)
        everyone = _all_labels(labels, gather)
        ring = gather if isinstance(gather, Ring) else None

        def direction(queries: Tensor, others: Tensor) -> Tensor:
            rows = others if isinstance(gather, Ring) else gather(others)
            return _choice(queries, scale, _Among(rows, labels, everyone, ring), chunk)

        total = direction(image, text) + direction(text, image)
        return total if directions == "sum" else total / 2


def group_labels(labels: Sequence[str | int | None], captions: Sequence[str]) -> Int[Tensor, " B"]:
    """Labels of pairs of both kinds: a class gives its own, a caption without class another.

    A number depends on its class or caption alone, so that batches of other devices agree without
    a word: it is the start of a SHA-256, 0 or more for classes and below 0 for captions. Captions
    that differ only in capitals and spaces are one caption. Among a
    million captions two get the same number with a probability below 10^-6.

    Args:
        labels: the class of each pair, by name or number; None where only the caption is known.
        captions: the text of each pair.

    Raises:
        InputError: not as many labels as captions.
    """
    if len(labels) != len(captions):
        raise InputError(
            f"{len(labels)} labels for {len(captions)} captions: give a label for each, None where "
            "there is no class"
        )
    numbers = [
        ~_number(" ".join(caption.split()).casefold()) if label is None else _number(str(label))
        for label, caption in zip(labels, captions, strict=True)
    ]
    return torch.tensor(numbers, dtype=torch.int64)


def _number(words: str) -> int:
    """0 to 2^63 - 1."""
    return int.from_bytes(hashlib.sha256(words.encode(errors="surrogatepass")).digest()[:8]) >> 1


class _Among(NamedTuple):
    """What queries choose among, and what belongs together."""

    rows: Tensor
    """float[C, D]: all of them, or this device's shard in a ring."""
    labels: Tensor
    """int64[B] of the queries."""
    everyone: Tensor
    """int64[all B] of all candidates, shard by shard."""
    ring: Ring | None

    def shares(self, logits: Tensor, place: Place) -> Tensor:
        """Like `logits`: 1/|P(i)| where a candidate of that block has the label of the query."""
        first = place.shard * len(self.rows) + place.start
        theirs = self.everyone[first : first + logits.shape[1]]  # [c]
        ordered = self.everyone.sort().values  # counted without the matrix of all pairs
        behind = torch.searchsorted(ordered, self.labels, right=True)  # [B]
        size = behind - torch.searchsorted(ordered, self.labels)  # [B]
        return (self.labels[:, None] == theirs).to(logits.dtype) / size[:, None]  # [B c]


def _all_labels(labels: Tensor, gather: Gather | Ring) -> Tensor:
    """Those of all devices, in the order of their ranks; 8 bytes a pair."""
    if not isinstance(gather, Ring):
        return gather(labels)
    shards = [labels]
    for _ in range(gather.size - 1):
        shards.extend(gather.pass_on((shards[-1],)))
    return torch.cat([shards[(gather.rank - rank) % gather.size] for rank in range(gather.size)])


def _choice(queries: Tensor, scale: Tensor, among: _Among, chunk: int | None) -> Tensor:
    """The mean over queries of the cross-entropy with the even choice among those alike."""
    if chunk is not None or among.ring is not None:
        return _choice_by_blocks(queries, scale, among, chunk)
    logits = scale * queries @ among.rows.T  # [B C]
    shares = among.shares(logits, Place(0, 0))
    return -(shares * F.log_softmax(logits, dim=1)).sum() / len(queries)


def _choice_by_blocks(queries: Tensor, scale: Tensor, among: _Among, chunk: int | None) -> Tensor:
    """The same in two passes: first each row's log-sum-exp, then the gradient under it."""
    with torch.no_grad():
        lse = queries.new_full((len(queries),), -torch.inf)  # [B]
        for _, block in blocks(among.rows, chunk, among.ring):
            lse = torch.logaddexp(lse, (scale * queries @ block.T).logsumexp(dim=1))

    def part(block: Tensor, place: Place, queries: Tensor, scale: Tensor) -> Tensor:
        logits = scale * queries @ block.T  # [B c]
        return (logits - lse[:, None]).exp().sum() - (among.shares(logits, place) * logits).sum()

    total = sum_over_columns(part, among.rows, (queries, scale), chunk=chunk, ring=among.ring)
    # The exponentials are there for their gradient, that of the log-sum-exp; they add up to 1 a
    # row, which gives way to the value itself.
    return total / len(queries) + (lse - 1).mean()
