"""Planted copies are found, by the methods that should find them, and nothing else is."""

import json

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import ConfigError
from sightline.data.curation.duplicates import find_duplicates
from sightline.data.curation.fingerprints import fingerprint, joined
from sightline.data.curation.leaks import find_leaks
from sightline.data.curation.matching import METHODS, Evidence, Thresholds, alike
from sightline.data.records import Dataset, Record
from tests.data.curation.copies import COPIES, png, prints, recoloured, scenes

COUNT = 150


@pytest.fixture(scope="module")
def pictures():
    return scenes(COUNT)


@pytest.fixture(scope="module")
def originals(pictures):
    return prints(pictures)


# Least share of 30 copies that each method finds. On 500 copies each: all, but dhash 0.97 of those
# cropped by a thirtieth and 0.76 by a sixteenth; dhash256 0.72 of JPEG 50, 0.76 by a thirtieth.
FOUND_BY = {
    "jpeg 90": {"dhash": 1.0, "dhash256": 0.95},
    "jpeg 50": {"dhash": 0.95, "dhash256": 0.5},
    "half the size": {"dhash": 1.0, "dhash256": 0.95},
    "half as large again": {"dhash": 1.0, "dhash256": 1.0},
    "cropped by a thirtieth": {"dhash": 0.9, "dhash256": 0.5},
    "cropped by a sixteenth": {"dhash": 0.6},
    "brighter": {"dhash": 1.0, "dhash256": 0.95},
    "darker": {"dhash": 1.0, "dhash256": 0.95},
    "grey": {"dhash": 1.0, "dhash256": 1.0},
    "mirrored": {"mirror": 1.0},
}


@pytest.mark.parametrize("kind", FOUND_BY)
def test_planted_copies_are_found_across_two_sets(kind, pictures, originals):
    places = range(0, COUNT, 5)
    copies = prints([COPIES[kind](pictures[place]) for place in places])
    for method in ("pixels", "dhash", "dhash256", "mirror"):
        found = find_leaks(Evidence(originals), Evidence(copies), (method,))
        assert all(leak.train == places[leak.test] for leak in found.pairs), method
        assert len(found.pairs) >= FOUND_BY[kind].get(method, 0.0) * len(places), method
        if method == "pixels" or (kind == "mirrored") != (method == "mirror"):
            assert not found.pairs


def test_different_pictures_are_no_copies(originals):
    found = find_duplicates(Evidence(originals), ("bytes", "pixels", "dhash", "dhash256", "mirror"))
    assert found.groups == () and found.removed == ()
    assert found.kept == tuple(range(COUNT))


def test_another_colour_is_no_copy(originals):
    """Hashes see no colour: most recoloured scenes have the hash of the original."""
    changed = prints([recoloured(seed) for seed in range(0, COUNT, 5)])
    everything = Thresholds(light=-1.0, light_levels=510.0, colour_levels=510.0)
    by_hash = find_leaks(Evidence(originals), Evidence(changed), ("dhash",), everything)
    checked = find_leaks(Evidence(originals), Evidence(changed), ("dhash",))
    assert len(by_hash.test) >= 28
    assert len(checked.test) <= 12


def test_groups_say_what_connects_them_and_keep_the_largest(pictures, tmp_path):
    image = pictures[3]
    small, large = (image.resize((side, side)) for side in (48, 128))
    files = {
        "a": png(small), "b": png(image), "c": png(large), "d": png(image),
        "e": png(image, compress_level=0), "f": png(pictures[4]),
    }  # fmt: skip
    records = [Record(name, content) for name, content in files.items()]
    found = find_duplicates(Evidence(fingerprint(Dataset(records))))
    (group,) = found.groups
    assert group.members == (0, 1, 2, 3, 4) and group.kept == 2
    assert group.methods == ("bytes", "pixels", "dhash")
    assert found.by_method == {"bytes": 1, "pixels": 2, "dhash": 4}
    assert found.removed == (0, 1, 3, 4) and found.kept == (2, 5)
    first = find_duplicates(Evidence(fingerprint(Dataset(records))), keep="first")
    assert first.groups[0].kept == 0
    document = json.loads(json.dumps(found.to_json()))
    assert (document["format"], document["version"]) == ("sightline.duplicates", 1)
    assert document["groups"][0] == {
        "kept": "c", "removed": ["a", "b", "d", "e"], "methods": ["bytes", "pixels", "dhash"],
    }  # fmt: skip


