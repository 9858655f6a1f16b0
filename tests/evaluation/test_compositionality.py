"""Compositionality of scorers whose right result is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sightline.cli.compositionality import SCORES
from sightline.core.errors import ConfigError, DataError, ImageError, UnsupportedTaskError
from sightline.data.contrasts import Contrast, ContrastSet, contrast_set
from sightline.data.park import twins
from sightline.evaluation.caption_scores import METHODS, choose_method
from sightline.evaluation.compare import compare
from sightline.evaluation.compositionality import compositionality
from sightline.evaluation.results import Result, read_result


class Embedder:
    """Vectors by a rule; a picture of the name "broken" cannot be read."""

    name = "fake"

    def __init__(
        self,
        picture: Callable[[Any], Sequence[float]],
        text: Callable[[str], Sequence[float]],
    ) -> None:
        self.picture, self.text = picture, text
        self.seen: list[Any] = []

    def embed_images(self, images: Sequence[Any], batch_size: int = 32) -> Tensor:
        for image in images:
            if isinstance(image, bytes) and image == b"broken":
                raise ImageError("is no picture", "image_undecodable")
        self.seen += images
        return torch.tensor([self.picture(image) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([self.text(text) for text in texts])


def bag_of_words(text: str) -> list[float]:
    """Equal for equal words in any order."""
    counts = Counter(text.split())
    vector = torch.zeros(16)
    for word, number in counts.items():
        generator = torch.Generator().manual_seed(sum(word.encode()) * 31 + len(word))
        vector += number * torch.randn(16, generator=generator)
    return vector.tolist()


def of_pixels(image: Any) -> list[float]:
    grey = np.asarray(image).mean(axis=2)
    return [float(part.mean()) for part in np.array_split(grey.ravel(), 16)]


def knowing(dataset: ContrastSet, wrong: Sequence[str] = ()) -> Embedder:
    """The truth: each picture agrees with the captions that hold of it, but for some contrasts."""
    places: dict[str, int] = {}
    for contrast in dataset:
        for caption in contrast.captions:
            places.setdefault(caption, len(places))
    said: dict[bytes, set[str]] = {}
    for contrast in dataset:
        for number, image in enumerate(contrast.images):
            own = contrast.captions[1 - number if contrast.id in wrong else number]
            said.setdefault(image if isinstance(image, bytes) else image.tobytes(), set()).add(own)

    def picture(image: Any) -> list[float]:
        key = image if isinstance(image, bytes) else image.tobytes()
        return [float(caption in said.get(key, ())) for caption in places]

    def text(caption: str) -> list[float]:
        return [float(caption == other) for other in places]

    return Embedder(picture, text)


def data(*contrasts: Contrast) -> ContrastSet:
    return contrast_set(contrasts, "made")


def pair(number: int, subset: str = "add_obj", **more: Any) -> Contrast:
    image = f"picture {number}".encode()
    captions = (f"true {number}", f"false {number}")
    return Contrast(f"{subset}/{number}", (image,), captions, subset, **more)


@pytest.fixture(scope="module")
def park() -> ContrastSet:
    return twins(25)


def of(model: Any, dataset: ContrastSet, **more: Any) -> Result:
    return compositionality(model, dataset, resamples=50, **more)


def test_the_truth_scores_one_everywhere(park: ContrastSet) -> None:
    result = of(knowing(park), park)
    for name in ("accuracy", "accuracy/micro", "text", "image", "group"):
        assert result.metrics[name].value == 1, name
    assert set(result.groups["subset"]) == {c.subset for c in park}
    assert (result.n, result.n_missing, result.n_invalid) == (len(park), 0, 0)
    low, high = result.ci95 or (0, 0)
    assert 0.9 < low < high == 1  # not [1, 1]: other samples could have shown a miss


def test_a_constant_scorer_gets_nothing_anywhere(park: ContrastSet) -> None:
    result = of(Embedder(lambda image: [1.0, 0.0], lambda text: [0.6, 0.8]), park)
    own = {name: m.value for name, m in result.metrics.items() if "text_only" not in name}
    assert set(own.values()) == {0}
    assert all(m.value == 0 for m in result.groups["subset"].values())
    assert all(sample.score == 0 for sample in result.samples)


def test_a_bag_of_words_gets_nothing_on_quadruples(park: ContrastSet) -> None:
    result = of(Embedder(of_pixels, bag_of_words), park)
    assert result.metrics["text"].value == 0 and result.metrics["group"].value == 0
    assert result.metrics["accuracy"].value > 0  # and something where words differ


def test_those_that_cannot_see_get_nothing_on_quadruples(park: ContrastSet) -> None:
    metrics = of(knowing(park), park).metrics
    for name in ("text_only", "blank"):
        assert metrics[f"{name}/group"].value == 0


@pytest.mark.parametrize("split", ["test", "pairs"])
def test_the_park_gives_nothing_away_in_words(split: str) -> None:
    many = twins(120, split)
    blind = of(knowing(many), many, seed=3).groups["subset text_only"]
    for subset, metric in blind.items():
        if "twins" not in subset:
            spread = 4 * math.sqrt(0.25 / metric.n)
            assert metric.value < 0.5 + spread, subset


def test_a_set_whose_false_captions_are_odd_is_found_out() -> None:
    made = [
        Contrast(f"add_obj/{i}", (f"p{i}".encode(),),
                 (f"a cat on a mat {i % 5}", f"a cat on a mat {i % 5} and zyx qwv"), "add_obj")
        for i in range(60)
    ]  # fmt: skip
    result = of(Embedder(lambda image: [1.0, 0.0], lambda text: [0.6, 0.8]), data(*made))
    assert result.metrics["text_only/accuracy"].value == 1
    assert result.value == 0


def test_subsets_count_alike_and_samples_too() -> None:
    dataset = data(*(pair(i) for i in range(6)), *(pair(i + 9, "swap_att") for i in range(2)))
    model = knowing(dataset, wrong=["swap_att/9", "swap_att/10"])
    result = of(model, dataset)
    assert result.value == 0.5  # mean of 1 and 0
    assert result.metrics["accuracy/micro"].value == 0.75
    assert result.metrics["accuracy/groups"].value == 0.5
    assert {name: m.value for name, m in result.groups["subset"].items()} == {
        "add_obj": 1, "swap_att": 0,
    }  # fmt: skip


def test_sugarcrepes_seven_subsets_are_three_groups() -> None:
    names = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj",
             "swap_att")  # fmt: skip
    dataset = data(*(pair(i, name) for i, name in enumerate(names)))
    wrong = ["add_obj/0", "add_att/1", "replace_obj/2"]
    metrics = of(knowing(dataset, wrong), dataset).metrics
    assert metrics["accuracy"].value == pytest.approx(4 / 7)
    assert metrics["accuracy/groups"].value == pytest.approx((0 + 2 / 3 + 1) / 3)


def test_classes_of_aro_count_alike() -> None:
    subset = "visual_genome_relation"
    dataset = data(*(pair(i, subset, kind="on") for i in range(4)), pair(9, subset, kind="in"))
    result = of(knowing(dataset, [f"{subset}/9"]), dataset)
    assert result.metrics["accuracy/micro"].value == 0.8
    assert result.metrics["accuracy/classes"].value == 0.5
    assert {n: m.value for n, m in result.groups["class"].items()} == {
        f"{subset}/on": 1, f"{subset}/in": 0,
    }  # fmt: skip


def test_every_false_caption_must_be_beaten() -> None:
    places = {"true": 0.8, "near": 0.7, "far": 0.1, "more": 0.9}
    model = Embedder(lambda image: [1.0, 0.0], lambda text: [places[text], 0.0])
    image = (b"p",)
    won = Contrast("o/0", image, ("true", "near", "far"), "o")
    lost = Contrast("o/1", image, ("true", "far", "more", "near"), "o")
    result = of(model, data(won, lost))
    assert result.value == 0.5
    assert [s.rank for s in result.samples] == [1, 2]
    assert [name for name, _ in result.samples[1].ranking] == ["more", "true", "near", "far"]
    assert len(model.seen) == 2  # the one picture and the grey one


def test_a_tie_is_wrong_and_the_true_caption_stands_below() -> None:
    model = Embedder(lambda image: [1.0], lambda text: [1.0])
    sample = of(model, data(pair(0))).samples[0]
    assert (sample.score, sample.rank) == (0, 2)
    assert [name for name, _ in sample.ranking] == ["false 0", "true 0"]


def test_what_is_broken_stays_in_the_denominator() -> None:
    good, nan = pair(0), pair(1)
    broken = Contrast("add_obj/2", (b"broken",), ("true 2", "false 2"), "add_obj")
    half = Contrast("q/3", (b"picture 0", b"broken"), ("true 0", "false 0"), "q")
    dataset = data(good, nan, broken, half)
    honest = knowing(dataset)

    def text(caption: str) -> list[float]:
        vector = list(honest.text(caption))
        return [math.nan] * len(vector) if caption == "true 1" else vector

    result = of(Embedder(honest.picture, text), dataset)
    assert result.value == pytest.approx(1 / 3)
    assert result.metrics["group"].value == 0
    assert (result.n, result.n_missing, result.n_invalid) == (4, 2, 1)
    assert result.missing == ("add_obj/2: is no picture",)
    assert [s.status for s in result.samples] == ["ok", "invalid", *["missing"] * 4]
    nothing = of(honest, data(broken))
    assert nothing.failed and nothing.value == 0


class Writer:
    """Likelihoods that prefer short texts, plus 1 for what the picture shows."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def logprob(self, image: Any, prompt: str, texts: Sequence[str]) -> Tensor:
        self.asked.append((prompt, tuple(texts)))
        shown = image.decode() if isinstance(image, bytes) else ""
        return torch.tensor([-float(len(text)) + (text in shown) for text in texts])


