"""Conversations in the layouts that circulate, read back, and refused where they are damaged."""

import base64
import json

import pytest

from sightline.core.errors import DataError
from sightline.data.formats import open_dataset
from sightline.data.turns import Turn, check_order, from_json, to_json, turn_of
from tests.data.published.files import document, lines, picture


def said(record):
    """Roles with their parts, pictures by their names."""
    return [
        (turn.role, *(p if isinstance(p, str) else p.name for p in turn.parts))
        for turn in record.messages
    ]


def llava(*turns, **fields):
    turns = [{"from": who, "value": text} for who, text in turns]
    return {"id": "000000033471", "image": "a.png", "conversations": turns, **fields}


def test_llava(tmp_path):
    picture(tmp_path / "a.png")
    entry = llava(("human", "<image>\nWhat is it?"), ("gpt", "A bus."), ("human", "Is it red?"),
                  ("gpt", "No."))  # fmt: skip
    document(tmp_path / "llava.json", [entry, {"id": "t", "conversations": entry["conversations"]}])
    data = open_dataset(tmp_path)
    assert (data.format, len(data), data[0].id) == ("llava", 1, "000000033471")
    assert said(data[0]) == [("user", "a.png", "What is it?"), ("assistant", "A bus."),
                             ("user", "Is it red?"), ("assistant", "No.")]  # fmt: skip
    assert data[0].image is data[0].messages[0].pictures[0]
    assert data.report.turns == 4
    assert data.report.notes == ("1 conversation(s) without a picture were left out",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<image>\nWhat?", ("a.png", "What?")),
        ("What?\n<image>", ("What?", "a.png")),
        ("What?", ("a.png", "What?")),
        ("In <image> is what?", ("In ", "a.png", " is what?")),
    ],
)
def test_where_the_mark_stands(tmp_path, text, parts):
    picture(tmp_path / "a.png")
    document(tmp_path / "l.json", [llava(("human", text), ("gpt", "x"))])
    assert said(open_dataset(tmp_path)[0])[0] == ("user", *parts)


