"""Batches: order, resume at every place, broken pictures, threads, refusals."""

import json
import threading
import time
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data import workers as workers_module
from sightline.data.loader import Loader
from sightline.data.records import Dataset, Record
from sightline.inputs.images import read_image
from tests.ended import ends


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    """Two workers run and run ahead, whatever this machine has."""
    monkeypatch.setattr(workers_module, "available_cores", lambda: 64)


def noisy(value, generator):
    """A sample that shows its record and its randomness."""
    return value, generator.random()


def make(count=11, batch_size=3, transform=noisy, dataset=None, **settings):
    numbers = list(range(count)) if dataset is None else dataset
    return Loader(numbers, list, batch_size, transform=transform, **settings)


def flat(batches):
    return list(chain.from_iterable(batches))


class FailsOn:
    """A transform for which some samples are broken pictures."""

    def __init__(self, *broken):
        self.broken = broken

    def __call__(self, value, generator):
        if value in self.broken:
            raise ImageError(f"{value}.png: ends too early", "image_truncated")
        return value, generator.random()


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_holds_every_sample_once_in_another_order_each_time(drop_last):
    loader = make(epochs=2, drop_last=drop_last)
    batches = [[value for value, _ in batch] for batch in loader]
    per_epoch = 3 if drop_last else 4
    assert loader.batches_per_epoch == per_epoch
    first, second = flat(batches[:per_epoch]), flat(batches[per_epoch:])
    assert len(batches) == 2 * per_epoch
    assert len(set(first)) == len(first) == (9 if drop_last else 11)
    assert first != second
    assert first != sorted(first)


def test_without_shuffling_the_order_is_the_data_sets():
    batches = list(make(5, 2, shuffle=False, drop_last=False, epochs=1, transform=None))
    assert batches == [[0, 1], [2, 3], [4]]


def test_seeds_epochs_and_samples_have_streams_of_their_own():
    draws = {}
    for seed in (0, 1):
        for i, batch in enumerate(make(6, 6, seed=seed, epochs=3)):
            draws |= {(seed, i, value): number for value, number in batch}
    assert len(draws) == len(set(draws.values())) == 36


def test_randomness_does_not_depend_on_the_place_in_the_order():
    shuffled = dict(flat(make(6, 2, epochs=1)))
    straight = dict(flat(make(6, 3, epochs=1, shuffle=False)))
    assert shuffled == straight


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(workers):
    def uneven(value, generator):
        time.sleep(0.002 if value % 3 == 0 else 0)  # results arrive out of order
        return FailsOn(2, 7)(value, generator)

    alone = list(make(transform=FailsOn(2, 7), epochs=3))
    assert list(make(transform=uneven, epochs=3, workers=workers)) == alone


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (0, 2), (2, 0), (1, 2)])
def test_resume_at_every_batch_equals_the_uninterrupted_run(before, after, drop_last):
    settings = {"transform": FailsOn(4, 9), "epochs": 3, "seed": 7, "drop_last": drop_last}
    whole = list(make(**settings))
    assert len(whole) >= 9
    for stop in range(len(whole) + 1):
        first = make(workers=before, **settings)
        iterator = iter(first)
        head = [next(iterator) for _ in range(stop)]
        state = json.loads(json.dumps(first.state_dict()))
        iterator.close()
        second = make(workers=after, **settings)
        second.load_state_dict(state)
        assert head + list(second) == whole


def test_the_state_counts_what_was_handed_out_not_what_was_prepared():
    loader = make(30, 3, workers=2)
    plain = make(30, 3)
    for _, _ in zip(range(4), zip(loader, plain, strict=False), strict=False):
        assert loader.state_dict() == plain.state_dict()
    assert loader.state_dict()["position"] == 12


def test_a_loop_that_was_left_is_taken_up_by_the_next():
    loader = make(9, 3, epochs=1)
    for batch in loader:
        first = batch
        break
    rest = list(loader)
    assert [first, *rest] == list(make(9, 3, epochs=1))
    assert list(loader) == []
    loader.rewind()
    assert len(list(loader)) == 3


def test_a_broken_picture_is_left_out_and_batches_stay_full():
    loader = make(10, 3, transform=FailsOn(1, 5), epochs=1, seed=3)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [3, 3]
    assert loader.skipped.keys() <= {"1", "5"}
    order = loader._order(0).tolist()
    good = [value for value in order if value not in (1, 5)]
    assert [value for batch in batches for value, _ in batch] == good[:6]


