"""Several processes take the batches of one, cut into equal parts, broken pictures and all."""

import threading
from itertools import chain

import pytest

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data.loader import Loader
from sightline.data.shares import Share


class Talk:
    """An exchange among threads that stand in for processes."""

    def __init__(self, ranks):
        self.said = [None] * ranks
        self.gate = threading.Barrier(ranks, timeout=20)

    def of(self, rank):
        def exchange(value):
            self.said[rank] = value
            self.gate.wait()
            everything = list(self.said)
            self.gate.wait()
            return everything

        return exchange


def failing_on(*broken):
    def transform(value, generator):
        if value in broken:
            raise ImageError(f"{value}.png: ends too early", "image_truncated")
        return value, generator.random()

    return transform


def make(count, batch_size, transform, **settings):
    return Loader(range(count), list, batch_size, seed=3, transform=transform, **settings)


def shared(ranks, batches, prepare, **settings):
    """The parts of the first batches by rank, the state behind them, and what was left out."""
    talk, results = Talk(ranks), {}

    def one(rank):
        try:
            loader = make(**settings, share=Share(rank, ranks, talk.of(rank)))
            prepare(loader)
            parts = [batch for _, batch in zip(range(batches), loader, strict=False)]
            results[rank] = parts, loader.state_dict(), loader.skipped
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(ranks)]


def joined_by_step(found):
    """The parts of all ranks put together again, batch by batch."""
    by_rank = [parts for parts, _, _ in found]
    return [list(chain.from_iterable(parts)) for parts in zip(*by_rank, strict=True)]


BROKEN = [(), (4,), (0, 1, 2, 5, 9), (3, 7, 8, 11, 12, 13, 20), (22,)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("broken", BROKEN)
def test_the_parts_make_the_batches_of_one_process(broken, ranks, workers):
    settings = {"count": 23, "batch_size": 6, "transform": failing_on(*broken), "epochs": 3}
    alone = make(**settings)
    whole = list(alone)
    assert len(whole) >= 6
    found = shared(ranks, 99, lambda loader: None, workers=workers, **settings)
    joined = joined_by_step(found)
    assert joined == whole
    for _, state, skipped in found:
        assert state == alone.state_dict() and skipped == alone.skipped


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("stop", range(1, 9))
def test_another_number_of_processes_goes_on_without_replay(before, after, stop):
    settings = {"count": 23, "batch_size": 6, "transform": failing_on(4, 9), "epochs": 3}
    whole = list(make(**settings))
    first = shared(before, stop, lambda loader: None, **settings)
    state = first[0][1]
    second = shared(after, 99, lambda loader: loader.load_state_dict(state), **settings)
    joined = joined_by_step(first) + joined_by_step(second)
    assert joined == whole


def test_a_broken_picture_stops_all_where_it_is_to_stop_one():
    settings = {"count": 12, "batch_size": 6, "transform": failing_on(5), "on_error": "raise"}
    for result in shared(2, 99, lambda loader: None, **settings):
        assert isinstance(result, ImageError) and "5.png" in str(result)


def test_too_few_readable_pictures_stop_all():
    settings = {"count": 7, "batch_size": 6, "transform": failing_on(1, 2, 3)}
    for result in shared(2, 99, lambda loader: None, **settings):
        assert isinstance(result, DataError) and "too few pictures" in str(result)


def test_unequal_parts_are_refused():
    share = Share(0, 3, lambda value: [value])
    message = r"a batch of 8 cannot be shared equally by 3 processes: use batch_size=6 or 9"
    with pytest.raises(ConfigError, match=message):
        make(20, 8, None, share=share)
    with pytest.raises(ConfigError, match=r"use batch_size=3; it counts the batch of all"):
        make(20, 2, None, share=share)
    with pytest.raises(ConfigError, match="use drop_last with several processes"):
        make(20, 6, None, share=share, drop_last=False)
    with pytest.raises(ConfigError, match="rank 3 is not one of 3 processes"):
        make(20, 6, None, share=Share(3, 3, lambda value: [value]))
    with pytest.raises(DataError, match="4 records, fewer than one batch of 6"):
        make(4, 6, None, share=share)
