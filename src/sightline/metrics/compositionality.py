"""Whether a model tells a true sentence from a false one of nearly the same words.

Two tasks. *Choices*: one picture, one true sentence, one or more false ones (SugarCrepe, Hsieh et
al. 2023; ARO, Yuksekgonul et al. 2023; VL-CheckList, Zhao et al. 2022). *Quadruples*: two pictures
and two sentences, each true of its own picture only (Winoground, Thrush et al. 2022).

Every comparison is strict: a tie is wrong, so that a model that gives one score to everything gets
0 and not, as with an argmax, whatever the order of the sentences happens to give. A sample with a
score that is not finite is wrong as a whole.

Letters: N samples, A false sentences, C classes, J columns that are averaged side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.core.errors import InputError


class Quadruples(NamedTuple):
    """Which quadruples a model gets right."""

    text: Bool[Tensor, " N"]
    """For each picture its own sentence scores higher than the other."""
    image: Bool[Tensor, " N"]
    """For each sentence its own picture scores higher than the other."""
    group: Bool[Tensor, " N"]
    """Both."""


def quadruples(scores: Float[Tensor, "N 2 2"]) -> Quadruples:
    """Winoground's three scores (Thrush et al. 2022, equations 1 to 3).

    The names are often swapped: the text score chooses a sentence for a given picture, the image
    score a picture for a given sentence. Random scores get 1/4, 1/4 and 1/6.

    Args:
        scores: of sentence c with picture i at [n, c, i]; the pairs that belong together are
            [n, 0, 0] and [n, 1, 1].

    Raises:
        InputError: another shape.
    """
    if scores.ndim != 3 or scores.shape[1:] != (2, 2):
        raise InputError(f"scores are {list(scores.shape)}: they must be [samples, 2, 2]")
    first, second = scores[:, 0, 0], scores[:, 1, 1]
    # [n, 1, 0] is sentence 1 with picture 0, [n, 0, 1] sentence 0 with picture 1
    finite = torch.isfinite(scores).all(dim=2).all(dim=1)
    text = (first > scores[:, 1, 0]) & (second > scores[:, 0, 1]) & finite
    image = (first > scores[:, 0, 1]) & (second > scores[:, 1, 0]) & finite
    return Quadruples(text, image, text & image)


def choices(
    true: Float[Tensor, " N"],
    false: Float[Tensor, "N A"],
    present: Bool[Tensor, "N A"] | None = None,
) -> Bool[Tensor, " N"]:
    """Where the true sentence scores above every false one.

    Args:
        true: scores of the true sentences.
        false: scores of the false ones.
        present: which of them there are, where samples have different numbers; by default all.

    Raises:
        InputError: shapes that do not fit, or a sample without a false sentence.
    """
    present = torch.ones_like(false, dtype=torch.bool) if present is None else present
    if false.ndim != 2 or len(true) != len(false) or present.shape != false.shape:
        raise InputError(
            f"true scores are {list(true.shape)}, false ones {list(false.shape)} and present "
            f"{list(present.shape)}: they must be [samples], [samples, false sentences] and the "
            "same again"
        )
    if not present.any(dim=1).all():
        raise InputError("a sample has no false sentence: leave it out, there is nothing to choose")
    won = ((true[:, None] > false) & torch.isfinite(false)) | ~present  # [N A]
    return won.all(dim=1) & torch.isfinite(true)


def mean_of_classes(
    right: Float[Tensor, "N J"], classes: Int[Tensor, " N"], count: int
) -> Float[Tensor, " J"]:
    """The mean over classes of the mean within each; classes without a sample are left out.

    Args:
        right: 1 where a sample is right, one column for each scorer.
        classes: the class of each sample, 0 to `count` - 1.
        count: of the classes.

    Returns:
        float64; NaN for no sample.

    Raises:
        InputError: a class outside that range.
    """
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < count:
        raise InputError(
            f"classes are {int(classes.min())} .. {int(classes.max())}: they must lie in "
            f"0 .. {count - 1}"
        )
    sums = right.new_zeros((count, right.shape[1]), dtype=torch.float64)
    sums.index_add_(0, classes, right.double())
    return (sums / classes.bincount(minlength=count)[:, None]).nanmean(dim=0)
