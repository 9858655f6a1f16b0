"""Splits: nothing lost, groups whole, labels balanced, order without influence."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError, DataError
from sightline.data.curation.splitting import Share, group_values, parse_parts, split_records
from sightline.data.records import Record

THREE = parse_parts("train=0.8,val=0.1,test=0.1")


def records(count, labels=0):
    return [
        Record(f"{n:05d}", b"", label=f"l{n % labels}" if labels else None) for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 99, 1000])
@pytest.mark.parametrize("labels", [0, 3])
def test_fractions_are_met_within_one_record(count, labels):
    found = Counter(split_records(records(count, labels), THREE))
    assert sum(found.values()) == count
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(found[name] - share * count) <= 1


def test_counts_are_met_exactly():
    found = Counter(split_records(records(100, 7), parse_parts("train=rest,val=13,test=20")))
    assert found == {"train": 67, "val": 13, "test": 20}


@pytest.mark.parametrize("labels", [4, 40, 150])
def test_labels_are_balanced_also_when_each_is_rare(labels):
    listed = records(600, labels)
    names = split_records(listed, THREE)
    each = 600 / labels
    for label in {record.label for record in listed}:
        found = Counter(n for n, r in zip(names, listed, strict=True) if r.label == label)
        assert abs(found["train"] - 0.8 * each) <= 1.5
        assert abs(found["test"] - 0.1 * each) <= 1.5
    assert Counter(names) == {"train": 480, "val": 60, "test": 60}


def test_without_stratification_labels_are_not_balanced():
    listed = records(600, 150)
    plain = split_records(listed, parse_parts("train=0.5,test=0.5"), stratify=False)
    uneven = 0
    for label in {record.label for record in listed}:
        found = Counter(n for n, r in zip(plain, listed, strict=True) if r.label == label)
        uneven += found["train"] in (0, 4)
    assert uneven > 5  # by chance one label in eight lies whole on one side


CASES = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([None, "a", "b", "c"]), st.integers(0, 12)),
    min_size=1, max_size=60,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(CASES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_nothing_is_lost_groups_are_whole_and_order_does_not_matter(case, seed, random):
    listed = [Record(f"id{id}", b"", label=label) for id, label, _ in case]
    groups = [None if group == 0 else group for _, _, group in case]
    pairs = [(i, j) for i in range(len(case)) for j in range(i) if case[i][2] == case[j][2] == 1]
    names = split_records(listed, THREE, seed, pairs, groups)
    assert len(names) == len(listed) and set(names) <= set(THREE)
    for i, first in enumerate(case):
        for j, second in enumerate(case):
            if first[0] == second[0] or first[2] == second[2] != 0:
                assert names[i] == names[j]
    order = list(range(len(case)))
    random.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    shuffled = split_records(
        [listed[i] for i in order], THREE, seed,
        [(place[i], place[j]) for i, j in pairs], [groups[i] for i in order],
    )  # fmt: skip
    assert [shuffled[place[i]] for i in range(len(case))] == list(names)


def test_another_seed_is_another_split_and_the_same_seed_the_same():
    listed = records(200)
    first = split_records(listed, THREE, 0)
    assert first == split_records(listed, THREE, 0)
    other = split_records(listed, THREE, 1)
    assert 0.5 < sum(a == b for a, b in zip(first, other, strict=True)) / 200 < 0.9


def test_groups_reach_every_part():
    """Were large groups dealt first to the emptiest part, the test part would have none."""
    listed = records(1000)
    pairs = [(n, n + 1) for n in range(0, 400, 2)]
    names = split_records(listed, THREE, together=pairs)
    grouped = Counter(names[first] for first, _ in pairs)
    assert grouped["test"] >= 8 and grouped["val"] >= 8
    assert abs(Counter(names)["test"] - 100) <= 2


def test_groups_go_where_there_is_room():
    pairs = [(number, number + 1) for number in range(0, 80, 2)]
    sizes = [
        Counter(split_records(records(100), parse_parts("train=rest,test=15"), seed, pairs))["test"]
        for seed in range(40)
    ]
    assert sizes.count(15) >= 36, "a pair that does not fit goes elsewhere"


def test_a_group_larger_than_a_part_goes_to_the_roomiest():
    names = split_records(records(20), THREE, together=[tuple(range(15))])
    assert set(names[:15]) == {"train"}


def test_parts_are_parsed():
    assert parse_parts("train=80%, dev=0.1 ,testing=0.1") == {
        "train": Share(fraction=Fraction(4, 5)),
        "val": Share(fraction=Fraction(1, 10)),
        "test": Share(fraction=Fraction(1, 10)),
    }
    assert parse_parts("train=rest,test=500") == {"train": Share(), "test": Share(count=500)}


@pytest.mark.parametrize(
    "text", ["", "train", "train=", "=0.5", "train=x", "train=-1", "train=1.5", "a=0.5,a=0.5",
             "train=0.5,train=0.5", "train=1/0", "val=1,validation=2", "train=120%"],
)  # fmt: skip
def test_parts_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match="write NAME=SHARE, each name once"):
        parse_parts(text)


def test_shares_that_do_not_add_up():
    with pytest.raises(ConfigError, match="parts ask for 9 of 10 records: let them add up"):
        split_records(records(10), parse_parts("train=0.8,test=0.1"))
    with pytest.raises(ConfigError, match="parts ask for 11 of 10 records"):
        split_records(records(10), parse_parts("train=rest,test=11"))
    with pytest.raises(ConfigError, match="only one part can take the rest"):
        parse_parts("train=rest,test=rest")
    with pytest.raises(ConfigError, match="1 groups for 2 records: give one each"):
        split_records(records(2), THREE, groups=["a"])


def test_groups_come_from_a_column():
    listed = [
        Record("a", b"", extra={"who": 7}),
        Record("b", b"", extra={"who": ""}),
        Record("c", b""),
    ]
    assert group_values(listed, "who") == ["7", None, None]
    with pytest.raises(DataError, match=r"no record has a column 'whom': columns are who"):
        group_values(listed, "whom")
