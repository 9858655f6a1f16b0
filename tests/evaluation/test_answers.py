"""Captions and answers of models that are known: the best, the blind, the broken, the hostile."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.core.errors import ConfigError, DataError
from sightline.data.records import Dataset, Record
from sightline.evaluation.answer_metrics import METRICS
from sightline.evaluation.answer_page import answer_page
from sightline.evaluation.caption import caption
from sightline.evaluation.chartqa import chartqa
from sightline.evaluation.compare import compare_metrics
from sightline.evaluation.docvqa import docvqa
from sightline.evaluation.judged import Measuring
from sightline.evaluation.rescore import read_answers, rescore
from sightline.evaluation.results import Result, read_result
from sightline.evaluation.vqa import vqa
from sightline.metrics.bleu import bleu
from sightline.metrics.cider import cider
from sightline.metrics.ptb import tokenize
from sightline.metrics.rouge import rouge_l
from sightline.metrics.vqa import vqa_accuracy
from tests.evaluation.answering import BROKEN, always, asked_data, seen, shade, told

QUICK = Measuring(resamples=20)
WORDS = ("red", "blue", "green", "grey")
EVALUATIONS = {"vqa": vqa, "docvqa": docvqa, "chartqa": chartqa}


def colours(count: int = 4) -> Dataset:
    """What colour is it? Ten people agree."""
    rows = [(k, "what colour?", (WORDS[k % 4],) * 10) for k in range(count)]
    data = asked_data(*rows)
    kinds = ("other", "number")
    return Dataset([
        replace(record, extra={"answer_type": kinds[k % 2], "question_type": "what"})
        for k, record in enumerate(data)
    ])  # fmt: skip


def knowing(data: Dataset) -> Any:
    """Answers everything that it sees, and red where it sees nothing."""
    known = {(k, r.question): r.answers[0] for k, r in enumerate(data)}
    return told({**known, (None, "what colour?"): "red"})


def captions(count: int = 4) -> Dataset:
    return Dataset([
        Record(f"c{k}", shade(k), (f"a {WORDS[k]} ball by the tree number {k}", f"ball {k}"))
        for k in range(count)
    ])  # fmt: skip


def describing(data: Dataset) -> Any:
    def write(words: str, pictures: Any) -> str:
        shown = seen(pictures)
        return "a ball" if shown is None else data[shown].captions[0]

    return always(write)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_all_right_is_one_and_the_blind_model_gets_what_the_words_give(name: str) -> None:
    data = colours()
    result = EVALUATIONS[name](knowing(data), data, QUICK)
    assert {metric.value for metric in result.metrics.values()} == {1.0}
    assert (result.ci95, result.n, result.counted) == ((1, 1), 4, "questions")
    assert result.groups["blind"][result.headline].value == 0.25
    assert result.tests["blind"].difference == 0.75
    assert result.verdict.startswith("not told apart")  # four questions are no evidence
    assert [s.parsed for s in result.samples] == list(WORDS)
    assert [s.blind_score for s in result.samples] == [1, 0, 0, 0]
    assert (result.task, result.samples[0].kind) == (name, result.headline)
    assert result.prompt_templates == ("answer en {}",)


def test_a_model_that_looks_is_told_from_one_that_does_not() -> None:
    data = colours(20)
    assert "better than the same model without pictures" in vqa(knowing(data), data, QUICK).verdict
    blind = vqa(always("red"), data, QUICK)
    assert blind.value == blind.groups["blind"][blind.headline].value == 0.25
    assert blind.tests["blind"].p_value == 1
    assert vqa(always("red"), data, replace(QUICK, blind=False)).tests == {}


def test_captions_of_people_are_the_best_and_one_for_all_is_not() -> None:
    data = captions()
    result = caption(describing(data), data, QUICK)
    assert result.metrics["bleu4"].value == pytest.approx(1, abs=1e-6)
    assert result.metrics["rouge_l:coco"].value == pytest.approx(1)
    assert result.value > 4
    assert result.value == pytest.approx(np.mean([s.score for s in result.samples]))
    assert result.groups["blind"]["cider"].value < 0.5 < result.tests["blind"].difference
    assert "blind" in result.to_json()["tests"]
    assert "tokenizer:ptb" in result.signature and "prompt:own" in result.signature
    assert "prompt:own" not in caption(describing(data), data, QUICK, "caption de").signature


def test_scores_of_captions_are_those_of_the_metrics() -> None:
    data = captions()
    said = [f"A {WORDS[k]} ball near the tree, number {k}." for k in range(4)]
    result = caption(always(lambda words, pictures: said[seen(pictures) or 0]), data, QUICK)
    words = [tokenize(text) for text in said]
    truths = [[tokenize(text) for text in record.captions] for record in data]
    assert result.metrics["bleu4"].value == pytest.approx(bleu(words, truths).values[3])
    assert result.metrics["cider"].value == pytest.approx(cider(words, truths).value)
    assert result.metrics["rouge_l:coco"].value == pytest.approx(rouge_l(words, truths).value)
    for metric in result.metrics.values():
        assert metric.ci95 is not None and metric.ci95[0] <= metric.value <= metric.ci95[1]
    assert result.samples[1].parsed == "a blue ball near the tree number 1"


@pytest.mark.parametrize("variant", ["official", "always", "lavis"])
def test_the_three_accuracies_are_those_of_the_metric(variant: str) -> None:
    people = [("1,000",) * 10, ("a red car", "red car", "car", *["the red car"] * 7)]
    data = asked_data((1, "how many?", people[0]), (2, "what?", people[1]))
    said = ["1000", "red car."]
    model = told({(1, "how many?"): said[0], (2, "what?"): said[1]})
    value = vqa(model, data, QUICK).metrics[f"vqa_acc:{variant}"].value
    assert value == vqa_accuracy(said, people, variant).value  # type: ignore[arg-type]


def test_groups_are_those_of_the_data() -> None:
    data = colours()
    known = knowing(data)
    result = vqa(always("red"), data, QUICK)
    assert result.groups["answer_type"]["other"].value == 0.5
    assert result.groups["answer_type"]["number"].value == 0
    assert result.groups["question_type"]["what"].n == 4
    charts = Dataset([
        replace(record, id=f"test_{('human', 'augmented')[k % 2]}/{k}")
        for k, record in enumerate(data)
    ])  # fmt: skip
    groups = chartqa(known, charts, QUICK).groups["questions"]
    assert {name: metric.n for name, metric in groups.items()} == {"human": 2, "augmented": 2}


def test_one_answer_a_question_is_exact_match_and_some_are_refused() -> None:
    data = asked_data((1, "what?", ("cat",)), (2, "what?", ("dog",)))
    result = vqa(told({(1, "what?"): "Cat.", (2, "what?"): "cat"}), data, QUICK)
    assert (result.headline, result.value) == ("exact_match", 0.5)
    assert result.metrics["exact_match:raw"].value == 0
    mixed = Dataset([*data, *colours(1)])
    with pytest.raises(DataError, match=r"people, and 'q0' has 1 .*use one of exact_match, "):
        vqa(always("cat"), mixed, QUICK)


def test_charts_want_one_truth() -> None:
    data = asked_data((1, "how much?", ("10", "11")))
    with pytest.raises(DataError, match="one right answer, and 'q0' has 2 different"):
        chartqa(always("10"), data, QUICK)


@pytest.mark.parametrize("name", [*EVALUATIONS, "caption"])
@pytest.mark.parametrize("truth", ["a", "the", "...", "no"])
def test_what_cannot_be_seen_gains_nothing(name: str, truth: str) -> None:
    """ "a" is no word to VQA accuracy, and "..." none to ROUGE-L: saying nothing would be right."""
    record = Record("x", BROKEN, (truth,), question="which?", answers=(truth,) * 10)
    data = Dataset([record, replace(record, id="y")])
    evaluate = {**EVALUATIONS, "caption": caption}[name]
    result = evaluate(always(""), data, QUICK)
    assert {metric.value for metric in result.metrics.values()} == {0.0}
    assert {metric.value for metric in result.groups["blind"].values()} == {0.0}
    assert (result.n, result.n_missing, result.n_unparsed) == (2, 2, 0)
    assert result.failed
    silent = evaluate(always("  "), Dataset([replace(r, image=shade(1)) for r in data]), QUICK)
    assert {metric.value for metric in silent.metrics.values()} == {0.0}
    assert (silent.n_unparsed, silent.n_missing, silent.failed) == (2, 0, False)


@pytest.mark.parametrize("name", [*EVALUATIONS, "caption"])
@pytest.mark.parametrize(
    "nothing", ["", "\u2028", "<loc0001>", "\x00\x1b[2J", "no idea " * 8, "nan", "1e999", "-inf%"]
)
def test_an_answer_that_says_nothing_never_raises_a_score(name: str, nothing: str) -> None:
    asked = colours()
    data = Dataset([replace(r, captions=c.captions)
                    for r, c in zip(asked, captions(), strict=True)])  # fmt: skip
    evaluate = {**EVALUATIONS, "caption": caption}[name]

    def half(words: str, pictures: Any) -> str:
        shown = seen(pictures) or 0
        return (data[shown].captions if name == "caption" else data[shown].answers)[0]

    def spoilt(words: str, pictures: Any) -> str:
        return nothing if seen(pictures) == 2 else half(words, pictures)

    before, after = (evaluate(always(how), data, QUICK) for how in (half, spoilt))
    for metric, value in before.metrics.items():
        assert after.metrics[metric].value < value.value
    assert after.n_unparsed == (not nothing.strip())


def test_the_order_of_records_and_batches_change_nothing() -> None:
    data = colours(9)
    shuffled = list(data)
    random.Random(0).shuffle(shuffled)
    model = told({(k, "what colour?"): WORDS[k % 3] for k in range(9)})
    first = vqa(model, data, QUICK)
    other = vqa(model, Dataset(shuffled), replace(QUICK, batch_size=2))
    assert (first.value, first.signature) == (other.value, other.signature)
    assert first.groups["answer_type"].keys() == other.groups["answer_type"].keys()
    assert {s.id: s.score for s in first.samples} == {s.id: s.score for s in other.samples}


def test_a_limit_is_partial_and_other_data_have_another_signature() -> None:
    data = colours()
    assert not vqa(always("red"), data, QUICK).partial
    some = vqa(always("red"), data, replace(QUICK, limit=2))
    assert (some.partial, some.n) == (True, 2)
    with pytest.raises(ConfigError, match="limit is 0"):
        vqa(always("red"), data, replace(QUICK, limit=0))
    changes = [
        replace(data[0], question="which colour?"), replace(data[0], answers=("red",) * 9),
        replace(data[0], image=shade(9)),
    ]  # fmt: skip
    signatures = {
        vqa(always("red"), Dataset([first, *data[1:]]), QUICK).signature
        for first in (data[0], *changes)
    }
    assert len(signatures) == 4
    written = replace(QUICK, options={"max_new_tokens": 4})
    assert vqa(always("red"), data, written).signature not in signatures


@pytest.mark.parametrize("name", [*EVALUATIONS, "caption"])
def test_no_record_is_no_score_and_no_truth_is_said(name: str) -> None:
    evaluate = {**EVALUATIONS, "caption": caption}[name]
    nothing = evaluate(always("x"), Dataset([]), QUICK)
    assert nothing.failed and math.isnan(nothing.value)
    with pytest.raises(DataError, match=r"has a (caption|question with an answer): "):
        evaluate(always("x"), Dataset([Record("a", shade(1), (" ",), question="why?")]), QUICK)


def test_cider_of_one_picture_is_refused_before_the_model_is_asked() -> None:
    model = always("a ball")
    with pytest.raises(DataError, match="CIDEr of one picture is 0"):
        caption(model, captions(1), QUICK)
    assert model.network.asked == []


def test_questions_that_cannot_be_asked_are_counted_and_named() -> None:
    data = asked_data((1, "long " * 400, ("x",) * 10), (1, "what?", ("x",) * 10))
    result = vqa(always("x"), data, QUICK)
    assert (result.n, result.n_invalid, result.value) == (2, 1, 0.5)
    assert result.settings["refused"][0].startswith("q0: ")
    assert result.tests["blind"].difference == 0


def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    data = colours(6)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    how = replace(QUICK, batch_size=2, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        vqa(knowing(data), data, replace(how, progress=stop))
    with pytest.raises(DataError, match="did not end: run it again"):
        read_answers(tmp_path / "samples.jsonl")
    model = knowing(data)
    result = vqa(model, data, how)
    assert model.network.pictures == [1, 1]
    whole = vqa(knowing(data), data, QUICK)
    assert result.metrics == whole.metrics
    assert [replace(s, key="") for s in result.samples] == list(whole.samples)
    result.write(tmp_path)
    assert read_result(tmp_path).samples == result.samples
    again = knowing(data)
    assert vqa(again, data, how).metrics == result.metrics
    assert again.network.asked == []


def _written(result: Result, folder: Path) -> Path:
    return result.write(folder).with_name("samples.jsonl")


def test_rescored_is_what_would_have_been_measured(tmp_path: Path) -> None:
    data = colours()
    model = told({(0, "what colour?"): "Red.", (1, "what colour?"): "blu"})
    file = _written(vqa(model, data, QUICK), tmp_path)
    again = rescore(read_answers(file), "anls", 20)
    assert again.metrics["anls"] == docvqa(model, data, QUICK).metrics["anls"]
    assert set(again.metrics) == {"anls", "vqa_acc:official", "vqa_acc:always", "vqa_acc:lavis"}
    assert again.headline == "anls" and "metric:anls" in again.signature
    assert again.groups["blind"]["anls"].value == 0
    assert again.groups["answer_type"].keys() == {"other", "number"}
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(file.read_bytes())
    alone = rescore(read_answers(moved), "anls", 20)
    assert alone.metrics["anls"].value == again.value
    assert alone.partial and not again.partial


def test_captions_are_scored_again_by_the_set(tmp_path: Path) -> None:
    data = captions()
    file = _written(caption(describing(data), data, QUICK), tmp_path)
    result = rescore(read_answers(file.parent), "bleu4", 20)
    assert result.value == pytest.approx(1, abs=1e-6)
    assert result.tests == {} and result.samples[0].kind == "cider"
    assert rescore(result, "rouge_l:coco", 20).value == pytest.approx(1)


@pytest.mark.parametrize("metric", ["cider", "blue", "vqa_acc"])
def test_what_does_not_fit_is_refused_with_what_does(metric: str) -> None:
    data = colours()
    result = vqa(always("red"), data, QUICK)
    with pytest.raises(ConfigError, match=rf"{metric}.*short answers: use one of vqa_acc:official"):
        rescore(result, metric)


def test_what_holds_no_answers_is_refused(tmp_path: Path) -> None:
    data = colours()
    result = vqa(always("red"), data, QUICK)
    others = tuple(replace(sample, kind="zeroshot") for sample in result.samples)
    with pytest.raises(DataError, match=r"no written answers to score again \(it has zeroshot"):
        rescore(replace(result, samples=others), "anls")
    with pytest.raises(DataError, match="give the samples"):
        read_answers(tmp_path / "absent.jsonl")
    (tmp_path / "odd.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="no samples"):
        read_answers(tmp_path / "odd.jsonl")


def test_two_models_are_compared_by_their_answers(tmp_path: Path) -> None:
    data = colours(12)
    results = []
    for place, model in enumerate((knowing(data), always("red"))):
        file = _written(vqa(model, data, QUICK), tmp_path / str(place))
        results.append(read_result(file.parent))
    rows = {row.metric: row for row in compare_metrics(results)}
    (test,) = rows["vqa_acc:official"].tests
    assert test is not None and (test.first_better, test.second_better) == (9, 0)


def test_the_page_shows_worst_and_best_with_truth_and_no_markup() -> None:
    data = colours()
    model = told({(1, "what colour?"): "<script>", (2, "what colour?"): "green",
                  (0, "what colour?"): "red", (None, "what colour?"): "grey"})  # fmt: skip
    html = answer_page(vqa(model, data, QUICK), data, 1).html()
    worst, best = html.split("Worst</h2>")[1].split("Best</h2>")
    assert "asked: what colour?" in worst and "truth: grey" in worst  # the words alone knew it
    assert "said: red" in best or "said: green" in best
    assert worst.count("<img") == best.count("<img") == 1
    assert "<script>" not in html
    assert "blind: grey" in worst


def test_every_metric_scores_an_answer_that_is_the_truth() -> None:
    truths = [["red ball near tree"] * 4, ["blue cars in park"] * 4]
    said = [own[0] for own in truths]
    words = [n for n, m in METRICS.items() if m.family in ("short answers", "captions")]
    assert len(words) > 8
    for name, metric in ((name, METRICS[name]) for name in words):
        values = metric.score(said, truths)
        assert json.dumps(values.values.tolist()), name
        if values.of_totals is None:
            assert (values.values >= 1).all(), name
