"""Zero-shot classification of fakes whose right answer is known."""

import math
from types import SimpleNamespace

import pytest
import torch

from sightline.core.errors import ConfigError, DataError, UnsupportedTaskError
from sightline.evaluation.label_prompts import class_embeddings
from sightline.evaluation.results import short_hash
from sightline.evaluation.zeroshot import zeroshot
from tests.evaluation.fakes import FakeClassifier, FakeDataset, FakeModel, FakeRecord, plane

NAMES = ["car", "cat", "dog", "fish", "house", "tree"]
TEXTS = {f"a photo of a {name}.": plane(60 * i) for i, name in enumerate(NAMES)}


def records(*rows: tuple[str, str | None]) -> FakeDataset:
    return FakeDataset(
        FakeRecord(f"{i}.png", image.encode(), label=label) for i, (image, label) in enumerate(rows)
    )


def circle(**more: list[float]) -> FakeModel:
    """Pictures named by their class, a little off its direction."""
    images = {name: plane(60 * i + 7) for i, name in enumerate(NAMES)}
    return FakeModel({**images, **more}, TEXTS)


def every_class() -> FakeDataset:
    return records(*((name, name) for name in NAMES))


def test_perfect_model_scores_one() -> None:
    result = zeroshot(circle(), every_class())
    assert {name: m.value for name, m in result.metrics.items()} == {
        "top1": 1, "top5": 1, "mean_per_class_recall": 1,
    }  # fmt: skip
    assert (result.n, result.n_missing, result.n_invalid, result.failed) == (6, 0, 0, False)
    assert result.prompt_templates == ("a photo of a {}.",)
    assert result.model == "fake"


def test_mean_per_class_recall_weighs_classes_alike() -> None:
    data = records(("car", "car"), ("car", "car"), ("car", "car"), ("car", "tree"))
    result = zeroshot(circle(), data, labels=NAMES)
    assert result.metrics["top1"].value == 0.75
    assert result.metrics["mean_per_class_recall"].value == 0.5
    assert {name: m.value for name, m in result.groups["class"].items()} == {"car": 1, "tree": 0}
    # 53 degrees from tree, 7 from car: second, so top-5 has it
    assert result.metrics["top5"].value == 1


def test_a_broken_picture_stays_in_the_denominator_and_is_named() -> None:
    model = circle()
    data = every_class()
    data.insert(2, FakeRecord("bad.png", b"broken file", label="car"))
    result = zeroshot(model, data, batch_size=4)
    assert result.value == pytest.approx(6 / 7)
    assert (result.n, result.n_missing) == (7, 1)
    assert result.missing == ("bad.png: broken file is no picture",)
    assert [s.status for s in result.samples] == ["ok", "ok", "missing", *["ok"] * 4]
    assert result.samples[2].ranking == ()
    assert result.metrics["top5"].value == pytest.approx(6 / 7)


def test_a_batch_with_a_broken_picture_keeps_the_others_and_their_order() -> None:
    rows = [(NAMES[i % 6], NAMES[i % 6]) for i in range(16)]
    for place in (0, 5, 6, 15):
        rows[place] = ("broken", NAMES[place % 6])
    result = zeroshot(circle(), records(*rows), batch_size=16)
    assert [i for i, s in enumerate(result.samples) if s.status == "missing"] == [0, 5, 6, 15]
    assert result.value == 12 / 16


def test_all_pictures_broken_fails() -> None:
    result = zeroshot(circle(), records(("broken", "car"), ("broken", "tree")))
    assert result.failed
    assert result.value == 0


def test_an_embedding_that_is_nan_is_wrong_and_counted() -> None:
    data = [*((n, n) for n in NAMES), ("bad", "car")]
    result = zeroshot(circle(bad=[math.nan, math.nan]), records(*data))
    assert result.value == pytest.approx(6 / 7)
    assert result.n_invalid == 1
    assert result.samples[-1].status == "invalid"


def test_a_collapsed_model_is_never_right() -> None:
    model = FakeModel(dict.fromkeys(NAMES, plane(3)), dict.fromkeys(TEXTS, plane(3)))
    result = zeroshot(model, every_class())
    assert result.value == 0
    assert result.metrics["top5"].value == 0
    # The listed answers agree with the score: the right one is last.
    assert all(s.ranking[0][0] != s.target[0] for s in result.samples)


def test_templates_are_averaged_at_unit_length_and_again() -> None:
    # Lengths 1 and 10: without normalising first, the second would decide alone.
    long = [10 * x for x in plane(90)]
    model = FakeModel({}, {"x cat": plane(0), "y cat": long})
    found = class_embeddings(model, ["cat"], ["x {}", "y {}"])
    torch.testing.assert_close(found, torch.tensor([plane(45)]))


