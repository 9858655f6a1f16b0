"""Boxes and outlines of COCO, RefCOCO and VOC; pickles and XML that mean harm."""

import io
import pickle
import pickletools
import time

import numpy as np
import pytest
from PIL import Image

from sightline.core.errors import DataError
from sightline.data.formats import open_dataset
from sightline.data.published import voc_masks
from sightline.data.published.plain_pickle import read_plain_pickle
from sightline.data.regions import Region, region_from
from sightline.inputs import polygons, run_lengths
from tests.data.published.files import document, lines, picture

SQUARE = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]
MASK = np.zeros((6, 8), bool)
MASK[2:4, 3:7] = True


def coco(*annotations, **changes):
    return {
        "info": {}, "images": [{"id": 9, "file_name": "a.png", "height": 6, "width": 8},
                               {"id": 4, "file_name": "b.png"}],
        "annotations": list(annotations),
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"},
                       {"id": 1, "name": "person"}],
        **changes,
    }  # fmt: skip


def marked(**changes):
    return {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 1, 4, 3], "area": 12.0,
            "segmentation": [SQUARE], "iscrowd": 0, **changes}  # fmt: skip


CROWD = marked(id=2, category_id=1, iscrowd=1, bbox=[3, 2, 4, 2], area=8,
               segmentation=run_lengths.encode(MASK))  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in "ab":
        picture(tmp_path / f"val2017/{name}.png")
    document(tmp_path / "annotations/instances_val2017.json", coco(marked(), CROWD))
    return tmp_path


def test_coco_instances(folder):
    data = open_dataset(folder)
    assert (data.format, [r.id for r in data], data.splits) == ("instances", ["9", "4"], ("val",))
    dog, people = data[0].regions
    assert dog == Region("dog", (1.0, 1.0, 5.0, 4.0), (tuple(SQUARE),), False, 12.0)
    assert (people.label, people.box, people.crowd) == ("person", (3.0, 2.0, 7.0, 4.0), True)
    assert data[1].regions == ()
    assert data[0].extra == {"height": 6, "width": 8}
    report = data.report
    assert (report.regions, report.outlines, report.missing) == (2, 2, ())
    assert report.region_labels == {"dog": 1, "person": 1}


def test_masks_are_those_of_the_outlines(folder):
    dog, people = open_dataset(folder)[0].regions
    assert np.array_equal(people.mask(6, 8), MASK)
    assert np.array_equal(dog.mask(6, 8), polygons.fill([SQUARE], 6, 8))
    assert dog.mask(6, 8)[1:4, 1:5].all() and dog.mask(6, 8).sum() == 12
    with pytest.raises(DataError, match=r"its runs are of a picture of \[6, 8\], not of \[8, 6\]"):
        people.mask(8, 6)
    with pytest.raises(DataError, match="region 'dog' has a box and no outline"):
        Region("dog", (0, 0, 1, 1)).mask(6, 8)


def test_captions_win_in_a_folder_of_coco_and_boxes_can_be_asked_for(folder):
    entry = {"image_id": 9, "id": 1, "caption": "a dog"}
    document(folder / "annotations/captions_val2017.json", coco(entry, categories=[]))
    keypoints = coco(marked(keypoints=[1, 2, 2], num_keypoints=1))
    document(folder / "annotations/person_keypoints_val2017.json", keypoints)
    assert open_dataset(folder).format == "coco"
    assert len(open_dataset(folder, format="instances")[0].regions) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": 7}, "annotations entry 1: category_id 7 is in no category"),
        ({"bbox": [1, 1, 4]}, "annotations entry 1: 'bbox' must be four numbers"),
        ({"bbox": [1, 1, -4, 3]}, "a 'bbox' of -4 x 3 pixels"),
        ({"bbox": [1, 1, "4", 3]}, "'bbox' must hold numbers, got str of 1"),
        ({"bbox": [1, 1, True, 3]}, "'bbox' must hold numbers, got bool"),
        ({"bbox": [1, 1, float("nan"), 3]}, "no place in a picture"),
        ({"bbox": [1, 1, 10**400, 3]}, "no place in a picture"),
        ({"segmentation": [[1, 2, 3, 4]]}, "a polygon is three points or more, .* got 4 numbers"),
        ({"segmentation": "x"}, "an outline is a list of polygons or an object"),
        (
            {"segmentation": {"counts": 3, "size": [1, 1]}},
            "runs of pixels need 'counts' and 'size'",
        ),
        ({"segmentation": {"counts": [3], "size": [1, -1]}}, "runs of pixels need"),
        ({"iscrowd": 2}, "'iscrowd' must be 0 or 1, got 2"),
        ({"area": "big"}, "'area' must hold numbers, got str of 3"),
        ({"image_id": None}, "'image_id' must be a number or text"),
    ],
)
def test_damaged_instances_name_the_entry(folder, changes, message):
    file = document(folder / "annotations/instances_val2017.json", coco(marked(**changes)))
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(file)
    assert len(str(caught.value)) < 300