def test_a_writer_is_scored_by_likelihood_with_or_without_its_prior() -> None:
    contrast = Contrast("o/0", (b"a very long truth",), ("a very long truth", "short"), "o")
    plain = of(Writer(), data(contrast), prompt="caption en")
    assert (plain.variant, plain.value) == ("logprob", 0)  # the short one is likelier anyway
    assert plain.prompt_templates == ("caption en",)
    corrected = of(Writer(), data(contrast), score="logprob-blank")
    assert corrected.value == 1
    assert len({plain.signature, corrected.signature}) == 2
    assert "blank/accuracy" not in plain.metrics


def test_a_matcher_is_scored_by_match_and_a_broken_picture_is_named() -> None:
    class Matcher:
        def embed_texts(self, texts: Sequence[str]) -> Tensor:
            raise UnsupportedTaskError("it embeds nothing; models which can: x")

        def match(self, image: Any, texts: Sequence[str]) -> Tensor:
            if isinstance(image, bytes) and image == b"broken":
                raise ImageError("is no picture", "image_undecodable")
            return torch.tensor([0.9 if text.startswith("true") else 0.2 for text in texts])

    broken = Contrast("add_obj/2", (b"broken",), ("true 2", "false 2"), "add_obj")
    result = of(Matcher(), data(pair(0), broken))
    assert (result.variant, result.value, result.n_missing) == ("match", 0.5, 1)


