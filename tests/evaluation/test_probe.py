"""Linear probes, neighbours and few-shot probes of fakes whose right answer is known."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline.core.errors import ConfigError, DataError, UnsupportedTaskError
from sightline.data.records import Dataset, Record
from sightline.evaluation.compare import compare_metrics
from sightline.evaluation.few_shot import few_shot
from sightline.evaluation.probe import knn, linear_probe
from sightline.evaluation.probe_data import drawn_shots, embed_parts, probe_data
from sightline.evaluation.results import read_result
from sightline.metrics.linear_probe import Tried, sweep_penalty
from tests.evaluation.fakes import FakeModel, plane

NAMES = ["car", "cat", "dog", "fish", "house", "tree"]
TEXTS = {f"a photo of a {name}.": plane(60 * place) for place, name in enumerate(NAMES)}
WAYS = {"linear-probe": linear_probe, "knn": knn, "few-shot": few_shot}


def circle(spread: float = 1.0, **more: Sequence[float]) -> FakeModel:
    """Pictures are named "car 3": the direction of the class, turned by a few degrees."""
    images = {
        f"{name} {number}": plane(60 * place + spread * (7 * number % 41 - 20))
        for place, name in enumerate(NAMES)
        for number in range(40)
    }
    return FakeModel({**images, **more}, TEXTS)


def record(picture: str, label: str | None, split: str | None = None) -> Record:
    return Record(f"{split or 'all'}/{picture}.png", picture.encode(), label=label, split=split)


def records(train: int = 8, test: int = 3, validation: int = 0) -> Dataset:
    """So many pictures of each class in each split."""
    counts = {"train": range(train), "val": range(train, train + validation),
              "test": range(train + validation, train + validation + test)}  # fmt: skip
    return Dataset(
        [
            record(f"{name} {number}", name, split)
            for split, numbers in counts.items()
            for name in NAMES
            for number in numbers
        ],
        name="fakes",
    )


def without_splits(count: int = 10) -> Dataset:
    return Dataset([replace(r, split=None) for r in records(count, 0)], name="fakes")


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_perfect_model_scores_one(way: str) -> None:
    result = WAYS[way](circle(), probe_data(records()))
    assert (result.task, result.value, result.n, result.failed) == (way, 1, 18, False)
    assert result.model == "fake" and result.data == "fakes"
    if way != "few-shot":
        assert set(result.metrics) == {"top1", "top5", "mean_per_class_recall", "ece15"}
        assert result.groups["class"]["dog"].value == 1


def test_a_collapsed_model_is_never_right(way: str) -> None:
    """Nothing tells the pictures apart, and all classes are equally frequent."""
    model = circle()
    model.images = dict.fromkeys(model.images, plane(3))
    result = WAYS[way](model, probe_data(records()))
    assert result.value == 0
    assert all(metric.value == 0 for name, metric in result.metrics.items() if "top" in name
               and "zeroshot" not in name)  # fmt: skip


def test_a_broken_test_picture_is_wrong_and_named(way: str) -> None:
    data = [*records(), record("broken test", "car", "test")]
    result = WAYS[way](circle(), probe_data(Dataset(data)))
    assert result.value == pytest.approx(18 / 19)
    assert (result.n, result.n_missing) == (19, 1)
    assert result.missing == ("test/broken test.png: broken test is no picture",)
    assert next(s.status for s in result.samples if "broken" in s.id) == "missing"


def test_a_broken_picture_to_learn_from_is_left_out_and_counted(way: str) -> None:
    data = [*records(), record("broken train", "car", "train"), record("bad", "cat", "train")]
    model = circle(bad=[math.nan, math.nan])
    result = WAYS[way](model, probe_data(Dataset(data)))
    assert (result.value, result.n, result.n_missing) == (1, 18, 0)
    assert result.settings["left_out"] == [
        "train/broken train.png: broken train is no picture",
        "train/bad.png: its vector is not finite",
    ]
    assert result.settings["train"] == 50


def test_a_test_vector_that_is_not_a_number_is_wrong_and_counted(way: str) -> None:
    data = [*records(), record("bad", "cat", "test")]
    result = WAYS[way](circle(bad=[math.nan, 1.0]), probe_data(Dataset(data)))
    assert result.value == pytest.approx(18 / 19)
    assert (result.n_invalid, result.n_missing) == (1, 0)
    assert {s.status for s in result.samples if s.id == "test/bad.png"} == {"invalid"}


def test_only_broken_test_pictures_fail(way: str) -> None:
    data = [r if r.split == "train" else replace(r, image=b"broken") for r in records()]
    result = WAYS[way](circle(), probe_data(Dataset(data)))
    assert (result.value, result.n_missing, result.failed) == (0, 18, True)


def test_a_label_that_nothing_was_learned_of_counts_as_wrong(way: str) -> None:
    data = [*records(), record("car 30", "lorry", "test")]
    model = circle()
    model.texts = {**TEXTS, "a photo of a lorry.": plane(90)}
    result = WAYS[way](model, probe_data(Dataset(data)))
    assert result.value == pytest.approx(18 / 19)
    assert result.settings["unknown_labels"] == ["lorry"]
    if way != "few-shot":
        assert result.groups["class"]["lorry"].value == 0


def test_order_and_batches_change_nothing(way: str) -> None:
    data = list(records(20, 6, 2))
    model = circle(spread=2)
    first = WAYS[way](model, probe_data(Dataset(data)), batch_size=7)
    second = WAYS[way](model, probe_data(Dataset(data[::-1])), batch_size=64)
    assert first.signature == second.signature
    assert {n: m.value for n, m in first.metrics.items()} == pytest.approx(
        {n: m.value for n, m in second.metrics.items()}, abs=1e-5
    )
    assert 0 < first.value < 1


def test_results_are_written_read_and_compared(way: str, tmp_path: object) -> None:
    data = probe_data(records(test=8))
    good, poor = (WAYS[way](circle(spread=spread), data) for spread in (1, 3))
    good.write(f"{tmp_path}/good")
    rows = compare_metrics([read_result(f"{tmp_path}/good"), poor])
    named = {row.metric: row for row in rows}
    test = named[good.headline].tests[0]
    assert test is not None
    assert test.difference == pytest.approx(good.value - poor.value)
    assert test.p_value < 0.01 and test.low > 0


def test_progress_counts_all_pictures(way: str) -> None:
    seen: list[tuple[int, int]] = []
    WAYS[way](circle(), probe_data(records(validation=1)), batch_size=20,
              progress=lambda *now: seen.append(now))  # fmt: skip
    assert seen[-1] == (72, 72)
    assert seen == sorted(seen) and {total for _, total in seen} == {72}


def test_the_signature_follows_what_was_learned_from(way: str) -> None:
    measure = WAYS[way]
    data = records()
    first = measure(circle(), probe_data(data)).signature
    assert first == measure(circle(spread=2), probe_data(data)).signature
    fewer = Dataset([r for r in data if r.id != "train/car 1.png"])
    assert first != measure(circle(), probe_data(fewer)).signature
    assert "parts:train>test" in first and f"{way}|metric:" in first


def test_neighbours_and_temperature_are_in_the_signature() -> None:
    data = probe_data(records())
    asked = [{}, {"k": 3}, {"temperature": None}, {"temperature": 0.5}]
    signatures = {knn(circle(), data, **options).signature for options in asked}  # type: ignore[arg-type]
    assert len(signatures) == 4


# The parts


def test_own_splits_are_used_and_val_learns_too() -> None:
    data = probe_data(records(8, 3, 2))
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 12, 18)
    assert (data.how, data.partial) == ("train+val>test", False)
    assert linear_probe(circle(), data).settings["train"] == 60


def test_what_only_val_shows_is_learned_in_the_end(way: str) -> None:
    """Penalties are chosen before, by a probe that never saw the class."""
    data = Dataset([r for r in records(8, 3, 8) if r.label != "tree" or r.split != "train"])
    result = WAYS[way](circle(), probe_data(data))
    assert result.settings["unknown_labels"] == []
    assert sum(sample.score for sample in result.samples if sample.target == ("tree",)) >= 2


def test_val_is_scored_where_there_is_no_test() -> None:
    data = probe_data(Dataset([r for r in records(8, 3, 2) if r.split != "test"]))
    assert (len(data.validation), len(data.test), data.how) == (0, 12, "train>val")
    named = probe_data(records(8, 3, 2), "validation", "testing")
    assert (len(named.train), len(named.test), named.how) == (12, 18, "val>test")


def test_data_without_splits_hold_out_the_same_fifth_in_any_order() -> None:
    data = without_splits()
    parts = probe_data(data)
    assert (len(parts.train), len(parts.test), parts.how) == (48, 12, "80/20 of all, seed 0")
    assert {r.label for r in parts.test} == set(NAMES)
    assert not {r.id for r in parts.train} & {r.id for r in parts.test}
    turned = probe_data(Dataset(list(data)[::-1]))
    assert {r.id for r in parts.test} == {r.id for r in turned.test}
    assert {r.id for r in parts.test} != {r.id for r in probe_data(data, seed=1).test}
    only = probe_data(Dataset([r for r in records() if r.split == "train"]))
    assert only.how == "80/20 of train, seed 0"


def test_a_limit_cuts_every_part_and_marks_the_result(way: str) -> None:
    data = probe_data(records(8, 3, 2), limit=15)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 12, 15)
    assert WAYS[way](circle(), data).partial


def test_records_without_a_label_are_excluded() -> None:
    data = probe_data(Dataset([*records(), record("x", None, "test"), record("y", None, "train")]))
    assert (len(data.train), len(data.test), data.excluded) == (48, 18, 1)
    assert knn(circle(), data).n_excluded == 1


def test_messages_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="'test' cannot be both learned from and scored"):
        probe_data(records(), "test", "test")
    with pytest.raises(DataError, match="nothing in this data names a split"):
        probe_data(without_splits(), test_split="test")
    with pytest.raises(DataError, match="unknown split 'tset': did you mean 'test'"):
        probe_data(records(), test_split="tset")
    with pytest.raises(DataError, match="no record to score has a label: a probe needs a folder"):
        probe_data(Dataset([record("car 1", "car", "train"), record("car 2", None, "test")]))
    with pytest.raises(ConfigError, match="limit is 0"):
        probe_data(records(), limit=0)
    one = Dataset([r for r in records() if r.label == "car"], name="cars")
    with pytest.raises(DataError, match="are all 'car': a probe needs at least two classes"):
        knn(circle(), probe_data(one))
    broken = Dataset([replace(r, image=b"broken") for r in records()])
    with pytest.raises(DataError, match="no picture to learn from could be read: train/car 0"):
        knn(circle(), probe_data(broken))
    few = Dataset([record("car 1", "car", "train"), record("cat 1", "cat", "train"),
                   record("car 2", "car", "test")])  # fmt: skip
    with pytest.raises(DataError, match="too few to choose a penalty by some of them"):
        linear_probe(circle(), probe_data(few))
    assert linear_probe(circle(), probe_data(few), penalty=1.0).value == 1


# The linear probe


@pytest.mark.parametrize(("validation", "fitted", "judged"), [(4, 72, 24), (0, 58, 14)])
def test_the_penalty_is_chosen_without_the_test_pictures(
    validation: int, fitted: int, judged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the split val, or by a fifth of the pictures to learn from, and the best of all tried."""
    data = probe_data(records(12, 6, validation))
    model = circle(spread=2)
    learned = {tuple(model.images[r.image.decode()]) for r in data.learned}  # type: ignore[union-attr]
    seen: list[Tensor] = []

    def spy(*given: Any) -> tuple[float, tuple[Tried, ...]]:
        seen.extend([given[0], given[2]])
        return sweep_penalty(*given)

    monkeypatch.setattr("sightline.evaluation.probe.sweep_penalty", spy)
    chosen = linear_probe(model, data).settings
    assert [len(part) for part in seen] == [fitted, judged]
    rows = torch.cat(seen).tolist()
    assert {tuple(torch.tensor(v).tolist()) for v in learned} == {tuple(row) for row in rows}
    penalties = [attempt["penalty"] for attempt in chosen["tried"]]
    accuracies = dict(zip(penalties, (a["accuracy"] for a in chosen["tried"]), strict=True))
    assert penalties == sorted(penalties)
    assert accuracies[chosen["penalty"]] == max(accuracies.values())


