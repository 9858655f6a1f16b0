"""Examples of records: what each task makes, what is drawn, and that resuming is exact."""

import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import ConfigError, DataError, ImageError
from sightline.data.examples import (
    Dialogue,
    Example,
    Examples,
    Task,
    dialogue_of,
    mixed_examples,
    most_frequent,
    write_boxes,
)
from sightline.data.loader import Loader
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.data.turns import Turn
from sightline.inputs.location_tokens import parse_paligemma
from sightline.inputs.picture_size import picture_size

PIXELS = np.zeros((40, 80, 3), np.uint8)
SQUARE = ((8.0, 4.0, 24.0, 4.0, 24.0, 20.0, 8.0, 20.0),)
REGIONS = (
    Region("cat", (8.0, 4.0, 24.0, 20.0), SQUARE),
    Region("dog", (40.0, 0.0, 80.0, 40.0)),
    Region("cat", (60.0, 30.0, 70.0, 36.0), SQUARE),
    Region("crowd of cats", (0.0, 0.0, 9.0, 9.0), SQUARE, crowd=True),
)
TALK = (Turn("system", "Be brief."), Turn("user", "?", (PIXELS,)), Turn("assistant", "A cat."))
RECORDS = Dataset(
    [
        Record("a", PIXELS, ("a cat {x}", "two cats"), split="train", regions=REGIONS),
        Record("b", PIXELS, question="how many?", answers=("2", "two", "2", "3")),
        Record("c", PIXELS, messages=TALK),
        Record("d", PIXELS, messages=(Turn("user", "detect x", (PIXELS,)), Turn("assistant", "y"))),
        Record("e", PIXELS, question="unanswered?"),
    ]
)


def written(examples):
    return [(e.id, e.prefix, e.suffix) for e in examples]


def test_captions_and_questions():
    assert written(Examples(RECORDS, ["caption", "ask", "question"])) == [
        ("a#caption0", "caption en", "a cat {x}"),
        ("a#caption1", "caption en", "two cats"),
        ("b#ask0", "answer en how many?", "2"),
        ("b#question0", "question en 2", "how many?"),
    ]
    assert Examples(RECORDS, ["caption"])[0] == Example(
        "a#caption0", (PIXELS,), "caption en", "a cat {x}", "train"
    )


def test_everything_that_is_marked_is_detected_at_once():
    (found,) = Examples(RECORDS, ["detect"])
    assert found.prefix == "detect cat ; dog"
    places = parse_paligemma(found.suffix, (40, 80)).places
    assert [place.label for place in places] == ["cat", "dog", "cat"]
    for place, region in zip(places, (REGIONS[0], REGIONS[1], REGIONS[2]), strict=True):
        assert np.allclose(place.box, region.box, atol=80 / 1023), "half a bin of either side"


def test_one_label_is_segmented_at_a_time_by_the_writer_that_is_given():
    seen = []

    def write(regions, size):
        seen.append((len(regions), size, [r.mask(*size).sum() > 0 for r in regions]))
        return "<seg>" * len(regions)

    (found,) = Examples(RECORDS, ["segment"], writers={"segment": write})
    assert (found.prefix, found.suffix) == ("segment cat", "<seg><seg>")
    assert seen == [(2, (40, 80), [True, True])], "neither the dog without outline nor the crowd"
    with pytest.raises(ConfigError, match="the task 'segment' writes places: give writers="):
        Examples(RECORDS, ["segment"])


def test_what_was_written_stays_as_it_is():
    assert written(Examples(RECORDS, ["written"])) == [("d#written0", "detect x", "y")]


def test_tasks_of_ones_own_are_data():
    tasks = {"count": Task("question", "{question} ({answer})", "{answer}")}
    assert written(Examples(RECORDS, tasks)) == [("b#count0", "how many? (2)", "2")]


