import pytest
import torch
from torch import nn

from sightline.core.errors import ConfigError
from sightline.core.patterns import fits
from sightline.training.optimisers import build_optimiser, set_rate
from sightline.training.stages import begin_stage, restored_flags
from tests.training.small_run import Group, Net, Stage, network


def begin(net: nn.Module, stage: Stage) -> list[str]:
    return begin_stage(net, stage, frozenset())


def test_last_fitting_pattern_decides():
    assert fits("vision.a", ("*",))
    assert not fits("vision.a", ("*", "!vision.*"))
    assert fits("vision.a", ("*", "!vision.*", "vision.a"))
    assert not fits("text.a", ("vision.*",))


def test_only_the_named_parameters_learn():
    net = network()
    learning = begin(net, Stage("s", 1, trainable=("head.*", "scale")))
    assert learning == ["scale", "head.weight", "head.bias"]
    assert [n for n, p in net.named_parameters() if p.requires_grad] == learning


def test_modules_of_which_nothing_learns_are_in_eval_mode():
    net = network()
    begin(net, Stage("s", 1, trainable=("*", "!tower.*")))
    assert [m.training for m in net.tower] == [False] * 4  # dropout has no parameter of its own
    assert net.training and net.head.training
    begin(net, Stage("s", 1, trainable=("*", "!tower.1.*")))
    assert [m.training for m in net.tower] == [True, False, True, True]


def test_pattern_that_fits_nothing_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"no parameter fits the pattern 'haed\.\*'.*head"):
        begin(network(), Stage("s", 1, trainable=("haed.*",)))
    stage = Stage("s", 1, trainable=("head.*",), groups=(Group(("tower.*",), 0.1),))
    net = network()
    with pytest.raises(ConfigError, match="group 0: no parameter fits the pattern 'tower"):
        build_optimiser(net, stage, begin(net, stage))


def test_stage_in_which_nothing_learns_is_refused():
    with pytest.raises(ConfigError, match="nothing learns; every parameter"):
        begin_stage(network(), Stage("s", 1, trainable=("scale",)), frozenset({"scale"}))
    with pytest.raises(ConfigError, match="nothing learns"):
        begin(network(), Stage("s", 1, trainable=("*", "!*")))


def test_half_precision_parameters_that_learn_are_refused():
    net = network().to(torch.bfloat16)
    with pytest.raises(ConfigError, match=r"torch\.bfloat16.*load the network in float32"):
        begin(net, Stage("s", 1))


def test_parameters_that_arrive_frozen_stay_frozen():
    net = network()
    learning = begin_stage(net, Stage("s", 1), frozenset({"mix.weight"}))
    assert "mix.weight" not in learning and not net.mix.weight.requires_grad


def test_flags_and_mode_are_restored():
    net = network().eval()
    net.scale.requires_grad_(False)
    with restored_flags(net):
        begin(net, Stage("s", 1, trainable=("head.*",)))
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["scale"]
    assert not net.training and not net.head.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean 'cosine'"),
        ({"steps": 0}, "0 steps"),
        ({"warmup": 11}, "warm-up that is no longer than the stage"),
        ({"lr": -1.0}, "must not be negative"),
        ({"lr": float("nan")}, "must not be negative"),
        ({"final_lr": 2.0}, "a fraction from 0 to 1"),
        ({"clip": 0.0}, "clip 0.0 must be above 0"),
    ],
)
def test_wrong_stage_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Stage(**({"name": "s", "steps": 10} | settings))


def members(net: Net, stage: Stage) -> dict[str, tuple[float, float]]:
    optimiser = build_optimiser(net, stage, begin(net, stage))
    set_rate(optimiser, stage, 0)
    return {
        name: (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for name in group["names"]
    }


def test_groups_have_their_own_rate_and_decay():
    groups = (Group(("tower.0.*",), 0.1), Group(("tower.*", "mix.*"), 0.5, weight_decay=0.3))
    stage = Stage("s", 10, lr=0.2, groups=groups, weight_decay=0.1, schedule="constant")
    rates = members(network(), stage)
    assert rates["tower.0.weight"] == pytest.approx((0.02, 0.1))  # the first group that fits
    assert rates["mix.weight"] == pytest.approx((0.1, 0.3))
    assert rates["head.weight"] == pytest.approx((0.2, 0.1))
    assert set(rates) == {name for name, _ in network().named_parameters()}


def test_biases_norms_and_scales_do_not_decay():
    rates = members(network(), Stage("s", 1, weight_decay=0.1))
    no_decay = {name for name, (_, decay) in rates.items() if decay == 0}
    assert no_decay == {
        "scale", "tower.0.bias", "tower.1.weight", "tower.1.bias",
        "mix.bias", "again.bias", "head.bias",
    }  # fmt: skip


def test_names_keep_matrices_from_decaying():
    rates = members(network(), Stage("s", 1, weight_decay=0.1, no_decay=("mix.*",)))
    assert rates["mix.weight"][1] == 0 and rates["head.weight"][1] == 0.1


def test_update_is_that_of_adamw_by_hand():
    """Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2, in float64."""
    net = nn.Linear(3, 2, bias=False).double()
    stage = Stage("s", 5, lr=0.1, weight_decay=0.2, betas=(0.8, 0.95), schedule="constant")
    optimiser = build_optimiser(net, stage, begin(net, stage))
    weight, m, v = net.weight.detach().clone(), 0.0, 0.0
    generator = torch.Generator().manual_seed(1)
    for t in range(1, 4):
        gradient = torch.randn(2, 3, dtype=torch.float64, generator=generator)
        net.weight.grad = gradient.clone()
        set_rate(optimiser, stage, t - 1)
        optimiser.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        update = (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
        weight = weight - 0.1 * (update + 0.2 * weight)
        torch.testing.assert_close(net.weight.detach(), weight, rtol=0, atol=1e-12)
