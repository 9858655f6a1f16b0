"""The codec's loss beside plain numpy, and which gradients it has."""

import numpy as np
import pytest
import torch

from sightline.core.errors import ConfigError
from sightline.objectives.mask_codec import mask_codec_loss


def drawn():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 8, 8), (3, 8, 8), (3, 4, 5), (3, 4, 5))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_it_is_reconstruction_codebook_and_commitment():
    masks, decoded, features, codewords = drawn()
    found = mask_codec_loss(masks, decoded, features, codewords, commitment=0.3, codebook=0.7)
    back = ((decoded - masks).numpy() ** 2).mean(axis=(1, 2))
    apart = ((features - codewords).numpy() ** 2).mean(axis=(1, 2))
    assert np.abs(found.numpy() - (back + (0.3 + 0.7) * apart)).max() < 1e-6
    averages = mask_codec_loss(masks, decoded, features, codewords, codebook=0.0)
    assert np.abs(averages.numpy() - (back + 0.25 * apart)).max() < 1e-6


def test_features_come_to_codewords_and_codewords_to_features():
    masks, decoded, features, codewords = drawn()
    features.requires_grad_()
    codewords.requires_grad_()
    mask_codec_loss(
        masks, decoded, features, codewords, commitment=0.3, codebook=0.7
    ).sum().backward()
    pull = 2 * (features - codewords).detach() / features[0].numel()
    assert torch.allclose(features.grad, 0.3 * pull, atol=1e-6)
    assert torch.allclose(codewords.grad, -0.7 * pull, atol=1e-6)


def test_weights_below_zero_are_refused():
    with pytest.raises(
        ConfigError, match=r"commitment -1\.0 and codebook 1\.0 are weights from 0 on"
    ):
        mask_codec_loss(*drawn(), commitment=-1.0)
