"""POPE and CHAIR of models that are known: honest, credulous, silent and broken."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.core.errors import ConfigError, DataError
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.evaluation import pope_chair
from sightline.evaluation.answer_page import answer_page
from sightline.evaluation.compare import compare_metrics
from sightline.evaluation.hallucination import CHAIR, POPE, hallucination
from sightline.evaluation.judged import Measuring
from sightline.evaluation.rescore import read_answers, rescore
from sightline.evaluation.results import Result, read_result
from sightline.metrics.chair import chair, read_object_list
from sightline.metrics.hallucination import pope
from tests.evaluation.answering import BROKEN, always, asked_data, seen, shade, told

QUICK = Measuring(resamples=20)
OBJECTS = read_object_list(json.dumps({
    "format": "sightline.objects", "version": 1,
    "objects": {"dog": ["puppy"], "cat": [], "ball": [], "tree": []},
}))  # fmt: skip
KINDS = ("random", "popular", "adversarial")
ASKED = "is there a dog?"


def exists(*truths: str, image: Any = None) -> Dataset:
    """Is there a dog? In picture k the answer is that of place k."""
    rows = [(k if image is None else image, ASKED, (truth,)) for k, truth in enumerate(truths)]
    data = asked_data(*rows)
    return Dataset([replace(r, extra={"category": KINDS[k % 3]}) for k, r in enumerate(data)])


def saying(*answers: str, blind: str = "yes") -> Any:
    return told({**{(k, ASKED): own for k, own in enumerate(answers)}, (None, ASKED): blind})


def test_pope_is_that_of_the_metric_by_category_and_blind() -> None:
    truths, said = ("yes", "no", "yes", "no"), ("Yes, a dog.", "I see no dog", "no", "It may be")
    result = hallucination(saying(*said), exists(*truths), QUICK)
    right = [truth == "yes" for truth in truths]
    official, strict = pope(said, right), pope(said, right, "strict")
    assert tuple(result.metrics) == POPE
    assert {name: metric.value for name, metric in result.metrics.items()} == {
        "pope_acc:official": official.accuracy, "pope_acc:strict": strict.accuracy,
        "pope_precision": official.precision, "pope_recall": official.recall,
        "pope_f1": official.f1, "pope_yes_share": official.yes_ratio, "pope_unparsed": 0.5,
    }  # fmt: skip
    assert (result.value, result.metrics["pope_acc:strict"].value) == (0.5, 0.25)
    assert result.groups["blind"]["pope_yes_share"].value == 1
    assert result.tests["blind"].difference == 0
    assert [s.parsed for s in result.samples] == ["yes", "no", "no", "yes"]
    assert (result.n_unparsed, result.variant, result.counted) == (0, "pope", "questions")
    # one of the two random ones, the popular one, not the adversarial one
    kinds = result.groups["category"]
    assert {name: metric.value for name, metric in kinds.items()} == {
        "random": 0.5, "popular": 1, "adversarial": 0, "mean of 3": 0.5,
    }  # fmt: skip
    assert kinds["random"].n == 2 and kinds["mean of 3"].n == 4


def test_the_mean_of_categories_is_not_that_of_questions() -> None:
    data = exists("yes", "yes", "yes", "yes")
    result = hallucination(saying("yes", "no", "no", "yes"), data, QUICK)
    assert result.value == 0.5
    assert result.groups["category"]["mean of 3"].value == pytest.approx(1 / 3)
    labelled = Dataset([replace(r, extra={}, label=r.extra["category"]) for r in data])
    again = hallucination(saying("yes", "no", "no", "yes"), labelled, QUICK)
    assert again.groups["category"] == result.groups["category"]
    of_answer = Dataset([replace(record, extra={}, label="yes") for record in data])
    assert "category" not in hallucination(saying("yes"), of_answer, QUICK).groups
    alone = Dataset([replace(record, extra={}) for record in data])
    assert "category" not in hallucination(saying("yes"), alone, QUICK).groups


@pytest.mark.parametrize("truth", ["yes", "no"])
@pytest.mark.parametrize("nothing", ["", "  ", "\n\u2028"])
def test_an_empty_answer_is_wrong_whatever_was_asked(truth: str, nothing: str) -> None:
    result = hallucination(always(nothing), exists(truth, truth), QUICK)
    numbers = {name: metric.value for name, metric in result.metrics.items()}
    assert numbers == dict.fromkeys(POPE, 0.0) | {"pope_unparsed": 1.0}
    assert (result.n_unparsed, result.n_missing, result.failed) == (2, 0, False)
    assert [sample.parsed for sample in result.samples] == [None, None]
    assert {m.value for m in result.groups["category"].values()} == {0.0}
    torn = hallucination(always("yes"), exists(truth, truth, image=BROKEN), QUICK)
    assert {torn.metrics[name].value for name in POPE[:-1]} == {0.0}
    assert (torn.n_missing, torn.failed) == (2, True)


def test_the_official_reading_of_nothing_would_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published script reads "" as yes: planted here, to see that the test above would fail."""
    monkeypatch.setattr(pope_chair, "_answered", lambda said: np.ones(len(said), dtype=bool))
    result = hallucination(always(""), exists("yes", "yes"), QUICK)
    assert result.metrics["pope_recall"].value == 1.0