def test_the_upright_size_is_the_one_that_boxes_are_counted_in(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert picture_size(tmp_path / "a.jpg") == (80, 40)
    assert picture_size(tmp_path / "a.jpg", upright=True) == (40, 80)
    sizes = []
    record = Record("a", tmp_path / "a.jpg", regions=REGIONS[:1])
    writer = {"detect": lambda regions, size: sizes.append(size) or "x"}
    assert Examples([record], ["detect"], writer)[0].suffix == "x"
    assert sizes == [(80, 40)]


# what is drawn


def test_the_most_frequent_answer_and_the_first_of_equals():
    assert most_frequent(("2", "two", "2")) == "2"
    assert most_frequent(("b", "a", "a", "b")) == "b"


def test_answers_are_drawn_as_often_as_they_were_given():
    many = [
        Record(str(i), PIXELS, question="?", answers=("2", "two", "2", "3")) for i in range(800)
    ]
    drawn = Examples(many, ["ask"], answers="drawn")
    counts = Counter(e.suffix for e in drawn)
    assert set(counts) == {"2", "two", "3"}
    assert 340 < counts["2"] < 460  # half of 800, five standard deviations
    again = Examples(many, ["ask"], answers="drawn")
    assert [again[i].suffix for i in reversed(range(800))] == [e.suffix for e in drawn][::-1]
    other = Examples(many, ["ask"], answers="drawn", seed=1)
    assert [e.suffix for e in other] != [e.suffix for e in drawn]


def test_one_caption_is_drawn_for_each_index():
    many = [Record(str(i), PIXELS, ("x", "y")) for i in range(60)]
    drawn = Examples(many, ["caption"], captions="drawn")
    assert len(drawn) == 60
    assert {e.suffix for e in drawn} == {"x", "y"}
    generator = np.random.default_rng(0)
    assert {drawn.drawn(0, generator).suffix for _ in range(40)} == {"x", "y"}


# with loaders and mixtures


def test_a_loader_goes_on_exactly_where_it_was_left():
    many = [Record(str(i), PIXELS, question="?", answers=("1", "2", "3")) for i in range(20)]

    def loader():
        examples = Examples(Dataset(many), ["ask"], answers="drawn", seed=3)
        return Loader(examples, written, 4, seed=7, epochs=2)

    whole = list(loader())
    first = loader()
    taken = [batch for _, batch in zip(range(3), first, strict=False)]
    rest = loader()
    rest.load_state_dict(first.state_dict())
    assert taken + list(rest) == whole


def test_a_loader_can_draw_anew_in_every_epoch():
    many = [Record(str(i), PIXELS, question="?", answers=("1", "2", "3")) for i in range(20)]
    examples = Examples(many, ["ask"], answers="drawn")
    loader = Loader(range(20), written, 20, epochs=2, shuffle=False, transform=examples.drawn)
    first, second = loader
    assert [e[0] for e in first] == [e[0] for e in second]
    assert first != second
    assert list(Loader(range(20), written, 20, epochs=2, shuffle=False,
                       transform=examples.drawn)) == [first, second]  # fmt: skip


def test_another_task_answer_or_seed_is_another_data_set():
    prints = {
        Examples(RECORDS, tasks, **options).fingerprint
        for tasks, options in (
            (["ask"], {}),
            (["caption"], {}),
            (["ask"], {"answers": "drawn"}),
            (["ask"], {"seed": 1}),
            (["caption", "ask"], {}),
            (["ask", "caption"], {}),
        )
    }
    assert len(prints) == 6
    fewer = Dataset(RECORDS.records[:2])
    assert Examples(fewer, ["ask"]).fingerprint != Examples(RECORDS, ["ask"]).fingerprint


def test_a_mixture_of_tasks_has_their_weights():
    many = [Record(str(i), PIXELS, ("x",), question="?", answers=("1",)) for i in range(30)]
    mixture = mixed_examples(many, {"caption": 3, "ask": 1})
    order = mixture.epoch_order(0, 0)
    assert Counter(mixture[int(i)].prefix for i in order) == {"caption en": 45, "answer en ?": 15}
    loader = Loader(mixture, written, 10, epochs=1)
    assert len({id for batch in loader for id, _, _ in batch}) > 40


def test_a_broken_picture_is_noted_in_the_records(tmp_path):
    data = Dataset([Record("a#1", tmp_path / "gone.png", regions=REGIONS[:1])])
    examples = Examples(data, ["detect"])
    with pytest.raises(ImageError, match=r"gone.png: there is no such file"):
        examples[0]
    examples.note_broken("a#1#detect0", "gone")
    assert data.report.broken == {"a#1": "gone"}


def test_examples_travel_to_processes():
    examples = Examples(RECORDS, ["caption", "detect"])
    copy = pickle.loads(pickle.dumps(examples))
    assert written(copy) == written(examples)


# refusals


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        (["capton"], {}, "unknown task 'capton': did you mean 'caption'"),
        ([], {}, "no task: choose of caption, ask"),
        (["ask"], {"answers": "best"}, "answers='best': it is 'frequent' or 'drawn'"),
        (["ask"], {"captions": "all"}, "captions='all': it is 'each' or 'drawn'"),
    ],
)
def test_wrong_settings(tasks, options, message):
    with pytest.raises(ConfigError, match=message):
        Examples(RECORDS, tasks, **options)


def test_data_that_cannot_teach_a_task():
    with pytest.raises(DataError, match="no record gives an example of detect: it needs regions"):
        Examples([Record("a", PIXELS, ("x",))], ["caption", "detect"])
    with pytest.raises(IndexError, match="example 9 of 2"):
        Examples(RECORDS, ["caption"]).drawn(9, np.random.default_rng(0))


# conversations


def test_only_the_assistant_is_supervised():
    assert dialogue_of(RECORDS[2]) == Dialogue("c", (PIXELS,), TALK, (False, False, True))


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (TALK[:2], "record 'x': a conversation without an answer teaches nothing"),
        (TALK[::-1], "record 'x': user and assistant speak in turn"),
        ((), "got nothing"),
    ],
)
def test_conversations_that_teach_nothing(turns, message):
    with pytest.raises(DataError, match=message):
        dialogue_of(Record("x", PIXELS, messages=turns))


def test_boxes_are_written_as_paligemma_reads_them():
    assert write_boxes(REGIONS[1:2], (40, 80)) == "<loc0000><loc0512><loc1023><loc1023> dog"
