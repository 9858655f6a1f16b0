"""Which picture goes into which row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError
from sightline.core.interfaces import PatchBatch
from sightline.inputs.packing import OpenRows, first_fit, pack

COUNTS = st.lists(st.integers(1, 30), max_size=40)


@given(COUNTS, st.integers(30, 60))
def test_first_fit_puts_every_picture_somewhere_and_no_two_at_one_place(counts, length):
    taken = set()
    for (row, start), count in zip(first_fit(counts, length), counts, strict=True):
        own = {(row, place) for place in range(start, start + count)}
        assert start + count <= length
        assert not own & taken
        taken |= own
    assert len(taken) == sum(counts)


@given(COUNTS, st.integers(30, 60))
def test_at_most_one_row_is_half_empty(counts, length):
    rows = OpenRows(length)
    for count in counts:
        rows.place(count)
    assert sum(2 * filled <= length for filled in rows.filled) <= 1


@given(COUNTS, st.integers(30, 60), st.integers(1, 5))
def test_a_given_number_of_rows_is_never_exceeded(counts, length, most):
    rows = OpenRows(length, most)
    placed = [count for count in counts if rows.place(count) is not None]
    assert len(rows.filled) <= most
    assert sum(rows.filled) == sum(placed)
    assert max(rows.filled, default=0) <= length


def batch(grids):
    shapes = torch.tensor(grids, dtype=torch.int64).reshape(-1, 2)
    lengths = shapes.prod(dim=1)
    longest = int(lengths.max()) if grids else 0
    values = torch.arange(1.0, len(grids) * longest * 2 + 1).reshape(len(grids), longest, 2)
    return PatchBatch(values, torch.arange(longest) < lengths[:, None], shapes)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=9))
def test_every_patch_is_packed_once_and_in_order(grids):
    unpacked = batch(grids)
    packed = pack(unpacked, 17)
    for n in range(len(grids)):
        own = packed.patches[packed.pictures == n]
        assert torch.equal(own, unpacked.patches[n, unpacked.mask[n]])
    assert int((packed.pictures >= 0).sum()) == int(unpacked.mask.sum())
    assert not packed.patches[packed.pictures < 0].any()


def test_rows_are_as_many_as_asked_for():
    assert pack(batch([(1, 2), (1, 1)]), 4, rows=3).patches.shape == (3, 4, 2)
    with pytest.raises(ConfigError, match=r"7 patches of 2 pictures need 2 rows of 4, 1 are given"):
        pack(batch([(1, 3), (4, 1)]), 4, rows=1)


def test_a_picture_longer_than_a_row_is_refused():
    with pytest.raises(ConfigError, match="a picture of 9 patches does not fit into a row of 8"):
        pack(batch([(3, 3)]), 8)


@pytest.mark.parametrize(("length", "most"), [(0, 1), (4, 0)])
def test_rows_without_room_are_refused(length, most):
    with pytest.raises(ConfigError, match="both must be at least 1"):
        OpenRows(length, most)
