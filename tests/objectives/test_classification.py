"""Cross-entropy with label smoothing against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from sightline.core.errors import ConfigError
from sightline.objectives.classification import softmax_classification


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_values_and_gradients_are_torch_s(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(7, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(4, (7,), generator=generator)
    ours = softmax_classification(logits, targets, label_smoothing=smoothing)
    theirs = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    assert torch.allclose(ours, theirs, atol=1e-12)
    (mine,) = torch.autograd.grad(ours.mean(), logits, retain_graph=True)
    (reference,) = torch.autograd.grad(theirs.mean(), logits)
    assert torch.allclose(mine, reference, atol=1e-12)


def test_bfloat16_logits_give_a_float32_loss():
    logits = torch.tensor([[300.0, 0.0]], dtype=torch.bfloat16)
    loss = softmax_classification(logits, torch.tensor([1]))
    assert loss.dtype == torch.float32 and loss.item() == 300


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(ConfigError, match="it lies between 0 and 1"):
        softmax_classification(torch.zeros(1, 2), torch.tensor([0]), label_smoothing=smoothing)
