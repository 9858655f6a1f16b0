"""Batches under a budget of patches: never exceeded, every picture once, resumable anywhere."""

import json
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data import workers as workers_module
from sightline.data.loader import Loader
from sightline.data.records import Record
from sightline.data.token_budget import TokenBudgetLoader
from sightline.inputs.packing import first_fit


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    """Two workers run and run ahead, whatever this machine has."""
    monkeypatch.setattr(workers_module, "available_cores", lambda: 64)


def sized(number, generator):
    """A sample of 1 to 16 patches, the same in every epoch, with randomness of its own."""
    return number, 1 + (number * 7919) % 16, generator.random()


def make(count=41, transform=sized, dataset=None, **options):
    numbers = list(range(count)) if dataset is None else dataset
    options = {"row_length": 16, "rows": 3, **options}
    return TokenBudgetLoader(
        numbers, list, lambda sample: sample[1], transform=transform, **options
    )


def numbers(batches):
    return [sample[0] for sample in chain.from_iterable(batches)]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=60),
    st.integers(20, 50),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_no_batch_exceeds_its_budget_and_every_picture_comes_once_an_epoch(
    counts, row_length, rows, patience, seed
):
    loader = make(
        dataset=counts, transform=lambda count, _: (0, count), row_length=row_length, rows=rows,
        patience=patience, seed=seed, epochs=2,
    )  # fmt: skip
    assert loader.budget == rows * row_length
    seen = []
    for batch in loader:
        sizes = [count for _, count in batch]
        placed = first_fit(sizes, row_length)  # as `pack` will do it
        assert 1 + max(row for row, _ in placed) <= rows
        assert sum(sizes) <= loader.budget
        seen += sizes
    assert sorted(seen) == sorted(counts * 2)


def test_an_epoch_holds_every_sample_once_in_another_order_each_time():
    found = []
    for epoch in range(3):
        found.append(numbers(make(epochs=epoch + 1))[41 * epoch :])
    assert all(sorted(epoch) == list(range(41)) for epoch in found)
    assert found[0] != found[1] != found[2]


def test_order_and_randomness_depend_on_the_seed_alone():
    assert list(make(epochs=2, seed=3)) == list(make(epochs=2, seed=3))
    assert list(make(epochs=2, seed=3)) != list(make(epochs=2, seed=4))
    draws = [sample[2] for sample in chain.from_iterable(make(epochs=3))]
    assert len(set(draws)) == len(draws)


def test_without_shuffling_or_patience_the_order_is_the_data_sets():
    found = numbers(make(epochs=1, shuffle=False, patience=0))
    # Only the one picture that closes a batch can be overtaken, and it comes first in the next.
    assert found == list(range(41))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(workers):
    assert list(make(epochs=3, workers=workers)) == list(make(epochs=3))


def fails_on(*broken):
    def transform(number, generator):
        if number in broken:
            raise ImageError(f"{number}.png: ends too early", "image_truncated")
        return sized(number, generator)

    return transform


@pytest.mark.parametrize("patience", [0, 4])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (0, 2), (2, 0)])
def test_resume_at_every_batch_equals_the_uninterrupted_run(before, after, patience):
    options = {"transform": fails_on(4, 9, 40), "epochs": 3, "seed": 7, "patience": patience}
    whole = list(make(**options))
    assert len(whole) > 9
    set_aside = 0
    for stop in range(len(whole) + 1):
        first = make(workers=before, **options)
        iterator = iter(first)
        head = [next(iterator) for _ in range(stop)]
        state = json.loads(json.dumps(first.state_dict()))
        set_aside += len(state["held"])
        iterator.close()
        second = make(workers=after, **options)
        second.load_state_dict(state)
        assert head + list(second) == whole
    assert set_aside  # otherwise the test would not ask for what is hard


def test_a_loop_that_was_left_is_taken_up_by_the_next():
    loader = make(epochs=1)
    iterator = iter(loader)
    head = [next(iterator), next(iterator)]
    iterator.close()
    assert head + list(loader) == list(make(epochs=1))
    assert list(loader) == []
    loader.rewind()
    assert list(loader) == list(make(epochs=1))


def test_a_broken_picture_is_left_out():
    loader = make(transform=fails_on(3, 17), epochs=1)
    assert sorted(numbers(loader)) == sorted(set(range(41)) - {3, 17})
    assert loader.skipped.keys() == {"3", "17"}
    with pytest.raises(ImageError, match="ends too early"):
        list(make(transform=fails_on(3), on_error="raise", epochs=1))


