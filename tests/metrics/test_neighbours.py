"""Votes of neighbours against scikit-learn and against loops, and whom a tie helps."""

import math

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from sightline.core.errors import ConfigError, InputError
from sightline.metrics.classification import UNDECIDED, predict
from sightline.metrics.neighbours import neighbour_votes

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def drawn(queries: int = 60, samples: int = 90, classes: int = 5) -> Data:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 8, generator=generator)
    classes_of = torch.randint(classes, (samples,), generator=generator)
    targets = torch.randint(classes, (queries,), generator=generator)

    def near(labels: Tensor) -> Tensor:
        noise = torch.randn(len(labels), 8, generator=generator)
        return nn.functional.normalize(centres[labels] + noise, dim=1)

    return near(targets), near(classes_of), classes_of, targets


@pytest.mark.parametrize("k", [1, 7, 20, 90])
def test_one_vote_each_equals_scikit_learn(k: int) -> None:
    queries, samples, classes_of, targets = drawn()
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    expected = peer.fit(samples.double().numpy(), classes_of.numpy()).predict_proba(
        queries.double().numpy()
    )
    found = neighbour_votes(queries, samples, classes_of, targets, 5, k, temperature=None)
    assert found.tolist() == torch.from_numpy(expected).float().tolist()


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1e-3])
def test_weighted_votes_equal_loops(temperature: float) -> None:
    queries, samples, classes_of, targets = drawn()
    found = neighbour_votes(queries, samples, classes_of, targets, 5, 20, temperature)
    for row, query in enumerate(queries.double().tolist()):
        cosines = [
            sum(a * b for a, b in zip(query, s, strict=True)) for s in samples.double().tolist()
        ]
        nearest = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:20]
        votes = [0.0] * 5
        for i in nearest:
            votes[int(classes_of[i])] += math.exp((cosines[i] - cosines[nearest[0]]) / temperature)
        expected = [vote / sum(votes) for vote in votes]
        assert found[row].tolist() == pytest.approx(expected, abs=2e-4)


def test_chunks_and_order_change_nothing() -> None:
    queries, samples, classes_of, targets = drawn()
    whole = neighbour_votes(queries, samples, classes_of, targets, 5)
    assert torch.equal(whole, neighbour_votes(queries, samples, classes_of, targets, 5, chunk=7))
    mixed = torch.randperm(len(samples), generator=torch.Generator().manual_seed(1))
    turned = neighbour_votes(queries, samples[mixed], classes_of[mixed], targets, 5)
    torch.testing.assert_close(turned, whole, atol=1e-6, rtol=0)


def test_perfect_neighbours_give_everything() -> None:
    samples = torch.eye(3).repeat(20, 1)
    classes_of = torch.arange(60) % 3
    found = neighbour_votes(torch.eye(3), samples, classes_of, torch.arange(3), 3)
    assert torch.equal(found, torch.eye(3))


@pytest.mark.parametrize("temperature", [0.07, None])
def test_a_model_that_maps_everything_to_one_point_is_never_right(
    temperature: float | None,
) -> None:
    """By the order of the data it would be right whenever the first samples have the class."""
    same = torch.tensor([[0.6, 0.8]])
    classes_of = torch.arange(100) % 2
    for target in (0, 1):
        found = neighbour_votes(
            same, same.expand(100, 2), classes_of, torch.tensor([target]), 2, 20, temperature
        )
        assert predict(found).tolist() == [1 - target]
    half = neighbour_votes(same, same.expand(20, 2), classes_of[:20], torch.tensor([0]), 2, 20)
    assert predict(half).tolist() == [UNDECIDED]


def test_the_true_class_decides_ties_and_nothing_else() -> None:
    queries, samples, classes_of, targets = drawn()
    assert torch.equal(
        neighbour_votes(queries, samples, classes_of, targets, 5),
        neighbour_votes(queries, samples, classes_of, (targets + 1) % 5, 5),
    )


def test_fewer_samples_than_neighbours_all_vote() -> None:
    queries, samples, classes_of, targets = drawn(samples=6)
    found = neighbour_votes(queries, samples, classes_of, targets, 5, 20, temperature=None)
    expected = torch.bincount(classes_of, minlength=5) / 6
    assert torch.allclose(found, expected.expand_as(found))


def test_a_query_that_is_not_a_number_gets_none() -> None:
    queries, samples, classes_of, targets = drawn()
    queries[3] = math.nan
    found = neighbour_votes(queries, samples, classes_of, targets, 5)
    assert found.isnan().any(dim=1).nonzero().tolist() == [[3]]
    assert predict(found)[3] == UNDECIDED
    assert neighbour_votes(queries[:0], samples, classes_of, targets[:0], 5).shape == (0, 5)


def test_messages_say_what_to_do() -> None:
    queries, samples, classes_of, targets = drawn()
    with pytest.raises(InputError, match="90 training samples with 89 classes: give one class"):
        neighbour_votes(queries, samples, classes_of[1:], targets, 5)
    with pytest.raises(InputError, match="queries have 3 features and training samples 8"):
        neighbour_votes(queries[:, :3], samples, classes_of, targets, 5)
    with pytest.raises(InputError, match="is not finite: leave it out first"):
        neighbour_votes(queries, samples * math.inf, classes_of, targets, 5)
    with pytest.raises(ConfigError, match="k is 0: at least 1 neighbour must vote"):
        neighbour_votes(queries, samples, classes_of, targets, 5, 0)
    with pytest.raises(ConfigError, match=r"temperature is 0: it must be above 0, such as 0\.07"):
        neighbour_votes(queries, samples, classes_of, targets, 5, 20, 0)
