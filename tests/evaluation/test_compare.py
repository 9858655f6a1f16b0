"""Tables of results: every tested difference is that of the values, and ties are told."""

from dataclasses import replace

import pytest
import torch

from sightline.core.errors import DataError
from sightline.evaluation.compare import Row, compare_metrics
from sightline.evaluation.results import Metric, Result, Sample
from sightline.evaluation.retrieval import retrieval
from sightline.evaluation.zeroshot import zeroshot
from tests.evaluation.fakes import FakeDataset, FakeModel, FakeRecord


def noisy(seed: int, names: list[str], texts: list[str], noise: float) -> FakeModel:
    """Every picture "12" has the direction of the texts that begin with it, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    truth = {name: torch.randn(16, generator=torch.Generator().manual_seed(int(name)))
             for name in names}  # fmt: skip

    def blurred(vector: torch.Tensor) -> list[float]:
        drawn = vector + noise * torch.randn(16, generator=generator)
        return (drawn / drawn.norm()).tolist()

    return FakeModel(
        {name: blurred(truth[name]) for name in names},
        {text: blurred(truth[text.split()[0]]) for text in texts},
    )


@pytest.fixture(scope="module")
def searched() -> list[Result]:
    """Two models on 30 pictures with one to three captions each."""
    names = [str(n) for n in range(30)]
    captions = {name: tuple(f"{name} c{c}" for c in range(1 + int(name) % 3)) for name in names}
    data = FakeDataset(FakeRecord(n, n.encode(), captions=captions[n]) for n in names)
    texts = [text for own in captions.values() for text in own]
    return [retrieval(noisy(seed, names, texts, noise), data)
            for seed, noise in ((1, 0.5), (2, 1.5))]  # fmt: skip


@pytest.fixture(scope="module")
def classified() -> list[Result]:
    """Three models on classes of unequal size."""
    labels = [str(n) for n in range(8)]
    rows = [(f"{label}{place:02}", label) for label in labels for place in range(2 + int(label))]
    data = FakeDataset(FakeRecord(name, name.encode(), label=label) for name, label in rows)
    results = []
    for seed, noise in ((1, 0.6), (2, 1.2), (3, 2.0)):
        model = noisy(seed, labels, [], 0)
        generator = torch.Generator().manual_seed(seed)
        model.images = {
            name: (
                torch.tensor(model.images[label]) + noise / 4 * torch.randn(16, generator=generator)
            ).tolist()
            for name, label in rows
        }
        model.texts = {
            f"a photo of a {name}.": noisy(0, labels, [], 0).images[name] for name in labels
        }
        results.append(zeroshot(model, data))
    return results


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.metric: row for row in rows}


def test_every_tested_difference_is_that_of_the_values(
    searched: list[Result], classified: list[Result]
) -> None:
    for results in (searched, classified[:2]):
        rows = compare_metrics(results)
        assert [row.metric for row in rows] == list(results[0].metrics)
        for row in rows:
            (test,) = row.tests
            assert row.values == tuple(r.metrics[row.metric].value for r in results)
            if test is not None:
                assert test.difference == pytest.approx(row.values[0] - row.values[1]), row.metric
                assert test.low <= test.difference <= test.high
        untested = {row.metric.split("/")[-1] for row in rows if row.tests == (None,)}
        assert untested <= {"median_rank", "map@r", "ece15"}


def test_captions_of_a_picture_are_one_piece_of_evidence(searched: list[Result]) -> None:
    rows = by_name(compare_metrics(searched))
    alone = rows["image_to_text/hit@1"].tests[0]
    together = rows["text_to_image/hit@1"].tests[0]
    assert alone is not None and together is not None
    assert alone.test == "McNemar exact"  # one sample a picture, right or wrong
    assert together.test != "McNemar exact"  # one to three
    assert together.discordant + together.equal == 60


def test_ties_are_told_and_no_difference_is_no_evidence(classified: list[Result]) -> None:
    row = by_name(compare_metrics([classified[0], classified[0]]))["top1"]
    test = row.tests[0]
    assert test is not None
    assert (test.difference, test.p_value, test.p_bootstrap) == (0, 1, 1)
    assert (test.first_better, test.second_better, test.equal) == (0, 0, 44)


def test_several_results_are_tested_against_the_first(classified: list[Result]) -> None:
    row = by_name(compare_metrics(classified))["top1"]
    assert len(row.values) == 3 and len(row.tests) == 2
    for other, test in zip(classified[1:], row.tests, strict=True):
        assert test == by_name(compare_metrics([classified[0], other]))["top1"].tests[0]


def test_kinds_of_samples_without_a_metric_have_their_own_row() -> None:
    def made(scores: list[float]) -> Result:
        samples = tuple(
            Sample(str(n), "swap", ("a",), (), 1.0, score, group=str(n))
            for n, score in enumerate(scores)
        )
        return Result(
            task="pairs", variant="x", headline="macro", n=len(scores), signature="pairs|v:1",
            data="d", data_sha256="", samples=samples,
            metrics={"macro": Metric(sum(scores) / len(scores))},
        )  # fmt: skip

    rows = compare_metrics([made([1, 1, 1, 0]), made([0, 1, 0, 0])])
    assert [row.metric for row in rows] == ["macro", "swap"]
    assert rows[0].tests == (None,)
    assert rows[1].values == (0.75, 0.25)
    test = rows[1].tests[0]
    assert test is not None and (test.difference, test.p_value) == (0.5, 0.5)


def of_subsets(scores: dict[str, list[float]], **metrics: float) -> Result:
    """Samples of several kinds, with the metrics that somebody made of them."""
    samples = tuple(
        Sample(f"{kind}/{n}", kind, ("a",), (), 1.0, score, group=f"{kind}/{n}")
        for kind, own in scores.items()
        for n, score in enumerate(own)
    )
    return Result(
        task="pairs", variant="x", headline=next(iter(metrics)), n=len(samples), data="d",
        signature="pairs|v:1", data_sha256="", samples=samples,
        metrics={name: Metric(value) for name, value in metrics.items()},
    )  # fmt: skip


def test_means_over_kinds_over_all_and_of_none_are_told_apart() -> None:
    right, wrong = {"a": [1, 1, 1, 0], "b": [1, 0]}, {"a": [1, 0, 0, 0], "b": [1, 1]}
    macro, micro, other = ((0.625, 0.625), (4 / 6, 3 / 6), (0.9, 0.1))
    for values, difference in ((macro, 0), (micro, 1 / 6), (other, None)):
        results = [of_subsets(s, accuracy=v) for s, v in zip((right, wrong), values, strict=True)]  # type: ignore[arg-type]
        rows = by_name(compare_metrics(results))
        test = rows["accuracy"].tests[0]
        assert (None if test is None else test.difference) == pytest.approx(difference)
        assert list(rows) == ["accuracy", "a", "b"]
        alone = rows["a"].tests[0]
        assert alone is not None and (alone.difference, alone.first_better) == (0.5, 2)


def test_a_metric_named_like_its_kind_is_tested_once() -> None:
    """Such as a skew for each prompt: numbers, not right or wrong."""
    results = [
        of_subsets({"skew": own}, skew=sum(own) / 3) for own in ([0.5, 1.5, 1.0], [0.25] * 3)
    ]
    (row,) = compare_metrics(results)
    test = row.tests[0]
    assert row.metric == "skew" and test is not None
    assert test.difference == pytest.approx(0.75) and test.test == "sign flips exact"


def test_a_metric_that_one_result_lacks_is_listed(classified: list[Result]) -> None:
    metrics = {n: m for n, m in classified[1].metrics.items() if n != "top5"}
    row = by_name(compare_metrics([classified[0], replace(classified[1], metrics=metrics)]))["top5"]
    assert row.values[1] != row.values[1]


def test_one_result_cannot_be_compared(classified: list[Result]) -> None:
    with pytest.raises(DataError, match=r"1 result\(s\): give at least two to compare"):
        compare_metrics(classified[:1])
