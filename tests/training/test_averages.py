import torch
from torch import nn

from sightline.training.averages import WeightAverage
from tests.training.small_run import network


def test_formula_by_hand():
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    average = WeightAverage(net, 0.5)
    by_hand = 1.0
    for step, value in enumerate([2.0, -1.0, 4.0, 0.5, 3.0] * 4):
        nn.init.constant_(net.weight, value)
        average.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * value
    assert abs(average.shadow["weight"].item() - by_hand) < 1e-6


def test_weight_that_never_changes_keeps_its_bits():
    net = network()
    average = WeightAverage(net, 0.999)
    for step in range(50):
        average.update(net, step)
    for name, parameter in net.named_parameters():
        assert torch.equal(average.shadow[name], parameter)


def test_applied_gives_the_own_weights_back_bit_for_bit():
    net = network()
    average = WeightAverage(net, 0.9)
    own = {n: p.detach().clone() for n, p in net.named_parameters()}
    for shadow in average.shadow.values():
        shadow.add_(1.0)
    with average.applied(net):
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, average.shadow[name])
        assert net.again.weight is net.mix.weight
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, own[name])


def test_half_precision_weights_are_averaged_in_float32():
    net = nn.Linear(2, 2).to(torch.bfloat16)
    average = WeightAverage(net, 0.9)
    average.update(net, 0)
    assert average.shadow["weight"].dtype == torch.float32
    with average.applied(net):
        assert net.weight.dtype == torch.bfloat16