def test_wrong_numbers_and_missing_pictures(folder):
    file = folder / "annotations/instances_val2017.json"
    document(file, coco(marked(image_id=5), marked()))
    data = open_dataset(file)
    assert data.report.regions == 1
    assert data.report.notes == (
        "1 region(s) of pictures that instances_val2017.json does not list were left out",
    )
    (folder / "val2017/b.png").unlink()
    assert open_dataset(file).report.missing == ("4",)
    document(file, coco(marked(), images=[{"id": 9, "file_name": "a.png"}] * 2))
    with pytest.raises(DataError, match="images entry 2: id 9 occurs twice"):
        open_dataset(file)
    file.write_text(file.read_text()[:-3])
    with pytest.raises(DataError, match="truncated"):
        open_dataset(file)


def test_runs_that_do_not_fit_are_refused_where_they_are_drawn(folder):
    wrong = marked(segmentation={"counts": [1, 2], "size": [6, 8]})
    file = document(folder / "annotations/instances_val2017.json", coco(wrong))
    with pytest.raises(DataError):
        open_dataset(file)[0].regions[0].mask(6, 8)


def test_regions_as_json_and_back():
    for region in (
        Region("a", (0.0, 0.5, 2.0, 3.0)),
        Region("b", (0.0, 0.0, 1.0, 1.0), ((0.0, 0.0, 1.0, 0.0, 1.0, 1.0),), area=2.5),
        Region("c", (0.0, 0.0, 1.0, 1.0), run_lengths.encode(MASK), crowd=True),
    ):
        assert region_from(region.to_json(), "here") == region


def test_regions_in_any_list(tmp_path):
    picture(tmp_path / "a.png")
    rows = [{"image": "a.png", "regions": [{"label": name, "box": [0, 0, 1, 1]}]} for name in "xy"]
    lines(tmp_path / "c.jsonl", *rows)
    assert [r.label for r in open_dataset(tmp_path / "c.jsonl")[0].regions] == ["x", "y"]
    lines(tmp_path / "c.jsonl", {"image": "a.png", "regions": [{"label": 3, "box": [0, 0, 1, 1]}]})
    with pytest.raises(DataError, match="line 1: a region's 'label' is text"):
        open_dataset(tmp_path / "c.jsonl")
    lines(tmp_path / "c.jsonl", {"image": "a.png", "regions": [{"label": "", "box": [2, 0, 1, 1]}]})
    with pytest.raises(DataError, match=r"the box \[2, 0, 1, 1\] ends before it begins"):
        open_dataset(tmp_path / "c.jsonl")


# RefCOCO

REF = {"sent_ids": [0, 1], "file_name": "COCO_train2014_000000581857_16.jpg", "ann_id": 1,
       "ref_id": 3, "image_id": 9, "split": "testA", "category_id": 18,
       "sentences": [{"tokens": ["dog"], "raw": "Dog!", "sent_id": 5, "sent": "dog"},
                     {"tokens": ["left"], "sent_id": 6, "sent": "left one"}]}  # fmt: skip


def refcoco(folder, *refs, protocol=2):
    picture(folder / "images/mscoco/images/train2014/a.png")
    document(folder / "refcoco/instances.json", coco(marked(), CROWD))
    file = folder / "refcoco/refs(unc).p"
    file.write_bytes(pickle.dumps(list(refs), protocol))
    return file


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_refcoco_is_read_beside_its_instances(tmp_path, protocol):
    refcoco(tmp_path, REF, protocol=protocol)
    data = open_dataset(tmp_path / "refcoco")
    assert (data.format, [r.id for r in data]) == ("refcoco", ["3/5", "3/6"])
    assert [r.regions[0].label for r in data] == ["dog", "left one"]
    assert data[1].regions[0].box == (1.0, 1.0, 5.0, 4.0)
    assert (data[1].label, data[1].split) == ("dog", "testA")
    assert data[1].extra == {"ref_id": 3, "ann_id": 1, "image_id": 9}
    assert data[0].image == tmp_path / "images/mscoco/images/train2014/a.png"
    assert data.report.missing == ()


