"""Near hashes and groups, against the comparison of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError
from sightline.data.curation import hamming
from sightline.data.curation.groups import DisjointSets, equal_across, equal_rows
from sightline.data.curation.hamming import distances, near_pairs, probes


def hashes(seed, count, width, flips):
    """Random hashes, half of them a few flipped bits from another."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (count, width), np.uint8)
    for number in range(count // 2, count):
        bits = np.unpackbits(rows[random.integers(count // 2)])
        bits[random.choice(len(bits), random.integers(flips + 1), replace=False)] ^= 1
        rows[number] = np.packbits(bits)
    return rows


def collect(pairs):
    return {pair for i, j in pairs for pair in zip(i.tolist(), j.tolist(), strict=True)}


def all_pairs(left, right, distance):
    bits, others = np.unpackbits(left, axis=1), np.unpackbits(right, axis=1)
    far = (bits[:, None] != others[None]).sum(axis=2)
    return {tuple(pair) for pair in np.argwhere(far <= distance).tolist()}


@pytest.mark.parametrize(
    ("width", "distance"), [(8, 0), (8, 3), (8, 4), (8, 7), (8, 11), (32, 15), (32, 31), (32, 40)]
)
def test_no_near_pair_is_missed_and_none_is_made_up(width, distance):
    rows = hashes(distance, 120, width, distance + 4)
    everything = all_pairs(rows, rows, distance)
    assert collect(near_pairs(rows, None, distance)) == {(i, j) for i, j in everything if i < j}
    assert collect(near_pairs(rows[:50], rows[50:], distance)) == all_pairs(
        rows[:50], rows[50:], distance
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 11))
def test_no_near_pair_is_missed_whatever_the_bits(seed, distance):
    rows = hashes(seed, 40, 8, 13)
    expected = {(i, j) for i, j in all_pairs(rows, rows, distance) if i < j}
    assert collect(near_pairs(rows, None, distance)) == expected


def test_small_chunks_give_the_same_pairs(monkeypatch):
    rows = np.repeat(hashes(0, 20, 8, 5), 4, axis=0)
    whole = collect(near_pairs(rows, None, 7))
    monkeypatch.setattr(hamming, "PAIRS_AT_ONCE", 3)
    assert collect(near_pairs(rows, None, 7)) == whole


def test_known_pairs_are_not_compared_again():
    rows = np.zeros((50, 8), np.uint8)
    sets, compared = DisjointSets(50), 0
    for i, j in near_pairs(rows, None, 11, sets.together):
        compared += len(i)
        sets.join(i, j)
    assert compared == 50 * 49 // 2  # once, not for each of the 548 look-ups
    assert sets.groups() == [tuple(range(50))]


def test_a_distance_beyond_the_tables_is_refused():
    rows = np.zeros((2, 8), np.uint8)
    with pytest.raises(ConfigError, match="distance 12: a hash of 64 bits takes 0 to 11"):
        list(near_pairs(rows, None, 12))
    with pytest.raises(ConfigError, match="distance -1"):
        list(near_pairs(rows, None, -1))


def test_the_cost_of_a_look_up():
    # four bands of 16 bits: 1 key each; 1 + 16 keys each; 1 + 16 + 120 each
    assert [probes(64, distance) for distance in (3, 7, 11)] == [4, 68, 548]


def test_distances_without_the_instruction_are_the_same(monkeypatch):
    rows = hashes(1, 60, 32, 20)
    counted = distances(rows[:30], rows[30:])
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(distances(rows[:30], rows[30:]), counted)
    bits = np.unpackbits(rows[:30] ^ rows[30:], axis=1).sum(axis=1)
    np.testing.assert_array_equal(counted, bits)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_groups_are_the_connected_components(pairs):
    sets = DisjointSets(20)
    half = len(pairs) // 2
    for part in (pairs[:half], pairs[half:]):
        if part:
            sets.join(*(np.array(side) for side in zip(*part, strict=True)))
    component = {number: {number} for number in range(20)}
    for a, b in pairs:
        merged = component[a] | component[b]
        for member in merged:
            component[member] = merged
    expected = sorted({tuple(sorted(c)) for c in component.values() if len(c) > 1})
    assert sets.groups() == expected
    assert sets.roots.tolist() == [min(component[number]) for number in range(20)]


def test_a_long_chain_is_one_group():
    sets = DisjointSets(1000)
    sets.join(np.arange(999), np.arange(1, 1000))
    assert sets.groups() == [tuple(range(1000))]


def test_groups_of_groups():
    sets = DisjointSets(6)
    sets.join_all([(0, 1, 2), (), (4,), (5, 2)])
    assert sets.groups() == [(0, 1, 2, 5)]


def test_equal_rows_within_and_across():
    rows = np.array([[1, 1], [2, 2], [1, 1], [3, 3], [1, 1]], np.uint8)
    owners = np.array([7, 8, 9, 10, 11])
    assert collect([equal_rows(rows, owners)]) == {(7, 9), (7, 11)}
    left, mine = np.array([[1, 1], [4, 4]], np.uint8), np.array([0, 1])
    assert collect([equal_across(left, mine, rows, owners)]) == {(0, 7), (0, 9), (0, 11)}
    assert collect([equal_across(rows, owners, left, mine)]) == {(7, 0), (9, 0), (11, 0)}
    assert collect([equal_rows(rows[:0], owners[:0])]) == set()
    assert collect([equal_across(rows[:0], owners[:0], rows, owners)]) == set()