def test_of_equally_large_ones_the_first_stays(pictures):
    found = find_duplicates(Evidence(prints([pictures[0]] * 3)), ("pixels",))
    assert found.groups[0].kept == 0


def test_flat_pictures_match_by_their_colour_alone():
    colours = [
        (200, 30, 30),
        (200, 30, 31),
        (30, 200, 30),
        (0, 0, 0),
        (255, 255, 255),
        (30, 30, 200),
    ]
    flat = [Image.new("RGB", (16 + 8 * place, 16), colour) for place, colour in enumerate(colours)]
    found = find_duplicates(Evidence(prints(flat)), ("dhash", "mirror"))
    assert [group.members for group in found.groups] == [(0, 1)]
    leaks = find_leaks(Evidence(prints(flat[:1])), Evidence(prints(flat[1:])), ("dhash",))
    assert [(leak.train, leak.test) for leak in leaks.pairs] == [(0, 0)]


def test_a_picture_is_not_its_own_mirror_copy():
    half = np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8)
    symmetrical = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    assert find_duplicates(Evidence(prints([symmetrical])), ("mirror",)).groups == ()


def test_broken_pictures_are_in_no_group_and_not_kept(pictures):
    data = Dataset([Record("bad", b"nothing"), Record("bad too", b"nothing"),
                    Record("good", np.asarray(pictures[0]))])  # fmt: skip
    found = find_duplicates(Evidence(fingerprint(data)))
    assert found.groups == () and found.kept == (2,)
    assert sorted(found.broken) == [0, 1]
    assert sorted(found.to_json()["broken"]) == ["bad", "bad too"]


def test_a_thousand_copies_are_quick(pictures):
    """Half a million pairs, each of which hundreds of look-ups would find again."""
    one = prints(pictures[:2])
    many = joined([one] * 500)
    found = find_duplicates(Evidence(many), ("dhash",))
    assert [len(group.members) for group in found.groups] == [500, 500]


def test_embeddings_group_what_a_model_finds_alike(originals):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(COUNT, 16)).astype(np.float32)
    vectors[7] = vectors[3] + 0.05 * random.normal(size=16)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[9] = np.nan
    found = find_duplicates(Evidence(originals, (), vectors), ("embedding",))
    assert [group.members for group in found.groups] == [(3, 7)]
    apart = find_leaks(
        Evidence(originals, (), vectors), Evidence(originals, (), vectors), ("embedding",)
    )
    assert (7, 3) in {(leak.test, leak.train) for leak in apart.pairs}
    assert not any(9 in (leak.test, leak.train) for leak in apart.pairs)


def test_captions_group_records_that_say_the_same(originals):
    said = [(f"picture number {number} of its kind",) for number in range(COUNT)]
    said[5] = ("A red bench, beside the lake!",)
    said[6] = ("nothing of the kind", "a RED bench beside  the lake")
    said[7] = ("a red bench beside the lakes",)
    evidence = Evidence(originals, said)
    equal = find_duplicates(evidence, ("captions",))
    assert [group.members for group in equal.groups] == [(5, 6)]
    near = find_duplicates(evidence, ("similar-captions",), Thresholds(jaccard=0.85))
    assert (5, 6, 7) in [group.members for group in near.groups]
    half = Evidence(originals, said)
    leaks = find_leaks(half, half, ("captions",))
    assert {(leak.test, leak.train) for leak in leaks.pairs} >= {(6, 5), (5, 5)}


