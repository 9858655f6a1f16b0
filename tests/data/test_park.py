"""The park: determinism, splits, and pictures that show exactly what the objects say."""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from sightline.core.errors import ConfigError, DataError
from sightline.data import park
from sightline.data.park import shapes, sprites
from sightline.data.park.dice import Dice
from sightline.data.park.layout import LARGE, sprite_of
from sightline.data.park.scenes import parse_shapes

SCENES = 150


def scenes(split="train", count=SCENES, **settings):
    return [park.scene(seed, split, **settings) for seed in range(count)]


def record(scene):
    boxes = [(o.kind, o.colour, o.size, o.box, o.mask.tobytes()) for o in scene.objects]
    texts = (scene.captions, scene.questions, scene.relations, scene.background)
    return scene.pixels.tobytes(), boxes, texts


def test_same_seed_gives_the_same_scene_whatever_is_read_first():
    first, second = park.scene(5), park.scene(5)
    assert second.questions and second.captions  # before the picture is drawn
    assert record(first) == record(second)


def test_another_process_draws_the_same():
    script = (
        "import hashlib; from sightline.data import park;"
        "print(park.digest(), hashlib.sha256(park.scene(7).pixels.tobytes()).hexdigest())"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "3"},
    ).stdout.split()
    here = hashlib.sha256(park.scene(7).pixels.tobytes()).hexdigest()
    assert found == [park.digest(), here]


def test_dice_reads_the_raw_stream_of_pcg64():
    bits = np.random.PCG64(np.random.SeedSequence((1, 2, 3)))
    raw = bits.random_raw(48).tolist()
    dice = Dice(1, 2, 3)
    assert dice.word() == raw[-1] >> 32
    assert dice.below(10) == ((raw[-2] >> 32) * 10) >> 32
    assert {Dice(s).below(4) for s in range(60)} == {0, 1, 2, 3}
    assert sorted(Dice(9).shuffled(range(9))) == list(range(9))


def test_seeds_and_splits_give_different_scenes():
    pictures = [s.pixels.tobytes() for split in park.SPLITS for s in scenes(split, 40)]
    assert len(set(pictures)) == len(pictures)
    layouts = [
        [(p.thing.kind, p.x, p.y) for p in park.scene(s, split).layout.placements]
        for s in range(40)
        for split in ("train", "test")
    ]
    assert len({json.dumps(layout) for layout in layouts}) == len(layouts)


def test_held_out_pairs_leave_every_word_most_of_its_partners():
    held_out = park.held_out_pairs()
    assert len(held_out) == 30
    assert set(Counter(colour for _, colour in held_out).values()) == {3}
    kinds = Counter(kind for kind, _ in held_out)
    assert set(kinds) == set(park.KINDS) and set(kinds.values()) == {1, 2}


@pytest.mark.parametrize("objects", [None, 1, 6])
def test_only_the_split_pairs_shows_held_out_pairs(objects):
    held_out = park.held_out_pairs()
    for split in park.SPLITS:
        for scene in scenes(split, objects=objects):
            shown = {(o.kind, o.colour) for o in scene.objects}
            assert bool(shown & held_out) == (split == "pairs")


def test_training_texts_never_name_a_held_out_pair():
    banned = {f"{colour} {kind}" for kind, colour in park.held_out_pairs()}
    banned |= {f"{colour} {park.plural(kind)}" for kind, colour in park.held_out_pairs()}
    text = " ".join(park.texts("train", range(SCENES))).lower()
    for phrase in banned:
        assert f"{phrase} " not in text and f"{phrase}?" not in text, phrase


def test_every_allowed_pair_is_shown():
    found = Counter()
    for seed in range(1500):
        layout = park.scene(seed).layout
        found.update((p.thing.kind, p.thing.colour) for p in layout.placements)
    allowed = {(k, c) for k in park.KINDS for c in park.COLOURS} - park.held_out_pairs()
    assert set(found) == allowed
    kinds = Counter()
    for (kind, _), number in found.items():
        kinds[kind] += number
    assert max(kinds.values()) < 2 * min(kinds.values())