def test_top_5_of_five_labels_is_left_out() -> None:
    result = zeroshot(circle(), records(("car", "car")), labels=NAMES[:5])
    assert set(result.metrics) == {"top1", "mean_per_class_recall"}


def test_several_equal_templates_are_one() -> None:
    once = zeroshot(circle(), every_class(), templates=["a photo of a {}."])
    twice = zeroshot(circle(), every_class(), templates=["a photo of a {}."] * 2)
    assert once.metrics == twice.metrics
    assert once.signature != twice.signature


def test_braces_in_labels_and_templates_stay_text() -> None:
    model = FakeModel({"a": plane(0)}, {"{0} {x}": plane(0), "{0} y": plane(90)})
    data = records(("a", "{x}"))
    assert zeroshot(model, data, labels=["{x}", "y"], templates=["{0} {}"]).value == 1


def test_labels_can_be_translated_for_the_prompt() -> None:
    data = records(*((name, f"n{i:02}") for i, name in enumerate(NAMES)))
    result = zeroshot(circle(), data, labels={f"n{i:02}": n for i, n in enumerate(NAMES)})
    assert result.value == 1
    assert result.samples[1].ranking[0][0] == "n01"


def test_the_systems_own_template_is_the_default() -> None:
    model = FakeModel({"a": plane(0)}, {"see a": plane(0), "see b": plane(90)})
    model.system = SimpleNamespace(default_template="see {}", score="softmax")  # type: ignore[attr-defined]
    result = zeroshot(model, records(("a", "a")), labels=["a", "b"])
    assert result.prompt_templates == ("see {}",)


def test_calibration_comes_with_the_models_own_scale() -> None:
    model = circle()
    model.system = SimpleNamespace(default_template=None, score="softmax")  # type: ignore[attr-defined]
    model.network = SimpleNamespace(  # type: ignore[attr-defined]
        pair_scale=lambda: (torch.tensor(1000.0), torch.tensor(0.0))
    )
    assert zeroshot(model, every_class()).metrics["ece15"].value == pytest.approx(0, abs=1e-6)
    wrong = records(*((name, NAMES[i - 1]) for i, name in enumerate(NAMES)))
    assert zeroshot(model, wrong).metrics["ece15"].value == pytest.approx(1, abs=1e-6)
    assert "ece15" not in zeroshot(circle(), every_class()).metrics


def test_a_model_without_text_embeddings_scores_labels_itself() -> None:
    model = FakeClassifier({b"a": {"x": 0.9, "y": 0.1}, b"b": {"x": 0.8, "y": 0.2}})
    result = zeroshot(model, records(("a", "x"), ("b", "y"), ("broken", "x")))
    assert (result.value, result.n_missing, result.variant) == (pytest.approx(1 / 3), 1, "classify")
    assert result.metrics["ece15"].value == pytest.approx((0.1 + 0.8) / 2)


def test_a_model_that_can_do_neither_says_so() -> None:
    class Blind(FakeClassifier):
        def classify(self, *_: object, **__: object) -> list[object]:  # type: ignore[override]
            raise UnsupportedTaskError("a model that can is ...")

    with pytest.raises(UnsupportedTaskError, match="a model that can is"):
        zeroshot(Blind({}), records(("a", "x"), ("b", "y")))


