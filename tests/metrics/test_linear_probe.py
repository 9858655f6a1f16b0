"""The probe against scikit-learn's logistic regression, and the search for its penalty."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor

from sightline.core.errors import ConfigError, InputError
from sightline.metrics import linear_probe as module
from sightline.metrics.linear_probe import fit_linear_probe, sweep_penalty


def drawn(
    seed: int = 0, count: int = 240, width: int = 6, classes: int = 4
) -> tuple[Tensor, Tensor]:
    """Overlapping clouds, so that no penalty is needed for a minimum to exist."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    return centres[targets] + 1.5 * torch.randn(count, width, generator=generator), targets


def scikit(features: Tensor, targets: Tensor, c: float) -> LogisticRegression:
    return LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(
        features.double().numpy(), targets.numpy()
    )


def objective(weight: np.ndarray, bias: np.ndarray, data: tuple[Tensor, Tensor], c: float) -> float:
    """Written out sample by sample."""
    total = 0.0
    for row, target in zip(data[0].double().numpy(), data[1].tolist(), strict=True):
        logits = weight @ row + bias
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target]
    return float(total + (weight**2).sum() / (2 * c))


@pytest.mark.parametrize("c", [1e-3, 0.316, 1.0, 30.0, 1e4])
def test_coefficients_loss_and_predictions_equal_scikit_learn(c: float) -> None:
    features, targets = drawn()
    theirs = scikit(features, targets, c)
    ours = fit_linear_probe(features, targets, 4, 1 / c, tolerance=1e-9)
    assert ours.converged
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=2e-5)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=2e-5)
    assert ours.loss == pytest.approx(
        objective(theirs.coef_, theirs.intercept_, (features, targets), c), rel=1e-9
    )
    assert ours.loss == pytest.approx(
        objective(ours.weight.numpy(), ours.bias.numpy(), (features, targets), c)
    )
    new = drawn(seed=1)[0]
    log_probabilities = ours.log_probabilities(new)
    assert log_probabilities.argmax(dim=1).tolist() == theirs.predict(new.double().numpy()).tolist()
    np.testing.assert_allclose(
        log_probabilities.exp(), theirs.predict_proba(new.double().numpy()), atol=1e-5
    )


def test_a_penalised_bias_would_be_seen() -> None:
    """The known mistake: classes of unequal size would get other biases."""
    features, targets = drawn()
    keep = (targets > 0) | (torch.arange(len(targets)) % 3 == 0)
    features, targets = features[keep], targets[keep]
    theirs = scikit(features, targets, 0.01)
    ours = fit_linear_probe(features, targets, 4, 100, tolerance=1e-9)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=2e-5)
    penalised = LogisticRegression(C=0.01, fit_intercept=False, tol=1e-10, max_iter=20_000).fit(
        np.concatenate([features.double().numpy(), np.ones((len(features), 1))], axis=1),
        targets.numpy(),
    )
    assert abs(penalised.coef_[:, -1] - ours.bias.numpy()).max() > 0.1


def test_blocks_and_starts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = drawn()
    whole = fit_linear_probe(features, targets, 4, 0.5, tolerance=1e-9)
    assert torch.equal(
        whole.weight, fit_linear_probe(features, targets, 4, 0.5, tolerance=1e-9).weight
    )
    other = fit_linear_probe(features, targets, 4, 50.0)
    warm = fit_linear_probe(features, targets, 4, 0.5, start=other, tolerance=1e-9)
    torch.testing.assert_close(warm.weight, whole.weight, atol=1e-6, rtol=0)
    monkeypatch.setattr(module, "_ROWS", 7)
    parts = fit_linear_probe(features, targets, 4, 0.5, tolerance=1e-9)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-6, rtol=0)


def test_the_order_of_the_samples_changes_nothing() -> None:
    features, targets = drawn()
    mixed = torch.randperm(len(targets), generator=torch.Generator().manual_seed(5))
    first = fit_linear_probe(features, targets, 4, 1.0, tolerance=1e-9)
    second = fit_linear_probe(features[mixed], targets[mixed], 4, 1.0, tolerance=1e-9)
    torch.testing.assert_close(first.weight, second.weight, atol=1e-6, rtol=0)


