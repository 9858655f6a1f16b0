"""Retrieval in both directions over fakes whose ranks are known."""

import math

import pytest

from sightline.core.errors import ConfigError, DataError
from sightline.evaluation.retrieval import retrieval
from tests.evaluation.fakes import FakeDataset, FakeModel, FakeRecord, plane

WORDS = ["red", "green", "blue", "grey"]


def circle(off: float = 5) -> FakeModel:
    """Four pictures a quarter turn apart; two captions each, `off` degrees away."""
    images = {word: plane(90 * i) for i, word in enumerate(WORDS)}
    texts = {f"a {word} one": plane(90 * i + off) for i, word in enumerate(WORDS)}
    texts |= {f"{word} again": plane(90 * i - off) for i, word in enumerate(WORDS)}
    texts |= {"a thing": plane(200)}
    return FakeModel(images, texts)


def pictures(**extra_captions: tuple[str, ...]) -> FakeDataset:
    return FakeDataset(
        FakeRecord(
            f"{word}.png", word.encode(),
            captions=(f"a {word} one", f"{word} again", *extra_captions.get(word, ())),
        )
        for word in WORDS
    )  # fmt: skip


def values(result) -> dict[str, float]:  # type: ignore[no-untyped-def]
    return {name: metric.value for name, metric in result.metrics.items()}


def test_perfect_model_scores_one_both_ways() -> None:
    result = retrieval(circle(), pictures())
    assert values(result) == {
        "hit@1": 1,
        "image_to_text/hit@1": 1, "image_to_text/hit@5": 1,
        "image_to_text/median_rank": 1, "image_to_text/mrr": 1, "image_to_text/map@r": 1,
        "text_to_image/hit@1": 1,
        "text_to_image/median_rank": 1, "text_to_image/mrr": 1, "text_to_image/map@r": 1,
    }  # fmt: skip
    assert result.metrics["image_to_text/hit@1"].n == 4
    assert result.metrics["text_to_image/hit@1"].n == 8
    assert result.metrics["hit@1"].ci95 == (1, 1)


def test_any_caption_is_a_hit_and_each_caption_is_a_query() -> None:
    model = circle()
    model.texts = {**model.texts, "red again": plane(60)}  # one of two captions misses
    result = values(retrieval(model, pictures()))
    assert result["image_to_text/hit@1"] == 1
    assert result["text_to_image/hit@1"] == 7 / 8
    assert result["hit@1"] == pytest.approx((1 + 7 / 8) / 2)


def test_a_wrong_caption_in_front_is_a_miss() -> None:
    model = circle()
    model.texts = {**model.texts, "red again": plane(90)}
    result = retrieval(model, pictures())
    green = next(s for s in result.samples if s.id == "green.png")
    # The wrong caption lies on the picture, both right ones 5 degrees off.
    assert (green.rank, green.score, green.ranking[0][0]) == (2, 0, "red.png#1")


def test_equal_captions_are_one_text_of_both_pictures() -> None:
    data = pictures(red=("a thing",), blue=("a  thing ",))
    merged = retrieval(circle(), data)
    shared = [s for s in merged.samples if s.prompt == "a thing"]
    assert len(shared) == 1
    assert shared[0].target == ("red.png", "blue.png")
    assert shared[0].rank == 1  # 200 degrees: nearest is blue at 180
    apart = retrieval(circle(), data, merge_captions=False)
    of_red, of_blue = (s for s in apart.samples if s.prompt == "a thing")
    assert (of_red.id, of_red.rank) == ("red.png#2", 4)
    assert (of_blue.id, of_blue.rank) == ("blue.png#2", 1)
    assert (merged.settings["texts"], apart.settings["texts"]) == (9, 10)
    assert merged.signature != apart.signature


def test_a_collapsed_model_is_last() -> None:
    model = circle()
    model.images = dict.fromkeys(model.images, plane(0))
    model.texts = dict.fromkeys(model.texts, plane(0))
    result = values(retrieval(model, pictures()))
    assert result["hit@1"] == 0
    assert result["text_to_image/median_rank"] == 4
    assert result["image_to_text/median_rank"] == 7  # six wrong captions above


def test_a_broken_picture_is_a_miss_for_itself_and_its_captions_only() -> None:
    data = pictures()
    data[1] = FakeRecord("green.png", b"broken", captions=data[1].captions)
    result = retrieval(circle(), data)
    assert (result.n, result.n_missing, result.n_invalid) == (4, 1, 0)
    assert result.missing == ("green.png: broken is no picture",)
    found = values(result)
    assert found["image_to_text/hit@1"] == 3 / 4
    assert found["text_to_image/hit@1"] == 6 / 8
    green = [s for s in result.samples if s.group == "green.png"]
    assert [s.status for s in green] == ["missing", "ok", "ok"]
    assert all(s.rank == math.inf for s in green)
    blue = next(s for s in result.samples if s.prompt == "a blue one")
    assert blue.ranking[0][0] == "blue.png"  # numbers of pictures survive the gap


def test_an_embedding_that_is_nan_is_counted() -> None:
    model = circle()
    model.texts = {**model.texts, "red again": [math.nan, math.nan]}
    result = retrieval(model, pictures())
    assert result.n_invalid == 5  # the text, and four pictures that were compared with it
    assert values(result)["text_to_image/hit@1"] == 7 / 8
    assert values(result)["image_to_text/hit@1"] == pytest.approx(1 / 4)  # only red's own


def test_all_pictures_broken_fails() -> None:
    data = FakeDataset(FakeRecord(r.id, b"broken", captions=r.captions) for r in pictures())
    result = retrieval(circle(), data)
    assert result.failed
    assert values(result)["hit@1"] == 0


def test_chunks_batches_and_order_change_nothing() -> None:
    data = pictures()
    data.reverse()
    a, b = retrieval(circle(40), pictures(), batch_size=1), retrieval(circle(40), data)
    assert values(a) == values(b)
    assert a.signature == b.signature


def test_limit_marks_the_result_and_shrinks_the_search() -> None:
    result = retrieval(circle(), pictures(), limit=2)
    assert (result.partial, result.n) == (True, 2)
    assert result.metrics["text_to_image/hit@1"].n == 4


def test_nothing_to_evaluate() -> None:
    empty = retrieval(circle(), FakeDataset())
    assert empty.failed
    assert math.isnan(empty.value)
    data = pictures()
    data.append(FakeRecord("x", b"red", captions=("", "  ")))
    assert retrieval(circle(), data).n_excluded == 1


def test_messages_say_what_to_do() -> None:
    with pytest.raises(DataError, match="needs pictures with captions"):
        retrieval(circle(), FakeDataset([FakeRecord("x", b"red")]))
    with pytest.raises(ConfigError, match=r"ks is \[0\]: give numbers from 1"):
        retrieval(circle(), pictures(), ks=[0])
