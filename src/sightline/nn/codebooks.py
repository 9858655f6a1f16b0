"""Codebooks: a vector replaced by the nearest of a few, and two ways to learn these few.

Van den Oord, Vinyals and Kavukcuoglu 2017, "Neural Discrete Representation Learning"
(arXiv:1711.00937). Rounding has no gradient: what comes behind a codebook sends its own straight to
what went in (`straight_through`, section 3.2). The codewords follow what is rounded to them either
by the gradient of a loss (equation 3) or as running averages (`CodebookAverage`, appendix A.1).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sightline.nn.norms import at_least_float32


class Codebook(nn.Module):
    """V vectors of width D.

    Args:
        codewords: V.
        width: D.
    """

    def __init__(self, codewords: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(codewords, width))

    @torch.no_grad()
    def nearest(self, features: Float[Tensor, "*B D"]) -> Int[Tensor, "*B"]:
        """Index of the codeword at the smallest squared distance, the lowest of equal ones.

        At least in float32; a feature's own length is the same for all codewords and left out.
        """
        features, vectors = at_least_float32(features), at_least_float32(self.vectors)
        lengths = vectors.square().sum(dim=-1)  # [V]
        return (lengths - 2 * features @ vectors.T).argmin(dim=-1)  # [*B]

    def look_up(self, indices: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """The codewords of indices 0 to V - 1."""
        return F.embedding(indices, self.vectors)  # [*B D]


def straight_through(
    features: Float[Tensor, "*B D"], codewords: Float[Tensor, "*B D"]
) -> Float[Tensor, "*B D"]:
    """The codewords in value, the features in gradient."""
    return features + (codewords - features).detach()


class CodebookAverage(nn.Module):
    """Codewords as running means of the features that were rounded to them.

    N = d N + (1 - d) n and S = d S + (1 - d) sum of features, for each codeword; the codeword is
    S / N, with N smoothed so that no codeword divides by nothing (appendix A.1). One that is hardly
    used moves to a feature of the batch, as in Jukebox (Dhariwal et al. 2020, arXiv:2005.00341,
    section 3.2): otherwise most of a codebook dies in the first steps and stays dead. Counts begin
    at 0, so that the first update draws every unused codeword from the data.

    Args:
        codebook: what is to be learned; its vectors should not learn by gradient as well.
        decay: d, 0 to below 1.
        revive_below: a codeword moves when its N is below this share of the mean N.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, codebook: Codebook, decay: float = 0.99, revive_below: float = 0.02) -> None:
        super().__init__()
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("counts", torch.zeros(len(codebook.vectors)))
        self.register_buffer("sums", torch.zeros_like(codebook.vectors))

    @torch.no_grad()
    def update(
        self,
        codebook: Codebook,
        features: Float[Tensor, "M D"],
        indices: Int[Tensor, " M"],
        generator: torch.Generator | None = None,
    ) -> int:
        """Take in a batch and move the codewords.

        Args:
            features: what was rounded.
            indices: to which codeword.
            generator: of the features that unused codewords move to.

        Returns:
            How many codewords were moved to a feature.
        """
        features = features.to(self.sums.dtype)
        used = torch.bincount(indices, minlength=len(self.counts)).to(self.counts.dtype)  # [V]
        self.counts.lerp_(used, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add(0, indices, features), 1 - self.decay)
        total, smoothing = self.counts.sum(), 1e-5
        share = (self.counts + smoothing) / (total + len(self.counts) * smoothing)  # [V]
        means = self.sums / (share * total)[:, None]  # [V D]
        seen = self.counts[:, None] > 0  # what was never used has no mean
        codebook.vectors.copy_(torch.where(seen, means, codebook.vectors))
        dead = self.counts < self.revive_below * total / len(self.counts)  # [V]
        return self._revive(codebook, dead, features, generator)

    def _revive(
        self,
        codebook: Codebook,
        dead: Tensor,
        features: Tensor,
        generator: torch.Generator | None,
    ) -> int:
        count = int(dead.sum())
        if count:
            drawn = torch.randint(len(features), (count,), generator=generator)
            mean = self.counts.sum() / len(self.counts)
            codebook.vectors[dead] = features[drawn.to(features.device)]
            self.counts[dead] = mean  # as if it had always been used as the mean one is
            self.sums[dead] = codebook.vectors[dead] * mean
        return count
