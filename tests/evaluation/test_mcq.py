"""Questions with choices put to models that are known: by likelihood, by letter, in rotation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.core.errors import ConfigError, DataError
from sightline.data.records import Dataset
from sightline.evaluation import choices as choosing
from sightline.evaluation.answer_page import answer_page
from sightline.evaluation.choices import circular, letter_circular, likelihood_scores
from sightline.evaluation.compare import compare_metrics
from sightline.evaluation.judged import Measuring
from sightline.evaluation.mcq import mcq
from sightline.evaluation.rescore import read_answers, rescore
from tests.evaluation.answering import BROKEN, always, asked_data, seen, shade
from tests.tasks.writers import random_writer

QUICK = Measuring(resamples=20)
WORDS = ("red", "blue", "green")


def colours(count: int = 3, choices: tuple[str, ...] = WORDS, **fields: Any) -> Dataset:
    rows = [(k, "what colour?", (WORDS[k % 3],)) for k in range(count)]
    data = asked_data(*rows, choices=choices)
    return Dataset([
        replace(record, extra={"category": "ab"[k % 2]}, **fields) for k, record in enumerate(data)
    ])  # fmt: skip


def looking(known: str = "red") -> Any:
    """Says the colour it sees, and this where it sees nothing."""

    def say(words: str, pictures: Any) -> str:
        shown = seen(pictures)
        return known if shown is None else WORDS[shown % 3]

    return always(say)


def lettering(say: Any) -> Any:
    """Answers with the letter of the colour it sees (of what `say` makes of it), listed or not."""

    def write(words: str, pictures: Any) -> str:
        shown = seen(pictures)
        colour = "red" if shown is None else WORDS[shown % 3]
        place = words.find(f") {colour}")
        return say(words[place - 1] if place > 0 else "nothing")

    return always(write)


def test_the_likeliest_choice_is_taken_with_and_without_the_picture() -> None:
    data = colours()
    result = mcq(looking(), data, QUICK)
    assert (result.headline, result.variant, result.counted) == (
        "accuracy:sum", "likelihood", "questions",
    )  # fmt: skip
    assert {m.value for m in result.metrics.values()} == {1.0}
    assert result.groups["blind"]["accuracy:sum"].value == pytest.approx(1 / 3)
    assert result.tests["blind"].difference == pytest.approx(2 / 3)
    assert [s.ranking[0][0] for s in result.samples] == list(WORDS)
    assert [(s.rank, s.score, s.blind_score) for s in result.samples] == [
        (1, 1, 1), (1, 1, 0), (1, 1, 0)
    ]  # fmt: skip
    assert "by:likelihood" in result.signature and "choices:unseen" in result.signature
    assert result.prompt_templates == ("answer en {}",)
    assert result.groups["category"]["mean of 2"].value == 1


def test_likelihoods_are_those_of_logprob_and_the_mean_is_over_tokens_with_the_end() -> None:
    model = random_writer()
    data = Dataset([
        *asked_data((1, "what colour?", ("red",)), choices=("red", "green as grass")),
        *asked_data((2, "how many?", ("7",)), choices=("one hundred", "7", "12")),
    ])  # fmt: skip
    result = mcq(model, data, QUICK)
    for sample, record in zip(result.samples, data, strict=True):
        own = model.logprob(record.image, f"answer en {record.question}", list(record.choices))
        by_name = dict(zip(record.choices, own.tolist(), strict=True))
        assert dict(sample.ranking) == pytest.approx(by_name, abs=1e-4)
        right = by_name.pop(record.answers[0])
        assert sample.score == (right > max(by_name.values()))
        lengths = {text: len(text) + 1 for text in record.choices}  # a token a letter, and the end
        mean = right / lengths[record.answers[0]]
        others = max(value / lengths[text] for text, value in by_name.items())
        own_mean = likelihood_scores(
            [own], [record.choices], record.answers,
            [[lengths[text] for text in record.choices]],
        ).values  # fmt: skip
        assert own_mean == [mean > others]
    blind = model.logprob((), "answer en what colour?", ["red", "green as grass"])
    assert result.samples[0].blind_score == (blind[0] > blind[1])


@pytest.mark.parametrize("by", ["likelihood", "letter"])
def test_what_cannot_be_seen_or_told_apart_gains_nothing(by: str) -> None:
    data = colours()
    torn = mcq(looking(), Dataset([replace(r, image=BROKEN) for r in data]), QUICK, by)
    assert {m.value for m in torn.metrics.values()} == {0.0}
    assert (torn.n, torn.n_missing, torn.failed) == (3, 3, True)
    assert torn.missing[0].startswith("q0: ")
    # neither choice is begun: equally long, equally unlikely
    tied = mcq(always("z"), colours(choices=("red", "sad", "mad"))[:1], QUICK, by)
    assert {m.value for m in tied.metrics.values()} == {0.0}


def test_a_tie_is_wrong_wherever_the_right_choice_stands() -> None:
    totals = torch.tensor([-1.0, -1.0, -3.0])
    for right in ("a", "b"):
        assert likelihood_scores([totals], [("a", "b", "c")], [right]).values == [0]
    several = [torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.0, torch.nan])]
    choices = [("a", "b"), ("a", "b", "c")]
    assert likelihood_scores(several, choices, ["a", "a"]).values.tolist() == [1, 0]
    assert len(likelihood_scores([], [], []).values) == 0
    long = likelihood_scores([torch.tensor([-4.0, -3.0])], [("a", "b")], ["a"], [[4, 2]])
    assert long.values == [1]


def test_a_letter_is_read_and_what_names_none_is_counted() -> None:
    data = colours()
    result = mcq(lettering(lambda letter: f"({letter})."), data, QUICK, "letter")
    assert (result.headline, result.value) == ("accuracy:letter", 1)
    assert [s.parsed for s in result.samples] == list(WORDS)
    assert result.samples[0].prompt == (
        "what colour? (A) red (B) blue (C) green Answer with the letter of the right choice."
    )
    assert result.groups["blind"]["accuracy:letter"].value == pytest.approx(1 / 3)
    assert result.prompt_templates[0].startswith("answer en {} (A) ... (B) ...")
    assert "choices:listed" in result.signature
    for unread in ("", "A or B", "I do not know"):
        none = mcq(always(unread), data, QUICK, "letter")
        assert (none.value, none.n_unparsed) == (0, 3)
        assert none.groups["category"]["mean of 2"].value == 0


@pytest.mark.parametrize("by", ["likelihood", "letter"])
def test_a_circular_run_wants_every_rotation(by: str) -> None:
    data = colours()
    model = looking() if by == "likelihood" else lettering(lambda letter: letter)
    kind = "sum" if by == "likelihood" else "letter"
    result = mcq(model, data, QUICK, by, circular=True)
    assert (result.headline, result.counted, result.n) == (f"circular:{kind}", "rotations", 9)
    assert result.value == result.metrics[f"accuracy:{kind}"].value == 1
    assert (result.metrics[result.headline].n, result.groups["category"]["a"].n) == (3, 2)
    assert [s.choices for s in result.samples[:3]] == [
        ("red", "blue", "green"), ("blue", "green", "red"), ("green", "red", "blue"),
    ]  # fmt: skip
    assert result.tests["blind"].difference == pytest.approx(2 / 3)
    assert result.tests["blind"].equal == 1
    fond = mcq(always("A"), data, QUICK, "letter", circular=True)
    assert fond.value == 0
    assert fond.metrics["accuracy:letter"].value == pytest.approx(1 / 3)


def test_a_plain_mean_would_not_see_a_liking_for_one_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truths = [("a", *own) for own in (("a", "b"), ("b", "a"))]
    assert letter_circular(["A", "A"], truths).values.tolist() == [0]
    assert letter_circular(["A", "B"], truths).values.tolist() == [1]
    monkeypatch.setattr(choosing, "circular", lambda scores, choices: choosing.Column(scores))
    assert letter_circular(["A", "A"], truths).values.mean() == 0.5


@pytest.mark.parametrize(
    "shown", [[("a", "b")], [("a", "b"), ("a", "b")], [("a", "b"), ("b", "a"), ("c", "d")]]
)
def test_what_was_not_asked_in_every_rotation_has_no_circular_score(shown: Any) -> None:
    with pytest.raises(DataError, match=r"question \d was not asked in every rotation"):
        circular(torch.ones(len(shown)).numpy(), shown)


def test_answers_are_scored_again_and_likelihoods_are_not(tmp_path: Path) -> None:
    data = colours()
    model = lettering(lambda letter: letter)
    result = mcq(model, data, QUICK, "letter", circular=True)
    result.write(tmp_path)
    read = read_answers(tmp_path)
    again = rescore(read, "accuracy:letter", 20)
    assert again.metrics == {name: result.metrics[name] for name in again.metrics}
    assert "circular:letter" in again.metrics
    plain = mcq(model, data, QUICK, "letter")
    with pytest.raises(DataError, match="not asked in every rotation"):
        rescore(plain, "circular:letter", 20)
    with pytest.raises(DataError, match=r"no written answers .*accuracy:sum.*mcq --by letter"):
        rescore(mcq(looking(), data, QUICK), "accuracy:letter", 20)


def test_a_killed_run_by_letter_goes_on(tmp_path: Path) -> None:
    data = colours()

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    how = replace(QUICK, batch_size=2, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        mcq(lettering(str), data, replace(how, progress=stop), "letter", circular=True)
    model = lettering(str)
    result = mcq(model, data, how, "letter", circular=True)
    assert model.network.pictures.count(1) == 3
    whole = mcq(lettering(str), data, QUICK, "letter", circular=True)
    assert result.metrics == whole.metrics


def test_answers_may_be_letters_and_what_has_no_one_truth_is_left_out() -> None:
    data = colours()
    lettered = Dataset(
        [replace(r, answers=(letter,)) for r, letter in zip(data, "aBC", strict=True)]
    )
    assert mcq(looking(), lettered, QUICK).value == 1
    odd = [
        replace(data[0], answers=("grey",)), replace(data[0], answers=("red", "blue")),
        replace(data[0], choices=("red",)), replace(data[0], choices=("red", "red", "blue")),
        replace(data[0], answers=("D",)), replace(data[0], answers=()),
        replace(data[0], question=None),
    ]  # fmt: skip
    result = mcq(looking(), Dataset([*data, *odd]), QUICK)
    assert (result.n, result.n_excluded) == (3, len(odd))
    with pytest.raises(DataError, match="choices of which one is the answer: "):
        mcq(looking(), Dataset(odd), QUICK)
    for by in ("likelihood", "letter"):
        for turned in (False, True):
            empty = mcq(looking(), Dataset([]), QUICK, by, turned)
            assert empty.failed and math.isnan(empty.value)


def test_a_hint_stands_in_front_and_what_cannot_be_asked_is_named() -> None:
    data = colours(2)
    hinted = Dataset([replace(data[0], extra={"hint": "Look up."}), data[1]])
    model = looking()
    mcq(model, hinted, QUICK)
    assert any("Look up. what colour?" in words for words in model.network.asked)
    long = Dataset(
        [replace(data[0], question="long " * 400), replace(data[1], choices=("blue", " "))]
    )
    result = mcq(looking(), Dataset([*long, *colours(1)]), QUICK)
    assert (result.n, result.n_invalid, result.value) == (3, 2, pytest.approx(1 / 3))
    assert "reads at most" in result.settings["refused"][0]


def test_choices_are_text_that_nobody_has_to_trust() -> None:
    data = colours(1, choices=("red", "<eos>"))
    result = mcq(looking(), data, QUICK)
    assert result.value == 1
    assert result.samples[0].ranking[1][1] < -40  # five letters, not one token that ends


def test_what_does_not_fit_is_refused() -> None:
    data = colours()
    with pytest.raises(ConfigError, match="way to take a choice"):
        mcq(looking(), data, QUICK, "letters")
    with pytest.raises(ConfigError, match=r"change no likelihood.*--by letter"):
        mcq(looking(), data, replace(QUICK, options={"max_new_tokens": 2}))
    many = colours(1, choices=("red", *map(str, range(26))))
    with pytest.raises(DataError, match="'q0' has 27 choices: there are letters for 26"):
        mcq(looking(), many, QUICK, "letter")
    assert mcq(looking(), many, QUICK).value == 1


def test_a_model_that_gives_no_likelihood_is_asked_for_a_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = lettering(str)
    monkeypatch.setattr(type(model), "tasks", ("ask", "chat"))
    assert mcq(model, colours(), QUICK).variant == "letter"


def test_parts_are_partial_and_models_are_compared_question_by_question() -> None:
    data = colours(12)
    some = mcq(looking(), data, replace(QUICK, limit=4, blind=False), circular=True)
    assert (some.partial, some.n, some.metrics["circular:sum"].n) == (True, 12, 4)
    results = [mcq(model, data, QUICK) for model in (looking(), always("red"))]
    rows = {row.metric: row for row in compare_metrics(results)}
    (test,) = rows["accuracy:sum"].tests
    assert test is not None and (test.first_better, test.second_better) == (8, 0)


def test_the_page_shows_what_was_taken() -> None:
    data = colours()
    result = mcq(looking("green"), Dataset([*data[:2], replace(data[2], image=shade(5))]), QUICK)
    html = answer_page(result, data, 1).html()
    best = html.split("Best</h2>")[1]
    assert "choices: red / blue / green" in best and "said: red" in best
