"""What an inspection finds."""

import json

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import DataError
from sightline.data.inspect import inspect_dataset, quantiles


@pytest.fixture
def folder(tmp_path):
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (10 + i, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    Image.fromarray(np.zeros((30, 5), np.uint8)).save(tmp_path / "grey.jpg")
    (tmp_path / "copy.png").write_bytes((tmp_path / "1.png").read_bytes())
    (tmp_path / "cut.png").write_bytes((tmp_path / "2.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("not a picture at all")
    names = [*"01234", "grey", "copy", "cut", "text", "gone"]
    rows = [
        {
            "file_name": f"{name}.jpg" if name == "grey" else f"{name}.png",
            "caption": "word " * (i + 1),
            "label": "odd" if i % 2 else "even",
        }
        for i, name in enumerate(names)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "captions.jsonl").write_text(text)
    return tmp_path


def test_everything_that_was_planted_is_found(folder):
    found = inspect_dataset(folder)
    assert (found.report.format, found.report.records, found.checked) == ("jsonl", 10, 9)
    assert found.report.missing == ("gone.png",)
    assert sorted(found.report.broken) == ["cut.png", "text.png"]
    assert found.duplicates == (("1.png", "copy.png"),)
    assert found.modes == {"RGB": 6, "L": 1}
    assert found.file_formats == {"PNG": 6, "JPEG": 1}
    assert (found.widths["min"], found.widths["max"]) == (5, 20)
    assert (found.heights["min"], found.heights["50%"], found.heights["max"]) == (10, 12, 30)
    assert (found.caption_words["min"], found.caption_words["max"]) == (1, 10)
    assert found.report.labels == {"even": 5, "odd": 5}
    assert [example.id for example in found.examples] == ["0.png", "1.png", "2.png"]


def test_headers_alone_miss_the_cut_picture_and_say_so(folder):
    found = inspect_dataset(folder, decode=False)
    assert not found.decoded
    assert list(found.report.broken) == ["text.png"]
    assert found.report.broken["text.png"] == "text.png: no picture of a known format"


def test_a_limit_spreads_over_the_records(folder):
    seen = []
    found = inspect_dataset(
        folder, limit=3, progress=lambda done, total: seen.append((done, total))
    )
    assert found.checked == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.report.records == 10


def test_strict_refuses_and_names(folder):
    with pytest.raises(DataError, match=r"1 missing .*'gone.png'.*2 broken .*'cut.png', 'text"):
        inspect_dataset(folder, strict=True)


def test_the_document_is_json_with_a_version(folder):
    document = json.loads(json.dumps(inspect_dataset(folder).to_json()))
    assert (document["format"], document["version"]) == ("sightline.inspection", 1)
    assert document["report"]["captions_per_picture"] == {"1": 10}
    assert document["examples"][0]["captions"] == ["word"]
    assert document["duplicates"] == [["1.png", "copy.png"]]


def test_quantiles_against_numpy():
    values = np.random.default_rng(0).normal(size=101)
    found = quantiles(values)
    assert list(found) == ["min", "5%", "25%", "50%", "75%", "95%", "max"]
    assert found["50%"] == np.median(values)
    assert found["95%"] == pytest.approx(np.percentile(values, 95))
    assert quantiles([]) == {}
