"""Round trips: the park and other records written as published sets, read, equal."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sightline.core.errors import DataError
from sightline.data import park
from sightline.data.convert import OWN_LAYOUTS, convert
from sightline.data.examples import Examples, as_record
from sightline.data.formats import open_dataset
from sightline.data.inspect import inspect_dataset
from sightline.data.items import picture_bytes
from sightline.data.park.records import asked_records, marked_record, told_record
from sightline.data.records import Dataset, Record
from sightline.data.regions import Region
from sightline.data.turns import Turn
from sightline.inputs.images import read_image

SCENES = [park.scene(seed) for seed in range(3)] + [park.scene(0, "test")]


def facts(data):
    """What records say, with the pixels of every picture in the order of the conversation."""
    return [
        (
            r.id, r.split, r.question, r.answers, r.choices, r.regions,
            [read_image(p).tobytes() for p in r.pictures],
            [(t.role, [p if isinstance(p, str) else "picture" for p in t.parts])
             for t in r.messages],
        )
        for r in data
    ]  # fmt: skip


def by_id(data):
    return sorted(facts(data), key=lambda f: (f[1] or "", len(f[0]), f[0]))


def roundtrip(records, tmp_path, layout):
    done = convert(Dataset(list(records)), tmp_path / "out", layout)
    assert (done.records, done.failed) == (len(records), {})
    data = open_dataset(tmp_path / "out", strict=True)
    assert data.format == layout
    return data


def test_questions_of_the_park_come_back_as_vqa(tmp_path):
    records = [r for scene in SCENES[:3] for r in asked_records(scene)]
    data = roundtrip(records, tmp_path, "vqa")
    assert facts(data) == facts(records)
    assert [r.extra["question_type"] for r in data] == [r.extra["question_type"] for r in records]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["images", "train_annotations.json", "train_questions.json"]
    assert len(list((tmp_path / "out/images").iterdir())) == 3, "a picture is written once"
    document = json.loads((tmp_path / "out/train_annotations.json").read_text())
    assert {a["answer_type"] for a in document["annotations"]} == {"yes/no", "number", "other"}


def test_objects_of_the_park_come_back_as_instances_with_their_masks(tmp_path):
    records = [marked_record(scene) for scene in SCENES[:3]]
    data = roundtrip(records, tmp_path, "instances")
    assert facts(data) == facts(records)
    for record, scene in zip(data, SCENES, strict=False):
        for region, thing in zip(record.regions, scene.objects, strict=True):
            assert np.array_equal(region.mask(scene.height, scene.width), thing.mask)
            assert region.box == thing.box and region.area == thing.mask.sum()
    assert {r.label for r in marked_record(SCENES[0], "phrase").regions} == {
        thing.name for thing in SCENES[0].objects
    }


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_what_we_write_pycocotools_reads(tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="it reads COCO; the extra `test` has it")
    convert(Dataset([marked_record(s) for s in SCENES[:3]]), tmp_path / "out", "instances")
    found = coco.COCO(str(tmp_path / "out/annotations/instances_train.json"))
    assert len(found.imgs) == 3
    for image, scene in zip(found.imgs.values(), SCENES, strict=False):
        for entry, thing in zip(found.imgToAnns[image["id"]], scene.objects, strict=True):
            assert np.array_equal(found.annToMask(entry).astype(bool), thing.mask)
            assert found.cats[entry["category_id"]]["name"] == thing.kind


def test_conversations_about_the_park_come_back(tmp_path):
    records = [told_record(scene) for scene in SCENES[:3]]
    assert facts(roundtrip(records, tmp_path, "messages")) == facts(records)


def test_examples_of_the_park_come_back_as_prefix_and_suffix(tmp_path):
    sources = [r for s in SCENES[:3] for r in (marked_record(s), *asked_records(s))]
    records = [as_record(e) for e in Examples(sources, ["caption", "ask", "detect"])]
    data = roundtrip(records, tmp_path, "prefix-suffix")
    assert facts(data) == facts(records)
    lines = (tmp_path / "out/train.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == {"id", "image", "prefix", "suffix", "split"}


@pytest.mark.parametrize("layout", ["vqa", "instances", "messages", "prefix-suffix"])
def test_splits_are_files_of_their_own(tmp_path, layout):
    makers = {
        "vqa": asked_records,
        "instances": lambda s: [marked_record(s)],
        "messages": lambda s: [told_record(s)],
        "prefix-suffix": lambda s: map(as_record, Examples([marked_record(s)], ["caption"])),
    }
    records = [r for scene in SCENES[2:] for r in makers[layout](scene)]  # fmt: skip
    data = roundtrip(records, tmp_path, layout)
    assert by_id(data) == by_id(records)
    assert data.splits == ("test", "train")


PICTURES = (bytes(picture_bytes(Record("", s.pixels))) for s in SCENES[:2])
FIRST, SECOND = PICTURES
RICH = [
    Record("a", FIRST, ("x",), question="which?", answers=("b", "b"), choices=("a", "b")),
    Record("b", FIRST, regions=(
        Region("cat", (1.0, 2.0, 3.5, 4.0), ((1.0, 2.0, 3.0, 2.0, 3.0, 4.0),), area=2.0),
        Region("crowd", (0.0, 0.0, 4.0, 4.0), {"size": [64, 64], "counts": [4096]}, crowd=True),
    )),
    Record("c", FIRST, messages=(
        Turn("system", "short"), Turn("user", "this: ", (FIRST,), (6,)),
        Turn("assistant", "<image>"),
    )),
]  # fmt: skip
BOTH = (Turn("user", "ab", (FIRST, SECOND), (1, 2)), Turn("assistant", "c"))
SEVERAL = Record("d", FIRST, more_images=(SECOND,), messages=BOTH)


@pytest.mark.parametrize("layout", OWN_LAYOUTS)
def test_our_own_layouts_keep_everything(tmp_path, layout):
    if layout == "parquet":
        pytest.importorskip("pyarrow", reason="it reads Parquet; the extra `test` brings it")
    done = convert(Dataset([*RICH, SEVERAL]), tmp_path / "out", layout)
    several = layout == "jsonl"
    assert done.failed == ({} if several else {
        "d": "it has several pictures; jsonl and messages have a place for them"
    })  # fmt: skip
    data = open_dataset(tmp_path / "out", strict=True)
    expected = [*RICH, SEVERAL] if several else RICH
    if layout == "folder":  # ids are file names there
        assert [f[2:] for f in facts(data)] == [f[2:] for f in facts(expected)]
    else:
        assert by_id(data) == by_id(expected)
        assert [r.captions for r in data] == [r.captions for r in expected]


def test_several_pictures_as_messages(tmp_path):
    data = roundtrip([SEVERAL], tmp_path, "messages")
    assert facts(data) == facts([SEVERAL])


def test_a_question_becomes_an_exchange(tmp_path):
    done = convert(Dataset(RICH), tmp_path / "out", "messages")
    assert done.failed == {"b": "it has neither a conversation nor a question with an answer"}
    first = open_dataset(tmp_path / "out")[0]
    assert [(t.role, t.text) for t in first.messages] == [("user", "which?"), ("assistant", "b")]


def test_what_has_no_place_is_named(tmp_path):
    done = convert(Dataset(RICH), tmp_path / "vqa", "vqa")
    assert (done.records, done.failed) == (
        1,
        {"b": "it has no question", "c": "it has no question"},
    )
    with pytest.raises(DataError, match="no record of it can be written; the first: it is no conv"):
        convert(Dataset(RICH), tmp_path / "pairs", "prefix-suffix")
    with pytest.raises(DataError, match="record 'b': it has no question"):
        convert(Dataset(RICH), tmp_path / "strict", "vqa", strict=True)


def test_the_fingerprint_sees_what_is_said(tmp_path):
    changes = [{}, {"question": "?"}, {"question": ""}, {"answers": ("a",)}, {"choices": ("a",)},
               {"regions": RICH[1].regions[:1]}, {"regions": RICH[1].regions},
               {"messages": (Turn("user", "x"),)}, {"messages": (Turn("user", "y"),)},
               {"more_images": (SECOND,)}]  # fmt: skip
    prints = {Dataset([Record("a", FIRST, ("x",), **change)]).fingerprint for change in changes}
    assert len(prints) == len(changes)


# The commands


def run(*arguments):
    from sightline.cli.program import program

    return CliRunner().invoke(program, ["data", *map(str, arguments)])


@pytest.mark.parametrize("layout", ["vqa", "instances", "messages", "prefix-suffix"])
def test_the_command_draws_every_layout(tmp_path, layout):
    out = tmp_path / "out"
    result = run("park", "--out", out, "--count", 2, "--to", layout, "--split", "test", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["to"], said["scenes"]) == (layout, 2)
    report = inspect_dataset(out, strict=True).report
    assert (report.format, report.records) == (layout, said["records"])
    again = run("park", "--out", out, "--count", 2, "--to", layout)
    assert again.exit_code == 2
    assert "is there already; nothing is overwritten" in again.stderr


def test_inspect_counts_what_is_asked_marked_and_said(tmp_path):
    for layout, expected in (("vqa", "questions"), ("instances", "regions"), ("messages", "turns")):
        run("park", "--out", tmp_path / layout, "--count", 2, "--to", layout)
        result = run("inspect", tmp_path / layout)
        assert result.exit_code == 0, result.output
        assert expected in result.stdout
    assert "answers" in run("inspect", tmp_path / "vqa").stdout
    assert "with an outline" in run("inspect", tmp_path / "instances").stdout
    report = json.loads(run("inspect", tmp_path / "messages", "--json").stdout)["report"]
    assert report["turns"] == sum(2 + 2 * len(s.questions) for s in SCENES[:2])


def test_inspect_opens_each_picture_once(tmp_path):
    convert(Dataset([r for s in SCENES[:2] for r in asked_records(s)]), tmp_path / "a", "vqa")
    found = inspect_dataset(tmp_path / "a")
    assert (found.checked, found.duplicates) == (2, ())
    assert found.examples[0].said.endswith(SCENES[0].questions[0].answer)
    convert(Dataset([SEVERAL]), tmp_path / "b", "messages")
    second = sorted((tmp_path / "b/images").iterdir())[1]
    second.write_bytes(b"broken")
    assert list(inspect_dataset(tmp_path / "b").report.broken) == ["d"], "also the second"


def test_split_keeps_questions_and_regions(tmp_path):
    run("park", "--out", tmp_path / "in", "--count", 6, "--to", "vqa")
    out = tmp_path / "parts.jsonl"
    result = run("split", tmp_path / "in", "--out", out, "--parts", "train=0.5,test=rest",
                 "--methods", "none")  # fmt: skip
    assert result.exit_code == 0, result.output
    before, after = open_dataset(tmp_path / "in"), open_dataset(out)
    key = {r.id: (r.question, r.answers) for r in before}
    assert {r.id: (r.question, r.answers) for r in after} == key


def test_convert_makes_examples(tmp_path):
    run("park", "--out", tmp_path / "in", "--count", 2, "--to", "instances")
    result = run("convert", tmp_path / "in", tmp_path / "out", "--to", "prefix-suffix",
                 "--tasks", "detect", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["from"] == "instances"
    first = open_dataset(tmp_path / "out")[0]
    assert first.messages[0].text.startswith("detect ")
    assert first.messages[1].text.startswith("<loc")
    wrong = run("convert", tmp_path / "in", tmp_path / "x", "--to", "vqa", "--tasks", "detect")
    assert wrong.exit_code == 2
    assert "--tasks makes conversations" in wrong.stderr