def test_a_given_penalty_is_used_and_signed() -> None:
    data = probe_data(records())
    result = linear_probe(circle(), data, penalty=0.25)
    assert (result.settings["penalty"], result.settings["tried"]) == (0.25, [])
    assert "penalty:0.25" in result.signature
    assert "penalty:sweep" in linear_probe(circle(), data).signature


# Few shots


def test_shots_are_nested_seeded_and_at_most_what_there_is() -> None:
    seen = embed_parts(circle(), probe_data(records(8)), 32, None)
    taken = {n: {r.id for r in drawn_shots(seen.train, n, 0).records} for n in (1, 2, 4, 8, 16)}
    assert [len(taken[n]) for n in (1, 2, 4, 8, 16)] == [6, 12, 24, 48, 48]
    assert taken[1] < taken[2] < taken[4] < taken[8] == taken[16]
    assert {r.id for r in drawn_shots(seen.train, 2, 1).records} != taken[2]
    labels = [r.label for r in drawn_shots(seen.train, 2, 0).records]
    assert all(labels.count(name) == 2 for name in NAMES)


def test_few_shot_reports_the_mean_and_its_interval_over_draws() -> None:
    data = probe_data(records(20, 6))
    result = few_shot(circle(spread=2.2), data, shots=(1, 4), draws=4)
    assert set(result.metrics) == {"1-shot/top1", "4-shot/top1", "zeroshot/top1"}
    assert result.headline == "4-shot/top1"
    assert result.settings["pictures"] == {"1": 6, "4": 24}
    one = result.metrics["1-shot/top1"]
    assert one.ci95 is not None and one.ci95[0] < one.value < one.ci95[1]
    shares = [s.score for s in result.samples if s.kind == "1-shot"]
    assert sum(shares) / len(shares) == pytest.approx(one.value)
    assert set(shares) <= {0, 0.25, 0.5, 0.75, 1}
    single = few_shot(circle(), data, shots=(2,), draws=1).metrics["2-shot/top1"].ci95
    assert single is not None and math.isnan(single[0])


