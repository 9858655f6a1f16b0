"""A hundred thousand samples in shards: exact resume inside a window, inside a shard.

The tars are holes: their index is made here, and nobody looks at a picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import pytest

from sightline.data.loader import Loader
from sightline.data.records import Record
from sightline.data.shards.ranges import Shard
from sightline.data.shards.samples import ShardRecords
from sightline.data.shards.tar_index import TarIndex
from sightline.data.shards.windows import InWindows

SHARDS, EACH, BATCH = 10, 10_000, 256
BLOCK, WINDOW = 256, 8192
MORE = 8
"""Batches that are read after a resume."""


class Counted(ShardRecords):
    """Records that remember which were asked for."""

    asked: list[int]

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.asked.append(index)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> list[TarIndex]:
    folder, found = tmp_path_factory.mktemp("holes"), []
    for number in range(SHARDS):
        path = folder / f"{number:05d}.tar"
        with path.open("wb") as file:
            file.truncate(EACH * 1024)
        places = np.arange(EACH, dtype=np.int64)
        keys = tuple(f"{number * EACH + i:09d}" for i in range(EACH))
        found.append(
            TarIndex(
                Shard.of(path), keys, np.arange(EACH + 1), 1024 * places + 512,
                np.full(EACH, 100, np.int64), np.zeros(EACH, np.int32), ("jpg",),
            )
        )  # fmt: skip
    return found


def name(record: Record, generator: np.random.Generator) -> str:
    return record.id


def loader(indexes: list[TarIndex], epochs: int | None = 1) -> Loader[list[str]]:
    records = Counted(indexes)
    records.asked = []
    return Loader(
        InWindows(records, BLOCK, WINDOW), list, BATCH, seed=7, drop_last=False, transform=name,
        epochs=epochs,
    )  # fmt: skip


def ids(batches: Iterable[list[str]]) -> list[str]:
    return [id for batch in batches for id in batch]


def shard_of(id: str) -> int:
    return int(id) // EACH


@pytest.fixture(scope="module")
def whole(indexes: list[TarIndex]) -> list[list[str]]:
    """Every batch of the first epoch."""
    return list(loader(indexes))


def test_every_sample_once_and_a_window_from_many_places(whole: list[list[str]]) -> None:
    order = ids(whole)
    assert sorted(map(int, order)) == list(range(SHARDS * EACH))
    for start in range(0, len(order) - WINDOW, WINDOW):
        assert len({shard_of(id) for id in order[start : start + WINDOW]}) > SHARDS // 2


@pytest.mark.parametrize("stop", [1, 33, 77])
def test_resume_in_the_middle_of_a_window_and_of_its_shards(
    indexes: list[TarIndex], whole: list[list[str]], stop: int
) -> None:
    seen, follow = ids(whole[:stop]), ids(whole[stop : stop + MORE])
    assert stop * BATCH % WINDOW, "the state lies inside a window"
    begun = {shard_of(id) for id in seen} & {shard_of(id) for id in follow[:BATCH]}
    assert begun, "and the next batch goes on with shards that were begun and not finished"
    first = loader(indexes)
    assert list(islice(first, stop)) == whole[:stop]
    rest = loader(indexes)
    rest.load_state_dict(first.state_dict())
    assert ids(islice(rest, MORE)) == follow
    assert len(rest.dataset.dataset.asked) == len(follow), "something was read again"


def test_a_state_at_the_end_leads_to_the_next_epoch(
    indexes: list[TarIndex], whole: list[list[str]]
) -> None:
    first = loader(indexes, epochs=2)
    first.load_state_dict({**first.state_dict(), "position": SHARDS * EACH - 3 * BATCH})
    tail = ids(islice(first, 3 + 5))  # five batches into the second epoch
    assert tail[: 3 * BATCH] == ids(whole)[-3 * BATCH :]
    rest = loader(indexes, epochs=2)
    rest.load_state_dict(first.state_dict())
    follow = ids(islice(rest, 5))
    assert not set(follow) & set(tail[3 * BATCH :]) and len(set(follow)) == 5 * BATCH
    assert rest.epoch == 1
