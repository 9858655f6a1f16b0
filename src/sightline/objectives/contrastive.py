"""Contrastive losses over pairs of a picture and a sentence.

Both take unit vectors and what turns a cosine into a logit, and compute in float32 at least,
whatever autocast says. Across devices, `gather` is a function that brings the other devices' rows
behind and before one's own, with gradient, and `first_row` says where one's own begin; or it is a
`Ring`, which lets them come by one shard at a time and knows its own place. Averaged over the
devices, the gradient is that of one process with the whole batch.

`chunk` bounds the memory: so many columns of the matrix of all pairs exist at once, forward and
backward, and the loss and its gradients are the same.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.core.errors import ConfigError
from sightline.nn.norms import at_least_float32
from sightline.nn.precision import without_autocast
from sightline.objectives.blockwise import Place, blocks, check_chunk, sum_over_columns
from sightline.objectives.exchange import Gather as Gather
from sightline.objectives.exchange import Ring
from sightline.objectives.exchange import alone as alone

Negatives = Float[Tensor, "E D"] | Float[Tensor, "B K D"]
"""Sentences that are true of no picture: a pool of E for all, or K of each picture's own."""


def softmax_contrastive(
    image_embeddings: Float[Tensor, "B D"],
    text_embeddings: Float[Tensor, "B D"],
    scale: Float[Tensor, ""],
    *,
    label_smoothing: float = 0.0,
    negatives: Negatives | None = None,
    chunk: int | None = None,
    gather: Gather | Ring = alone,
    first_row: int = 0,
) -> Float[Tensor, ""]:
    """CLIP's loss: each picture picks its sentence among all, each sentence its picture.

    The mean of the two cross-entropies (Radford et al. 2021, arXiv:2103.00020, figure 3).
    Identical embeddings everywhere give ln B.

    Args:
        label_smoothing: this share of the target is spread evenly over the pairs of the batch
            (Szegedy et al. 2016, arXiv:1512.00567, section 7).
        negatives: further sentences that pictures must not pick, such as captions with two words
            exchanged (NegCLIP, Yuksekgonul et al. 2023, arXiv:2210.01936, section 4). No target
            is ever on them, not even a smoothed one, and they pick no picture themselves. A pool
            float[E, D] stands against the pictures of all devices; float[B, K, D] are K sentences
            of each picture's own, which no other picture sees.

    Raises:
        ConfigError: a share outside 0 to 1, or a chunk below 1.
    """
    check_chunk(chunk)
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label smoothing {label_smoothing}: use a share from 0 up to below 1")
    with without_autocast(image_embeddings.device):
        image, text = at_least_float32(image_embeddings), at_least_float32(text_embeddings)
        pool, own = _two_kinds(negatives)
        sentences = _candidates(text, pool, gather, first_row)
        extra = None if own is None else scale * torch.einsum("bd,bkd->bk", image, own)  # [B K]
        pictures = _candidates(image, None, gather, first_row)
        picked = _choice(image, scale, sentences, label_smoothing, chunk, extra)
        return (picked + _choice(text, scale, pictures, label_smoothing, chunk)) / 2


