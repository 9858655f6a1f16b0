"""The loss of the next token, against torch's own cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.objectives.language import next_token

COUNTED = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])


def inputs() -> tuple[Tensor, Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 11, (2, 5), generator=generator)
    head = nn.Linear(6, 11, dtype=torch.float64)
    nn.init.normal_(head.weight, generator=generator)
    return hidden.requires_grad_(), targets, head


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(
    "settings", [{}, {"chunk": 2}, {"multiple": 4}, {"chunk": 3, "multiple": 5}]
)
def test_the_sum_over_what_counts(smoothing: float, settings: dict[str, int]) -> None:
    hidden, targets, head = inputs()
    loss, tokens = next_token(hidden, targets, COUNTED, head, label_smoothing=smoothing, **settings)
    expected = F.cross_entropy(
        head(hidden)[COUNTED], targets[COUNTED], reduction="sum", label_smoothing=smoothing
    )
    assert tokens == 7
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, [hidden, head.weight])
    for own, theirs in zip(
        gradients, torch.autograd.grad(expected, [hidden, head.weight]), strict=True
    ):
        torch.testing.assert_close(own, theirs)
    assert not gradients[0][~COUNTED].any()


def test_other_targets_where_nothing_counts_change_nothing() -> None:
    hidden, targets, head = inputs()
    other = torch.where(COUNTED, targets, (targets + 1) % 11)
    assert torch.equal(
        next_token(hidden, targets, COUNTED, head)[0], next_token(hidden, other, COUNTED, head)[0]
    )


def test_nothing_counts() -> None:
    hidden, targets, head = inputs()
    loss, tokens = next_token(hidden, targets, torch.zeros_like(COUNTED), head)
    assert loss == 0 and tokens == 0


def test_it_never_computes_below_float32() -> None:
    hidden, targets, head = inputs()
    low, head = hidden.detach().bfloat16(), head.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = next_token(low, targets, COUNTED, head)
    assert loss.dtype == torch.float32
    logits = head(low)[COUNTED].float()
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets[COUNTED], reduction="sum"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"label_smoothing": 1.0}, "label_smoothing is 1.0"), ({"chunk": 0}, "chunk is 0")],
)
def test_settings_that_do_not_fit(settings: dict[str, float], said: str) -> None:
    hidden, targets, head = inputs()
    with pytest.raises(ConfigError, match=said):
        next_token(hidden, targets, COUNTED, head, **settings)