@pytest.mark.parametrize("nothing", ["", "\u2028"])
def test_an_answer_that_says_nothing_raises_no_number_of_pope(nothing: str) -> None:
    truths, said = ("yes", "no", "yes", "no", "yes"), ["yes", "no", "no", "yes", "yes"]
    before = hallucination(saying(*said), exists(*truths), QUICK).metrics
    for place in range(5):
        spoilt = [nothing if k == place else own for k, own in enumerate(said)]
        after = hallucination(saying(*spoilt), exists(*truths), QUICK).metrics
        for name in POPE[:-2]:
            assert after[name].value <= before[name].value, (name, place)


def test_other_questions_are_left_out_and_none_is_said() -> None:
    data = Dataset([*exists("yes", "No"), *asked_data((3, "how many?", ("3",)))])
    result = hallucination(saying("yes", "no"), data, QUICK)
    assert (result.n, result.n_excluded, result.value) == (2, 1, 1)
    disputed = Dataset([replace(data[0], answers=("yes", "no"))])
    for other in (Dataset(data.records[2:]), disputed):
        with pytest.raises(DataError, match=r"yes or no for an answer: .*give the object list"):
            hallucination(saying("yes"), other, QUICK)
    empty = hallucination(saying("yes"), Dataset([]), QUICK)
    assert empty.failed and math.isnan(empty.value)


def test_what_is_nothing_by_nothing_is_named() -> None:
    result = hallucination(saying("no", "no"), exists("no", "no"), QUICK)
    assert result.value == 1
    assert result.settings["undefined"] == ("precision", "recall", "f1")
    assert hallucination(saying("yes"), exists("yes"), QUICK).settings["undefined"] == ()


def described() -> Dataset:
    """Pictures with a dog, a cat and a ball, the latter by its region alone."""
    return Dataset([
        Record("d", shade(1), ("a dog runs", "the puppy by a tree")),
        Record("c", shade(2), ("a cat sits",)),
        Record("b", shade(3), (), regions=(Region("Ball", (0, 0, 4, 4)),)),
    ])  # fmt: skip


def writing(*captions: str, blind: str = "a cat") -> Any:
    """Captions of the pictures of shades 1, 2, ..."""

    def write(words: str, pictures: Any) -> str:
        shown = seen(pictures)
        return blind if shown is None else captions[shown - 1]

    return always(write)


def test_chair_is_that_of_the_metric_and_less_is_better() -> None:
    said = ("a dog and a cat", "a cat, a cat and a dog", "a ball")
    data = described()
    result = hallucination(writing(*said), data, QUICK, OBJECTS)
    found = chair(said, [(), (), ("ball",)], [r.captions for r in data], OBJECTS)
    assert tuple(result.metrics) == CHAIR and result.headline == "chair_s"
    assert [m.value for m in result.metrics.values()] == [
        found.chair_s, found.chair_i, found.recall
    ]  # fmt: skip
    assert (result.value, result.metrics["chair_i"].value) == (2 / 3, 2 / 6)
    assert result.metrics["object_recall"].value == 3 / 4  # the tree is not named
    assert [s.score for s in result.samples] == [1, 1, 0]
    assert result.samples[1].parsed == "cat, cat, dog"
    assert result.groups["blind"]["chair_s"].value == 2 / 3
    assert f"objects:{OBJECTS.sha256[:12]}" in result.signature


def test_a_model_that_looks_has_the_better_verdict_although_its_number_is_less() -> None:
    data = Dataset([Record(f"r{k}", shade(k % 20), ("a dog",)) for k in range(20)])
    honest = hallucination(always(lambda w, p: "a dog" if p else "a cat"), data, QUICK, OBJECTS)
    assert (honest.value, honest.groups["blind"]["chair_s"].value) == (0, 1)
    assert honest.verdict.startswith("better than the same model without pictures (-1.0")
    assert (honest.tests["blind"].first_better, honest.tests["blind"].second_better) == (20, 0)
    fond = hallucination(always(lambda w, p: "a cat" if p else "a dog"), data, QUICK, OBJECTS)
    assert fond.verdict.startswith("worse than")
    rows = {row.metric: row for row in compare_metrics([honest, fond])}
    (test,) = rows["chair_s"].tests
    assert test is not None and (test.first_better, test.second_better) == (20, 0)


