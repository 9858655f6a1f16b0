"""What a unit sees: found by spoiled pixels, against the recurrence of the literature."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sightline.models import clip_resnet, resnet
from sightline.nn.receptive_field import receptive_fields


def recurrence(windows):
    """Araujo et al. 2019: size, stride and first pixel of unit 0 behind (kernel, stride, pad)s."""
    size, stride, first = 1, 1, 0
    for kernel, step, padding in windows:
        first -= padding * stride
        size += (kernel - 1) * stride
        stride *= step
    return stride, first, first + size


@pytest.mark.parametrize(
    "windows",
    [[(3, 1, 1)] * 4, [(7, 2, 3), (3, 2, 1), (3, 1, 1)], [(4, 2, 1), (2, 2, 0), (5, 1, 2)]],
    ids=["stacked", "resnet's beginning", "even"],
)
def test_convolutions_by_the_recurrence(windows):
    layers = nn.Sequential(*(nn.Conv2d(3, 3, k, s, p) for k, s, p in windows)).eval()
    fields = receptive_fields(lambda x: [layers(x)], (96, 100))
    stride, low, high = recurrence(windows)
    for reach in fields[0]:
        assert (reach.stride, reach.low, reach.high, reach.whole) == (stride, low, high, False)


def test_stacked_3x3_see_2l_plus_1():
    layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))

    def maps(x):
        found = [x]
        for layer in layers:
            found.append(layer(found[-1]).relu())
        return found[1:]

    assert [f.rows.size for f in receptive_fields(maps, (64, 64))] == [3, 5, 7, 9, 11]


def test_a_field_that_just_fits_is_not_taken_for_the_whole_picture():
    """61 of 96 pixels: the probes stand in the middle, where both ends are inside."""
    layer = nn.Conv2d(1, 1, (1, 61), padding=(0, 30))
    (field,) = receptive_fields(lambda x: [layer(x)], (96, 96), channels=1)
    assert field.columns == (1, -30, 31, False)


def test_a_larger_picture_holds_a_larger_field():
    """101 pixels fit into 160, though not into the least that is looked at, 96."""
    layer = nn.Conv2d(1, 1, (1, 101), padding=(0, 50))
    (field,) = receptive_fields(lambda x: [layer(x)], (96, 160), channels=1)
    assert field.columns == (1, -50, 51, False)


def test_rows_and_columns_on_their_own():
    layer = nn.Conv2d(3, 2, (3, 7), stride=(1, 2), padding=(1, 3))
    (field,) = receptive_fields(lambda x: [layer(x)], (64, 128))
    assert field.rows == (1, -1, 2, False) and field.columns == (2, -3, 4, False)


def test_a_gradient_reaches_exactly_as_far():
    network = resnet.ResNet(resnet.TINY).double().eval()
    pixels = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    (field, *_) = receptive_fields(network.float().stages, (160, 160))
    answer = network.double().stages(pixels)[0][0, :, 20, 21].sum()
    (gradient,) = torch.autograd.grad(answer, pixels)
    seen = gradient.abs().sum(dim=(0, 1)).nonzero()
    (top, bottom), (left, right) = field.rows.span(20, 160), field.columns.span(21, 160)
    assert top <= int(seen[:, 0].min()) and int(seen[:, 0].max()) < bottom
    assert left <= int(seen[:, 1].min()) and int(seen[:, 1].max()) < right


def test_resnets_by_the_recurrence():
    start = [(7, 2, 3), (3, 2, 1)]
    network = resnet.ResNet(resnet.TINY).eval()  # bottlenecks: 2, 1 and 3
    first = [*start, (3, 1, 1), (3, 1, 1)]
    second = [*first, (3, 2, 1)]
    fields = receptive_fields(network.stages, (256, 256))
    assert [tuple(f.columns)[:3] for f in fields[:2]] == [recurrence(first), recurrence(second)]
    tower = clip_resnet.ImageTower(clip_resnet.TINY.image).eval()
    (field, *_) = receptive_fields(tower.stages, (96, 96))
    stem = [(3, 2, 1), (3, 1, 1), (3, 1, 1), (2, 2, 0)]
    depth = clip_resnet.TINY.image.depths[0]
    assert tuple(field.rows)[:3] == recurrence([*stem, *[(3, 1, 1)] * depth])


def test_a_field_beyond_the_picture_is_the_whole_picture():
    network = resnet.ResNet(resnet.TINY).eval()
    last = receptive_fields(network.stages, (96, 96))[-1]
    assert last.whole and last.rows.span(0, 96) == (0, 96)
