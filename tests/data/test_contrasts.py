"""Files of contrasts as their authors write them, and damaged or hostile ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.core.errors import DataError, ImageError
from sightline.data import lines
from sightline.data.contrast_files import open_contrasts
from sightline.data.contrasts import Contrast, PictureRegion, contrast_set
from sightline.inputs.images import read_image


def save(path: Path, colour: tuple[int, int, int] = (9, 99, 199)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), colour).save(path)
    return path


def put(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


SUGAR = {
    "0": {"filename": "a.jpg", "caption": "A cat.", "negative_caption": "A dog."},
    "7": {"filename": "b.jpg", "caption": "A cup.", "negative_caption": "A cap."},
}
WINO = {
    "id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "cat on dog",
    "caption_1": "dog on cat", "tag": "Noun", "secondary_tag": "", "num_main_preds": 1,
    "collapsed_tag": "Object",
}  # fmt: skip
ARO = {
    "image_id": 3, "image_path": "a.jpg", "bbox_x": 2, "bbox_y": 1, "bbox_w": 5, "bbox_h": 4,
    "true_caption": "the cat is on the mat", "false_caption": "the mat is on the cat",
    "relation_name": "on",
}  # fmt: skip


def test_sugarcrepes_seven_files_are_seven_subsets(tmp_path: Path) -> None:
    for name in ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att",
                 "swap_obj"):  # fmt: skip
        put(tmp_path / f"{name}.json", SUGAR)
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / "val2017" / name)
    found = open_contrasts(tmp_path)
    assert len(found) == 14 and set(found.formats.values()) == {"sugarcrepe"}
    assert found[0] == Contrast(
        "add_att/0", (tmp_path / "val2017" / "a.jpg",), ("A cat.", "A dog."), "add_att"
    )
    assert found[1].id == "add_att/7"  # numbers may have gaps
    elsewhere = tmp_path / "elsewhere"
    save(elsewhere / "a.jpg")
    one = open_contrasts(tmp_path / "swap_obj.json", images=elsewhere)
    assert one[0].images == (elsewhere / "a.jpg",) and one[0].subset == "swap_obj"


def test_winoground_with_names_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(json.dumps(WINO) + "\n\n")
    first = save(tmp_path / "images" / "ex_0_img_0.png")
    second = save(tmp_path / "images" / "ex_0_img_1.png")
    found = open_contrasts(tmp_path)
    assert found[0] == Contrast(
        "examples/0", (first, second), ("cat on dog", "dog on cat"), "Object"
    )


def test_winoground_as_the_hub_gives_it_out(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, Value

    files = [save(tmp_path / f"{n}.png", (n, n, n)) for n in range(4)]
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    words = {name: Value("string") for name in ("caption_0", "caption_1", "tag", "collapsed_tag")}
    made = Dataset.from_dict(
        {"id": [0, 1], "image_0": cells[:2], "image_1": cells[2:], "caption_0": ["a b", "c d"],
         "caption_1": ["b a", "d c"], "tag": ["x", "y"], "collapsed_tag": ["Object", ""]},
        features=Features({"id": Value("int32"), "image_0": Image(), "image_1": Image(), **words}),
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    made.to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    found = open_contrasts(tmp_path / "data")
    assert [(c.captions, c.subset) for c in found] == [(("a b", "b a"), "Object"),
                                                      (("c d", "d c"), "y")]  # fmt: skip
    assert [int(read_image(image)[0, 0, 0]) for c in found for image in c.images] == [0, 2, 1, 3]


def test_other_and_damaged_tables_are_said(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"image_0": ["x"], "image_1": ["y"], "caption_0": ["a"], "caption_1": ["b"]}
    pq.write_table(pa.table(columns), tmp_path / "w.parquet")
    with pytest.raises(DataError, match="row 1: a picture's bytes are expected, got str"):
        open_contrasts(tmp_path)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "w.parquet")
    with pytest.raises(DataError, match="no file of contrasts"):
        open_contrasts(tmp_path)
    (tmp_path / "w.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"w\.parquet: is no Parquet file"):
        open_contrasts(tmp_path)


def test_aro_is_cut_to_its_box_first(tmp_path: Path) -> None:
    pixels = np.arange(20 * 10 * 3, dtype=np.uint8).reshape(10, 20, 3)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    put(tmp_path / "visual_genome_relation.json", [{**ARO, "image_path": "a.png"}])
    pair = {k: v for k, v in ARO.items() if k != "relation_name"} | {"image_path": "a.png"}
    put(tmp_path / "visual_genome_attribution.json", [{**pair, "attributes": ["red", "big"]}])
    attribution, relation = open_contrasts(tmp_path)
    assert (relation.subset, relation.kind) == ("visual_genome_relation", "on")
    assert (attribution.subset, attribution.kind) == ("visual_genome_attribution", "red_big")
    assert relation.captions == (ARO["true_caption"], ARO["false_caption"])
    assert np.array_equal(read_image(relation.images[0]), pixels[1:5, 2:7])


def test_a_box_beyond_the_edge_is_cut_and_one_outside_is_no_picture(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    assert read_image(PictureRegion(file, (15, 5, 99, 99))).shape == (5, 5, 3)
    with pytest.raises(ImageError, match=r"box \[50, 0, 60, 5\] lies outside of 20 x 10 pixels"):
        read_image(PictureRegion(file, (50, 0, 60, 5)))
    with pytest.raises(ImageError, match=r"gone\.png"):
        read_image(PictureRegion(tmp_path / "gone.png", (0, 0, 5, 5)))


def test_other_orders_drop_what_equals_the_true_caption(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    put(tmp_path / "coco_order.json", [
        {"image": "a.jpg", "caption_options": ["a b", "b a", "a  b", "b a"]},
        {"image": "a.jpg", "caption_options": ["c c", "c c"]},
    ])  # fmt: skip
    found = open_contrasts(tmp_path / "coco_order.json")
    assert [contrast.captions for contrast in found] == [("a b", "b a")]
    assert (found.dropped, found.excluded) == (2, 1)


def test_checklist_pairs_by_place(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    put(tmp_path / "vg.json", [["a.jpg", {"POS": ["red cat", "big cat"], "NEG": ["x", "y"]}]])
    found = open_contrasts(tmp_path / "vg.json")
    assert [c.captions for c in found] == [("red cat", "x"), ("big cat", "y")]
    assert [c.id for c in found] == ["vg/0.0", "vg/0.1"]


def test_quadruples_keep_equal_captions(tmp_path: Path) -> None:
    twins = Contrast("q", (tmp_path / "a", tmp_path / "b"), ("same", "same"))
    assert contrast_set([twins], "x").contrasts == (twins,)


def test_other_json_files_do_not_disturb(tmp_path: Path) -> None:
    put(tmp_path / "add_obj.json", SUGAR)
    put(tmp_path / "park.json", {"format": "x"})
    (tmp_path / "broken.json").write_bytes(b"\xff\0{")
    save(tmp_path / "a.jpg")
    assert len(open_contrasts(tmp_path)) == 2


TEXT = json.dumps(SUGAR)
WINO_LINE = json.dumps(WINO)
DAMAGED = [
    ("s.json", TEXT[:-20], r"s.json, line 1, column \d+: not valid JSON, .*truncated"),
    ("s.json", TEXT.replace('"A cat."', "3"), "entry '0': 'caption' must be text or a list"),
    ("s.json", TEXT.replace('"A cat."', '""'), "entry '0': 'caption' is missing or empty"),
    (
        "s.json",
        TEXT.replace('"A cat."', '["x", "y"]'),
        "'caption' must be one text, got a list of 2",
    ),
    ("s.json", TEXT.replace('"A cat."', '"\\ud83d"'), "lone UTF-16 surrogate"),
    ("s.json", TEXT.replace('"a.jpg"', '"../a.jpg"'), "'../a.jpg' leads out of the data folder"),
    ("s.json", TEXT.replace('"a.jpg"', '"http://x/a.jpg"'), "is an address"),
    ("s.json", TEXT.replace('"a.jpg"', '"a\\u0000.jpg"'), "NUL character in the path"),
    ("s.json", '{"0": 3, "1": ' + TEXT[6:], "entry '0': a JSON object is expected, got int"),
    ("s.json", f"[{TEXT}]", "s.json: a JSON object is expected, got list"),
    ("w.jsonl", WINO_LINE + "\n" + WINO_LINE[:30], "w.jsonl, line 2, column .*truncated"),
    ("w.jsonl", WINO_LINE.replace("ex_0_img_1", "../../x"), "leads out of the data folder"),
    ("w.jsonl", WINO_LINE + "\n[1]\n", "line 2: a JSON object is expected, got list"),
    ("w.jsonl", WINO_LINE + '\n{"image_0": "x"}\n', "line 2: 'image_1' is missing or empty"),
    ("w.jsonl", WINO_LINE + "\n\0", "line 2: contains NUL bytes"),
    ("a.json", json.dumps(ARO), "a.json: a JSON array is expected, got dict"),
    ("a.json", json.dumps([{**ARO, "bbox_w": "x"}]), "entry 1: bbox_x, .* must be numbers"),
    ("a.json", json.dumps([{**ARO, "bbox_w": 1e300}]), "entry 1: bbox_x, .* must be numbers"),
    ("a.json", json.dumps([{**ARO, "bbox_w": True}]), "entry 1: bbox_x, .* must be numbers"),
    ("a.json", json.dumps([{**ARO, "bbox_h": 0}]), "entry 1: a box of 5 x 0 pixels shows nothing"),
    ("a.json", json.dumps([ARO, 5]), "entry 2: a JSON object is expected, got int"),
    ("a.json", json.dumps([{**ARO, "attributes": 3}]), "'attributes' must be text or a list"),
    ("o.json", '[{"image": "a.jpg", "caption_options": ["x"]}]', "must hold the true caption and"),
    ("c.json", '[["a.jpg", {"POS": ["x"], "NEG": []}]]', "POS and NEG must hold equally many"),
    ("c.json", '["a.jpg", {"POS": ["x"], "NEG": ["y"]}]', "entry 1: a path and an object with"),
    ("n.json", '{"images": []}', "n.json: no file of contrasts; read are Winoground"),
    ("s.json", "{}", "no file of contrasts"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED)
def test_damaged_files_name_the_place(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    save(tmp_path / "a.jpg")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        open_contrasts(tmp_path / name)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


fragments = st.sampled_from(
    [b'{"0": ', b'{"filename": "a.jpg"', b', "caption": "x"', b', "negative_caption": ', b'"y"',
     b"}", b"[", b"]", b"{", b",", b"\n", b'{"image_path": "a.jpg"', b', "true_caption": "x"',
     b', "false_caption": "y"', b', "bbox_x": 1', b', "caption_options": ["x", "y"]',
     b'{"image": "../a.jpg"', b'"POS": ["x"]', b'"NEG": ["y"]', b'"image_0": "a"',
     b'"image_1": "a"', b'"caption_0": "x"', b'"caption_1": "y"', b"null", b"1e999", b"\xff", b"\0"]
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(["d.json", "d.jsonl"]),
    content=st.lists(fragments, max_size=16).map(b"".join),
)
def test_nothing_but_contrasts_or_a_clear_line(tmp_path_factory, name, content):
    root = tmp_path_factory.mktemp("fuzz")
    (root / "a.jpg").write_bytes(b"")
    (root / name).write_bytes(content)
    try:
        found = open_contrasts(root)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        for contrast in found:
            for image in contrast.images:
                assert getattr(image, "file", image).is_relative_to(root)


def test_a_huge_document_is_refused_unread(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 10)
    put(tmp_path / "s.json", SUGAR)
    with pytest.raises(DataError, match="at most 0 MiB are read"):
        open_contrasts(tmp_path / "s.json")


def test_absent_files_and_pictures_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        open_contrasts(tmp_path / "nothing")
    with pytest.raises(DataError, match="is an address"):
        open_contrasts("https://example.org/examples.jsonl")
    put(tmp_path / "swap_obj.json", SUGAR)
    with pytest.raises(DataError, match=r"none of its pictures is there.*images=FOLDER"):
        open_contrasts(tmp_path)
    with pytest.raises(DataError, match=r"the folder of pictures .* does not exist"):
        open_contrasts(tmp_path, images=tmp_path / "no")