def sigmoid_contrastive(
    image_embeddings: Float[Tensor, "B D"],
    text_embeddings: Float[Tensor, "B D"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    matches: Bool[Tensor, "B all"] | None = None,
    negatives: Negatives | None = None,
    chunk: int | None = None,
    gather: Gather | Ring = alone,
    first_row: int = 0,
) -> Float[Tensor, ""]:
    """SigLIP's loss: every pair of the batch is a yes-or-no question of its own.

    -1/B sum_i sum_j log sigmoid(z_ij (scale x_i.y_j + bias)), z = 1 for a true pair, else -1
    (Zhai et al. 2023, arXiv:2303.15343, section 3.2): summed over sentences, then the mean over
    pictures. The sign stands inside the sigmoid, once. A commonly printed form repeats it outside
    with the opposite sense, pushes every logit up and does not learn.

    Args:
        matches: which sentence is true of which picture, where that is known; by default each
            picture's own alone, as in the paper.
        negatives: further sentences, each a question with the answer no: a pool float[E, D] for
            the pictures of all devices, or float[B, K, D] for each picture its own.

    Raises:
        ConfigError: a chunk below 1.
    """
    check_chunk(chunk)
    with without_autocast(image_embeddings.device):
        image, text = at_least_float32(image_embeddings), at_least_float32(text_embeddings)
        sentences = _candidates(text, None, gather, first_row)

        def judged(
            block: Tensor, place: Place, image: Tensor, scale: Tensor, bias: Tensor
        ) -> Tensor:
            logits = image @ (scale * block).T + bias  # [B c]
            first = place.shard * sentences.batch + place.start
            if matches is None:
                true = sentences.own_pairs(logits, first)
            else:
                true = matches[:, first : first + len(block)]
            return -F.logsigmoid(torch.where(true, logits, -logits)).sum()

        known = (image, scale, bias)
        total = sum_over_columns(judged, sentences.rows, known, chunk=chunk, ring=sentences.ring)
        pool, own = _two_kinds(negatives)
        if pool is not None:
            wrong = _candidates(pool, None, gather, 0)
            total = total + sum_over_columns(
                _denied, wrong.rows, known, chunk=chunk, ring=wrong.ring
            )
        if own is not None:
            logits = scale * torch.einsum("bd,bkd->bk", image, own) + bias  # [B K]
            total = total - F.logsigmoid(-logits).sum()
        return total / len(image)


def _denied(block: Tensor, place: Place, image: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return -F.logsigmoid(-(image @ (scale * block).T + bias)).sum()


class _Candidates(NamedTuple):
    """What rows choose among: the batch's own kind first, then what is never right."""

    rows: Tensor
    """float[C, D]: all of them, or this device's shard in a ring."""
    batch: int
    """How many of `rows`, from the first on, belong to pairs."""
    pairs: int
    """Pairs of all devices."""
    first_row: int
    """Which of all pairs is this device's first."""
    ring: Ring | None

    def own_pairs(self, logits: Tensor, first: int) -> Tensor:
        """bool like `logits`: the pairs that belong together, where column 0 is pair `first`."""
        rows = torch.arange(logits.shape[0], device=logits.device) + self.first_row  # [B]
        columns = torch.arange(logits.shape[1], device=logits.device) + first  # [c]
        return rows[:, None] == columns


def _candidates(
    rows: Tensor, pool: Tensor | None, gather: Gather | Ring, first_row: int
) -> _Candidates:
    ring = gather if isinstance(gather, Ring) else None
    bring: Gather = alone if isinstance(gather, Ring) else gather
    present = bring(rows)
    batch = len(present)
    if pool is not None:
        present = torch.cat([present, bring(at_least_float32(pool))])
    if ring is None:
        return _Candidates(present, batch, batch, first_row, None)
    return _Candidates(present, batch, batch * ring.size, batch * ring.rank, ring)


def _two_kinds(negatives: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The pool for all pictures, and the sentences of each picture's own."""
    if negatives is None:
        return None, None
    wide = at_least_float32(negatives)
    return (wide, None) if wide.ndim == 2 else (None, wide)


def _choice(
    queries: Tensor,
    scale: Tensor,
    among: _Candidates,
    smoothing: float,
    chunk: int | None,
    extra: Tensor | None = None,
) -> Tensor:
    """The mean cross-entropy of each query's choice; `extra` logits are its own wrong ones."""
    if chunk is not None or among.ring is not None:
        return _choice_by_blocks(queries, scale, among, smoothing, chunk, extra)
    logits = queries @ (scale * among.rows).T  # [B C]
    targets = torch.arange(len(queries), device=queries.device) + among.first_row  # [B]
    if extra is not None:
        logits = torch.cat([logits, extra], dim=1)  # [B C+K]
    log_p = F.log_softmax(logits, dim=1)
    right = F.nll_loss(log_p, targets)
    if not smoothing:
        return right
    return (1 - smoothing) * right - smoothing * log_p[:, : among.pairs].mean()


def _choice_by_blocks(
    queries: Tensor,
    scale: Tensor,
    among: _Candidates,
    smoothing: float,
    chunk: int | None,
    extra: Tensor | None,
) -> Tensor:
    """The same in two passes: first each row's log-sum-exp, then the gradient under it."""
    lse = _log_sum_exp(queries, scale, among, chunk, extra)[:, None]  # [B 1]

    def part(block: Tensor, place: Place, queries: Tensor, scale: Tensor) -> Tensor:
        logits = queries @ (scale * block).T  # [B c]
        paired = logits[:, : max(0, among.batch - place.start)]  # before the pool begins
        own = among.own_pairs(paired, place.shard * among.batch + place.start)
        reward = (1 - smoothing) * torch.where(own, paired, 0).sum()
        if smoothing:
            reward = reward + smoothing / among.pairs * paired.sum()
        return (logits - lse).exp().sum() - reward

    total = sum_over_columns(part, among.rows, (queries, scale), chunk=chunk, ring=among.ring)
    if extra is not None:
        total = total + (extra - lse).exp().sum()
    # The exponentials are there for their gradient, that of the log-sum-exp; they add up to 1 a
    # row, which gives way to the value itself.
    return total / len(queries) + (lse - 1).mean()


@torch.no_grad()
def _log_sum_exp(
    queries: Tensor, scale: Tensor, among: _Candidates, chunk: int | None, extra: Tensor | None
) -> Tensor:
    """float[B]: of each query's logits over all candidates, without gradient."""
    total = queries.new_full((len(queries),), -torch.inf)
    if extra is not None:
        total = extra.logsumexp(dim=1)
    for _, block in blocks(among.rows, chunk, among.ring):
        total = torch.logaddexp(total, (queries @ (scale * block).T).logsumexp(dim=1))
    return total
