"""Strict choices and Winoground's scores against truth tables, loops and the known mistakes."""

import itertools
import math

import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.compositionality import choices, mean_of_classes, quadruples


def every_ordering() -> torch.Tensor:
    """The 24 ways in which four different scores can be ordered."""
    orders = list(itertools.permutations([0.1, 0.2, 0.3, 0.4]))
    return torch.tensor(orders).view(24, 2, 2)


def test_truth_table_of_all_orderings() -> None:
    found = quadruples(every_ordering())
    assert [int(part.sum()) for part in found] == [6, 6, 4]


def test_quadruples_against_the_papers_words() -> None:
    scores = torch.randint(4, (400, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    found = quadruples(scores)
    for n, row in enumerate(scores.tolist()):
        s = {(c, i): row[c][i] for c in (0, 1) for i in (0, 1)}
        text = s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1]
        image = s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0]
        assert (found.text[n], found.image[n], found.group[n]) == (text, image, text and image)


def test_text_chooses_a_sentence_and_image_a_picture() -> None:
    # picture 1 outshines picture 0 for every sentence: sentences can be chosen, pictures cannot
    scores = torch.tensor([[[0.2, 0.7], [0.1, 0.8]]])
    found = quadruples(scores)
    assert (found.text.item(), found.image.item()) == (True, False)
    swapped = quadruples(scores.transpose(1, 2))
    assert (swapped.text.item(), swapped.image.item()) == (False, True)


def test_the_planted_mistake_of_counting_ties_would_be_seen() -> None:
    constant = torch.zeros(10, 2, 2)
    lenient = (constant[:, 0, 0] >= constant[:, 1, 0]).double().mean()
    assert lenient == 1
    assert all(not part.any() for part in quadruples(constant))
    assert not choices(torch.zeros(10), torch.zeros(10, 3)).any()


def test_a_bag_of_words_gets_nothing() -> None:
    # equal words, equal score for either sentence, whatever the picture
    per_picture = torch.rand(50, 1, 2, generator=torch.Generator().manual_seed(1))
    found = quadruples(per_picture.expand(50, 2, 2))
    assert not found.text.any() and not found.group.any()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_wrong(broken: float) -> None:
    perfect = torch.eye(2).repeat(4, 1, 1)
    assert all(part.all() for part in quadruples(perfect))
    for n, (c, i) in enumerate(itertools.product((0, 1), repeat=2)):
        perfect[n, c, i] = broken
    assert all(not part.any() for part in quadruples(perfect))
    assert not choices(torch.tensor([broken, 1.0]), torch.tensor([[0.0], [broken]])).any()


def test_choices_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(2)
    true = torch.randint(5, (300,), generator=generator).float()
    false = torch.randint(5, (300, 4), generator=generator).float()
    present = torch.rand(300, 4, generator=generator) < 0.6
    present[:, 0] = True
    found = choices(true, false, present)
    for n in range(300):
        rivals = [score for score, there in zip(false[n], present[n], strict=True) if there]
        assert found[n] == all(true[n] > rival for rival in rivals)


def test_an_absent_sentence_cannot_break_a_sample() -> None:
    false = torch.tensor([[0.0, math.nan]])
    assert choices(torch.ones(1), false, torch.tensor([[True, False]])).all()


def test_random_scores_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(3)
    found = quadruples(torch.rand(20_000, 2, 2, generator=generator))
    shares = [part.double().mean().item() for part in found]
    assert shares == pytest.approx([1 / 4, 1 / 4, 1 / 6], abs=0.015)
    false = torch.rand(20_000, 4, generator=generator)
    five = choices(torch.rand(20_000, generator=generator), false)
    assert five.double().mean().item() == pytest.approx(0.2, abs=0.015)


def test_order_of_samples_changes_nothing() -> None:
    scores = torch.rand(60, 2, 2, generator=torch.Generator().manual_seed(4))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    for part, moved in zip(quadruples(scores), quadruples(scores[order]), strict=True):
        assert torch.equal(part[order], moved)


def test_mean_of_classes_weighs_classes_alike() -> None:
    right = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    classes = torch.tensor([0, 0, 0, 2])
    assert mean_of_classes(right, classes, 4).tolist() == [0.5, 0.5]
    assert mean_of_classes(right[:0], classes[:0], 4).isnan().all()


def test_messages_say_what_to_do() -> None:
    with pytest.raises(InputError, match=r"scores are \[3, 2\]: they must be \[samples, 2, 2\]"):
        quadruples(torch.zeros(3, 2))
    with pytest.raises(InputError, match=r"true scores are \[2\], false ones \[3, 1\]"):
        choices(torch.zeros(2), torch.zeros(3, 1))
    with pytest.raises(InputError, match="has no false sentence: leave it out"):
        choices(torch.zeros(1), torch.zeros(1, 1), torch.tensor([[False]]))
    with pytest.raises(InputError, match=r"classes are 0 .. 5: they must lie in 0 .. 4"):
        mean_of_classes(torch.zeros(2, 1), torch.tensor([0, 5]), 5)
