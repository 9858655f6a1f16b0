"""Bias of models and pictures whose right verdict is known."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data.annotations import WordLists
from sightline.data.park import planted_scenes
from sightline.data.park.vocabulary import KINDS
from sightline.data.records import Dataset, Record
from sightline.evaluation.bias import Questions, bias
from sightline.evaluation.compare import compare
from sightline.evaluation.results import Result, read_result

BENCH = Questions(prompts=["a bench"], k=40)


class Truth:
    """A perfect judge of kinds: pictures are the words "kind" or "colour kind"."""

    name = "truth"

    def embed_images(self, images: Sequence[Any], batch_size: int = 32) -> Tensor:
        for image in images:
            if image == b"broken":
                raise ImageError("is no picture", "image_undecodable")
        return torch.tensor([self.of(image.decode()) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([self.of(text) for text in texts])

    def of(self, words: str) -> list[float]:
        return [float(kind in words.split()) for kind in KINDS]


class Prejudiced(Truth):
    """Calls everything red a car as well."""

    def of(self, words: str) -> list[float]:
        vector = super().of(words)
        vector[KINDS.index("car")] += 2.0 * ("red" in words.split())
        return vector


def park(share: float, start: int = 0, count: int = 40) -> tuple[Dataset, list[str | None]]:
    """Planted scenes as words, with the colour as group."""
    things = [shown.objects[0] for shown in planted_scenes(count, share, start=start)]
    records = [Record(str(i), thing.name.encode()) for i, thing in enumerate(things)]
    return Dataset(records, "park"), [thing.colour for thing in things]


def people(rows: Sequence[tuple[str, str]]) -> tuple[Dataset, list[str | None]]:
    """Pictures by what they show, and their group."""
    records = [Record(str(i), what.encode(), label=what) for i, (what, _) in enumerate(rows)]
    return Dataset(records, "people"), [group for _, group in rows]


def of(model: Any, made: tuple[Dataset, list[str | None]], asked: Questions, **more: Any) -> Result:
    return bias(model, *made, asked, **{"resamples": 60, **more})


def test_nine_of_ten_benches_red_is_biased_and_half_of_them_is_not() -> None:
    planted = of(Truth(), park(0.9), BENCH)
    assert planted.value == pytest.approx(math.log(0.9 / 0.5))
    assert planted.groups["share"]["a bench / red"].value == 0.9
    assert planted.groups["p_holm"]["a bench"].value < 1e-9
    assert re.match(
        r"biased: yes, 'a bench' MaxSkew 0.59 \[0\.\d+, 0\.\d+\], p = ", planted.verdict
    )
    low, high = planted.ci95 or (0, 0)
    assert low < planted.value < high
    balanced = of(Truth(), park(0.5), BENCH)
    assert balanced.value == 0
    assert balanced.verdict.startswith("biased: not shown; of 1 test(s) the smallest p is 1")


def test_the_balanced_park_is_not_flagged_with_any_of_twenty_seeds() -> None:
    # another search than the planted one: by chance it is red or blue more often
    asked = Questions(prompts=["a bench", "a ball", "a car", "a dog"], k=20)
    verdicts = [
        of(Truth(), park(0.5, start=1000 * seed), asked, resamples=0).verdict for seed in range(20)
    ]
    assert sum(verdict.startswith("biased: yes") for verdict in verdicts) == 0
    shown = [
        of(Truth(), park(0.9, start=1000 * seed), BENCH, resamples=0).verdict for seed in range(20)
    ]
    assert all(verdict.startswith("biased: yes") for verdict in shown)


def test_chance_alone_is_flagged_in_at_most_one_run_of_twenty() -> None:
    flagged = 0
    generator = torch.Generator().manual_seed(0)
    dataset, _ = park(0.5, count=20)
    for _ in range(60):
        groups: list[str | None] = [
            ("red", "blue")[int(word)] for word in torch.randint(2, (40,), generator=generator)
        ]
        asked = Questions(prompts=["a bench", "a ball", "a car"], k=12)
        result = bias(Truth(), dataset, groups, asked, resamples=0)
        flagged += result.verdict.startswith("biased: yes")
    assert flagged <= 0.05 * 60 + 3 * math.sqrt(0.05 * 0.95 * 60)


def test_equal_shares_and_those_of_the_data_are_two_questions() -> None:
    made = people([("cat", "a")] * 90 + [("cat", "b")] * 10)
    asked = Questions(prompts=["cat"], k=100)
    assert of(Truth(), made, asked).value == pytest.approx(0)
    equal = of(Truth(), made, Questions(prompts=["cat"], k=100, target="equal"))
    assert equal.value == pytest.approx(math.log(0.9 / 0.5))
    assert equal.verdict.startswith("biased: yes")
    assert equal.signature != of(Truth(), made, asked).signature


def test_several_prompts_are_corrected_for_being_several() -> None:
    one = of(Truth(), park(0.9), BENCH, resamples=0)
    prompts = ["a bench", *(f"a {kind}" for kind in KINDS[10:18])]
    many = of(Truth(), park(0.9), Questions(prompts=prompts, k=40), resamples=0)
    p = one.groups["p"]["a bench"].value
    assert many.groups["p"]["a bench"].value == p
    assert many.groups["p_holm"]["a bench"].value == pytest.approx(9 * p)
    assert many.metrics["max_skew"].n == 9


def test_ties_at_the_cut_are_named() -> None:
    result = of(Truth(), park(0.5), Questions(prompts=["a bench"], k=10), resamples=0)
    assert result.settings["tied"] == {"a bench": 30}
    assert of(Truth(), park(0.5), BENCH, resamples=0).settings["tied"] == {}


def test_words_of_picture_groups() -> None:
    lists = WordLists("cars", (("a car", "one car"), ("a dog", "one dog")), None)
    made = people([("red ball", "red"), ("blue ball", "blue")] * 25)
    asked = Questions(words=lists)
    result = of(Prejudiced(), made, asked)
    assert abs(result.value) > 1.9 and result.headline == "association"
    assert result.groups["p"]["cars: blue and red"].value < 0.001
    assert result.verdict.startswith("biased: yes, 'cars: blue and red' association d -")
    fair = of(Truth(), made, asked)
    assert fair.verdict.startswith("biased: ") and "yes" not in fair.verdict


def test_words_alone() -> None:
    targets = (("red tree", "red cat"), ("blue tree", "blue cat"))
    lists = WordLists("colours", (("a car",), ("a dog",)), targets)
    made = people([("red ball", "red"), ("blue ball", "blue")] * 25)
    result = of(Prejudiced(), made, Questions(words=lists))
    assert set(result.groups["effect"]) == {"colours"}
    # four words give six partitions: so little can never be significant
    assert result.groups["p"]["colours"].value == pytest.approx(1 / 3)


def test_accuracy_of_groups_where_the_data_has_the_labels() -> None:
    rows = [(f"{colour} {kind}", colour) for colour in ("red", "blue") for kind in ("cat", "dog")]
    made = people(rows * 20)
    dataset = Dataset(
        [Record(r.id, r.image, label=str(r.label).split()[1]) for r in made[0]], "people"
    )
    asked = Questions(labels=["cat", "dog", "car"], templates=["{}"])
    result = of(Prejudiced(), (dataset, made[1]), asked)
    assert result.groups["share"]["accuracy / red"].value == 0
    assert result.groups["share"]["accuracy / blue"].value == 1
    assert result.metrics["label_gap"].value == 1
    assert result.metrics["worst_group_accuracy"].value == 0
    assert result.metrics["demographic_parity"].value == 1  # car, for all red ones and no other
    assert result.verdict.startswith("biased: yes, 'accuracy' gap 1.00 [0.88, 1.00], p = ")
    fair = of(Truth(), (dataset, made[1]), asked)
    assert fair.metrics["label_gap"].value == 0 and "not shown" in fair.verdict


def test_choices_of_groups_where_there_is_no_truth() -> None:
    made = people([("red ball", "red"), ("blue ball", "blue")] * 25)
    result = of(Prejudiced(), made, Questions(labels=["car", "cat", "ball"], templates=["{}"]))
    assert set(result.groups["gap"]) == {"label car", "label cat", "label ball"}
    assert result.groups["share"]["label car / red"].value == 1
    assert result.groups["p_holm"]["label cat"].value == 1
    assert result.verdict.startswith("biased: yes, 'label car' gap 1.00 [0.81, 1.00], p = 0.0015")


def test_what_is_broken_or_without_a_group_is_counted() -> None:
    dataset, groups = park(0.5, count=10)
    records = [*dataset, Record("bad.png", b"broken"), Record("nobody.png", b"red cat")]
    made = Dataset(records, "park"), [*groups, "red", None]
    result = of(Truth(), made, Questions(prompts=["a bench"], k=10))
    assert (result.n, result.n_missing, result.n_excluded) == (21, 1, 1)
    assert result.missing == ("bad.png: is no picture",)
    assert result.settings["small_groups"] == {"blue": 10, "red": 10}
    assert of(Truth(), park(0.5), BENCH).settings["small_groups"] == {}


def test_renaming_groups_and_order_change_nothing() -> None:
    dataset, groups = park(0.9)
    plain = of(Truth(), (dataset, groups), BENCH, resamples=0)
    turned = of(Truth(), (Dataset(dataset.records[::-1], "park"), groups[::-1]), BENCH, resamples=0)
    assert plain.signature == turned.signature
    assert {n: m.value for n, m in plain.metrics.items() if n != "ndkl"} == {
        n: m.value for n, m in turned.metrics.items() if n != "ndkl"
    }  # ties are broken by place, which only NDKL sees here
    renamed = of(Truth(), (dataset, [f"x{group}" for group in groups]), BENCH, resamples=0)
    assert renamed.value == plain.value and renamed.signature != plain.signature


def test_written_and_compared(tmp_path: Path) -> None:
    asked = Questions(prompts=["a bench", "a car", "a ball"], k=30)
    of(Truth(), park(0.9), asked).write(tmp_path / "a")
    of(Prejudiced(), park(0.9), asked).write(tmp_path / "b")
    first, second = read_result(tmp_path / "a"), read_result(tmp_path / "b")
    assert first.verdict.startswith("biased: yes")
    tests = compare(first, second)
    assert set(tests) == {"max_skew"} and tests["max_skew"].difference < 0
    assert ("verdict", first.verdict) in first.summary_rows()


def test_limit_keeps_groups_with_their_pictures() -> None:
    result = of(Truth(), park(0.9), Questions(prompts=["a bench"], k=20), limit=60)
    assert result.partial and result.n == 60
    assert result.groups["share"]["a bench / red"].value > 0.7


def test_messages_say_what_to_do() -> None:
    made = park(0.5, count=5)
    for asked, message in (
        (Questions(), "nothing to test: give prompts, labels or word lists"),
        (Questions(prompts=["x"]), "k is missing: say how many"),
        (Questions(prompts=["x", "x"], k=1), "a prompt is given twice"),
        (Questions(prompts=["x"], k=11), "k is 11: it must be 1 to 10, the number of pictures"),
        (Questions(labels=["x"]), r"labels are \['x'\]: give at least two"),
    ):
        with pytest.raises(ConfigError, match=message):
            of(Truth(), made, asked)
    with pytest.raises(DataError, match="1 groups for 10 records: give one each, or None"):
        bias(Truth(), made[0], ["red"], BENCH)
    with pytest.raises(DataError, match=r"pictures of 1 group\(s\) \['red'\]: at least two"):
        bias(Truth(), made[0], ["red"] * 10, Questions(prompts=["x"], k=1))
