import pytest
import torch

from sightline.training.schedules import rate_factor


def test_warm_up_rises_in_equal_steps_to_the_full_rate():
    assert [rate_factor(i, 10, warmup=4) for i in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_first_step_after_warm_up_has_the_full_rate():
    assert rate_factor(4, 10, warmup=4) == 1.0


def test_cosine_by_hand():
    # half way the cosine stands at the mean of 1 and the final fraction
    assert rate_factor(50, 100, schedule="cosine", final=0.0) == pytest.approx(0.5)
    assert rate_factor(50, 100, schedule="cosine", final=0.2) == pytest.approx(0.6)
    assert rate_factor(100, 100, schedule="cosine", final=0.2) == pytest.approx(0.2)


def test_linear_by_hand():
    assert rate_factor(6, 10, warmup=2, schedule="linear") == pytest.approx(0.5)
    assert rate_factor(6, 10, warmup=2, schedule="linear", final=0.5) == pytest.approx(0.75)


def test_constant_stays():
    assert {rate_factor(i, 10, schedule="constant") for i in range(10)} == {1.0}


def test_stage_of_warm_up_only():
    assert [rate_factor(i, 2, warmup=2) for i in range(3)] == [0.5, 1.0, 1.0]


def test_cosine_agrees_with_torch():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=37, eta_min=0.1)
    for step in range(37):
        assert rate_factor(step, 37, final=0.1) == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        reference.step()