def test_limit_draws_from_all_classes_and_marks_the_result() -> None:
    data = records(*((NAMES[i // 50], NAMES[i // 50]) for i in range(300)))
    result = zeroshot(circle(), data, limit=60)
    assert result.partial
    assert result.n == 60
    assert len(result.groups["class"]) == 6
    assert [s.id for s in result.samples] == [
        s.id for s in zeroshot(circle(), data, limit=60).samples
    ]
    assert not zeroshot(circle(), data, limit=300).partial
    with pytest.raises(ConfigError, match="limit is 0: it must be at least 1"):
        zeroshot(circle(), data, limit=0)


def test_order_and_batches_change_nothing() -> None:
    rows = [(NAMES[i % 6], NAMES[i * i % 6]) for i in range(40)]
    forward = zeroshot(circle(), records(*rows), batch_size=7)
    data = records(*rows)
    data.reverse()
    backward = zeroshot(circle(), data, batch_size=64)
    assert forward.value == backward.value
    assert forward.signature == backward.signature


def test_signature_follows_pictures_labels_and_templates() -> None:
    data = every_class()
    signatures = {
        zeroshot(circle(), data).signature,
        zeroshot(circle(), data, labels=[*NAMES[1:], NAMES[0]]).signature,  # order: the same
        zeroshot(circle(), data, labels={n: n for n in NAMES}).signature,  # the same
    }
    assert len(signatures) == 1
    data[0] = FakeRecord("0.png", b"cat", label="car")
    assert zeroshot(circle(), data).signature not in signatures


def test_records_without_a_label_are_excluded_and_counted() -> None:
    data = every_class()
    data.append(FakeRecord("x", b"car"))
    result = zeroshot(circle(), data)
    assert (result.n, result.n_excluded, result.value) == (6, 1, 1)


def test_an_empty_data_set_has_no_score() -> None:
    result = zeroshot(circle(), FakeDataset())
    assert math.isnan(result.value)
    assert result.failed


def test_progress_counts_pictures() -> None:
    seen: list[tuple[int, int]] = []
    zeroshot(circle(), every_class(), batch_size=4, progress=lambda *now: seen.append(now))
    assert seen == [(4, 6), (6, 6)]


def test_messages_say_what_to_do() -> None:
    data = every_class()
    with pytest.raises(DataError, match="needs a folder per class, or a column named label"):
        zeroshot(circle(), records(("car", None)))
    with pytest.raises(DataError, match=r"label 'house'.*did you mean 'hous'"):
        zeroshot(circle(), data, labels=["car", "cat", "dog", "fish", "hous", "tree"])
    with pytest.raises(ConfigError, match="only one label, 'car': give at least two"):
        zeroshot(circle(), records(("car", "car")))
    with pytest.raises(ConfigError, match="a label is given twice"):
        zeroshot(circle(), data, labels=[*NAMES, "car"])
    with pytest.raises(ConfigError, match="two labels have the same name"):
        zeroshot(circle(), data, labels=dict.fromkeys(NAMES, "thing"))
    with pytest.raises(ConfigError, match=r"'a photo' has no \{\} where the label goes"):
        zeroshot(circle(), data, templates=["a photo"])
    with pytest.raises(ConfigError, match="templates must be a list"):
        zeroshot(circle(), data, templates="a photo of a {}")


def test_several_names_of_a_label_are_averaged_like_templates() -> None:
    texts = {"a cat": plane(0), "a tabby": plane(90), "a dog": plane(100), "a hound": plane(200)}
    model = FakeModel({"in between": plane(46), "far": plane(149)}, texts)
    data = records(("in between", "n01"), ("far", "n02"))
    names = {"n01": ["cat", "tabby"], "n02": ["dog", "hound"]}
    result = zeroshot(model, data, names, ["a {}"])
    assert result.value == 1  # 1 and 1 degree off; "tabby" alone is closer to "dog" than to "cat"
    assert result.samples[0].ranking[0] == ("n01", pytest.approx(math.cos(math.radians(1))))
    assert result.settings["labels"] == ["cat, tabby", "dog, hound"]
    one = zeroshot(model, data, {"n01": "cat", "n02": ["dog"]}, ["a {}"])
    assert one.signature != result.signature
    assert (
        one.signature == zeroshot(model, data, {"n01": ("cat",), "n02": "dog"}, ["a {}"]).signature
    )


def test_a_name_and_a_list_of_it_sign_alike_and_as_before() -> None:
    """Results that were written before labels could have several names stay comparable."""
    data = every_class()
    found = zeroshot(circle(), data, {name: [name] for name in NAMES}).signature
    assert found == zeroshot(circle(), data).signature
    assert f"labels:6-{short_hash(sorted(NAMES))}|" in found


def test_a_model_that_scores_labels_itself_takes_the_best_of_several_names() -> None:
    model = FakeClassifier({b"a": {"x": 0.2, "xx": 0.6, "y": 0.5}, b"b": {"x": 0.9, "xx": 0.1}})
    result = zeroshot(model, records(("a", "p"), ("b", "p")), {"p": ["x", "xx"], "q": "y"})
    assert result.value == 0.5  # of the second picture "y" has no score: never in its favour
    assert result.n_invalid == 1


def test_names_are_checked() -> None:
    data = records(("car", "car"), ("cat", "cat"))
    with pytest.raises(ConfigError, match="two labels have the same name"):
        zeroshot(circle(), data, {"car": ["car", "auto"], "cat": ["cat", "auto"]})
    for none in ([], "", ["car", ""]):
        with pytest.raises(ConfigError, match="the label 'car' has no name, or an empty one"):
            zeroshot(circle(), data, {"car": none, "cat": "cat"})