def test_numbers_of_objects_stay_in_their_range():
    found = scenes(count=400)
    assert {len(s.objects) for s in found} == set(range(1, 7))
    most = Counter(max(Counter(o.kind for o in s.objects).values()) for s in found)
    assert set(most) == {1, 2, 3, 4}
    for scene in found:
        assert 1 in Counter(o.kind for o in scene.objects).values()


@pytest.mark.parametrize("objects", range(1, 7))
def test_objects_sets_the_number(objects):
    assert all(len(s.objects) == objects for s in scenes(count=40, objects=objects))


@pytest.mark.parametrize("size", [32, 64, 224, (48, 80), (120, 64)])
def test_pictures_have_the_size_that_was_asked(size):
    height, width = (size, size) if isinstance(size, int) else size
    for scene in scenes(count=20, size=size):
        assert scene.pixels.shape == (height, width, 3) and scene.pixels.dtype == np.uint8
        assert scene.image.size == (width, height) and scene.image.mode == "RGB"
        assert np.array_equal(np.asarray(scene.image), scene.pixels)
        assert all(o.mask.shape == (height, width) for o in scene.objects)


def test_boxes_are_the_extents_of_masks_that_never_meet():
    for scene in scenes() + scenes("pairs", 60, size=(48, 80)):
        total = np.zeros((scene.height, scene.width), dtype=int)
        for thing in scene.objects:
            rows, columns = np.nonzero(thing.mask)
            extents = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert thing.box == tuple(map(float, extents))
            assert all(type(value) is float for value in thing.box)
            total += thing.mask
        assert total.max() == 1


@pytest.mark.parametrize("settings", [{}, {"objects": 6}, {"size": (64, 128), "objects": 6}])
def test_at_least_seven_tenths_of_every_object_are_visible(settings):
    for scene in scenes(count=200, **settings):
        for thing, placement in zip(scene.objects, scene.layout.placements, strict=True):
            assert thing.mask.sum() >= 0.7 * sprite_of(placement.thing).area


def test_masks_show_the_colour_they_are_named_after():
    """The most frequent of ten reference colours inside a mask, neutral details left out."""
    wrong = total = 0
    names = list(sprites.PALETTE)
    palette = np.array([sprites.PALETTE[name] for name in names], dtype=float)
    for scene in scenes(count=120, size=224):
        for thing in scene.objects:
            inside = scene.pixels[thing.mask].astype(float)
            near = np.abs(inside[:, None] - palette).max(axis=2)
            close = near.min(axis=1) < 24
            votes = np.bincount(near.argmin(axis=1)[close], minlength=10)
            total += 1
            wrong += names[int(votes.argmax())] != thing.colour
    assert total > 300 and wrong / total < 0.02


def test_masks_cover_what_changed_against_the_empty_place():
    from sightline.data.park.backgrounds import background

    for scene in scenes(count=40):
        layout = scene.layout
        empty = background(layout.background, 64, 64, layout.horizon, layout.tint, layout.grain)
        changed = np.abs(scene.pixels.astype(int) - empty.astype(int)).max(axis=2) > 0
        covered = np.logical_or.reduce([o.mask for o in scene.objects])
        assert not (covered & ~changed).sum() > 0.02 * covered.sum()
        rim = covered.copy()
        rim[1:] |= covered[:-1]
        rim[:-1] |= covered[1:]
        wide = rim.copy()
        wide[:, 1:] |= rim[:, :-1]
        wide[:, :-1] |= rim[:, 1:]
        assert not (changed & ~wide).any()


def test_default_objects_are_large_enough_to_see():
    sides = [max(p.thing.side for p in s.layout.placements) for s in scenes(count=200)]
    smallest = min(p.thing.side for s in scenes(count=200) for p in s.layout.placements)
    assert smallest >= 11 and max(sides) <= 0.39 * 64