def test_a_model_that_scores_nothing_says_so() -> None:
    class Blind:
        def embed_texts(self, texts: Sequence[str]) -> Tensor:
            raise UnsupportedTaskError("models which can: x")

    with pytest.raises(UnsupportedTaskError, match="models which can: x"):
        of(Blind(), data(pair(0)))
    with pytest.raises(UnsupportedTaskError, match="has no embed_texts, match or logprob"):
        of(object(), data(pair(0)))
    with pytest.raises(ConfigError, match="unknown score 'cosin': did you mean 'cosine'"):
        choose_method(Writer(), "cosin", "x")
    with pytest.raises(DataError, match="holds no contrast"):
        of(Writer(), data())
    assert SCORES == ("auto", *METHODS)


def test_order_and_batches_change_nothing(park: ContrastSet) -> None:
    model = Embedder(of_pixels, bag_of_words)
    forward = of(model, park, batch_size=7)
    backward = of(model, ContrastSet(park.contrasts[::-1], park.name), batch_size=64)
    assert forward.signature == backward.signature
    own = {name: m.value for name, m in forward.metrics.items()}
    assert own == pytest.approx({name: m.value for name, m in backward.metrics.items()})


def test_limit_draws_from_all_subsets_and_marks_the_result(park: ContrastSet) -> None:
    result = of(knowing(park), park, limit=70)
    assert result.partial and result.n == 70 and len(result.groups["subset"]) == 7
    assert not of(knowing(park), park, limit=len(park)).partial


def test_two_models_are_compared_subset_by_subset(park: ContrastSet, tmp_path: Path) -> None:
    wrong = [contrast.id for contrast in park if contrast.subset == "count"]
    for name, model in (("a", knowing(park)), ("b", knowing(park, wrong))):
        of(model, park).write(tmp_path / name)
    first, second = read_result(tmp_path / "a"), read_result(tmp_path / "b")
    tests = compare(first, second)
    assert tests["count"].difference == 1 and tests["count"].p_value < 0.001
    assert tests["negation"].difference == 0 and tests["group"].p_value == 1
    again = of(knowing(park), park)
    assert first.signature == again.signature
    assert first.metrics["accuracy"] == again.metrics["accuracy"]


def test_order_changes_nothing_where_contrasts_share_a_picture() -> None:
    made = [
        Contrast(f"o/{i}", (f"p{i // 3}".encode(),), (f"a cat {i % 4}", f"a dog {i % 3}"), "o")
        for i in range(30)
    ]
    model = Embedder(lambda image: [1.0], lambda text: [1.0])
    forward, backward = of(model, data(*made)), of(model, data(*made[::-1]))
    assert forward.signature == backward.signature
    blind = [run.metrics["text_only/accuracy"].value for run in (forward, backward)]
    assert blind[0] == blind[1]
    exchanged = [*made[:2], Contrast("o/2", (b"p9",), made[2].captions, "o"), *made[3:]]
    assert of(model, data(*exchanged)).signature != forward.signature


def test_signature_follows_pictures_captions_and_subsets() -> None:
    plain = of(knowing(data(pair(0))), data(pair(0)))
    renamed = data(pair(0, "swap_obj"))
    other = data(Contrast("add_obj/0", (b"picture 1",), ("true 0", "false 0"), "add_obj"))
    found = {of(knowing(d), d).signature for d in (data(pair(0)), renamed, other)}
    assert plain.signature in found and len(found) == 3
