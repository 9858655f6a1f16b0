"""Twins of the park: captions that are exactly true or exactly false, and no hint in the words."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sightline.core.errors import ConfigError, DataError
from sightline.data.contrast_files import open_contrasts
from sightline.data.contrasts import Contrast, ContrastSet
from sightline.data.park import planted_scenes, scene, twins, write_twins
from sightline.data.park.contrasts import mirrored, recoloured
from sightline.data.park.scenes import Scene
from sightline.data.park.vocabulary import KINDS, NUMBERS, held_out_pairs, plural
from sightline.inputs.images import read_image

COUNT = 60
PHRASE = r"\ban? (\w+) (\w+)"


@pytest.fixture(scope="module")
def made() -> ContrastSet:
    return twins(COUNT)


def holds(caption: str, shown: Scene) -> bool:
    """Whether a caption is true of a scene, read off the caption with rules of its own."""
    names = Counter(thing.name for thing in shown.objects)
    kinds = Counter(thing.kind for thing in shown.objects)
    if found := re.fullmatch(r"there (?:is|are) (\w+) (\w+)", caption):
        number, noun = found.groups()
        kind = next(k for k in KINDS if noun in (k, plural(k)))
        return kinds[kind] > 0 if number in ("a", "an") else kinds[kind] == NUMBERS.index(
            number
        )  # fmt: skip
    parts = re.split(r" (left of|right of|and) ", caption)
    phrases = [re.sub(r"^an? ", "", part) for part in parts[::2]]
    if not all(names[phrase] for phrase in phrases):
        return False
    if len(parts) == 1 or parts[1] == "and":
        return True
    places = [[t.name for t in shown.objects].index(phrase) for phrase in phrases]
    return (places[0], parts[1], places[1]) in shown.relations


def scenes_of(contrast: Contrast) -> list[Scene]:
    """The scenes behind the pictures, drawn again from the id."""
    split, _, seed = contrast.id.rpartition("/")[2].rpartition("-")
    first = scene(int(seed), split)
    if len(contrast.images) == 1:
        return [first]
    if contrast.subset == "relation twins":
        return [first, mirrored(first)]
    words = re.findall(PHRASE, contrast.captions[1])
    colours = {
        next(i for i, thing in enumerate(first.objects) if thing.kind == kind): colour
        for colour, kind in words
        if sum(thing.kind == kind for thing in first.objects) == 1
    }
    return [first, recoloured(first, colours)]


def test_every_subset_has_its_number(made: ContrastSet) -> None:
    assert Counter(contrast.subset for contrast in made) == {
        name: COUNT
        for name in (
            "attribute",
            "relation",
            "count",
            "negation",
            "object",
            "attribute twins",
            "relation twins",
        )
    }
    assert len({contrast.id for contrast in made}) == len(made)


def test_captions_are_exactly_true_and_exactly_false(made: ContrastSet) -> None:
    for contrast in made:
        shown = scenes_of(contrast)
        assert np.array_equal(contrast.images[0], shown[0].pixels)
        assert holds(contrast.captions[0], shown[0]), contrast
        assert not holds(contrast.captions[1], shown[0]), contrast


def test_the_second_picture_shows_the_second_sentence_alone(made: ContrastSet) -> None:
    checked = 0
    for contrast in made:
        shown = scenes_of(contrast)
        if len(shown) == 1 or not np.array_equal(contrast.images[1], shown[1].pixels):
            continue  # a kind that occurs twice: the exchanged one is not named by its kind alone
        checked += 1
        assert holds(contrast.captions[1], shown[1]) and not holds(contrast.captions[0], shown[1])
    assert checked > COUNT


def test_quadruples_have_the_same_words_and_pictures_that_differ(made: ContrastSet) -> None:
    for contrast in made:
        if len(contrast.images) == 2:
            first, second = (sorted(caption.split()) for caption in contrast.captions)
            assert first == second and contrast.captions[0] != contrast.captions[1]
            assert not np.array_equal(*contrast.images)


def test_words_do_not_tell_which_caption_is_true() -> None:
    many = [c for c in twins(150) if len(c.images) == 1]
    signs = [
        ("relation", "left of"), ("negation", "no"), ("count", "one"), ("count", "four"),
    ]  # fmt: skip
    for subset, word in signs:
        own = [c for c in many if c.subset == subset]
        true = sum(f" {word} " in c.captions[0] for c in own)
        false = sum(f" {word} " in c.captions[1] for c in own)
        assert abs(true - false) < 4 * (true + false) ** 0.5, (subset, word, true, false)


@pytest.mark.parametrize("split", ["train", "test", "pairs"])
def test_true_and_false_name_equally_many_withheld_pairs(split: str) -> None:
    for contrast in twins(20, split):
        withheld = [
            sum(pair in held_out_pairs()
                for pair in ((kind, colour) for colour, kind in re.findall(PHRASE, caption)))
            for caption in contrast.captions
        ]  # fmt: skip
        assert withheld[0] == withheld[1], contrast
        assert split == "pairs" or withheld[0] == 0


def test_the_same_seed_makes_the_same_twins() -> None:
    first, second = twins(3), twins(3)
    assert [c.captions for c in first] == [c.captions for c in second]
    assert [c.captions for c in first] != [c.captions for c in twins(3, start=50)]


def test_written_twins_are_read_back_by_the_readers_of_others(
    made: ContrastSet, tmp_path: Path
) -> None:
    few = ContrastSet(made.contrasts[::10], "few")
    assert write_twins(few, tmp_path / "out") == len(few)
    back = open_contrasts(tmp_path / "out")
    assert set(back.formats.values()) == {"sugarcrepe", "winoground"}
    by_captions = {(c.subset, c.captions): c for c in back}
    for contrast in few:
        read = by_captions[contrast.subset, contrast.captions]
        for own, other in zip(contrast.images, read.images, strict=True):
            assert np.array_equal(own, read_image(other))
    with pytest.raises(DataError, match="already holds other files"):
        write_twins(few, tmp_path / "out")
    with pytest.raises(DataError, match="only drawn pictures are written"):
        write_twins(back, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_planted_park_is_biased_in_one_kind_and_nowhere_else() -> None:
    planted = planted_scenes(20, 0.9)
    things = [shown.objects[0] for shown in planted]
    assert len(things) == 40
    assert Counter(thing.colour for thing in things) == {"red": 20, "blue": 20}
    benches = Counter(thing.colour for thing in things if thing.kind == "bench")
    assert benches == {"red": 18, "blue": 2}
    assert [t.name for t in things] == [s.objects[0].name for s in planted_scenes(20, 0.9)]
    balanced = [shown.objects[0] for shown in planted_scenes(20, 0.5)]
    assert Counter(t.colour for t in balanced if t.kind == "bench") == {"red": 10, "blue": 10}


def test_a_planted_park_says_what_it_cannot_show() -> None:
    with pytest.raises(ConfigError, match=r"share is 1.5: it must lie in 0 .. 1"):
        planted_scenes(4, 1.5)
    with pytest.raises(ConfigError, match="no red or blue tree is drawn in this split"):
        planted_scenes(4, kind="tree")