def test_a_class_without_a_sample_is_never_predicted() -> None:
    features, targets = drawn()
    probe = fit_linear_probe(features, targets, 6, 0.1, tolerance=1e-9)
    without = fit_linear_probe(features, targets, 4, 0.1, tolerance=1e-9)
    found = probe.log_probabilities(10 * features)
    assert probe.converged
    assert found.argmax(dim=1).max() < 4
    assert found[:, 4:].exp().max() == 0
    torch.testing.assert_close(probe.weight[:4], without.weight, atol=1e-6, rtol=0)


def test_constant_features_know_only_how_frequent_classes_are() -> None:
    targets = torch.tensor([0] * 6 + [1] * 3 + [2])
    probe = fit_linear_probe(torch.ones(10, 3), targets, 3, 1.0, tolerance=1e-9)
    shares = probe.log_probabilities(torch.ones(1, 3)).exp()[0]
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)


def test_a_feature_that_is_not_a_number_gives_no_score() -> None:
    features, targets = drawn()
    probe = fit_linear_probe(features, targets, 4, 1.0)
    found = probe.log_probabilities(torch.tensor([[math.nan] * 6, [0.0] * 6]))
    assert found[0].isnan().all() and torch.isfinite(found[1]).all()


def test_the_search_walks_from_two_decades_to_an_eighth() -> None:
    features, targets = drawn()
    held_out = drawn(seed=1)
    best, tried = sweep_penalty(features, targets, *held_out, classes=4)
    exponents = [math.log10(attempt.penalty) * 8 for attempt in tried]
    assert exponents == pytest.approx([round(e) for e in exponents])
    steps = {round(e) for e in exponents}
    assert set(range(-48, 49, 16)) <= steps
    assert len(tried) <= 7 + 4 * 2
    assert best == max(tried, key=lambda attempt: (attempt.accuracy, -attempt.loss)).penalty
    place = round(math.log10(best) * 8)
    assert {p for p in (place - 1, place + 1) if -48 <= p <= 48} <= steps


def test_the_search_finds_what_a_full_grid_finds() -> None:
    """Few noisy samples: too little penalty learns the noise, too much learns nothing."""
    features, targets = drawn(count=40, width=24)
    held_out, right = drawn(seed=1, count=400, width=24)
    best, tried = sweep_penalty(features, targets, held_out, right, classes=4)
    accuracies = {}
    for place in range(-48, 49, 4):
        model = scikit(features, targets, 10 ** (-place / 8))
        accuracies[place] = model.score(held_out.double().numpy(), right.numpy())
    found = max(attempt.accuracy for attempt in tried)
    assert found >= max(accuracies.values()) - 0.01
    assert accuracies[-48] < found - 0.01
    assert 1e-6 < best < 1e6


def test_of_equally_accurate_penalties_the_smallest_loss_decides() -> None:
    features = torch.eye(2).repeat(10, 1)
    targets = torch.arange(20) % 2
    best, tried = sweep_penalty(features, targets, features, targets, classes=2)
    assert all(attempt.accuracy == 1 for attempt in tried)
    assert best == tried[0].penalty == 1e-6  # nothing is learned that does not hold
    model = scikit(features, targets, 1e6)
    expected = log_loss(targets.numpy(), model.predict_proba(features.double().numpy()))
    assert tried[-1].loss == pytest.approx(math.log(2), rel=1e-4)
    assert tried[0].loss == pytest.approx(expected, abs=1e-5)


def test_messages_say_what_to_do() -> None:
    features, targets = drawn()
    with pytest.raises(InputError, match="one class a sample, and at least one sample"):
        fit_linear_probe(features[:0], targets[:0], 4, 1.0)
    with pytest.raises(InputError, match="leave such samples out of the training"):
        fit_linear_probe(features * math.nan, targets, 4, 1.0)
    with pytest.raises(InputError, match=r"targets must lie in 0 \.\. 2"):
        fit_linear_probe(features, targets, 3, 1.0)
    for penalty in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="it must be above 0, such as 1"):
            fit_linear_probe(features, targets, 4, penalty)
    with pytest.raises(InputError, match="no held-out sample"):
        sweep_penalty(features, targets, features[:0], targets[:0], classes=4)