def test_pictures_that_are_all_broken_end_in_one_sentence():
    with pytest.raises(DataError, match="too few pictures can be read"):
        list(make(5, transform=fails_on(*range(5))))


def fill(loader):
    full = list(loader)[:-1]  # the last of an epoch is as it comes
    patches = sum(sample[1] for batch in full for sample in batch)
    return patches / (len(full) * loader.budget)


def test_patience_fills_the_rows_better():
    hasty = fill(make(2000, epochs=1, rows=8, patience=0))
    patient = fill(make(2000, epochs=1, rows=8, patience=16))
    assert hasty > 0.75
    assert patient > hasty + 0.05


def test_small_pictures_do_not_make_a_batch_of_any_length():
    loader = make(
        transform=lambda number, _: (number, 1), row_length=100, most_pictures=10, epochs=1
    )
    assert [len(batch) for batch in loader] == [10, 10, 10, 10, 1]


def test_a_picture_longer_than_a_row_is_refused_by_name():
    records = [Record("small.png", "a"), Record("huge.png", "b")]
    loader = make(
        dataset=records,
        transform=lambda record, _: (record.id, 5 if record.id == "small.png" else 99),
        epochs=1,
    )
    with pytest.raises(DataError, match=r"sample huge\.png: a picture of 99 patches does not fit"):
        list(loader)


def test_the_number_of_batches_is_not_guessed():
    with pytest.raises(ConfigError, match="depends on the sizes of the pictures"):
        _ = make().batches_per_epoch


@pytest.mark.parametrize(
    ("options", "message"),
    [({"row_length": 0}, "row_length must be a whole number from 1 on, got 0"),
     ({"rows": 0}, "rows must be a whole number from 1 on"),
     ({"rows": True}, "rows must be a whole number from 1 on, got True"),
     ({"most_pictures": 0}, "most_pictures must be a whole number from 1 on, got 0"),
     ({"patience": -1}, "patience must be a whole number from 0 on, got -1"),
     ({"seed": -1}, "seed must be a whole number from 0 on, got -1")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("now", "message"),
    [({"rows": 4}, "rows 3 then, 4 now"), ({"row_length": 20}, "row_length 16 then, 20 now"),
     ({"patience": 0}, "patience 8 then, 0 now"), ({"seed": 5}, "seed 0 then, 5 now"),
     ({"most_pictures": 4}, "most_pictures None then, 4 now")],
)  # fmt: skip
def test_a_state_of_other_settings_is_refused(now, message):
    with pytest.raises(ConfigError, match=message):
        make(**now).load_state_dict(make().state_dict())


@pytest.mark.parametrize("held", [None, "3", [-1], [99], [1.5], [True]])
def test_a_damaged_state_is_refused_and_changes_nothing(held):
    loader = make()
    state = loader.state_dict() | {"position": 5, "held": held}
    with pytest.raises(ConfigError, match="the loader's state is damaged: set aside"):
        loader.load_state_dict(state)
    assert loader.state_dict() == make().state_dict()


def test_a_plain_loaders_state_is_refused():
    plain = Loader(list(range(41)), list, 3, drop_last=False)
    with pytest.raises(ConfigError, match="rows None then, 3 now"):
        make().load_state_dict(plain.state_dict())


def test_two_epochs_resumed_hold_every_picture_twice():
    loader = make(epochs=2)
    iterator, seen = iter(loader), []
    for _ in range(7):
        seen.append(next(iterator))
    again = make(epochs=2)
    again.load_state_dict(loader.state_dict())
    assert np.bincount(numbers([*seen, *again])).tolist() == [2] * 41


def test_the_rest_of_an_epoch_is_left_out_where_that_is_asked_for():
    whole, cut = list(make(epochs=1)), list(make(epochs=1, drop_last=True))
    assert cut == whole[:-1]
    seven = {"transform": lambda number, _: (number, 16), "epochs": 1, "drop_last": True}
    assert len(numbers(make(9, **seven))) == 9  # three full batches: nothing remains
    assert len(numbers(make(10, **seven))) == 9
    with pytest.raises(DataError, match="too few pictures can be read"):
        list(make(4, transform=lambda number, _: (number, 1), epochs=1, drop_last=True))


def test_a_run_that_drops_the_rest_resumes_too():
    options = {"epochs": 3, "drop_last": True, "patience": 3}
    whole = list(make(**options))
    for stop in range(len(whole) + 1):
        first = make(**options)
        iterator = iter(first)
        head = [next(iterator) for _ in range(stop)]
        second = make(**options)
        second.load_state_dict(first.state_dict())
        assert head + list(second) == whole
