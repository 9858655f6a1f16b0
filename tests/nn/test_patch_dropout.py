"""In training some patches stay away; in evaluation nothing changes."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sightline.core.errors import ConfigError
from sightline.models.table import system
from sightline.nn.patch_dropout import PatchDropout


def dropout(share, prefix=0):
    layer = PatchDropout(prefix=prefix)
    layer.leave_out(share)
    return layer


def numbered(batch=3, tokens=12):
    """Token i of every sequence holds i."""
    return torch.arange(tokens).float().expand(batch, -1)[..., None].repeat(1, 1, 2)


@pytest.mark.parametrize(("share", "kept"), [(0.25, 9), (0.5, 6), (0.75, 3), (0.99, 1)])
def test_the_rest_stays_in_its_order(share, kept):
    out = dropout(share)(numbered())[..., 0]
    assert out.shape == (3, kept)
    assert (out.diff(dim=1) > 0).all(), "no patch twice, none out of order"


def test_the_class_token_always_stays():
    layer = dropout(0.75, prefix=1)
    out = torch.stack([layer(numbered(tokens=13))[..., 0] for _ in range(20)])
    assert out.shape[-1] == 1 + 3
    assert (out[..., 0] == 0).all() and (out[..., 1:] > 0).all()


def test_each_picture_draws_its_own_and_a_seed_draws_the_same():
    layer, tokens = dropout(0.5), numbered(batch=8, tokens=32)
    torch.manual_seed(0)
    first = layer(tokens)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, layer(tokens))
    torch.manual_seed(0)
    assert torch.equal(first, layer(tokens))


def test_every_patch_is_as_likely_as_the_next():
    drawn = dropout(0.75)(numbered(batch=4000, tokens=12))[..., 0].long()
    counts = drawn.flatten().bincount(minlength=12) / 4000
    assert (counts - 0.25).abs().max() < 0.04  # six standard deviations


def test_evaluation_and_a_share_of_nothing_change_nothing():
    tokens = numbered()
    assert dropout(0.5).eval()(tokens) is tokens
    assert dropout(0.0)(tokens) is tokens
    assert PatchDropout()(tokens) is tokens


def test_gradients_reach_the_patches_that_stayed_and_no_others():
    tokens = numbered().requires_grad_()
    out = dropout(0.5)(tokens)
    out.sum().backward()
    assert int(tokens.grad[..., 0].sum()) == out.shape[0] * out.shape[1]
    for sequence in range(3):
        stayed = tokens.grad[sequence, :, 0].nonzero().flatten()
        assert stayed.tolist() == out[sequence, :, 0].long().tolist()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ConfigError, match="leave out a share from 0 up to below 1"):
        PatchDropout().leave_out(share)


@pytest.mark.parametrize("name", ["clip", "siglip", "vit"])
class TestTowers:
    def tower(self, name):
        """64 patches, so that their share is most of the cost."""
        entry = system(name)
        torch.manual_seed(0)
        if name == "vit":
            return entry.build(replace(entry.tiny, image_size=(96, 96))).train()
        image = replace(entry.tiny.image, image_size=(64, 64))
        return entry.build(replace(entry.tiny, image=image)).train().image

    def side(self, name):
        return 96 if name == "vit" else 64

    def pixels(self, name):
        generator = torch.Generator().manual_seed(1)
        return torch.randn(2, 3, self.side(name), self.side(name), generator=generator)

    def test_tokens_fall_in_training_alone(self, name):
        tower, pixels = self.tower(name), self.pixels(name)
        whole = tower(pixels)
        tower.patch_dropout.leave_out(0.75)
        prefix = 0 if name == "siglip" else 1
        short = tower(pixels)
        assert short.tokens.shape[1] == prefix + 16
        assert short.pooled.shape == whole.pooled.shape
        assert not torch.allclose(short.pooled, whole.pooled)
        assert torch.equal(tower.eval()(pixels).pooled, whole.pooled)

    def test_the_cost_falls_with_the_patches(self, name):
        tower, pixels = self.tower(name), self.pixels(name)
        costs = []
        for share in (0.0, 0.5):
            tower.patch_dropout.leave_out(share)
            with FlopCounterMode(display=False) as counter:
                tower(pixels).pooled.sum().backward()
            costs.append(counter.get_total_flops())
        assert costs[1] < 0.7 * costs[0]

    def test_a_checkpoint_says_nothing_of_it(self, name):
        assert not [key for key in self.tower(name).state_dict() if "dropout" in key]