def test_a_broken_file_is_counted_and_named_in_the_report(tmp_path, caplog):
    records = []
    for i in range(6):
        file = tmp_path / f"{i}.png"
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(file)
        records.append(Record(f"{i}.png", file))
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    (tmp_path / "3.png").unlink()
    data = Dataset(records, "six")

    def transform(record, generator):
        return int(read_image(record.image)[0, 0, 0])

    loader = Loader(data, list, 2, transform=transform, workers=2, epochs=2)
    assert sorted(flat(loader)) == [0, 0, 1, 1, 4, 4, 5, 5]
    assert sorted(data.report.broken) == ["2.png", "3.png"] == sorted(loader.skipped)
    assert "2.png" in data.report.broken["2.png"]
    assert data.report.missing == ("3.png",)
    named = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(named) == 2  # once each, although met in both epochs


def test_strict_stops_at_the_first_broken_picture():
    loader = make(transform=FailsOn(*range(11)), on_error="raise", workers=2)
    with pytest.raises(ImageError, match="png: ends too early"):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_few_readable_pictures_end_with_an_error_not_a_loop(workers):
    loader = make(4, 3, transform=FailsOn(0, 1), workers=workers)
    with pytest.raises(DataError, match=r"too few pictures .* batch of 3: 2 of 4 .*png: ends too"):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 2])
def test_other_errors_come_through_with_the_sample_named(workers):
    def transform(value, generator):
        raise KeyError("a mistake in the transform")

    with pytest.raises(KeyError) as caught:
        next(iter(make(workers=workers, transform=transform, shuffle=False)))
    assert caught.value.__notes__ == ["while loading sample 0 of the data set"]


def test_no_thread_outlives_the_iteration():
    iterator = iter(make(40, 3, workers=3))
    next(iterator)
    assert any(t.name.startswith("sightline-loader") for t in threading.enumerate())
    iterator.close()
    assert ends("sightline-loader")


def test_workers_keep_torch_on_one_core_and_leave_the_others_theirs():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        loader = make(8, 4, workers=2, transform=lambda v, g: torch.get_num_threads(), epochs=1)
        assert set(flat(loader)) == {1}
        assert torch.get_num_threads() == 3
        fresh = []
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert fresh == [3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "ahead"), [(64, True), (2, False)])
def test_workers_run_ahead_only_on_cores_that_torch_leaves_free(monkeypatch, cores, ahead):
    monkeypatch.setattr(workers_module, "available_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    drawn = []
    iterator = iter(make(30, 3, workers=2, transform=lambda v, g: drawn.append(v)))
    next(iterator)
    iterator.close()
    assert len(drawn) >= 3
    if not ahead:
        assert len(drawn) == 3


def test_a_loader_takes_no_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(workers_module, "available_cores", lambda: 2)
    names = set()

    def transform(value, generator):
        names.add(threading.current_thread().name)
        time.sleep(0.001)

    list(make(30, 15, workers=16, transform=transform, epochs=1))
    assert 1 <= len(names) <= 2


def test_small_and_empty_data_are_refused():
    with pytest.raises(DataError, match="2 records, fewer than one batch of 3: use a smaller"):
        make(2, 3)
    with pytest.raises(DataError, match="the data set is empty"):
        make(0, 3, drop_last=False)
    assert list(make(2, 3, drop_last=False, epochs=1, shuffle=False, transform=None)) == [[0, 1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number from 1 on, got 0"),
        ({"seed": -1}, "seed must be a whole number from 0 on, got -1"),
        ({"workers": 1.5}, "workers must be a whole number"),
        ({"epochs": -2}, "epochs must be"),
        ({"on_error": "ignore"}, "on_error must be 'skip' or 'raise', got 'ignore'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def records(*captions):
    return Dataset([Record(str(i), b"", (text,)) for i, text in enumerate(captions)])


def test_a_state_of_other_data_is_refused():
    state = make(dataset=records("a", "b", "c")).state_dict()
    make(dataset=records("a", "b", "c")).load_state_dict(state)
    with pytest.raises(DataError, match="has changed: 3 records then, 4 now"):
        make(dataset=records("a", "b", "c", "d")).load_state_dict(state)
    with pytest.raises(DataError, match="has changed: as many records, but other ids"):
        make(dataset=records("a", "b", "x")).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "cannot go on with other settings: seed 5 then, 0 now"),
        ({"batch_size": 5, "drop_last": False}, "batch_size 5 then, 3 now; drop_last False then"),
        ({"version": 2}, "state has version 2, this Sightline reads 1: update Sightline"),
        ({"format": "other"}, "not the state of a loader: format 'other'"),
        ({"epoch": -1}, "the loader's state is damaged: epoch -1"),
        ({"position": 12}, "the loader's state is damaged: .*place 12"),
        ({"position": None}, "the loader's state is damaged"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        make().load_state_dict({**make().state_dict(), **change})
