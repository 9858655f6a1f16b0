"""Mixtures: exact proportions, epochs of each source, the same after a resume."""

import json
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.core.errors import ConfigError, DataError
from sightline.data.loader import Loader
from sightline.data.mixtures import Mixture, apportion, parse_mixture
from sightline.data.records import Dataset, Record


def source(name, count):
    return Dataset([Record(f"{name}{n}", b"", captions=(name,)) for n in range(count)], name)


def mixture(a=60, b=10, length=None, **weights):
    return Mixture({"a": source("a", a), "b": source("b", b)}, weights or {"a": 3, "b": 1}, length)


def ids(mix, seed=0, epoch=0):
    return [mix[int(i)].id for i in mix.epoch_order(seed, epoch)]


def test_an_epoch_has_exactly_the_proportions_and_every_stretch_nearly():
    mix = mixture(length=40)
    for epoch in range(5):
        names = [id[0] for id in ids(mix, epoch=epoch)]
        assert Counter(names) == {"a": 30, "b": 10}
        for first in range(0, 40, 8):
            assert 4 <= names[first : first + 8].count("a") <= 8


def test_each_source_goes_through_epochs_of_its_own():
    mix = mixture(a=60, b=10, length=40)
    drawn = list(chain.from_iterable(ids(mix, epoch=e) for e in range(6)))
    counts = Counter(drawn)
    assert {counts[f"a{n}"] for n in range(60)} == {3}
    assert {counts[f"b{n}"] for n in range(10)} == {6}
    assert mix.epochs_of("a", 6) == 3
    assert mix.epochs_of("b", 6) == 6
    assert mix.epochs_of("b", 0, 20) == 0.5
    first, second = ids(mix, epoch=0), ids(mix, epoch=1)
    assert [i for i in first if i[0] == "b"] != [i for i in second if i[0] == "b"]


def test_a_source_drawn_twice_in_an_epoch_is_augmented_anew():
    mix = Mixture({"a": source("a", 2), "b": source("b", 3)}, {"a": 1, "b": 1}, 30)
    order = mix.epoch_order(0, 0)
    assert len(set(order.tolist())) == 30
    assert Counter(mix[int(i)].id for i in order)["a0"] in (7, 8)


@given(
    st.integers(1, 500),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
)
def test_shares_sum_to_the_length_and_are_off_by_less_than_one(length, weights):
    named = {str(i): w for i, w in enumerate(weights)}
    counts = apportion(length, named)
    assert sum(counts.values()) == length
    for name, weight in named.items():
        assert abs(counts[name] - length * weight / sum(weights)) < 1 + 1e-6


def test_the_default_length_is_that_of_all_sources_together():
    assert len(mixture()) == 70
    assert sorted(r.id for r in mixture()) == sorted(
        [f"a{n}" for n in range(60)] + [f"b{n}" for n in range(10)]
    )


def noisy(record, generator):
    return record.id, generator.random()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_in_a_mixture_anywhere(workers):
    def make():
        return Loader(mixture(length=20), list, 3, transform=noisy, workers=workers, seed=4)

    whole = list(islice(make(), 15))
    for stop in (1, 5, 6, 7, 13):
        first = make()
        list(islice(first, stop))
        state = json.loads(json.dumps(first.state_dict()))
        rest = make()
        rest.load_state_dict(state)
        assert list(islice(rest, 15 - stop)) == whole[stop:]


def test_other_weights_are_another_data_set():
    assert mixture().fingerprint == mixture().fingerprint
    assert mixture().fingerprint != mixture(a=60, b=10, length=71).fingerprint
    first = Loader(mixture(), list, 3)
    state = first.state_dict()
    other = Mixture({"a": source("a", 60), "b": source("b", 10)}, {"a": 2, "b": 1})
    with pytest.raises(DataError, match="the data set has changed"):
        Loader(other, list, 3).load_state_dict(state)


def test_only_wanted_records():
    mix = mixture(a=60, b=10).having(lambda record: int(record.id[1:]) % 2 == 0)
    assert len(mix) == 35
    with pytest.raises(DataError, match="the source 'b' of the mixture has no usable record"):
        mixture().having(lambda record: record.id[0] == "a")


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("coco=3,flickr=1", {"coco": 3, "flickr": 1}),
        ("/data/a b=0.5, c={00..12}.tar=2", {"/data/a b": 0.5, "c={00..12}.tar": 2}),
        ("coco", None),
        ("a,b", None),
        ("park", None),
    ],
)
def test_the_spelling_of_mixtures(text, weights):
    assert parse_mixture(text) == weights


@pytest.mark.parametrize(
    ("text", "message"),
    [("a=1,b", "'b' has no weight; a mixture is written PATH=WEIGHT"),
     ("a=1,a=2", "the same path twice"), ("a=0,b=1", "weights must be above 0")],
)  # fmt: skip
def test_spellings_that_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_mixture(text)


def test_mixtures_that_are_refused():
    with pytest.raises(ConfigError, match="needs a weight for each source"):
        Mixture({"a": source("a", 1)}, {"b": 1})
    with pytest.raises(ConfigError, match="the weight of 'a' must be above 0, got 0"):
        Mixture({"a": source("a", 1)}, {"a": 0})
    with pytest.raises(DataError, match="the source 'b' of the mixture has no records"):
        Mixture({"a": source("a", 1), "b": []}, {"a": 1, "b": 1})
    with pytest.raises(ConfigError, match="an epoch of 5 records has no place for 'b'"):
        Mixture({"a": source("a", 60), "b": source("b", 10)}, {"a": 1000, "b": 1}, 5)


def test_positions_are_counted_in_the_order_of_the_mixture():
    mix = mixture(length=40)
    assert np.array_equal(mix.epoch_order(1, 2), mix.epoch_order(1, 2))
    assert mix.source_of(int(mix.epoch_order(0, 0)[0]))[0] in ("a", "b")
