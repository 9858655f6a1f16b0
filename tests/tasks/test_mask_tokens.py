"""Masks in pictures to tokens and back, with a network and with one that is no codec at all."""

import numpy as np
import pytest
import torch

from sightline.core.errors import InputError
from sightline.core.interfaces import MaskCodec
from sightline.data.boxed_masks import park_masks
from sightline.models.mask_codec import SYSTEM, TINY
from sightline.tasks.mask_tokens import mask_tokens, token_masks
from tests.hub.tiny import randomise


class Sixteenths(torch.nn.Module):
    """A codec by hand: each of 4 x 4 places says whether most of it is inside."""

    mask_size = 64

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def encode(self, masks):
        return (torch.nn.functional.avg_pool2d(masks[:, None], 16) > 0).long().flatten(1)

    def decode(self, indices):
        places = 2.0 * indices.unflatten(1, (4, 4)).float() - 1
        return self.scale * places.repeat_interleave(16, 1).repeat_interleave(16, 2)


def test_each_mask_is_seen_in_its_box_and_comes_back_there():
    mask = np.zeros((40, 60), np.bool_)
    mask[8:16, 20:28] = mask[16:24, 28:36] = True  # two of four quarters
    box = (20.0, 8.0, 36.0, 24.0)
    tokens = mask_tokens(Sixteenths(), [mask], [box])
    assert tokens.tolist() == [[1, 1, 0, 0] * 2 + [0, 0, 1, 1] * 2]
    (back,) = token_masks(Sixteenths(), tokens, [box], [mask.shape])
    assert np.array_equal(back, mask)
    moved = token_masks(Sixteenths(), tokens, [(0.0, 0.0, 16.0, 16.0)], [(16, 16)])[0]
    assert np.array_equal(moved, mask[8:24, 20:36])


def test_a_network_is_asked_in_evaluation_mode_and_left_as_it_was():
    codec = randomise(SYSTEM.build(TINY)).train()
    assert isinstance(codec, MaskCodec)
    objects = [o for seed in range(4) for o in park_masks(seed)]
    masks, boxes = [o.mask for o in objects], [o.box for o in objects]
    tokens = mask_tokens(codec, masks, boxes)
    assert (tokens.shape, tokens.dtype) == ((len(objects), TINY.tokens), torch.int64)
    assert codec.training
    alone = mask_tokens(codec, masks[2:3], boxes[2:3])
    assert torch.equal(alone[0], tokens[2])
    found = token_masks(codec, tokens, boxes, [m.shape for m in masks])
    assert [m.shape for m in found] == [m.shape for m in masks]


def test_no_masks_are_no_tokens():
    codec = SYSTEM.build(TINY)
    tokens = mask_tokens(codec, [], [])
    assert tokens.shape == (0, TINY.tokens)
    assert token_masks(codec, tokens, [], []) == []


def test_a_box_that_is_no_part_of_the_picture_is_refused():
    with pytest.raises(InputError, match="no part of a picture of 60 x 40"):
        mask_tokens(Sixteenths(), [np.ones((40, 60), np.bool_)], [(0.0, 0.0, 61.0, 40.0)])
