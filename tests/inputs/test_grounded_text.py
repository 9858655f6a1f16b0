"""Answers that name places: the published readers agree, and no text is too strange."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

from sightline.core.errors import ConfigError, InputError
from sightline.inputs.coordinate_tags import parse_fuyu, write_fuyu
from sightline.inputs.coordinates import FLORENCE2, PALIGEMMA
from sightline.inputs.grounded_text import Grounded, Place, plain
from sightline.inputs.location_tokens import (
    parse_florence,
    parse_paligemma,
    write_florence,
    write_paligemma,
)

SIZE = (480, 640)
Parser = Callable[[str], Grounded]
PARSERS: dict[str, Parser] = {
    "paligemma": lambda text: parse_paligemma(text, SIZE),
    "florence": lambda text: parse_florence(text, SIZE),
    "florence outlines": lambda text: parse_florence(text, SIZE, "outlines"),
    "florence corners": lambda text: parse_florence(text, SIZE, "corners"),
    "fuyu": lambda text: parse_fuyu(text, SIZE),
}
every = pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)


def locs(*numbers: int, spelling: str = PALIGEMMA.token) -> str:
    return "".join(spelling.format(number) for number in numbers)


def florence(*numbers: int) -> str:
    return locs(*numbers, spelling=FLORENCE2.token)


CODES = "".join(f"<seg{n:03d}>" for n in range(16))
BOX = locs(100, 200, 300, 400)


def check(found: Grounded, text: str) -> None:
    """What holds whatever was read."""
    height, width = SIZE
    assert found.invalid >= 0
    for place in found.places:
        assert (place.box is None) != (place.point is None)
        if place.box is not None:
            x1, y1, x2, y2 = place.box
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        for x, y in [*([place.point] if place.point else []), *sum(place.outlines, ())]:
            assert 0 <= x <= width and 0 <= y <= height
        assert len(place.codes) in (0, 16) and all(0 <= code < 128 for code in place.codes)
        for start, stop in (place.span, place.label_span):
            assert 0 <= start <= stop <= len(text)
        assert text[place.span[0] : place.span[1]].startswith("<")
        assert not re.search("<(loc|loc_|seg)[0-9]+>", place.label)
        assert place.label == " ".join(place.label.split())


# PaliGemma


def test_paligemma_detections() -> None:
    text = f"{BOX} red cat ; {locs(0, 0, 1023, 1023)} dog"
    found = parse_paligemma(text, (1023, 2046))
    assert found.invalid == 0
    cat, dog = found.places
    assert (cat.label, cat.box) == ("red cat", (400, 100, 800, 300))  # y first, then twice as wide
    assert (dog.label, dog.box) == ("dog", (0, 0, 2046, 1023))
    assert text[slice(*cat.span)] == BOX and text[slice(*cat.label_span)] == "red cat"
    assert text[slice(*dog.label_span)] == "dog"
    demo = parse_paligemma(text, (1024, 1024), replace(PALIGEMMA, divisor=1024))
    assert demo.places[0].box == (200, 100, 400, 300)


def test_paligemma_segments() -> None:
    text = f"{BOX}{CODES} cat ; {BOX}{CODES}<seg005><seg006> dog"
    cat, dog = parse_paligemma(text, SIZE).places
    assert cat.codes == dog.codes == tuple(range(16))  # more than 16: the rest is ignored
    assert (cat.label, dog.label) == ("cat", "dog")
    assert text[slice(*cat.span)] == BOX + CODES


@pytest.mark.parametrize(
    ("text", "kept", "invalid"),
    [
        ("", 0, 0),
        ("no cat here", 0, 0),
        (BOX, 1, 0),  # an expression was asked for: there is no label
        (f"<eos>{BOX}<eos>", 1, 0),
        (BOX + BOX + " cat", 2, 0),
        (locs(1, 2, 3), 0, 1),
        (f"{BOX} cat ; <loc0001><loc0002", 1, 1),
        (f"{BOX}<loc0001> cat", 1, 1),
        (locs(1, 2, 3) + " " + locs(4), 0, 2),  # halves on both sides of a word make no whole
        (locs(300, 200, 100, 400), 0, 1),  # y2 <= y1
        (locs(100, 400, 300, 200), 0, 1),  # x2 <= x1
        (locs(100, 200, 100, 400), 0, 1),
        ("<loc0100><loc0200><loc0300><loc1024>", 0, 1),
        ("<loc0100><loc0200><loc0300><loc99999999999>", 0, 1),
        ("<loc100><loc200><loc300><loc400>", 0, 1),  # no token is spelled so
        (f"{BOX}{CODES[:-8]} cat", 0, 1),  # 15 codes
        (f"{BOX}<seg128>{CODES[8:]} cat", 0, 1),
        (f"{CODES} cat", 0, 1),
        (f"{CODES}{BOX} cat", 1, 1),
        (f"{BOX}{CODES}{BOX}{CODES} cat", 2, 0),
        (florence(100, 200, 300, 400), 0, 0),
    ],
)
def test_what_paligemma_wrote_counts_or_is_counted(text: str, kept: int, invalid: int) -> None:
    found = parse_paligemma(text, SIZE)
    check(found, text)
    assert (len(found.places), found.invalid) == (kept, invalid)


def test_the_last_of_several_boxes_has_the_label() -> None:
    first, second = parse_paligemma(f"{BOX}{BOX} cat ; dog", SIZE).places
    assert (first.label, second.label) == ("", "cat")
    broken = parse_paligemma(f"{BOX}{locs(1, 2, 3)} cat", SIZE)
    assert [place.label for place in broken.places] == [""]  # the label was the lost one's


# Florence-2


def theirs() -> Florence2PostProcessor:
    processor = Florence2PostProcessor.__new__(Florence2PostProcessor)
    processor.quantize_bins = (1000, 1000)
    processor.banned_grounding_tokens = set()
    return processor


def random_florence(seed: int, outlines: bool) -> str:
    """A well-formed answer; odd counts, several boxes a label and empty ones included."""
    dice = random.Random(seed)
    text = "</s><s>"
    for _ in range(dice.randint(1, 4)):
        text += dice.choice(["red cat", "a dog", "person", "ball"])
        if not outlines:
            for _ in range(dice.randint(1, 3)):
                x, y = sorted(dice.sample(range(1000), 2)), sorted(dice.sample(range(1000), 2))
                text += florence(x[0], y[0], x[1], y[1])
            continue
        for _ in range(dice.randint(1, 2)):
            parts = [
                florence(*(dice.randrange(1000) for _ in range(dice.randint(6, 12))))
                for _ in range(dice.randint(1, 3))
            ]
            text += f"<poly>{'<sep>'.join(parts)}</poly>"
    return text + "</s>"


@pytest.mark.parametrize("seed", range(40))
def test_florence_boxes_are_those_of_its_processor(seed: int) -> None:
    text = random_florence(seed, outlines=False)
    want = theirs().parse_description_with_bboxes_from_text_and_spans(text, SIZE[::-1])
    drawn = [each for each in want if each["bbox"][0] < each["bbox"][2]]
    drawn = [each for each in drawn if each["bbox"][1] < each["bbox"][3]]
    found = parse_florence(text, SIZE)
    assert [(p.label, list(p.box or ())) for p in found.places] == [
        (each["cat_name"], each["bbox"]) for each in drawn
    ]
    assert found.invalid == len(want) - len(drawn)  # those it draws without any pixel
    check(found, text)


@pytest.mark.parametrize("seed", range(40))
def test_florence_outlines_are_those_of_its_processor(seed: int) -> None:
    text = random_florence(seed, outlines=True)
    want = theirs().parse_description_with_polygons_from_text_and_spans(text, SIZE[::-1])
    for shape in ("boxes", "outlines"):  # between <poly> and </poly> in any case
        found = parse_florence(text, SIZE, shape)  # type: ignore[arg-type]
        assert found.invalid == 0
        check(found, text)
        flat = [
            [[value for point in outline for value in point] for outline in place.outlines]
            for place in found.places
        ]
        assert flat == [each["polygons"] for each in want]
        assert [place.label for place in found.places] == [each["cat_name"] for each in want]


def test_florence_text_with_corners_is_that_of_its_processor() -> None:
    text = "SALE" + florence(*range(10, 90, 10)) + " 50 %" + florence(*range(100, 180, 10))
    quads = theirs().parse_ocr_from_text_and_spans(text, None, SIZE[::-1])
    found = parse_florence(text, SIZE, "corners")
    # Corners on a diagonal still have a box around them.
    assert [place.label for place in found.places] == [each["text"] for each in quads]
    assert [
        [value for point in place.outlines[0] for value in point] for place in found.places
    ] == [each["quad_box"] for each in quads]
    assert parse_florence("SALE" + florence(1, 2, 3, 4), SIZE, "corners").invalid == 1


@pytest.mark.parametrize(
    ("text", "shape", "kept", "invalid"),
    [
        ("cat" + florence(1, 2, 300), "boxes", 0, 1),
        ("cat" + florence(1, 2, 300, 400, 5), "boxes", 1, 1),
        (florence(1, 2, 300, 400), "boxes", 1, 0),  # a region without words
        ("cat" + florence(1, 2, 300, 1000), "boxes", 0, 1),
        ("cat<loc_001><loc_2><loc_300><loc_400>", "boxes", 0, 1),
        ("cat<poly>" + florence(1, 2, 300, 400), "outlines", 0, 1),
        ("cat<poly>" + florence(1, 2, 300, 400, 5, 700, 9), "outlines", 1, 0),  # cut off, yet whole
        ("<poly>" + florence(1, 2, 300, 4, 5, 700) + "<sep>" + florence(5), "outlines", 1, 1),
        (florence(1, 2, 300, 4, 5, 700), "outlines", 1, 0),
        ("<poly></poly><sep>", "outlines", 0, 0),
        (BOX + " cat", "boxes", 0, 0),
    ],
)
def test_what_florence_wrote_counts_or_is_counted(
    text: str, shape: str, kept: int, invalid: int
) -> None:
    found = parse_florence(text, SIZE, shape)  # type: ignore[arg-type]
    check(found, text)
    assert (len(found.places), found.invalid) == (kept, invalid)


def test_an_unknown_shape_is_told() -> None:
    with pytest.raises(ConfigError, match="unknown shape 'polygons'"):
        parse_florence("", SIZE, "polygons")  # type: ignore[arg-type]


# Fuyu


@pytest.mark.parametrize(
    ("text", "box", "point"),
    [
        ("<box>100, 200, 300, 400</box>", (200, 100, 400, 300), None),
        ("<box>0,0,480.5,641</box>", (0, 0, 640, 480), None),  # within the network's rounding
        ("<0x00>50 100 150 200<0x01>", (200, 100, 400, 300), None),
        ("<point>20, 40</point>", None, (20, 40)),
        ("<0x02>10 20<0x03>", None, (20, 40)),
    ],
)
def test_fuyu_places(text: str, box: object, point: object) -> None:
    found = parse_fuyu(f"the cat {text} and", SIZE)
    assert found.invalid == 0
    assert found.places == [Place("the cat", box, point=point, span=(8, 8 + len(text)),
                                  label_span=(0, 7))]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "<box>1, 2, 3</box>", "<box>1, 2, 3, 4", "<box>-1, 2, 30, 40</box>", "<box></box>",
        "<box>1, 2, 300, 9999</box>", "<box>30, 2, 3, 40</box>", "<box>a, b, c, d</box>",
        "<box>1, 2, 30, 1e2</box>", "<box>1, 2, 30, ٤٠</box>", "<box>1, 2, 30, nan</box>",
        "<0x00>1 2 3<0x01>", "<0x00>1 2 3 4000<0x01>", "<0x00>1 2 3 " + "9" * 50 + "<0x01>",
        "<0x00>1 2 30 40<0x03>", "<point>1</point>", "<point>1, 9999</point>", "<0x02>1 999<0x03>",
        "<point>1, 2, 30, 40</point>", "<0x02>1 2 30 40<0x03>",
    ],
)  # fmt: skip
def test_what_fuyu_broke_is_counted(text: str) -> None:
    found = parse_fuyu(text, SIZE)
    assert (found.places, found.invalid) == ([], 1)


# Writing


LABELS = st.text(st.characters(exclude_characters="<>;"), min_size=1).map(plain).filter(bool)


@st.composite
def places(draw: st.DrawFn, masks: bool = False) -> Place:
    x1, y1 = draw(st.integers(0, 600)), draw(st.integers(0, 440))
    box = (x1, y1, draw(st.integers(x1 + 8, 640)), draw(st.integers(y1 + 8, 480)))
    code = st.integers(0, 127)
    codes = draw(st.lists(code, min_size=16, max_size=16)) if masks and draw(st.booleans()) else ()
    return Place(draw(LABELS), tuple(map(float, box)), tuple(codes))  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(places(masks=True), max_size=6))
def test_paligemma_reads_what_it_wrote(named: list[Place]) -> None:
    found = parse_paligemma(write_paligemma(named, SIZE), SIZE)
    assert found.invalid == 0
    assert [(p.label, p.codes) for p in found.places] == [(p.label, p.codes) for p in named]
    for read, wrote in zip(found.places, named, strict=True):
        assert read.box == pytest.approx(wrote.box, abs=0.32)  # half of 640 / 1023


@settings(deadline=None)
@given(st.lists(places(), max_size=6))
def test_florence_reads_what_it_wrote(named: list[Place]) -> None:
    exact = replace(FLORENCE2, cut_to=0)
    found = parse_florence(write_florence(named, SIZE), SIZE, convention=exact)
    assert found.invalid == 0
    assert [p.label for p in found.places] == [p.label for p in named]
    for read, wrote in zip(found.places, named, strict=True):
        assert read.box == pytest.approx(wrote.box, abs=0.3201)


@settings(deadline=None)
@given(st.lists(places(), max_size=6))
def test_fuyu_reads_what_it_wrote(named: list[Place]) -> None:
    found = parse_fuyu(write_fuyu(named, SIZE), SIZE)
    assert found.invalid == 0
    assert [(p.label, p.box) for p in found.places] == [(p.label, p.box) for p in named]


def test_what_is_written_literally() -> None:
    cat, dog = Place("cat", (0, 0, 320, 240)), Place("dog", (320, 240, 640, 480))
    both = "<loc0000><loc0000><loc0512><loc0512> cat ; <loc0512><loc0512><loc1023><loc1023> dog"
    assert write_paligemma([cat, dog], SIZE) == both
    assert write_florence([cat, cat, dog], SIZE) == (
        "cat" + florence(0, 0, 500, 500) * 2 + "dog" + florence(500, 500, 999, 999)
    )
    outline = Place("cat", outlines=(((0, 0), (320, 0), (0, 240)),) * 2)
    assert write_florence([outline], SIZE) == (
        "cat<poly>" + "<sep>".join([florence(0, 0, 500, 0, 0, 500)] * 2) + "</poly>"
    )
    assert write_fuyu([cat, Place("at", point=(3, 700))], SIZE) == (
        "cat<box>0, 0, 240, 320</box> at<point>3, 480</point>"
    )


def test_a_label_cannot_write_tokens() -> None:
    trap = Place("a <loc0000>; dog</s>", (0, 0, 320, 240))
    for write in (write_paligemma, write_florence, write_fuyu):
        text = write([trap], SIZE)
        assert "loc0000>;" not in text and "</s>" not in text and "; dog" not in text
    found = parse_paligemma(write_paligemma([trap], SIZE), SIZE)
    assert [place.label for place in found.places] == ["a loc0000 , dog /s"]


def test_what_cannot_be_written_is_refused() -> None:
    for write in (write_paligemma, write_florence, write_fuyu):
        with pytest.raises(InputError, match="'cat' has no box to be written"):
            write([Place("cat")], SIZE)
    for codes in ((1, 2), (128,) * 16):
        with pytest.raises(InputError, match="a mask is 16 codes from 0 to 127"):
            write_paligemma([Place("cat", (0, 0, 9, 9), codes)], SIZE)


# Any text


PIECES = [
    "<loc0000>", "<loc0100>", "<loc0900>", "<loc1023>", "<loc1024>", "<loc99999999999>", "<loc",
    "<loc_0>", "<loc_100>", "<loc_999>", "<loc_1000>", "<loc_99999999999999>", "<loc_-1>",
    "<seg000>", "<seg127>", "<seg128>", "<seg", "<poly>", "</poly>", "<sep>", "<box>", "</box>",
    "<point>", "</point>", "<0x00>", "<0x01>", "<0x02>", "<0x03>", "1, 2, 30, 40", "5, 6", ", ",
    " cat", "red dog", " ; ", ";", "<", ">", "<<", "</s>", "<s>", "<pad>", "\n", "\0", "\u202e",
    "\U0001f600", "\ud800", "٣", "²", "<loc٣٣٣٣>", "<loc²²²²>", "9" * 40, "-1", "1e9", "nan", "%s",
    "{}", "\\", "e\u0301", "", CODES, BOX, florence(1, 2, 300, 400),
    "cat" + florence(1, 2, 300, 4, 5, 700), florence(*range(8)), "<box>1, 2, 30, 40</box>",
    "<point>5, 6</point>", "<0x00>1 2 30 40<0x01>", "<0x02>1 2<0x03>",
]  # fmt: skip


@every
def test_a_thousand_hostile_outputs(parse: Parser) -> None:
    dice = random.Random(7)
    kept = 0
    for _ in range(1000):
        text = "".join(dice.choices(PIECES, k=dice.randint(1, 40)))
        if dice.random() < 0.3:  # cut off anywhere
            text = text[: dice.randint(0, len(text))]
        found = parse(text)
        check(found, text)
        kept += len(found.places)
    assert kept > 20  # the flood had places in it, and they were found


@every
@settings(deadline=None, max_examples=200)
@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_at_all(parse: Parser, text: str) -> None:
    check(parse(text), text)


UNITS = [
    "<loc0001>", "<loc_1>", "<loc", "<", "<loc1", "1", "<box>", "<box>1,", "<0x00>", "<seg000>",
    "<poly>", "<sep><loc_1>", "a ", ";", "<loc0001>;", "<loc_1>a", " ", ",", "<box>1</box>",
    "\U0001f600",
]  # fmt: skip


@every
@pytest.mark.parametrize("unit", UNITS)
def test_the_time_grows_with_the_length_of_the_text(parse: Parser, unit: str) -> None:
    """100,000 characters take well below a second here; squared, they would take minutes."""
    text = unit * (100_000 // len(unit))
    begun = time.process_time()
    parse(text)
    parse("<box>" + text + "<loc")
    assert time.process_time() - begun < 5


@every
def test_a_megabyte_of_places_is_read(parse: Parser) -> None:
    units = [BOX, florence(1, 2, 300, 400, 5, 6, 7, 800), "<box>1, 2, 30, 40</box>"]
    begun = time.process_time()
    found = [parse(unit * (1_000_000 // len(unit))) for unit in units]
    assert time.process_time() - begun < 30  # about two seconds here
    assert any(each.places for each in found)


def test_the_check_would_notice_a_box_outside() -> None:
    outside = Grounded([Place("", (0, 0, 641, 10), span=(0, 1))], 0)
    with pytest.raises(AssertionError):
        check(outside, "<")
    with pytest.raises(AssertionError):  # and the fuzzing does where nothing is checked
        numbers = torch.tensor([[5, 5, 2000, 900]])
        box = theirs().dequantize(numbers, SIZE[::-1])[0].tolist()
        check(Grounded([Place("", tuple(map(float, box)), span=(0, 1))], 0), "<")
