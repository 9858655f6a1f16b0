"""Whatever is put together of the words of these layouts: a data set, or one clear line."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import DataError
from sightline.data.formats import open_dataset
from tests.data.published.files import picture

KEYS = st.sampled_from(
    ["image", "images", "image_id", "question", "question_id", "answers", "answer", "label", "text",
     "messages", "role", "content", "conversations", "from", "value", "prefix", "suffix", "data",
     "questions", "annotations", "categories", "id", "name", "file_name", "bbox", "segmentation",
     "category_id", "iscrowd", "imageId", "imgname", "query", "regions", "box", "turns", "pictures",
     "counts", "size", "type", "image_url", "url", "more_images", "choices", "split", "record_id"]
)  # fmt: skip
ATOMS = st.sampled_from(
    [None, True, 0, 1, -1, 1.5, 1e308, float("nan"), "", "a.png", "<image>", "yes", "user", "human",
     "assistant", "text", "image_url", "data:image/png;base64,", "data:x", "../a.png", "\0",
     "\ud83d", "https://x.org/a.png"]
)  # fmt: skip
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=7)),
    max_leaves=24,
)
WHOLE = {
    "vqa": {"questions": [{"question_id": 1, "image_id": 1, "question": "?"}]},
    "textvqa": {"data": [{"question_id": 1, "image": "a.png", "question": "?", "answers": ["x"]}]},
    "chartqa": [{"imgname": "a.png", "query": "?", "label": "1"}],
    "gqa": {"1": {"imageId": "a.png", "question": "?", "answer": "x"}},
    "pope": {"question_id": 1, "image": "a.png", "text": "?", "label": "yes"},
    "messages": [{"images": ["a.png"], "messages": [{"role": "user", "content": "<image>"}]}],
    "llava": [{"image": "a.png", "conversations": [{"from": "human", "value": "<image>"}]}],
    "prefix-suffix": {"image": "a.png", "prefix": "", "suffix": ""},
    "instances": {"images": [{"id": 1, "file_name": "a.png"}],
                  "categories": [{"id": 1, "name": "x"}],
                  "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1],
                                   "segmentation": [[0, 0, 1, 0, 1, 1]]}]},
}  # fmt: skip


def places(value, path=()):
    """Every place inside of a JSON value."""
    yield path
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        yield from places(value[key], (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def folder(tmp_path_factory):
    """One folder with one picture for all examples of a test run."""
    root = tmp_path_factory.getbasetemp() / "published"
    if not root.is_dir():
        picture(root / "a.png")
    return root


def check(file, format):
    try:
        data = open_dataset(file, format=format)
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        json.dumps(data.report.to_json())
        assert len(data.fingerprint) == 64


def test_the_whole_values_are_read(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "1.jpg")
    for name, value in WHOLE.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(value))
        assert len(open_dataset(file, strict=True)) == 1, name
        assert open_dataset(file).format == name


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(sorted(WHOLE)), place=st.integers(0, 40), new=VALUES, cut=st.booleans())
def test_one_wrong_value_in_a_file_that_was_right(tmp_path_factory, name, place, new, cut):
    root = folder(tmp_path_factory)
    found = list(places(WHOLE[name]))
    text = json.dumps(replaced(WHOLE[name], found[place % len(found)], new))
    (root / "d.json").write_text(text[: len(text) * 2 // 3] if cut else text)
    check(root / "d.json", name)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    value=VALUES, name=st.sampled_from([None, *WHOLE]), suffix=st.sampled_from(["json", "jsonl"])
)
def test_any_words_of_these_layouts(tmp_path_factory, value, name, suffix):
    root = folder(tmp_path_factory)
    file = root / f"d.{suffix}"
    file.write_text(json.dumps(value))
    check(file, name)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(content=st.lists(st.sampled_from(
    [b"index\timage\tquestion\tA\tanswer\n", b"1\t", b'"', b'""', b"\t", b"\n", b"QUJD" * 40, b"0",
     b"\xff", b"\0", b"[", b"A", b"\r\n"]), max_size=20).map(b"".join))  # fmt: skip
def test_any_cells_of_a_table(tmp_path_factory, content):
    file = folder(tmp_path_factory) / "d.tsv"
    file.write_bytes(content)
    check(file, "vlmeval")


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(content=st.one_of(st.binary(max_size=40), st.lists(st.sampled_from(
    [b"\x80\x02", b"]", b"}", b"(", b"a", b"u", b".", b"q\x00", b"h\x00", b"cos\nsystem\n", b"R",
     b"X\x01\x00\x00\x00a", b"K\x01", b"\x93", b"b", b"0", b"2", b"\x94", b"L9999999L\n", b"t",
     b"F1e999\n"]),
    max_size=16).map(b"".join)))  # fmt: skip
def test_any_instructions_of_a_pickle(tmp_path_factory, content):
    from sightline.data.published.plain_pickle import read_plain_pickle

    file = folder(tmp_path_factory) / "refs(x).p"
    file.write_bytes(content)
    try:
        read_plain_pickle(file)
    except DataError as error:
        assert "\n" not in str(error)