def test_several_pictures_of_one_record(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    entry = llava(("human", "<image>\n<image>\nWhich one?"), ("gpt", "x"), image=["a.png", "b.png"])
    document(tmp_path / "l.json", [entry])
    data = open_dataset(tmp_path)
    assert said(data[0])[0] == ("user", "a.png", "\n", "b.png", "Which one?")
    assert data[0].more_images == (tmp_path / "b.png",)
    assert data.report.further_pictures == 1
    (tmp_path / "b.png").unlink()
    assert open_dataset(tmp_path).report.missing == ("000000033471",), "also the second counts"


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Left "},
                                 {"type": "image_url", "image_url": {"url": "a.png"}},
                                 {"type": "image", "image": "b.png"},
                                 {"type": "text", "text": " or <image>?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "left"}]},
]  # fmt: skip


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.json"])
def test_messages_with_content_parts(tmp_path, name):
    for stem in "ab":
        picture(tmp_path / f"{stem}.png")
    entry = {"messages": MESSAGES, "source": "web"}
    write = lines if name.endswith("l") else document
    write(tmp_path / name, entry if name.endswith("l") else [entry])
    data = open_dataset(tmp_path)
    assert (data.format, data[0].id, data[0].extra) == ("messages", "chats/1", {"source": "web"})
    assert said(data[0]) == [("system", "Be brief."),
                             ("user", "Left ", "a.png", "b.png", " or <image>?"),
                             ("assistant", "left")]  # fmt: skip


def test_messages_with_pictures_beside_them(tmp_path):
    for stem in "ab":
        picture(tmp_path / f"{stem}.png")
    talk = [
        {"role": "user", "content": "<image>and<image>?"},
        {"role": "assistant", "content": "x"},
    ]
    placed = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    lines(tmp_path / "c.jsonl", {"messages": talk, "images": ["a.png", {"path": "b.png"}]},
          {"messages": placed, "images": ["b.png"], "split": "dev"})  # fmt: skip
    data = open_dataset(tmp_path)
    assert said(data[0])[0] == ("user", "a.png", "and", "b.png", "?")
    assert (said(data[1]), data[1].split) == ([("user", "b.png", "?")], "val")


def test_pictures_written_out_in_the_messages(tmp_path):
    data = picture(tmp_path / "a.png").read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    lines(tmp_path / "c.jsonl", {"messages": [{"role": "user", "content": parts}]})
    assert open_dataset(tmp_path / "c.jsonl")[0].image == data


def test_prefix_and_suffix(tmp_path):
    picture(tmp_path / "a.png")
    lines(tmp_path / "t.jsonl",
          {"image": "a.png", "prefix": "detect <image> cat", "suffix": "<loc0>"},
          {"image": "a.png", "prefix": "", "suffix": "a cat", "n": 3})  # fmt: skip
    data = open_dataset(tmp_path)
    assert (data.format, len(data)) == ("prefix-suffix", 2)
    assert said(data[0]) == [("user", "a.png", "detect <image> cat"), ("assistant", "<loc0>")]
    assert (said(data[1]), data[1].extra) == ([("user", "a.png"), ("assistant", "a cat")], {"n": 3})


USER = {"role": "user", "content": "?"}
DAMAGED = [
    ("llava", [llava(("human", "<image><image>"), ("gpt", "x"))], "more marks of pictures"),
    ("llava", [llava(("human", "<image>"), image=["a.png", "b.png"])], "2 pictures named, but"),
    ("llava", [llava(("robot", "x"))], "entry 1: unknown role 'robot': known are system, user"),
    ("llava", [llava(("gpt", "x"))], "a picture, but the user says nothing"),
    ("llava", [llava(("human", 3))], "'value' must be text, got 3"),
    ("llava", [llava()], "entry 1: a conversation without turns"),
    ("llava", [llava(("human", "x"), image=3)], "a picture is named by its path, got int"),
    ("llava", [3], "entry 1: a JSON object is expected, got int"),
    ("llava", [llava(("human", "x"), image="https://x.org/a.png")], "is an address"),
    ("llava", [llava(("human", "x"), image="../a.png")], "leads out of the data folder"),
    ("messages", [{"messages": 3}], "a conversation without turns"),
    ("messages", [{"messages": [3]}], "a JSON object is expected, got int"),
    ("messages", [{"messages": [{"role": "tool", "content": ""}]}], "unknown role 'tool'"),
    ("messages", [{"messages": [{"role": ["x"]}]}], "unknown role list"),
    ("messages", [{"messages": [{"role": "user", "content": None}]}], "'content' must be text"),
    ("messages", [{"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}],
     "content of type 'input_audio' is not read; text and pictures are"),
    ("messages", [{"messages": [{"role": "user", "content": [{"type": "image"}]}]}],
     "more marks of pictures than pictures: 0 named"),
    ("messages", [{"messages": [USER], "images": ["data:text/html;base64,aGk="]}], "no picture in"),
    ("messages", [{"messages": [USER], "images": ["data:image/png;base64,a*"]}], "base64 is dam"),
    ("prefix-suffix", [{"image": "a.png", "prefix": "x"}], "'suffix' must be text, got None"),
    ("prefix-suffix", [{"image": "", "prefix": "x", "suffix": ""}], "'image' must be text"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), DAMAGED)
def test_damaged_conversations_name_the_place(tmp_path, name, value, message):
    file = document(tmp_path / "d.json", value)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(file, format=name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_cut_off_line_and_a_set_of_words_alone(tmp_path):
    picture(tmp_path / "a.png")
    file = lines(tmp_path / "c.jsonl", {"messages": [USER], "images": ["a.png"]})
    file.write_text(file.read_text() + '{"messages": [{"role": "us')
    with pytest.raises(DataError, match=r"c.jsonl, line 2, column \d+: .*truncated"):
        open_dataset(file)
    lines(file, {"messages": [USER]})
    with pytest.raises(DataError, match="read as messages, but it holds no records"):
        open_dataset(file)


# turns


def test_parts_of_a_turn_and_back():
    a, b = b"a", b"b"
    for parts in ((a, "x"), ("x", a), ("x", a, "y", b), (a, b, "x"), ("x",), (a,), ()):
        turn = turn_of("user", parts)
        assert turn.parts == parts
        assert turn_of("user", turn.parts) == turn
        assert from_json(json.loads(json.dumps(to_json([turn], [a, b]))), [a, b], "") == (turn,)
    assert Turn("user", "hi", (a,)).parts == (a, "hi"), "pictures stand in front"


@pytest.mark.parametrize("places", [(3,), (-1,), (0, 0)])
def test_a_picture_stands_within_its_text(places):
    with pytest.raises(DataError, match=r"1 picture\(s\) and a text of 2 characters cannot have"):
        Turn("user", "hi", (b"a",), places)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "'turns' must be a list"),
        ([3], "a turn is a JSON object with 'role' and 'text'"),
        ([{"role": "user", "text": "", "pictures": [1]}], "shows picture 1, counted from 0, of 1"),
        ([{"role": "user", "text": "", "pictures": [True]}], "must be a list of whole numbers"),
        (
            [{"role": "user", "text": "", "pictures": [0], "places": [4]}],
            "here: a turn with 1 pict",
        ),
    ],
)
def test_turns_that_are_none(value, message):
    with pytest.raises(DataError, match=message):
        from_json(value, [b"a"], "here")


def test_a_turn_shows_pictures_of_its_record_only():
    with pytest.raises(DataError, match="a turn shows a picture that its record does not have"):
        to_json([Turn("user", "", (b"other",))], [b"a"])


@pytest.mark.parametrize("roles", [[], ["assistant"], ["user", "user"], ["user", "system"],
                                   ["system"]])  # fmt: skip
def test_who_speaks_out_of_turn(roles):
    check_order([Turn(role, "x") for role in ("system", "user", "assistant")], "")
    with pytest.raises(DataError, match="here: user and assistant speak in turn"):
        check_order([Turn(role, "x") for role in roles], "here")
