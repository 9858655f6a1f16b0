"""VLMEvalKit's tables, as pandas writes them."""

import base64

import pandas as pd
import pytest

from sightline.core.errors import DataError, ImageError
from sightline.data.formats import open_dataset
from sightline.data.items import picture_bytes
from tests.data.published.files import picture


def table(path, *rows):
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return path


@pytest.fixture
def coded(tmp_path):
    found = [picture(tmp_path / f"made/{v}.png", v).read_bytes() for v in (10, 20)]
    return found, [base64.b64encode(data).decode() for data in found]


def row(index, image, **changes):
    base = {"index": index, "image": image, "question": 'What "is"\tit?\nSay.', "hint": "näh",
            "A": "a cat", "B": "a dog", "C": None, "answer": "B", "category": "pets"}  # fmt: skip
    return {**base, **changes}


def test_a_table_as_pandas_writes_it(tmp_path, coded):
    stored, texts = coded
    file = table(tmp_path / "MMBench_DEV_EN.tsv", row(0, texts[0], split="dev"),
                 row(1, "0", answer="A"),
                 row(7, f"['{texts[0]}', '{texts[1]}']", A=None, B=None, answer="yes"))  # fmt: skip
    data = open_dataset(file)
    assert (data.format, [r.id for r in data]) == ("vlmeval", ["0", "1", "7"])
    first, second, third = data
    assert first.question == 'What "is"\tit?\nSay.'
    assert (first.choices, first.answers, first.split) == (("a cat", "a dog"), ("a dog",), "val")
    assert first.extra == {"hint": "näh", "answer": "B", "category": "pets"}
    assert picture_bytes(first) == stored[0]
    assert (second.answers, picture_bytes(second)) == (("a cat",), stored[0])
    assert (third.choices, third.answers) == ((), ("yes",))
    assert [p.read_stored() for p in third.pictures] == stored
    assert len(data.report.missing) == 0


def test_a_table_that_names_files(tmp_path):
    picture(tmp_path / "images/a.png")
    named = row(0, None, image_path="a.png")
    named.pop("image")
    file = table(tmp_path / "t.tsv", named)
    data = open_dataset(file)
    assert (data.format, data[0].image) == ("vlmeval", tmp_path / "images/a.png")


def test_damaged_base64_is_found_when_the_picture_is_read(tmp_path, coded):
    text = coded[1][0]
    file = table(tmp_path / "t.tsv", row(0, text), row(1, text[:-9] + "*" + text[-8:]))
    data = open_dataset(file)
    with pytest.raises(ImageError, match="its base64 is damaged"):
        data[1].image.read_stored()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index\tquestion\n1\t?\n", "line 1: a header with index, image and question is expected"),
        ("index\timage\tquestion\n1\t5\t?\n", "line 2: 'image' is neither base64 .*'5'"),
        ("index\timage\tquestion\n1\t\t?\n", "line 2: no picture: 'image' is empty"),
        ("index\timage\tquestion\n1\t2\n", "line 2: 2 cells, but the header names 3"),
        ('index\timage\tquestion\n1\t2\t"open\nmore\n', "line 2: a quote is opened and never"),
        ('index\timage\tquestion\n1\t2\t"a"b"\n"', "line 2: quotes inside a quoted cell"),
        ("index\timage\tquestion\n1\t2\t\0\n", "contains NUL bytes"),
        ("", "a header with index, image and question is expected"),
        ("index\timage\tquestion\tA\tanswer\n1\t" + "QUJD" * 30 + "\t?\tx\tC\n",
         "line 2: the answer is C, the choices are A"),
    ],
)  # fmt: skip
def test_damaged_tables_name_the_line(tmp_path, content, message):
    file = tmp_path / "t.tsv"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        open_dataset(file, format="vlmeval")


def test_latin_1_and_endless_rows(tmp_path, monkeypatch):
    file = tmp_path / "t.tsv"
    file.write_bytes(b"index\timage\tquestion\n1\t2\tcaf\xe9\n")
    with pytest.raises(DataError, match="line 2: is not UTF-8 text"):
        open_dataset(file, format="vlmeval")
    monkeypatch.setattr("sightline.data.published.choice_tables.MAX_ROW_BYTES", 100)
    file.write_bytes(b'index\timage\tquestion\n1\t2\t"' + b"x\n" * 200)
    with pytest.raises(DataError, match="line 2: a quote is opened and never closed"):
        open_dataset(file, format="vlmeval")