def test_what_python_2_pickled(tmp_path):
    file = tmp_path / "refs(unc).p"
    file.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xc3\\xa9'\np3\nsS'n'\np4\nI3\nsa.")
    assert read_plain_pickle(file) == [{"sent": "café", "n": 3}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ann_id": 77}, "entry 1: picture 9 or object 77 is not in instances.json"),
        ({"ann_id": "1"}, "entry 1: 'ann_id' must be a whole number, got str"),
        ({"sentences": {}}, "'sentences' must be a list"),
        (
            {"sentences": [{"sent_id": 1}]},
            "a sentence must have its text under 'sent', got NoneType",
        ),
        ({"sentences": [{"sent": "x"}]}, "'sent_id' must be a whole number, got NoneType"),
    ],
)
def test_damaged_expressions(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        open_dataset(refcoco(tmp_path, {**REF, **changes}))


def test_expressions_need_their_boxes(tmp_path):
    file = refcoco(tmp_path, REF)
    (file.parent / "instances.json").unlink()
    with pytest.raises(DataError, match=r"refs\(unc\).p: instances.json with the boxes has to lie"):
        open_dataset(file)


class Runs:
    """What a pickle of an attacker looks like: a call of a function when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_would_run_code_runs_nothing(tmp_path, protocol):
    planted = tmp_path / "planted"
    file = refcoco(tmp_path, {**REF, "x": Runs(planted)}, protocol=protocol)
    with pytest.raises(DataError, match=r"asks for (STACK_)?GLOBAL with .*open; only lists, dicts"):
        open_dataset(file)
    assert not planted.exists()
    with pytest.raises(DataError, match="anything else can run code"):
        read_plain_pickle(file)


def test_the_planted_file_is_written_without_the_look(tmp_path):
    planted = tmp_path / "planted"
    pickle.loads(pickle.dumps(Runs(planted))).close()
    assert planted.exists(), "the test above would find it"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"asks for GLOBAL with os.system"),
        (b"(S'true'\nios\nsystem\n.", r"asks for INST with os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"asks for STACK_GLOBAL with os.system"),
        (b"\x80\x02\x82\x01.", "asks for EXT1"),
        (b"Pperson\n.", "asks for PERSID"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "it numbers 2,147,483,647 parts"),
        (b"\x80\x02]q", "is no pickle, or is cut off"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "is no pickle, or is cut off"),
        (b"]h\x05.", "is no pickle, or is cut off"),
        (b"]p99999999999999999999\n.", "it numbers -1 parts"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "it ends too early"),
        (b"", "is no pickle, or is cut off"),
        (b"not a pickle", "is no pickle, or is cut off"),
    ],
)
def test_pickles_that_are_refused(tmp_path, data, message):
    file = tmp_path / "refs(x).p"
    file.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_plain_pickle(file)
    assert "\n" not in str(caught.value)


def test_a_value_that_is_endless_to_print_is_refused_at_once(tmp_path):
    laughing = ["ha"]
    for _ in range(60):
        laughing = [laughing, laughing]  # 2^60 words, sixty lists
    file = refcoco(tmp_path, {**REF, "ann_id": laughing, "split": laughing})
    started = time.monotonic()
    with pytest.raises(DataError, match="'ann_id' must be a whole number, got list"):
        open_dataset(file)
    assert time.monotonic() - started < 5
    assert len(list(pickletools.genops(file.read_bytes()))) < 1000


def test_a_pickle_too_large(tmp_path, monkeypatch):
    file = refcoco(tmp_path, REF)
    monkeypatch.setattr("sightline.data.published.plain_pickle.MAX_PICKLE_BYTES", 10)
    with pytest.raises(DataError, match="is not read"):
        open_dataset(file)


# VOC

VOC = """<annotation><folder>VOC2007</folder><filename>000005.jpg</filename>
<size><width>8</width><height>6</height><depth>3</depth></size>
<object><name>chair</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>1</xmax><ymax>6</ymax></bndbox></object>
<object><name>dog</name><difficult>1</difficult><part><name>head</name>
<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
<bndbox><xmax>4</xmax><xmin>2.5</xmin><ymin>1</ymin><ymax>3</ymax></bndbox></object>
</annotation>"""


def voc(root, *texts):
    for number, text in enumerate(texts, 5):
        picture(root / f"JPEGImages/{number:06d}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{number:06d}.xml").write_text(text)
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text("000005\n000099\n")
    (root / "ImageSets/Main/val.txt").write_text("000006 \n")
    (root / "ImageSets/Main/chair_train.txt").write_text("000005  1\n")
    return root


def test_voc(tmp_path):
    data = open_dataset(voc(tmp_path, VOC, VOC))
    assert (data.format, [(r.id, r.split) for r in data]) == (
        "voc", [("000005", "train"), ("000006", "val")],
    )  # fmt: skip
    assert data[0].regions == (
        Region("chair", (0.0, 1.0, 1.0, 6.0)), Region("dog", (1.5, 0.0, 4.0, 3.0)),
    )  # fmt: skip
    assert data[0].extra == {"difficult": [1]}
    assert data.report.notes == ("1 picture(s) of the sets have no annotation: 000099",)
    (tmp_path / "JPEGImages/000006.jpg").unlink()
    assert open_dataset(tmp_path).report.missing == ("000006",)


def painted(path, numbers, grey=False):
    """A picture of numbers as the development kit has them: a palette."""
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.asarray(numbers, np.uint8))
    if not grey:
        image.putpalette(voc_masks.colours().ravel().tolist())
    image.save(path)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_colours_are_those_of_the_development_kit():
    table = voc_masks.colours()
    assert table[[0, 1, 2, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [64, 0, 0], [192, 128, 128], [0, 64, 128],
        [224, 224, 192],
    ]  # fmt: skip
    assert len(np.unique(table, axis=0)) == 256


@pytest.mark.parametrize("grey", [False, True])
def test_objects_of_voc_have_the_pixels_that_were_drawn(tmp_path, grey):
    numbers = np.zeros((6, 8), np.uint8)
    numbers[1:6, 0], numbers[0:3, 2:4], numbers[0:3, 4] = 1, 2, 255
    root = voc(tmp_path, VOC, VOC)
    painted(root / "SegmentationObject/000005.png", numbers, grey)
    classes = np.where(numbers == 1, 9, np.where(numbers == 2, 12, numbers)).astype(np.uint8)
    classes[5, 7] = 12  # of another dog
    painted(root / "SegmentationClass/000006.png", classes, grey)
    for record in open_dataset(root):
        chair, dog = record.regions
        assert np.array_equal(chair.mask(6, 8), numbers == 1)
        assert np.array_equal(dog.mask(6, 8), numbers == 2)  # neither the border nor other dogs
        assert run_lengths.area(dict(dog.outline)) == 6 and len(dog.to_json()["outline"]) == 2
        again = pickle.loads(pickle.dumps(record)).regions[1]  # to worker processes
        assert np.array_equal(again.mask(6, 8), numbers == 2)


def test_pictures_of_numbers_that_mean_nothing_are_refused(tmp_path):
    root = voc(tmp_path, VOC)
    path = root / "SegmentationObject/000005.png"
    path.parent.mkdir()
    for damage, message in (
        (b"no picture", "000005.png: a mask cannot be read"),
        (png(np.full((6, 8, 3), (1, 2, 3), np.uint8)), "colours that stand for no number in VOC"),
    ):
        path.write_bytes(damage)
        voc_masks._numbers.cache_clear()
        with pytest.raises(DataError, match=message):
            open_dataset(root)[0].regions[0].mask(6, 8)
    painted(path, np.zeros((3, 3)))
    voc_masks._numbers.cache_clear()
    with pytest.raises(DataError, match="its runs are of a picture of"):
        open_dataset(root)[0].regions[0].mask(6, 8)


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'
FILES = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"000005.xml: declares a document type \(DOCTYPE\)"),
        (FILES, "declares a document type"),
        ('<!DOCTYPE x SYSTEM "http://x.org/x.dtd"><annotation/>', "declares a document type"),
        (VOC[:-30], r"000005.xml, line \d+: is no XML, or is cut off"),
        ("<a>" * 40, "XML nested too deeply"),
        ("", "is no XML, or is cut off"),
        ("&undefined;", "is no XML"),
        ('<?xml version="1.0" encoding="zzz"?><a/>', "is no XML"),
        (VOC.replace("chair", " "), "000005.xml, object 1: has no name"),
        (VOC.replace("<xmin>1", "<xmin>left"), "object 1: 'xmin' of its box must be a number"),
        (VOC.replace("<xmin>1", "<xmin>nan"), "no place in a picture"),
        (VOC.replace("<xmin>1", "<xmin>7"), "ends before it begins"),
        ("<annotation><object><name>x</name></object></annotation>", "'xmin' of its box must be"),
    ],
)
def test_xml_that_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(voc(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_xml_too_large_and_pictures_in_two_splits(tmp_path):
    root = voc(tmp_path, VOC)
    (root / "Annotations/000005.xml").write_text(" " * (2**20 + 1))
    with pytest.raises(DataError, match="more than 1 MiB of XML is no annotation"):
        open_dataset(root)
    (root / "ImageSets/Main/val.txt").write_text("\n000005\n")
    with pytest.raises(DataError, match=r"val.txt, line 2: '000005' is in train already"):
        open_dataset(root)
