"""BLEU, ROUGE-L and CIDEr against pycocoevalcap, and what must hold whatever the captions are."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from sightline.core.errors import InputError
from sightline.metrics.bleu import bleu, bleu_of_counts
from sightline.metrics.cider import (
    DocumentFrequency,
    cider,
    document_frequency,
    read_document_frequency,
)
from sightline.metrics.intervals import bootstrap_counts
from sightline.metrics.ptb import tokenize
from sightline.metrics.rouge import rouge_l
from tests.fixtures.metrics import inputs
from tests.fixtures.metrics.read import peers

Captions = tuple[list[list[str]], list[list[list[str]]]]


def captions(name: str) -> Captions:
    """The words of a committed set; the raw one is cut by our own tokenizer."""
    stored = peers("captions")[name]
    cut = tokenize if name == "raw" else str.split
    own = [cut(text) for text in stored["hypotheses"]]
    return own, [[cut(text) for text in texts] for texts in stored["references"]]


SETS = ("many", "perfect", "traps", "two", "raw")


@pytest.mark.parametrize("name", [*SETS, "one"])
def test_bleu_equals_the_peer(name: str) -> None:
    found = bleu(*captions(name))
    assert found.values.tolist() == pytest.approx(peers("captions")[name]["bleu"], abs=1e-9)


@pytest.mark.parametrize("name", [*SETS, "one"])
def test_rouge_equals_the_peer(name: str) -> None:
    found, expected = rouge_l(*captions(name)), peers("captions")[name]
    assert found.scores.tolist() == pytest.approx(expected["rouges"], abs=1e-9)
    assert found.value == pytest.approx(expected["rouge"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_cider_equals_the_peer(name: str) -> None:
    found, expected = cider(*captions(name)), peers("captions")[name]
    assert found.scores.tolist() == pytest.approx(expected["ciders"], abs=1e-9)
    assert found.value == pytest.approx(expected["cider"], abs=1e-9)


def test_the_committed_sets_are_those_of_the_generator() -> None:
    made: dict[str, Any] = {**inputs.caption_sets(), "raw": inputs.raw_caption_set()}
    for name, (hypotheses, references) in made.items():
        stored = peers("captions")[name]
        assert (stored["hypotheses"], stored["references"]) == (hypotheses, references)


def test_weights_of_another_corpus_are_seen() -> None:
    """The mistake to plant: document frequencies that are not those of the evaluated references."""
    own, people = captions("many")
    expected = peers("captions")["two"]["ciders"]
    foreign = cider(*captions("two"), frequency=document_frequency(people))
    assert foreign.scores.tolist() != pytest.approx(expected, abs=0.1)
    part = cider(own[:100], people[:100])
    assert part.value != pytest.approx(cider(own, people).scores[:100].mean(), abs=1e-3)


def test_fixed_weights_make_parts_comparable_and_survive_a_file() -> None:
    own, people = captions("many")
    frequency = document_frequency(people)
    again = read_document_frequency(frequency.to_json())
    assert again == DocumentFrequency(dict(frequency.counts), 500)
    whole = cider(own, people)
    parts = [cider(own[i : i + 1], people[i : i + 1], again).value for i in range(20)]
    assert parts == pytest.approx(whole.scores[:20].tolist(), abs=1e-12)


def test_one_picture_has_no_cider() -> None:
    assert peers("captions")["one"]["cider"] == 0  # the peer says 0 of a caption that fits
    with pytest.raises(InputError, match=r"CIDEr of one picture is 0.* give at least 2 pictures"):
        cider(*captions("one"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "this is no document frequency: it must be JSON with"),
        ("a dog", "this is no document frequency"),
        (DocumentFrequency({}, 0).to_json(), "counts 0 pictures: it must be 1 or more"),
        (
            DocumentFrequency({}, 1).to_json().replace('"version": 1', '"version": 2'),
            r"version 2; this Sightline reads 'sightline.document_frequency', version 1",
        ),
    ],
)
def test_another_file_is_no_document_frequency(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_document_frequency(text)


@pytest.mark.parametrize("score", [bleu, rouge_l, cider])
def test_strings_and_missing_references_are_refused(score: Any) -> None:
    words = ["a", "dog"]
    with pytest.raises(InputError, match=r"caption 0 or a reference of it is a string.*tokenize"):
        score(["a dog", words], [[words], [words]])
    with pytest.raises(InputError, match="caption 1 has no list of references"):
        score([words, words], [[words], []])
    with pytest.raises(InputError, match="2 hypotheses, 1 references: there must be one of each"):
        score([words, words], [[words]])


@pytest.mark.parametrize("score", [rouge_l, cider])
def test_order_changes_nothing_and_no_caption_is_no_score(score: Any) -> None:
    own, people = captions("many")
    order = list(range(500))
    random.Random(0).shuffle(order)
    shuffled = score([own[i] for i in order], [people[i] for i in order])
    assert shuffled.value == pytest.approx(score(own, people).value, rel=1e-12)
    assert shuffled.scores.tolist() == pytest.approx(score(own, people).scores[order].tolist())
    assert math.isnan(score([], []).value) and len(score([], []).scores) == 0


def test_bleu_of_no_caption_and_in_another_order() -> None:
    own, people = captions("many")
    assert np.isnan(bleu([], []).values).all()
    assert bleu(own[::-1], people[::-1]).values.tolist() == bleu(own, people).values.tolist()


def test_a_perfect_caption_has_the_highest_score() -> None:
    own, people = captions("perfect")
    assert bleu(own, people).values.tolist() == pytest.approx([1] * 4, abs=1e-6)
    assert rouge_l(own, people).value == 1
    alone = [[words] for words in own]
    best = cider(own, alone)
    long = [len(words) >= 4 for words in own]
    assert best.scores[long].tolist() == pytest.approx([10] * sum(long), abs=1e-9)
    assert best.scores.max() <= 10 + 1e-9


def test_a_caption_of_no_words_never_raises_a_score() -> None:
    own, people = (part[:60] for part in captions("many"))
    for place in (0, 7, 50):
        emptied = [*own[:place], [], *own[place + 1 :]]
        assert (bleu(emptied, people).values <= bleu(own, people).values).all()
        assert rouge_l(emptied, people).value <= rouge_l(own, people).value
        assert cider(emptied, people).value <= cider(own, people).value


def test_counts_of_a_drawn_set_give_its_bleu() -> None:
    own, people = captions("many")
    found = bleu(own, people)
    times = torch.randint(0, 3, (5, 500), generator=torch.Generator().manual_seed(1)).double()
    drawn = [np.repeat(np.arange(500), row.astype(int)) for row in times.numpy()]
    expected = [bleu([own[i] for i in rows], [people[i] for i in rows]).values for rows in drawn]
    assert bleu_of_counts(times.numpy() @ found.counts) == pytest.approx(np.array(expected))

    def values(counts: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(bleu_of_counts(counts.numpy() @ found.counts))

    low, high = bootstrap_counts(values, 500, resamples=50)
    assert (low.numpy() < found.values).all() and (found.values < high.numpy()).all()


def test_bleu_takes_the_closest_reference_and_of_two_the_shorter() -> None:
    found = bleu([["a"] * 5], [[["a"] * 7, ["a"] * 3, ["b"] * 20]])
    assert found.counts[0, -1] == 3  # a longer one would cost the brevity penalty