def test_similar_captions_across_two_sets(originals):
    train = Evidence(
        originals, [("a red bench beside the lake",), ("two cats",)] + [()] * (COUNT - 2)
    )
    test = Evidence(
        originals,
        [("the sun",), ("A red bench beside the lake.",), ("a red bench beside the lakes",)]
        + [()] * (COUNT - 3),
    )
    found = find_leaks(train, test, ("similar-captions",))
    assert [(leak.test, leak.train) for leak in found.pairs] == [(1, 0), (2, 0)]


def test_leaks_name_the_pair_and_the_method(pictures):
    train = prints(pictures[:4])
    test = prints([pictures[10], COPIES["mirrored"](pictures[2]), pictures[1]])
    found = find_leaks(Evidence(train), Evidence(test))
    assert found.test == (1, 2) and found.train == (1, 2)
    document = json.loads(json.dumps(found.to_json()))
    assert (document["format"], document["version"]) == ("sightline.leaks", 1)
    assert document["leaked"] == 2
    assert document["leaks"] == [
        {"test": "1", "train": "2", "methods": ["mirror"]},
        {"test": "2", "train": "1", "methods": ["pixels", "dhash"]},
    ]


@pytest.mark.parametrize("method", ["pixels", "dhash", "captions", "similar-captions"])
def test_where_many_copies_meet_many_each_is_named(method, pictures):
    """A training set without the named pictures must be clean."""
    train = Evidence(
        prints([pictures[0]] * 5 + pictures[1:3]), [("one",)] * 5 + [("two",), ("six",)]
    )
    test = Evidence(
        prints([pictures[0]] * 4 + pictures[3:5]), [("one",)] * 4 + [("ten",), ("cat",)]
    )
    found = find_leaks(train, test, (method,))
    assert (found.test, found.train) == ((0, 1, 2, 3), (0, 1, 2, 3, 4))
    assert len(found.pairs) < 20 or method == "dhash"


def test_thumbnails_without_a_pattern_are_compared_by_level():
    grey = np.full((3, 8, 8, 3), 100, np.uint8)
    grey[1] += 2
    grey[2] += 30
    same = alike(grey[[0, 0]], grey[[1, 2]], Thresholds())
    assert same.tolist() == [True, False]


def test_wrong_methods_and_rules_are_refused(originals):
    evidence = Evidence(originals)
    with pytest.raises(ConfigError, match=r"unknown method 'dhahs': did you mean 'dhash'"):
        find_duplicates(evidence, ("dhahs",))
    with pytest.raises(ConfigError, match="no method named: take some of bytes, pixels"):
        find_duplicates(evidence, ())
    with pytest.raises(ConfigError, match="'embedding' needs vectors"):
        find_leaks(evidence, evidence, ("embedding",))
    with pytest.raises(ConfigError, match="unknown rule to keep by 'newest'"):
        find_duplicates(evidence, keep="newest")
    with pytest.raises(ConfigError, match="distance 20: a hash of 64 bits takes 0 to 11"):
        find_duplicates(evidence, ("dhash",), Thresholds(dhash=20))


def test_every_method_is_said_on_the_page():
    from sightline.evaluation.quality_page import _FOUND

    assert tuple(_FOUND) == METHODS


# What the tests above would see, were a mistake planted: each of these must change an answer.


def test_control_without_the_check_of_colours_a_recoloured_scene_is_a_copy(originals):
    changed = prints([recoloured(seed) for seed in range(0, COUNT, 5)])
    blind = find_leaks(
        Evidence(originals), Evidence(changed), ("dhash",), Thresholds(colour_levels=510.0)
    )
    seeing = find_leaks(Evidence(originals), Evidence(changed), ("dhash",))
    assert len(blind.test) > len(seeing.test)


def test_control_without_flipped_bits_jpeg_copies_are_missed(pictures, originals):
    copies = prints([COPIES["jpeg 50"](image) for image in pictures[::5]])
    strict = find_leaks(Evidence(originals), Evidence(copies), ("dhash",), Thresholds(dhash=1))
    assert len(strict.test) < 15
