"""Hallucinated objects, against a slow count on captions whose objects are known."""

import hashlib
import json
import math
import random
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from sightline.core.errors import InputError
from sightline.data import park
from sightline.data.park.vocabulary import COLOURS, KINDS, plural
from sightline.metrics.chair import (
    CHAIR_NUMBERS,
    Chair,
    chair,
    chair_of_counts,
    park_objects,
    read_object_list,
)

ZOO: dict[str, Any] = {
    "format": "sightline.objects",
    "version": 1,
    "objects": {
        "person": ["man", "people", "baby", "passenger", "adult"],
        "dog": ["puppy"],
        "hot dog": [],
        "chair": ["seat"],
        "toilet": [],
        "tie": [],
        "bear": [],
        "teddy bear": [],
        "train": ["locomotive"],
        "bus": [],
    },
    "merged": {"bow tie": "tie", "toilet seat": "toilet"},
    "animals": ["dog", "bear"],
    "vehicles": ["train"],
}


def objects(**changes: Any) -> Any:
    return read_object_list(json.dumps({**ZOO, **changes}))


@pytest.mark.parametrize(
    ("caption", "mentions"),
    [
        ("A man and two puppies.", ["person", "dog"]),
        ("A hot dog beside a dog", ["hot dog", "dog"]),  # the longer phrase first
        ("hot dogs", ["hot dog"]),
        ("dogs, dogs and DOGS", ["dog"] * 3),  # mentions, not kinds
        ("a baby bear and an adult dog", ["bear", "dog"]),  # nobody's baby
        ("a baby and a bear", ["person", "bear"]),
        ("a passenger train and a passenger", ["train", "person"]),
        ("a seat", ["chair"]),
        ("a toilet with its seat up", ["toilet"]),
        ("toilets and seats", ["toilet"]),
        ("a toilet seat", ["toilet"]),
        ("a teddy bear with a bow tie", ["teddy bear", "tie"]),
        ("a hot, dog", ["dog"]),  # a comma parts a phrase
        ("the dog's buses", ["dog", "bus"]),
        ("nothing here", []),
        ("", []),
    ],
)
def test_words_become_objects(caption: str, mentions: list[str]) -> None:
    assert objects().mentions(caption) == mentions


def score(captions: list[str], annotated: list[list[str]], *people: list[str]) -> Chair:
    references = list(people) or [[] for _ in captions]
    return chair(captions, annotated, references, objects())


def test_shares_of_mentions_and_of_captions() -> None:
    captions = ["a dog, a dog and a bear", "a man", "a bus"]
    found = score(captions, [["dog"], ["man", "tie"], ["bus"]])
    assert found.chair_i == pytest.approx(1 / 5)
    assert found.chair_s == pytest.approx(1 / 3)
    assert found.recall == pytest.approx(3 / 4)
    assert found.hallucinated == (("bear",), (), ())
    assert found.mentions == 5


def test_the_truth_is_the_union_of_annotations_and_references() -> None:
    """The mistake to plant: annotations alone."""
    assert score(["a dog and a bear"], [["dog"]]).chair_i == 0.5
    assert score(["a dog and a bear"], [["dog"]], ["a bear with a dog"]).chair_i == 0
    assert score(["a dog and a bear"], [[]], ["a bear", "a puppy"]).chair_i == 0


def test_captions_that_name_nothing_have_no_chair_i_and_no_recall_for_it() -> None:
    found = score(["nothing"], [["dog"]])
    assert math.isnan(found.chair_i) and found.chair_s == 0 and found.recall == 0
    assert found.mentions == 0
    empty = score([], [])
    assert all(math.isnan(number) for number in empty[:3])


def test_a_meaningless_caption_never_raises_the_recall_and_order_changes_nothing() -> None:
    captions, annotated = ["a dog and a bear", "a man", "a bus"], [["dog"], ["man"], ["bus"]]
    found = score(captions, annotated)
    assert score(captions[::-1], annotated[::-1])[:4] == found[:4]
    more = score([*captions, "#%!"], [*annotated, ["dog"]])
    assert more.recall < found.recall
    assert more.chair_i == found.chair_i
    perfect = score(["a dog", "a man", "a bus"], annotated)
    assert perfect[:3] == (0, 0, 1)


def test_parks_name_what_they_show_and_foreign_captions_do_not() -> None:
    listed = park_objects()
    scenes = [park.scene(seed, "test") for seed in range(60)]
    truth = [{word for thing in s.objects for word in (thing.kind, thing.colour)} for s in scenes]
    captions = [s.caption for s in scenes]
    none: list[list[str]] = [[] for _ in scenes]
    own = chair(captions, truth, none, listed)
    assert own.chair_i == 0 and own.chair_s == 0
    assert own.recall > 0.5
    order = list(range(60))
    random.Random(3).shuffle(order)
    foreign = chair([captions[i] for i in order], truth, none, listed)
    assert foreign.chair_i > 0.4 and foreign.chair_s > 0.8
    for s, shown, false in zip(scenes, truth, foreign.hallucinated, strict=True):
        assert not set(false) & shown, s.caption


def test_the_park_list_has_every_kind_and_colour_and_their_plurals() -> None:
    listed = park_objects()
    for kind in KINDS:
        assert listed.mentions(f"three {plural(kind)}") == [kind]
    assert all(listed.mentions(f"a {colour} thing") == [colour] for colour in COLOURS)
    text = files("sightline.metrics").joinpath("park_objects.json").read_bytes()
    assert listed.sha256 == hashlib.sha256(text).hexdigest()


def test_counts_equal_a_slow_count_and_give_the_numbers_of_drawn_sets() -> None:
    draw = random.Random(0)
    kinds = ["dog", "bear", "bus", "tie", "train"]
    named = [[draw.choice(kinds) for _ in range(draw.randrange(4))] for _ in range(50)]
    shown = [draw.sample(kinds, draw.randrange(4)) for _ in range(50)]
    captions = [" and a ".join(["a thing", *own]) for own in named]
    found = score(captions, shown)
    false = [[name for name in own if name not in s] for own, s in zip(named, shown, strict=True)]
    assert found.chair_i == sum(map(len, false)) / sum(map(len, named))
    assert found.chair_s == sum(map(bool, false)) / 50
    hits = sum(len(set(own) & set(s)) for own, s in zip(named, shown, strict=True))
    assert found.recall == hits / sum(map(len, shown))
    assert CHAIR_NUMBERS == Chair._fields[:3]
    times = np.zeros((2, 50))
    times[0, :10], times[1, 5:20] = 1, 2
    first, second = chair_of_counts(times @ found.counts)
    assert first == pytest.approx(score(captions[:10], shown[:10])[:3])
    assert second == pytest.approx(score(captions[5:20], shown[5:20])[:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": {"dog": "puppy"}}, "this is no object list: it must be JSON"),
        ({"version": 2}, r"version 2; this Sightline reads 'sightline.objects', version 1"),
        ({"objects": {"a": ["b"], "c": ["b"]}}, "the object list has 'b' for both 'a' and 'c'"),
        ({"objects": {"dog": [" motor bike"]}}, "has ' motor bike': write words in lower case"),
        ({"merged": {"bow tie": "knot"}}, "reads 'bow tie' as 'knot', which names no object"),
    ],
)
def test_a_broken_list_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        objects(**changes)


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match="the annotation 'zebra' is no word of the object list"):
        score(["a dog"], [["zebra"]])
    with pytest.raises(InputError, match="1 captions, 2 annotated, 1 references"):
        score(["a dog"], [[], []])
    with pytest.raises(InputError, match="this is no object list"):
        read_object_list("dog: puppy")