def test_size_words_follow_the_longer_side():
    for scene in scenes(count=80) + scenes(count=10, size=512, object_pixels=24):
        for thing, placement in zip(scene.objects, scene.layout.placements, strict=True):
            limit = LARGE * min(scene.height, scene.width)
            assert thing.size == ("large" if placement.thing.side >= limit else "small")
    assert {o.size for s in scenes(count=20) for o in s.objects} == {"small", "large"}


@pytest.mark.parametrize(("size", "pixels"), [(512, 24), (256, 40), (64, 12)])
def test_object_pixels_fixes_the_longer_side(size, pixels):
    for scene in scenes(count=12, size=size, object_pixels=pixels, objects=1):
        x1, y1, x2, y2 = scene.objects[0].box
        assert pixels - 2 <= max(x2 - x1, y2 - y1) <= pixels


def test_relations_are_clear_and_come_in_pairs():
    inverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene in scenes():
        found = set(scene.relations)
        assert len(found) == len(scene.relations)
        for subject, name, other in found:
            assert (other, inverse[name], subject) in found
            a, b = scene.objects[subject].mask, scene.objects[other].mask
            axis = 0 if name in ("above", "below") else 1
            first, second = np.nonzero(a)[axis].mean(), np.nonzero(b)[axis].mean()
            assert (first < second) == (name in ("left of", "above"))


def test_every_kind_has_a_drawing_inside_its_square():
    assert set(shapes.drawn_kinds()) == set(park.KINDS)
    for kind in park.KINDS:
        for side in (64, 200):
            inks = np.asarray(shapes.index_picture(kind, side, 8))
            rows, columns = np.nonzero(inks)
            assert min(rows.min(), columns.min()) >= 8, kind
            assert max(rows.max(), columns.max()) < side - 8, kind
            assert max(np.ptp(rows), np.ptp(columns)) >= 0.97 * (side - 17), kind
            assert (np.isin(inks, (shapes.MAIN, shapes.SHADE))).sum() > 0.45 * (inks > 0).sum()


def test_sprites_count_the_fine_pixels_of_the_drawing():
    """Against a plain count of the drawing, without reduction and doubling."""
    for kind, side, factor in (("cat", 11, 8), ("bicycle", 30, 8), ("tree", 60, 4)):
        margin = max(round(0.5 * factor), round(0.018 * side * factor))
        inks = np.asarray(shapes.index_picture(kind, side * factor, margin))
        blocks = inks.reshape(side, factor, side, factor)
        drawn = sprites.sprite(kind, side, False)
        cover = drawn.cover.reshape(*drawn.mask.shape, 5)
        for ink in range(1, 5):
            count = (blocks == ink).sum(axis=(1, 3))
            assert cover[..., ink - 1].sum() == count.sum()
            assert Counter(cover[..., ink - 1][cover[..., ink - 1] > 0].tolist()) == Counter(
                count[count > 0].tolist()
            )
        assert np.array_equal(cover.sum(axis=2) + drawn.empty[..., 0], np.full(drawn.mask.shape, factor**2))  # fmt: skip  # noqa: E501


def test_kinds_differ_in_shape_alone():
    """No two silhouettes at 16 pixels agree, mirrored or not."""

    def canvas(kind, flip):
        mask = sprites.sprite(kind, 16, flip).mask
        full = np.zeros((16, 16), dtype=bool)
        full[: mask.shape[0], : mask.shape[1]] = mask
        return full

    for i, kind in enumerate(park.KINDS):
        for other in park.KINDS[:i]:
            for flip in (False, True):
                a, b = canvas(kind, False), canvas(other, flip)
                assert (a & b).sum() / (a | b).sum() < 0.92, (kind, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "tset"}, r"unknown split 'tset': did you mean 'test'\?"),
        ({"size": 16}, "size 16 x 16: a scene needs at least 32 pixels"),
        ({"objects": 7}, "objects=7: a scene has 1 to 6 objects"),
        ({"objects": 0}, "objects=0: a scene has 1 to 6 objects"),
        ({"object_pixels": 3}, "object_pixels=3: an object needs at least 6 pixels"),
        ({"object_pixels": 60}, "object_pixels=60: 1 such objects do not fit into 64 x 64"),
        ({"seed": -1}, "seed -1: a scene needs a number from 0"),
    ],
)
def test_settings_outside_their_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        park.scene(**{"seed": 0, **settings})