@pytest.mark.parametrize("nothing", ["", " \u2028"])
def test_an_empty_caption_is_not_free_of_hallucination(nothing: str) -> None:
    data = described()
    for image in (None, BROKEN):
        shown = Dataset([replace(r, image=r.image if image is None else image) for r in data])
        result = hallucination(always(nothing), shown, QUICK, OBJECTS)
        assert [m.value for m in result.metrics.values()] == [1, 1, 0]
        assert (result.n_unparsed, result.n_missing) == ((3, 0) if image is None else (0, 3))
        assert [s.score for s in result.samples] == [1, 1, 1]
    free = hallucination(always("a nice picture"), data, QUICK, OBJECTS)
    assert free.value == 0 and free.n_unparsed == 0 and math.isnan(free.metrics["chair_i"].value)


def test_the_published_count_of_an_empty_caption_would_gain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pope_chair, "_answered", lambda said: np.ones(len(said), dtype=bool))
    said = ("a cat", "", "")
    result = hallucination(writing(*said), described(), QUICK, OBJECTS)
    assert result.metrics["chair_i"].value == 1  # of one mention: two captions are for free
    counts = pope_chair.chair_scores(OBJECTS, said, [("a dog",)] * 3).values
    assert counts.tolist() == [1, 0, 0]


def test_names_of_regions_that_the_list_does_not_know_are_told() -> None:
    regions = tuple(Region(name, (0, 0, 4, 4)) for name in ("hydrant", "dogs", "bird"))
    data = Dataset([Record("r", shade(1), regions=regions)])
    result = hallucination(writing("a dog"), data, QUICK, OBJECTS)
    assert result.settings["unknown_labels"] == ["bird", "hydrant"]
    assert result.value == 0
    with pytest.raises(DataError, match=r"a caption or a region: .*give no object list"):
        hallucination(writing("a dog"), exists("yes"), QUICK, OBJECTS)


def _written(result: Result, folder: Path) -> Path:
    return result.write(folder).with_name("samples.jsonl")


def test_answers_are_scored_again(tmp_path: Path) -> None:
    data = exists("yes", "no", "yes")
    model = saying("Yes", "maybe", "yes", blind="perhaps")
    result = hallucination(model, data, QUICK)
    read = read_answers(_written(result, tmp_path))
    assert read == replace(result, settings=read.settings)
    again = rescore(read, "pope_acc:strict", 20)
    assert again.value == result.metrics["pope_acc:strict"].value == 2 / 3
    assert again.n_unparsed == 1
    assert again.samples[1].parsed is None
    f1 = rescore(read, "pope_f1", 20)
    assert f1.metrics["pope_f1"] == result.metrics["pope_f1"]
    assert (f1.tests, f1.samples[0].kind) == ({}, "pope_acc:official")
    with pytest.raises(ConfigError, match="yes-or-no answers: use one of pope_acc:official"):
        rescore(read, "anls")


def test_captions_are_scored_again_by_another_list(tmp_path: Path) -> None:
    result = hallucination(writing("a dog", "a dog", "a ball"), described(), QUICK, OBJECTS)
    read = read_answers(_written(result, tmp_path))
    with pytest.raises(ConfigError, match="give the object list with --objects"):
        rescore(read, "chair_i", 20)
    same = rescore(read, "chair_i", 20, OBJECTS)
    assert same.metrics == {name: result.metrics[name] for name in same.metrics}
    assert same.signature == result.signature.replace("metric:chair_s", "metric:chair_i")
    fewer = read_object_list(
        '{"format": "sightline.objects", "version": 1, "objects": {"cat": []}}'
    )
    other = rescore(read, "chair_s", 20, fewer)
    assert other.value == 0
    assert f"objects:{fewer.sha256[:12]}" in other.signature
    assert other.settings["objects"] == fewer.sha256


def test_a_killed_run_goes_on_and_a_part_is_partial(tmp_path: Path) -> None:
    data = exists(*["yes"] * 6)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    how = replace(QUICK, batch_size=2, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        hallucination(saying(*["yes"] * 6), data, replace(how, progress=stop))
    model = saying(*["yes"] * 6)
    assert hallucination(model, data, how).value == 1
    assert model.network.pictures == [1, 1]
    some = hallucination(model, data, replace(QUICK, limit=2, blind=False))
    assert (some.partial, some.n, some.tests) == (True, 2, {})
    assert some.signature != hallucination(model, data, QUICK).signature


def test_a_written_result_can_be_read_and_its_page_shows_the_worst(tmp_path: Path) -> None:
    data = described()
    result = hallucination(writing("a dog", "a dog", "a ball"), data, QUICK, OBJECTS)
    result.write(tmp_path)
    assert read_result(tmp_path).samples == result.samples
    html = answer_page(result, data, 1).html()
    worst, best = html.split("Worst</h2>")[1].split("Best</h2>")
    assert "truth: a cat sits" in worst and "said: a dog" in worst
    assert "truth: Ball" in best or "truth: a dog runs" in best