def test_a_narrow_cone_learns_as_well_as_a_wide_one() -> None:
    """All pictures are moved in one direction, fifty times as far as they lie apart.

    With unequal classes, a penalty on such vectors leaves nothing but how frequent each one is.
    """
    rare = {f"train/car {number}.png" for number in range(8, 20)}
    data = probe_data(Dataset([r for r in records(20, 6) if r.id not in rare]))
    wide, narrow = circle(), circle()
    narrow.images = {
        name: torch.nn.functional.normalize(torch.tensor([x + 30, y + 40, 50.0]), dim=0).tolist()
        for name, (x, y) in wide.images.items()
    }
    narrow.texts = {text: [*vector, 0.0] for text, vector in TEXTS.items()}
    found = few_shot(narrow, data, shots=(1, 16))
    expected = few_shot(wide, data, shots=(1, 16))
    for name in ("1-shot/top1", "16-shot/top1"):
        assert expected.metrics[name].value > 0.9
        assert found.metrics[name].value == pytest.approx(expected.metrics[name].value, abs=0.05)


def test_zero_shot_stands_beside_where_the_model_reads() -> None:
    data = probe_data(records())
    model = circle(spread=4)
    beside = few_shot(model, data, shots=(1,), draws=1)
    assert beside.metrics["zeroshot/top1"].value == pytest.approx(
        sum(abs(4 * (7 * number % 41 - 20)) < 30 for number in (8, 9, 10)) / 3
    )
    assert beside.prompt_templates == ("a photo of a {}.",)

    class Blind(FakeModel):
        def embed_texts(self, texts: Sequence[str]) -> Tensor:
            raise UnsupportedTaskError("no words")

    without = few_shot(Blind(model.images, {}), data, shots=(1,), draws=1)
    assert "zeroshot/top1" not in without.metrics and without.prompt_templates == ()
    assert without.signature == beside.signature


@pytest.mark.parametrize("asked", [{"shots": ()}, {"shots": (2, 1)}, {"shots": (0, 1)},
                                   {"shots": (1, 1)}, {"draws": 0}])  # fmt: skip
def test_shots_must_rise_from_one(asked: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="give rising numbers from 1"):
        few_shot(circle(), probe_data(records()), **asked)  # type: ignore[arg-type]