def test_crowded_fixed_sizes_still_fit():
    for scene in scenes(count=60, object_pixels=16, objects=None):
        assert 1 <= len(scene.objects) <= 6
    assert all(len(s.objects) == 4 for s in scenes(count=60, object_pixels=16, objects=4))


def test_park_scenes_is_a_map_of_consecutive_seeds():
    found = park.ParkScenes("test", start=10, count=5, size=32, objects=1)
    assert len(found) == 5 and [s.seed for s in found] == [10, 11, 12, 13, 14]
    assert record(found[2]) == record(park.scene(12, "test", 32, objects=1))
    assert found[-1].seed == 14
    with pytest.raises(IndexError, match="scene 5 of 5"):
        found[5]


def test_shapes_take_turns_with_the_seeds_and_change_no_square_scene():
    mixed = park.ParkScenes("train", start=3, count=9, shapes=park.SHAPES)
    assert [s.pixels.shape[:2] for s in mixed] == [park.SHAPES[seed % 4] for seed in range(3, 12)]
    assert park.SHAPES[0] == (64, 64)
    for scene in mixed:
        assert record(scene) == record(park.scene(scene.seed, size=(scene.height, scene.width)))
        if scene.seed % 4 == 0:
            assert record(scene) == record(park.scene(scene.seed))


@pytest.mark.parametrize("split", park.SPLITS)
def test_objects_fit_into_every_shape(split):
    for scene in park.ParkScenes(split, count=240, shapes=park.SHAPES):
        assert 1 <= len(scene.objects) <= 6
        for thing, placement in zip(scene.objects, scene.layout.placements, strict=True):
            assert thing.mask.sum() >= 0.7 * sprite_of(placement.thing).area


def test_shapes_are_written_as_words():
    assert parse_shapes(["48x96", "mixed"]) == ((48, 96), *park.SHAPES)
    assert parse_shapes([]) == ()
    with pytest.raises(ConfigError, match="shape '48': write HEIGHTxWIDTH in pixels, such as"):
        parse_shapes(["48"])
    with pytest.raises(ConfigError, match="size 16 x 64: a scene needs at least 32 pixels"):
        parse_shapes(["16x64"])


def test_scenes_travel_between_processes():
    import pickle

    scene = park.scene(3)
    assert record(pickle.loads(pickle.dumps(scene))) == record(scene)


def test_written_folder_holds_what_the_scenes_say(tmp_path):
    from PIL import Image

    folder = tmp_path / "parks"
    assert park.write(park.ParkScenes("test", count=3), folder) == 3
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    head = json.loads((folder / "park.json").read_text())
    assert head["format"] == "sightline-park" and head["version"] == 1
    for seed, line in enumerate(lines):
        scene = park.scene(seed, "test")
        with Image.open(folder / line["file_name"]) as picture:
            assert np.array_equal(np.asarray(picture), scene.pixels)
        assert line["caption"] == scene.caption and line["captions"] == list(scene.captions)
        assert [o["box"] for o in line["objects"]] == [list(o.box) for o in scene.objects]
        assert [q["answer"] for q in line["questions"]] == [q.answer for q in scene.questions]
    assert park.write(park.ParkScenes("test", count=1), folder) == 1  # replaces its own
    assert len(list(folder.glob("*.png"))) == 1


def test_writing_never_replaces_a_folder_of_others(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="already holds other files: name a new or an empty"):
        park.write([park.scene(0)], tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_public_names_all_resolve():
    for name in park.__all__:
        assert getattr(park, name) is not None
    assert park.VERSION == 1 and len(park.KINDS) == 20 and len(park.COLOURS) == 10
    assert len(park.phrases()) == 200 and "red bench" in park.phrases()
    assert len(park.digest()) == 64
