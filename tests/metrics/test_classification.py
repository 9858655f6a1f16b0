"""Classification scores against scikit-learn, and the cases where it has no opinion."""

import math

import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    top_k_accuracy_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion
from torch import Tensor

from sightline.core.errors import InputError
from sightline.metrics.classification import (
    UNDECIDED,
    average_precision,
    confusion_matrix,
    f1,
    mean_average_precision,
    mean_per_class_recall,
    predict,
    recall_per_class,
    target_ranks,
    top_k_accuracy,
)


def samples(seed: int = 0, count: int = 200, classes: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (count,), generator=generator)
    scores = torch.randn(count, classes, generator=generator)
    scores[torch.arange(count), targets] += 1
    return scores, targets


def multi_label(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(90, 6, generator=generator), torch.rand(90, 6, generator=generator) < 0.3


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_equals_scikit_learn(k: int) -> None:
    scores, targets = samples()
    expected = top_k_accuracy_score(targets, scores, k=k, labels=range(7))
    assert top_k_accuracy(scores, targets, k) == pytest.approx(expected)


def test_recall_and_confusion_equal_scikit_learn() -> None:
    scores, targets = samples()
    predicted = predict(scores)
    expected = sklearn_confusion(targets, predicted, labels=range(7))
    matrix = confusion_matrix(targets, predicted, 7)
    assert matrix[:, :7].tolist() == expected.tolist()
    assert matrix[:, 7].sum() == 0
    assert mean_per_class_recall(targets, predicted, 7) == pytest.approx(
        balanced_accuracy_score(targets, predicted)
    )


def test_a_class_without_samples_does_not_pull_the_mean() -> None:
    targets, predicted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0])
    assert mean_per_class_recall(targets, predicted, 5) == pytest.approx(0.75)
    assert recall_per_class(targets, predicted, 5).isnan().tolist() == [False] * 2 + [True] * 3


def test_f1_equals_scikit_learn() -> None:
    scores, relevant = multi_label()
    predicted = scores > 0.6
    relevant[:, 5] = predicted[:, 5] = False  # nothing to find, nothing found
    found = f1(predicted, relevant)
    for average in ("micro", "macro"):
        expected = f1_score(relevant, predicted, average=average, zero_division=0)
        assert getattr(found, average) == pytest.approx(expected)
    assert found.per_class.tolist() == pytest.approx(
        f1_score(relevant, predicted, average=None, zero_division=0).tolist()
    )


def test_average_precision_equals_scikit_learn_without_ties() -> None:
    scores, relevant = multi_label()
    assert mean_average_precision(scores, relevant) == pytest.approx(
        average_precision_score(relevant, scores, average="macro")
    )


def test_average_precision_in_ties_is_that_of_the_worst_order() -> None:
    generator = torch.Generator().manual_seed(4)
    for _ in range(30):
        scores = torch.randint(3, (12,), generator=generator).double()
        relevant = torch.rand(12, generator=generator) < 0.4
        if not relevant.any():
            continue
        worst = scores - 1e-6 * relevant.double()  # breaks each tie against the model
        # Among the relevant ones of one tie the order is free: scikit-learn needs distinct scores.
        worst = worst + 1e-9 * torch.arange(12)
        expected = average_precision_score(relevant, worst)
        assert average_precision(scores, relevant) == pytest.approx(expected)
        assert expected <= average_precision_score(relevant, scores) + 1e-12


def test_classes_without_a_positive_are_left_out_or_zero_by_name() -> None:
    scores = torch.tensor([[0.9, 0.5], [0.1, 0.4]])
    relevant = torch.tensor([[True, False], [False, False]])
    assert mean_average_precision(scores, relevant) == 1
    assert mean_average_precision(scores, relevant, empty_classes="zero") == 0.5
    assert math.isnan(average_precision(scores[:, 1], relevant[:, 1]))


def test_a_constant_scorer_is_never_right() -> None:
    constant, (_, targets) = torch.zeros(200, 7), samples()
    assert top_k_accuracy(constant, targets, 6) == 0
    assert predict(constant).unique().tolist() == [UNDECIDED]
    assert mean_per_class_recall(targets, predict(constant), 7) == 0
    assert confusion_matrix(targets, predict(constant), 7)[:, 7].sum() == 200


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_broken_score_is_never_in_the_models_favour(broken: float) -> None:
    scores = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    scores[0, 0], scores[1, 1] = broken, broken
    targets = torch.tensor([0, 0])
    assert target_ranks(scores, targets).tolist() == [math.inf, 2]
    assert predict(scores).tolist() == [UNDECIDED, UNDECIDED]
    assert top_k_accuracy(scores, targets, 1) == 0
    assert average_precision(torch.tensor([broken, 0.2]), torch.tensor([True, False])) == 0
    assert average_precision(torch.tensor([broken, 0.2]), torch.tensor([False, True])) == 0.5


def test_predict_and_ranks_agree_about_what_is_right() -> None:
    generator = torch.Generator().manual_seed(5)
    scores = torch.randint(4, (300, 5), generator=generator).float()
    scores[torch.rand(300, 5, generator=generator) < 0.05] = math.nan
    targets = torch.randint(5, (300,), generator=generator)
    assert torch.equal(predict(scores) == targets, target_ranks(scores, targets) == 1)


def test_perfect_is_one() -> None:
    targets = torch.arange(7).repeat(3)
    scores = torch.eye(7)[targets]
    assert top_k_accuracy(scores, targets) == 1
    assert mean_per_class_recall(targets, predict(scores), 7) == 1
    assert mean_average_precision(scores, scores.bool()) == 1
    assert f1(scores.bool(), scores.bool())[:2] == (1, 1)


def test_empty_is_nan() -> None:
    none, targets = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    values = [
        top_k_accuracy(none, targets),
        mean_per_class_recall(targets, predict(none), 3),
        mean_average_precision(none, none.bool()),
        *f1(none.bool(), none.bool())[:2],
    ]
    assert all(math.isnan(value) for value in values)
    assert predict(torch.zeros(2, 0)).tolist() == [UNDECIDED] * 2


def test_messages_name_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"with 3 classes it must lie in 0 \.\. 2"):
        top_k_accuracy(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(InputError, match=r"predicted classes must lie in -1 \.\. 1"):
        confusion_matrix(torch.tensor([0]), torch.tensor([2]), 2)
    with pytest.raises(InputError, match=r"both must be \[samples, classes\]"):
        f1(torch.zeros(2, 3).bool(), torch.zeros(2, 2).bool())
