"""CLIPScore from embeddings, against its formula."""

import math

import numpy as np
import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.clipscore import clip_score, clip_similarity, reference_clip_score


def unit(count: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def test_scores_are_the_formula_also_where_the_cosine_is_negative() -> None:
    images, captions = unit(40, 0), unit(40, 1)
    cosines = np.einsum("ij,ij->i", images.double().numpy(), captions.double().numpy())
    assert (cosines < 0).any() and (cosines > 0).any()
    found = clip_score(images, captions)
    assert found.scores == pytest.approx(2.5 * np.maximum(cosines, 0), abs=1e-12)
    assert found.value == pytest.approx(2.5 * np.maximum(cosines, 0).mean(), abs=1e-12)
    assert clip_similarity(images, captions).scores == pytest.approx(100 * cosines, abs=1e-10)
    # the mistake to plant: the mean is cut off at 0 instead of the samples
    assert found.value != pytest.approx(2.5 * max(cosines.mean(), 0), abs=1e-3)


def test_references_enter_by_the_harmonic_mean_of_the_nearest() -> None:
    images, captions, references = unit(20, 2), unit(20, 3), unit(60, 4)
    owners = torch.arange(20).repeat(3)
    found = reference_clip_score(images, captions, references, owners)
    for n in range(20):
        seen = 2.5 * max(float(images[n].double() @ captions[n].double()), 0)
        own = references[owners == n].double() @ captions[n].double()
        said = max(float(own.max()), 0)
        expected = 2 * seen * said / (seen + said) if seen + said else 0
        assert found.scores[n] == pytest.approx(expected, abs=1e-12)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    again = reference_clip_score(images, captions, references[order], owners[order])
    assert again.scores == pytest.approx(found.scores, abs=1e-12)


def test_the_highest_scores_and_broken_embeddings() -> None:
    images = unit(5, 5)
    assert clip_score(images, images).value == pytest.approx(2.5, abs=1e-6)
    best = reference_clip_score(images, images, images, torch.arange(5)).value
    assert best == pytest.approx(2 * 2.5 / 3.5, abs=1e-6)
    broken = images.clone()
    broken[2] = math.nan
    assert clip_score(images, broken).scores[2] == 0
    assert reference_clip_score(images, broken, images, torch.arange(5)).scores[2] == 0
    assert math.isnan(clip_similarity(images, broken).value)
    assert math.isnan(clip_score(images[:0], images[:0]).value)


def test_bad_input_is_told() -> None:
    images = unit(3, 6)
    with pytest.raises(InputError, match=r"embeddings are \[3, 6\] and \[2, 6\]"):
        clip_score(images, images[:2])
    with pytest.raises(InputError, match="2 references for 3 owners"):
        reference_clip_score(images, images, images[:2], torch.arange(3))
    with pytest.raises(InputError, match="owners must name each of the 3 captions"):
        reference_clip_score(images, images, images, torch.tensor([0, 0, 1]))
