"""The language model that sees no picture, against its formula."""

import math

import pytest

from sightline.evaluation.text_only import END, START, BigramModel, text_only_scores, words_of


def test_words_are_lower_case_with_punctuation_apart() -> None:
    assert words_of("A dog's bowl, isn't it?") == ["a", "dog's", "bowl", ",", "isn't", "it", "?"]


def test_likelihood_is_the_formula() -> None:
    model = BigramModel(["a cat", "a dog"])
    # words seen: a 2, cat 1, dog 1, end 2; six in all, four different, one place for the rest
    mass = 0.1 * 5

    def step(pair: int, before: int, word: int) -> float:
        return 0.5 * (pair + 0.1) / (before + mass) + 0.5 * (word + 0.1) / (6 + mass)

    expected = math.log(step(2, 2, 2)) + math.log(step(1, 2, 1)) + math.log(step(1, 1, 2))
    assert model.log_likelihood("A cat") == pytest.approx(expected, abs=1e-12)
    unseen = math.log(step(0, 2, 0)) + math.log(step(0, 0, 2))
    assert model.log_likelihood("zebra") == pytest.approx(unseen, abs=1e-12)


@pytest.mark.parametrize("before", [START, "a", "cat", "zebra"])
def test_one_step_is_a_distribution(before: str) -> None:
    model = BigramModel(["a cat", "a dog"])
    words = ["a", "cat", "dog", END, "never seen"]
    assert sum(model.probability(before, word) for word in words) == pytest.approx(1, abs=1e-12)


def test_a_caption_is_judged_by_those_of_other_pictures() -> None:
    captions = [(f"only here {i}", "the usual words") for i in range(40)]
    pictures = [str(i) for i in range(40)]
    scores = text_only_scores(captions, [1] * 40, pictures)
    own = BigramModel([captions[0][0]])
    assert scores[0][0] < own.log_likelihood(captions[0][0])
    # all captions of one picture are in one fold: nothing of it is known elsewhere
    together = text_only_scores(captions, [1] * 40, ["one"] * 40)
    empty = BigramModel([])
    assert together[3][0] == pytest.approx(empty.log_likelihood(captions[3][0]))


def test_folds_follow_the_seed_and_nothing_else() -> None:
    captions = [(f"a cat {i % 7}", f"a dog {i % 5}") for i in range(50)]
    pictures = [str(i // 2) for i in range(50)]
    first = text_only_scores(captions, [1] * 50, pictures)
    assert first == text_only_scores(captions, [1] * 50, pictures)
    turned = text_only_scores(captions[::-1], [1] * 50, pictures[::-1])
    for own, other in zip(first, turned[::-1], strict=True):
        assert own == pytest.approx(other, abs=1e-9)
    assert first != text_only_scores(captions, [1] * 50, pictures, seed=1)
