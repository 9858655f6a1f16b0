"""What a park teaches: prompts and answers that are true of the scene."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from sightline.data.park import scene
from sightline.data.park.lessons import (
    EVERYTHING,
    SHARES,
    caption,
    description,
    instances,
    turns_about,
)
from sightline.data.park.vocabulary import COLOURS, KINDS, PLACES, held_out_pairs, plural


def spelled(thing, drawn) -> str:
    return "[" + ",".join(f"{value:.0f}" for value in thing.box) + "]"


def turns(seed: int, count: int = 6, **shares: float):
    generator = np.random.default_rng(seed)
    about = turns_about(scene(seed), generator, spelled, None, shares or SHARES)
    return list(islice(about, count))


def test_captions_name_every_object_from_left_to_right() -> None:
    for seed in range(40):
        drawn = scene(seed)
        said = caption(drawn)
        assert said in {text.lower() for text in drawn.captions} or said.endswith(".")
        places = {}
        for thing in drawn.objects:
            middle = thing.box[0] + thing.box[2]
            places.setdefault(thing.name, middle)
            places[thing.name] = min(places[thing.name], middle)
        words = [f"{t.colour} {t.kind[:3]}" for t in drawn.objects]
        assert all(word in said for word in words), said
        assert description(drawn).endswith(f" {PLACES[drawn.background]}.")
        assert "small" in description(drawn) or "large" in description(drawn)


@pytest.mark.parametrize("query", [EVERYTHING, "kind", "name"])
def test_instances_are_those_that_are_asked_for(query: str) -> None:
    for seed in range(30):
        drawn = scene(seed)
        asked = query if query == EVERYTHING else getattr(drawn.objects[0], query)
        parts = instances(drawn, [asked], spelled).split(" ; ")
        meant = [t for t in drawn.objects if asked in (EVERYTHING, t.kind, t.name)]
        named = Counter(t.name if asked == EVERYTHING else asked for t in meant)
        assert Counter(part.split("] ")[1] for part in parts) == named
        lefts = [sum(map(float, part[1:].split("]")[0].split(",")[::2])) for part in parts]
        assert lefts == sorted(lefts), "from left to right by their middles"


def test_several_names_are_answered_in_the_order_of_the_places() -> None:
    for seed in range(40):
        drawn = scene(seed)
        names = [drawn.objects[-1].kind, drawn.objects[0].name, "everywhere"]
        parts = [part for part in instances(drawn, names, spelled).split(" ; ") if part]
        meant = [t for t in drawn.objects if t.kind == names[0] or t.name == names[1]]
        called = Counter(names[0] if t.kind == names[0] else names[1] for t in meant)
        assert Counter(part.split("] ")[1] for part in parts) == called


def test_what_is_absent_gives_an_empty_answer() -> None:
    drawn = scene(3)
    missing = next(k for k in KINDS if k not in {t.kind for t in drawn.objects})
    assert instances(drawn, [missing], spelled) == ""


def how_many(drawn, prompt: str) -> int:
    """The things of a scene that have the kind and the colour which a question names."""
    words = prompt.rstrip("?.").split(" ")
    kinds = [kind for kind in KINDS if plural(kind) in words]
    colours = [colour for colour in COLOURS if colour in words]
    assert len(kinds) <= 1 >= len(colours) and kinds + colours
    return sum(
        t.kind in (kinds or KINDS) and t.colour in (colours or COLOURS) for t in drawn.objects
    )


def test_turns_are_different_and_true_and_mixed_as_asked() -> None:
    seen: Counter[str] = Counter()
    for seed in range(120):
        drawn, asked = scene(seed), turns(seed)
        assert len({turn.prompt for turn in asked}) == len(asked) == 6
        answers = {f"answer en {q.question}": q.answer for q in drawn.questions}
        for prompt, answer in asked:
            kind = prompt.split(" ")[0]
            seen[kind] += 1
            if kind == "answer" and prompt not in answers:
                seen["count"] += 1
                assert answer == str(how_many(drawn, prompt))
            elif kind == "answer":
                assert answers[prompt] == answer
            elif kind == "detect":
                assert answer == instances(
                    drawn, prompt.removeprefix("detect ").split(" ; "), spelled
                )
            else:
                assert answer == {"caption": caption, "describe": description}[kind](drawn)
    told = {"caption", "describe", "answer", "count", "detect"}
    assert set(seen) == told, "no masks without a speller"
    assert seen["answer"] > seen["detect"] > seen["caption"] > seen["describe"]


def test_equal_dice_give_equal_turns() -> None:
    assert turns(5) == turns(5) and turns(5) != turns(6)


def test_a_scene_is_told_in_the_end() -> None:
    drawn = scene(1)
    about = turns_about(drawn, np.random.default_rng(0), spelled, None, {"ask": 1})
    assert sorted(turn.prompt for turn in about) == sorted(
        f"answer en {question.question}" for question in drawn.questions
    )


def test_only_what_is_asked_for() -> None:
    assert {turn.prompt.split(" ")[0] for turn in turns(1, 3, detect=1)} == {"detect"}


def test_no_lesson_names_a_held_out_pair() -> None:
    held = {f"{colour} {kind}" for kind, colour in held_out_pairs()}
    for seed in range(150):
        for prompt, answer in turns(seed, 5, detect=3, caption=1):
            assert not any(pair in f"{prompt} {answer}" for pair in held), (prompt, answer)


def test_masks_are_taught_where_they_can_be_spelled() -> None:
    generator = np.random.default_rng(0)
    drawn = scene(0)
    about = turns_about(drawn, generator, spelled, lambda t, s: f"<{t.kind}>", {"segment": 1})
    found = list(islice(about, 4))
    assert all(turn.prompt.startswith("segment ") for turn in found)
    everything = next(t for t in found if t.prompt == f"segment {EVERYTHING}")
    assert everything.answer.count("<") == len(drawn.objects)
